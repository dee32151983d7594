"""Settings of training in a file: what ``train --dry-run --json`` writes, or a few by hand.

A file by hand is TOML or JSON. Settings are named as their options (``kimg``, ``gamma``) or as
--dry-run writes them (``total_kimg``, ``r1_gamma``), at the top or under ``network``, ``training``
and ``session``. Stdlib only.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from stylecli.errors import DataError, UsageError, unknown_name
from stylecli.files import read_json
from stylecli.networks.registry import FAMILIES, USUAL_CONFIG, make_config
from stylecli.settings import ByResolution, Setting, settings_of
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.presets import NO_PRESET

# What --dry-run writes and this machine or the dataset decides again, or nothing does.
_PASSED_OVER = frozenset(
    ("run", "dataset", "device", "ranks", "parameters", "stages", "derived", "reasons", "advice")
)
_WORDS = ("config", "preset", "labels")


@dataclass
class AskedSettings:
    """What a command line or a file asks for."""

    config: str | None = None
    preset: str | None = None
    labels: bool | None = None
    network: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)


def with_file(given: AskedSettings, path: Path | None) -> AskedSettings:
    """Return what a command line asks for, and below it what the file does that ``path`` names.

    Of a session's settings the command line replaces those that are not the default.
    """
    if path is None:
        return given
    filed, usual = read_settings(path), settings_of(Session)
    asked = {name: value for name, value in given.session.items() if value != usual[name].default}
    laid = dict(given.training)
    for name, value in given.training.items():
        base = settings_of(TrainingConfig)[name].base
        if isinstance(value, ByResolution) and {name, base} <= set(filed.training):
            laid[name], laid[base] = value.over(filed.training[name], filed.training[base])
    return AskedSettings(
        given.config or filed.config, given.preset or filed.preset,
        filed.labels if given.labels is None else given.labels,
        {**filed.network, **given.network}, {**filed.training, **laid}, {**filed.session, **asked},
    )  # fmt: skip


def read_settings(path: Path) -> AskedSettings:
    """Read a file of settings; raise DataError for no such file, UsageError for what is in it."""
    document = _read(path)
    asked = AskedSettings()
    sections = _sections()
    for name, value in document.items():
        if name in _PASSED_OVER:
            continue
        if name in sections and isinstance(value, Mapping):
            _take(path, asked, value, {name: sections[name]}, f"{name}.")
        elif name not in _WORDS:
            _take(path, asked, {name: value}, sections, "")
    words = {name: document[name] for name in _WORDS if document.get(name) is not None}
    if (config := words.get("config")) is not None:
        asked.config = _text(path, "config", config)
    if (preset := words.get("preset")) is not None and preset != NO_PRESET:
        asked.preset = _text(path, "preset", preset)
    if "labels" in words:
        asked.labels = _truth(path, "labels", words["labels"])
    # What the configuration itself has is not asked for.
    own = make_config(asked.config or USUAL_CONFIG).to_dict()
    declared = sections["network"]
    asked.network = {
        name: value
        for name, value in asked.network.items()
        if name in declared or own.get(name) != value
    }
    return asked


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(
            f"--settings {path} does not exist: make one with stylecli train "
            f"--dry-run --json > FILE"
        )
    if path.suffix.lower() != ".toml":
        document = read_json(path)
    else:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path} as TOML: {error}") from None
    if not isinstance(document, Mapping):
        raise DataError(f"{path} holds no settings: expected an object of names and values")
    return document


def _sections() -> dict[str, dict[str, Setting]]:
    """Return the settings of every section by the names that a file may use."""
    network: dict[str, Setting] = {}
    for family in FAMILIES.values():
        for name, item in settings_of(family.config).items():
            network.setdefault(name, item)
    return {
        "network": _named(network.values()),
        "training": _named(settings_of(TrainingConfig).values()),
        "session": _named(settings_of(Session).values()),
    }


def _all_fields() -> set[str]:
    """Return the fields of all families' configurations."""
    return {item.name for family in FAMILIES.values() for item in fields(family.config)}


def _named(declared: Iterable[Setting]) -> dict[str, Setting]:
    named = {}
    for item in declared:
        named[item.name] = item
        if item.flag:
            named.setdefault(_plain(item.switches[0]), item)
    return named


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _take(
    path: Path, asked: AskedSettings, values: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Setting]], prefix: str,
) -> None:  # fmt: skip
    for written, value in values.items():
        name = _plain(written)
        if prefix == "network." and name in ("family", "preset"):
            asked.config = _text(path, name, value) if name == "preset" else asked.config
            continue
        found = [(group, named[name]) for group, named in sections.items() if name in named]
        if not found:
            if prefix == "network." and name in _all_fields():
                asked.network[name] = value
                continue
            known = [*_WORDS, *(word for named in sections.values() for word in named)]
            raise UsageError(f"{path}: {unknown_name('setting', written, known)}")
        group, item = found[0]
        if item.name == "label_dim" and value:
            asked.labels = True
        if item.from_dataset or value is None:
            continue
        getattr(asked, group)[item.name] = _value(path, item, written, value)


def _value(path: Path, item: Setting, name: str, value: Any) -> Any:
    """Return a setting's value as its dataclass takes it."""
    if isinstance(value, str) and item.read is not None:
        return item.read(value, f"{path}: {name}")
    if item.base:
        whole = get_args(item.kind)[-1] is int
        if not isinstance(value, Mapping):
            return ByResolution(_number(path, name, value, whole=whole))
        return {
            _side(path, name, side): _number(path, f"{name} at {side} px", number, whole=whole)
            for side, number in value.items()
        }
    kinds = [kind for kind in get_args(item.kind) or (item.kind,)
             if isinstance(kind, type) and kind is not type(None)]  # fmt: skip
    if bool in kinds or str in kinds:
        if not isinstance(value, tuple(kinds)):
            raise UsageError(f"{path}: {name} {value!r} is not {_names(kinds)}")
        return value
    return _number(path, name, value, whole=float not in kinds and int in kinds)


def _side(path: Path, name: str, text: str) -> int:
    side = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if side < 4 or side & (side - 1):
        raise UsageError(
            f"{path}: {name} at {text!r} px is of no resolution: expected a power of two from 4 on"
        )
    return side


def _number(path: Path, name: str, value: Any, *, whole: bool = False) -> Any:
    right = isinstance(value, int) if whole else isinstance(value, int | float)
    if isinstance(value, bool) or not right:
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{path}: {name} {value!r} is not {kind}")
    return value


def _names(kinds: Iterable[Any]) -> str:
    return " or ".join({bool: "true or false", str: "text"}.get(kind, str(kind)) for kind in kinds)


def _truth(path: Path, name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{path}: {name} {value!r} is not {_names([bool])}")
    return value


def _text(path: Path, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{path}: {name} {value!r} is not text")
    return value
