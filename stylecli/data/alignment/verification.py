"""Compare files with what was published of them: size, MD5 of the file, MD5 of the pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stylecli.data.alignment.ffhq_records import Published
from stylecli.data.decoding import name_cause, open_picture, quiet
from stylecli.data.workers import ordered_map
from stylecli.errors import UsageError
from stylecli.progress import Progress, silent

Level = Literal["none", "size", "file", "pixels"]
LEVELS: tuple[Level, ...] = ("none", "size", "file", "pixels")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Check:
    """A file, what it should be, and how closely to look."""

    path: Path
    name: str
    published: Published
    level: Level


def check_level(level: str) -> Level:
    """Return the level; raise UsageError when there is none of that name."""
    for known in LEVELS:
        if level == known:
            return known
    raise UsageError(f"verification {level!r} is not one of {', '.join(LEVELS)}")


def verify(
    checks: Sequence[Check], *, workers: int | None = None, progress: Progress = silent
) -> Iterator[str]:
    """Yield for each file what is wrong with it, "" when it is as published."""
    cheap = all(check.level in ("none", "size") for check in checks)
    results = ordered_map(find_fault, checks, workers=1 if cheap else workers, chunk=4)
    for done, fault in enumerate(results, 1):
        yield fault
        progress(done, len(checks), "verifying")


def find_fault(check: Check) -> str:
    """Return what is wrong with a file, in words that follow its name, or "".

    ``size``: its bytes are counted. ``file``: their MD5 is compared too. ``pixels``: it is decoded
    instead, so that a picture packed anew without loss passes.
    """
    published = check.published
    try:
        if check.level == "pixels":
            return _pixel_fault(check.path, published)
        if check.level == "none":
            return ""
        size = check.path.stat().st_size
        if published.file_size is not None and size != published.file_size:
            return f"has {size:,} bytes, published were {published.file_size:,}"
        if check.level == "file" and published.file_md5 is not None:
            with open(check.path, "rb") as file:
                digest = hashlib.md5(usedforsecurity=False)
                while block := file.read(_BLOCK):
                    digest.update(block)
            if digest.hexdigest() != published.file_md5:
                return f"has MD5 {digest.hexdigest()}, published was {published.file_md5}"
    except Exception as error:  # decoders raise anything on damaged files
        return name_cause(error)
    return ""


def _pixel_fault(path: Path, published: Published) -> str:
    with quiet(), open_picture(path) as picture:
        if published.pixel_size is not None and picture.size != published.pixel_size:
            width, height = published.pixel_size
            return f"is {picture.width} x {picture.height} px, published was {width} x {height}"
        digest = hashlib.md5(picture.tobytes(), usedforsecurity=False).hexdigest()
    if published.pixel_md5 is not None and digest != published.pixel_md5:
        return f"has other pixels than the published picture: MD5 {digest}"
    return ""
