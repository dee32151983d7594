"""How a picture, sheet or video says what made it, and the command that makes it again."""

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from stylecli import __version__, hub, shipped


def make_provenance(
    command: str,
    network: Path,
    digest: str,
    settings: Mapping[str, Any],
    *,
    arguments: Sequence[str] = (),
    inputs: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Return what goes into a file: the tool, the network by name and SHA-256, every setting.

    ``settings`` are the command's options, spelled as its parameters: ``psi_cutoff`` is
    ``--psi-cutoff``. None stands for what was not set. ``arguments`` are the words that follow the
    command, such as the figure's name. ``inputs`` are files that options name, by option: their
    contents decide the result too, so their SHA-256 are kept. Raises OSError where one is missing,
    the network too.
    """
    made: dict[str, Any] = {
        "tool": f"stylecli {__version__}",
        "command": command,
        "network": {"file": shown_path(network), "sha256": digest, "bytes": network.stat().st_size},
        "settings": {name: value for name, value in settings.items() if value is not None},
    }
    if arguments:
        made["arguments"] = list(arguments)
    if inputs:
        made["inputs"] = {
            name: {"file": shown_path(path), "sha256": _digest(path)}
            for name, path in inputs.items()
        }
    return made


# What a printed command repeats: options of the commands that draw, by command. A stranger's record
# must not name what deletes, downloads or trains, nor where to write and over what: that is for
# whoever types the command.
_DRAWN = frozenset(
    ("seeds", "psi", "psi_cutoff", "psi_layers", "center", "label", "noise_mode", "noise_seed",
     "noise_scale", "lod", "scale", "format", "device", "precision", "translate", "rotate", "edit",
     "directions")
)  # fmt: skip
_REPEATED = {
    "generate": _DRAWN | {"ws", "ws_rows", "columns", "quality", "size", "like", "vary", "mix"},
    "mix": (_DRAWN - {"seeds"})
    | {"rows", "cols", "row", "col", "row_seeds", "col_seeds", "row_ws", "col_ws", "styles",
       "bands", "video", "key_seconds", "fps", "video_format", "quality"},
    "interpolate": _DRAWN
    | {"ws", "ws_rows", "through", "classes", "space", "method", "grid", "seconds", "key_seconds",
       "psi_to", "pulses", "noise_motion", "noise_seconds", "fps", "codec", "crf", "size", "music"},
    "project": frozenset(
        ("space", "preset", "steps", "tune_steps", "distance", "detector", "mask", "seed", "label",
         "batch", "device")
    ),
    "sharpen": frozenset(
        ("candidates", "starts", "bound", "steps", "seed", "label", "batch", "device")
    ),
    "directions": _DRAWN | {"face", "strengths", "seconds", "fps"},
    "figures": frozenset(
        ("seeds", "row_seeds", "col_seeds", "seed", "psi", "psi_cutoff", "label", "device",
         "precision")
    ),
}  # fmt: skip
FLAGS = {  # options without a value: given, or denied by --no-
    "generate": frozenset(("grid", "labels", "crop", "pixels")),
    "mix": frozenset(("each", "labels")),
    "interpolate": frozenset(("loop", "crop", "pixels")),
    "figures": frozenset[str](),
    "project": frozenset(("tune", "noise", "align", "video")),
    "sharpen": frozenset[str](), "directions": frozenset[str](),
}  # fmt: skip
_INPUTS = {"project": "photo", "sharpen": "small"}  # files that follow the command
_WORD = re.compile(r"\w[\w.-]{0,40}")  # the name of a figure


def remake_command(provenance: Mapping[str, Any]) -> str | None:
    """Return the command line that makes the file again, None when it does not say.

    It holds nothing but the network and what ``_REPEATED`` lists.
    """
    command, network = provenance.get("command"), provenance.get("network")
    if not isinstance(command, str) or command not in _REPEATED or not isinstance(network, Mapping):
        return None
    arguments, settings = provenance.get("arguments", ()), provenance.get("settings", {})
    if not isinstance(arguments, list | tuple) or not isinstance(settings, Mapping):
        return None
    words = ["stylecli", command]
    if command == "figures":
        words += [word for word in map(str, arguments) if _WORD.fullmatch(word)]
    if command == "directions":
        if not (drawn := _show_or_apply(arguments)):
            return None
        words += drawn
    if command in _INPUTS:  # its photograph is among the inputs, as a file of this folder
        photo = _input_file(provenance, _INPUTS[command])
        if photo is None:
            return None
        words.append(f"./{photo}" if photo.startswith("-") else photo)
    words += _option("network", str(network.get("file")))
    for name, value in settings.items():
        plain = name.replace("-", "_")
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words += [f"--{flag}" if value else f"--no-{flag}"] if plain in FLAGS[command] else []
        elif plain in _REPEATED[command]:
            for one in value if isinstance(value, list) else [value]:
                words += _option(flag, str(one)) if isinstance(one, str | int | float) else []
    return shlex.join(words)


def _show_or_apply(arguments: Sequence[Any]) -> list[str]:
    """Return what follows ``directions``: one of its drawing commands, and words, no options."""
    named = [f"./{word}" if word.startswith("-") else word for word in map(str, arguments)]
    return named if named[1:] and named[0] in ("show", "apply") else []


def _input_file(provenance: Mapping[str, Any], name: str) -> str | None:
    """Return the file that a record names as an input."""
    inputs = provenance.get("inputs")
    entry = inputs.get(name) if isinstance(inputs, Mapping) else None
    file = entry.get("file") if isinstance(entry, Mapping) else None
    return file if isinstance(file, str) and file else None


def _option(name: str, value: str) -> list[str]:
    """Return an option's words; what starts with a dash is no option of its own."""
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory; outside it only the name.

    The network that comes with the package, its directions, and a network of the hub are called as
    options call them.
    Pictures travel: they must not carry the folders of the machine they were made on.
    """
    if path in (shipped.shipped_network(), shipped.shipped_directions()):
        return shipped.NAME
    if (address := hub.name_of(path)) is not None:
        return address
    try:
        relative = Path(os.path.relpath(path))
    except ValueError:  # on another drive
        return path.name
    return path.name if relative.parts[:1] == ("..",) else relative.as_posix()


def _digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)  # the same file for every picture of a command
def _digest_of(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
