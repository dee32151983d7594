"""Frames as PNG files: go on where they stopped, nothing lost unasked."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stylecli.errors import Interrupted, UsageError
from stylecli.images import Pictures, read_provenance
from stylecli.video import write_frames

HOW = {"command": "interpolate", "settings": {"seeds": "0-3"}}


def _draw(start: int) -> Iterator[Pictures]:
    for frame in range(start, 6):
        yield np.full((4, 4, 3), frame, np.uint8)


def _stopped(start: int) -> Iterator[Pictures]:
    yield from list(_draw(start))[:2]
    raise KeyboardInterrupt


def test_frames_are_numbered_and_say_what_made_them(tmp_path: Path) -> None:
    assert write_frames(tmp_path, _draw, 6, provenance=HOW) == 6

    assert sorted(file.name for file in tmp_path.iterdir())[::5] == [
        "frame-000000.png", "frame-000005.png"
    ]  # fmt: skip
    assert read_provenance(tmp_path / "frame-000003.png") == HOW


def test_an_interrupted_folder_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"2 of 6 frames are in .*: the same command goes on"):
        write_frames(tmp_path, _stopped, 6, provenance=HOW)
    first = (tmp_path / "frame-000001.png").stat().st_mtime_ns

    assert write_frames(tmp_path, _draw, 6, provenance=HOW) == 4
    assert write_frames(tmp_path, _draw, 6, provenance=HOW) == 0
    assert len(list(tmp_path.iterdir())) == 6
    assert (tmp_path / "frame-000001.png").stat().st_mtime_ns == first


def test_frames_of_something_else_are_replaced_by_force_only(tmp_path: Path) -> None:
    write_frames(tmp_path, _draw, 6, provenance=HOW)

    with pytest.raises(UsageError, match=r"frame-000000.png was made otherwise"):
        write_frames(tmp_path, _draw, 6, provenance={**HOW, "command": "mix"})
    with pytest.raises(UsageError, match=r"frame-000004.png was made otherwise"):
        write_frames(tmp_path, _draw, 4, provenance=HOW)

    short = {**HOW, "command": "mix"}
    write_frames(tmp_path, lambda start: list(_draw(start))[:2], 2, provenance=short, force=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("")

    with pytest.raises(UsageError, match="frames need a folder"):
        write_frames(tmp_path / "frames", _draw, 6)
