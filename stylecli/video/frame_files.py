"""Frames to a folder of PNG files, each whole and saying what made it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.images import Pictures, read_provenance, save_png
from stylecli.progress import Progress, silent


def write_frames(
    folder: Path | str,
    draw: Callable[[int], Iterable[Pictures]],
    total: int,
    *,
    provenance: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> int:
    """Write ``total`` frames as ``frame-000000.png``, ... into a folder; return how many were new.

    ``draw(start)`` yields the frames from number ``start`` on. Frames that are there with the same
    provenance are kept, so that an interrupted folder goes on where it stopped. Raises UsageError
    when the folder holds frames of something else, unless ``force``, which replaces them, and
    Interrupted on Ctrl-C.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: frames need a folder")
    there = sorted(folder.glob("frame-*.png"))
    if force:
        for path in there:
            path.unlink()
        there = []
    start = _count_kept(folder, there, total, provenance)
    folder.mkdir(parents=True, exist_ok=True)
    done = start
    try:
        frames = draw(start) if start < total else ()
        for frame in frames:
            save_png(frame_path(folder, done), frame, provenance)
            done += 1
            progress(done, total)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {done} of {total} frames are in {folder}: the same command goes on"
        ) from None
    return done - start


def frame_path(folder: Path, frame: int) -> Path:
    """Return where frame ``frame`` of a folder lies."""
    return folder / f"frame-{frame:06d}.png"


def _count_kept(
    folder: Path, there: list[Path], total: int, provenance: dict[str, Any] | None
) -> int:
    """Return how many frames from the first on are done; refuse those of something else."""
    wanted = {frame_path(folder, frame) for frame in range(total)}
    for path in there:
        try:
            same = provenance is not None and read_provenance(path) == provenance
        except DataError:
            same = False
        if not same or path not in wanted:
            raise UsageError(f"{path} was made otherwise: give another --out, or --force")
    kept = 0
    while kept < total and frame_path(folder, kept).exists():
        kept += 1
    return kept
