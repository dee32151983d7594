"""What the names of pictures say: which are hidden, which folders are splits or classes."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .tga "
    ".jp2 .j2k .jpx .avif .avifs .qoi .pcx .sgi .psd .dds .ico".split()
)
# FFHQ and NVIDIA's tools file pictures by number in folders of five digits: these are no classes.
_NUMBERED = re.compile(r"\d{5}")
_TRAIN = frozenset({"train", "training"})
_SPLITS = _TRAIN | {"val", "valid", "validation", "test", "testing"}
_SHOWN = 4  # names given as examples in a sentence


@dataclass(frozen=True)
class Arrangement:
    """Pictures in order, with the classes that their folders are."""

    names: list[str]
    labels: list[int] | None = None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def is_picture(name: str) -> bool:
    """Tell whether a name with forward slashes is that of a picture that is not hidden."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in SUFFIXES


def arrange(names: Iterable[str]) -> Arrangement:
    """Sort pictures by the bytes of their paths and find the classes among their folders.

    A single folder around everything counts for nothing. Of folders that are splits (train, val,
    test) only the training set is taken. What is then first in every path is the class, if there
    are several and not all are numbers of five digits.
    """
    names = sorted(names, key=os.fsencode)
    notes: list[str] = []
    depth = 0
    while True:
        folders = {_folder(name, depth) for name in names}
        if folders <= _SPLITS and folders & _TRAIN and len(folders) > 1:
            kept = [name for name in names if _folder(name, depth) in _TRAIN]
            others = ", ".join(sorted(folder for folder in folders - _TRAIN if folder))
            notes.append(
                f"{len(names) - len(kept):,} pictures in {others} are left out: "
                "name that folder to take them"
            )
            names, depth = kept, depth + 1
        elif len(folders) == 1 and None not in folders:
            depth += 1
        else:
            break
    classes = sorted((folder for folder in folders if folder is not None), key=os.fsencode)
    if len(classes) < 2 or set(classes) <= _SPLITS or all(map(_NUMBERED.fullmatch, classes)):
        return Arrangement(names, notes=notes)
    if None in folders:
        outside = [name for name in names if _folder(name, depth) is None]
        notes.append(
            f"{len(outside):,} pictures lie outside the {len(classes)} sub-folders "
            f"({listing(outside)}), so these are not taken as classes: move the pictures, or give "
            "--labels"
        )
        return Arrangement(names, notes=notes)
    numbers = {folder: label for label, folder in enumerate(classes)}
    labels = [numbers[_folder(name, depth) or ""] for name in names]
    return Arrangement(names, labels, [printable(folder) for folder in classes], notes)


def printable(name: str) -> str:
    """Make a file name that is not UTF-8 fit for JSON."""
    return os.fsencode(name).decode("utf-8", "replace")


def listing(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Return the first names, and that there are more, for a sentence."""
    names = list(names)
    more = ", ..." if len(names) > shown else ""
    return ", ".join(printable(name)[:80] for name in names[:shown]) + more


def _folder(name: str, depth: int) -> str | None:
    """Return a path's part at ``depth``, or None when that is the file itself."""
    parts = name.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None
