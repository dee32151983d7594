"""Frames to MP4: whole files, true colours, no debris."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from stylecli.errors import DataError, StyleCLIError, UsageError
from stylecli.images import Pictures
from stylecli.video import read_video_provenance, write_video


def _frames(count: int = 6, shape: tuple[int, int, int] = (32, 48, 3)) -> Iterator[Pictures]:
    for index in range(count):
        yield np.full(shape, (40 * index, 120, 200)[: shape[2]], dtype=np.uint8)


def _read(path: Path) -> tuple[str, list[Pictures]]:
    """Return what ffmpeg says of a video, and its frames."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run([program, "-i", path, *raw], capture_output=True, check=True)
    facts = shown.stderr.decode()
    width, height = map(int, re.findall(r", (\d+)x(\d+)", facts)[0])
    return facts, list(np.frombuffer(shown.stdout, np.uint8).reshape(-1, height, width, 3))


def test_a_video_plays_what_was_written(tmp_path: Path) -> None:
    assert write_video(tmp_path / "a.mp4", _frames(), fps=12) == 6

    facts, frames = _read(tmp_path / "a.mp4")
    assert "h264" in facts and "yuv420p(tv, bt709" in facts and "12 fps" in facts
    for shown, written in zip(frames, _frames(), strict=True):
        assert abs(shown.astype(int) - written).max() <= 4


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", _frames(shape=(33, 47, 3)))

    assert _read(tmp_path / "a.mp4")[1][0].shape == (34, 48, 3)


def test_provenance_survives_awkward_characters(tmp_path: Path) -> None:
    provenance = {"command": "interpolate", "note": 'a=b; #1 \\ "ü"\nnext'}

    write_video(tmp_path / "a.mp4", _frames(), provenance=provenance)
    write_video(tmp_path / "plain.mp4", _frames())

    assert read_video_provenance(tmp_path / "a.mp4") == provenance
    assert read_video_provenance(tmp_path / "plain.mp4") is None


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Pictures]:
        yield from _frames(3)
        raise RuntimeError("out of faces")

    with pytest.raises(RuntimeError, match="out of faces"):
        write_video(tmp_path / "a.mp4", broken())
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho the disk is full >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))

    with pytest.raises(StyleCLIError, match=r"a\.mp4: the disk is full \(code 3\)"):
        write_video(tmp_path / "out" / "a.mp4", _frames())
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no frames"):
        write_video(tmp_path / "a.mp4", iter(()))
    with pytest.raises(UsageError, match="the first was"):
        write_video(tmp_path / "a.mp4", [*_frames(1), *_frames(1, (16, 16, 3))])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="not a readable video"):
        read_video_provenance(tmp_path / "text.mp4")
