"""Add pictures to a dataset that is there: with its settings, its classes, its kind of labels."""

from dataclasses import fields, replace
from typing import Any

from stylecli.data.pack_settings import PackSettings
from stylecli.data.reader import Dataset
from stylecli.data.sources.base import Label, Source
from stylecli.errors import DataError

_FREE = ("labels", "max_images", "keep_duplicates")  # may differ from one addition to the next


def settings_of(dataset: Dataset, settings: PackSettings) -> PackSettings:
    """Return ``settings`` with what they leave open taken from the dataset.

    Raises DataError when they ask for something else than the dataset was packed with.
    """
    packed = dataset.info.get("settings")
    packed = packed if isinstance(packed, dict) and packed.get("kind") == "pack" else {}
    own: dict[str, Any] = {
        **packed,
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "codec": dataset.info["codec"],
        "pyramid": dataset.info["levels"] > 1,
    }
    default = PackSettings()
    taken: dict[str, Any] = {}
    for field in fields(PackSettings):
        name = field.name
        if name in _FREE or name not in own:
            continue
        value = tuple(own[name]) if isinstance(own[name], list) else own[name]
        asked = getattr(settings, name)
        if asked not in (getattr(default, name), value):
            raise DataError(
                f"{dataset.path} was packed with {name} {_shown(value)}, not {_shown(asked)}: "
                "leave that option out, or pack into another --out"
            )
        taken[name] = value
    if packed.get("labels") is False:
        taken["labels"] = False
    return replace(settings, **taken)


def merge_classes(
    dataset: Dataset, source: Source, settings: PackSettings, first: Label | None
) -> tuple[list[str] | None, list[int] | None]:
    """Return (names of all classes, the source's label -> the dataset's).

    Classes are the same where their names are; new ones come after the old. None where there are
    no names. ``first`` is the label of one of the source's pictures. Raises DataError when one has
    labels and the other has none, or has them of another kind.
    """
    kind = dataset.info["label_kind"]
    if not settings.labels or first is None:
        if kind is not None:
            raise DataError(
                f"{dataset.path} has labels and the pictures of {source.name} would have none: "
                "give them labels (sub-folders, or --labels FILE), or pack them into another --out"
            )
        return None, None
    theirs = "class" if isinstance(first, int) else "vector"
    if kind is None:
        raise DataError(f"{dataset.path} has no labels and {source.name} has: add --no-labels")
    if kind != theirs or (not isinstance(first, int) and len(first) != dataset.label_dim):
        width = "" if isinstance(first, int) else f" of {len(first)}"
        raise DataError(
            f"{dataset.path} has {kind} labels of {dataset.label_dim} and {source.name} has "
            f"{theirs} labels{width}: pack it into another --out"
        )
    old, new = dataset.class_names, source.class_names
    if kind == "vector" or (old is None and new is None):
        return old, None
    if old is None or new is None:
        nameless = dataset.path if old is None else source.name
        raise DataError(
            f"the classes of {nameless} have no names to merge by: pack into another --out"
        )
    names = [*old, *(name for name in new if name not in old)]
    return names, [names.index(name) for name in new]


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
