"""Encodings: what goes together, and what a small ffmpeg lacks."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from stylecli.errors import StyleCLIError, UsageError
from stylecli.video import write_video
from stylecli.video.encoding import check_frame, output_options, resolve_encoding, start_ffmpeg


def test_formats_have_their_usual_codec_and_quality() -> None:
    assert (resolve_encoding("mp4").codec, resolve_encoding("mp4").crf) == ("h264", 16)
    assert (resolve_encoding("webm").codec, resolve_encoding("gif").codec) == ("vp9", None)
    assert resolve_encoding("mp4", "av1", 60).crf == 60


@pytest.mark.parametrize(
    ("format", "codec", "crf", "fps", "message"),
    [
        ("avi", None, None, 30, "format 'avi' is unknown: expected mp4, webm, gif, webp"),
        ("webm", "h264", None, 30, "'h264' does not go into webm: expected vp9, av1"),
        ("gif", "vp9", None, 30, "'vp9' does not go into gif: leave --codec out"),
        ("gif", None, 5, 30, "crf 5 has no meaning for gif"),
        ("mp4", "h264", 52, 30, "crf 52 is out of range: expected 0 to 51 for h264"),
        ("mp4", None, None, 0, "fps 0 is out of range"),
        ("gif", None, None, 60, "at most 50 for gif"),
    ],
)
def test_what_does_not_go_together_is_refused(
    format: str, codec: str | None, crf: int | None, fps: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_encoding(format, codec, crf, fps)


def test_an_ffmpeg_without_the_encoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\necho " V....D libx264 H.264"\n')
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))

    with pytest.raises(StyleCLIError, match=r"cannot write av1 .*: choose --codec h264$"):
        output_options(resolve_encoding("mp4", "av1"), loop=True)
    assert "libx264" in output_options(resolve_encoding("mp4"), loop=True)


@pytest.mark.parametrize(
    ("format", "codec", "height", "width"),
    [
        ("mp4", "h264", 16_384, 16_384),
        ("mp4", "h264", 64, 16_386),
        ("mp4", "hevc", 8, 8),
        ("mp4", "av1", 8_706, 64),
        ("webm", "vp9", 65_536, 2),
        ("gif", None, 65_536, 1),
        ("webp", None, 1, 16_384),
    ],
)
def test_sizes_that_no_file_holds_are_refused(
    format: str, codec: str | None, height: int, width: int
) -> None:
    with pytest.raises(UsageError, match=f"{width} x {height} pixels .* --"):
        check_frame(resolve_encoding(format, codec), height, width)


def test_sizes_that_players_refuse_are_said_with_what_helps() -> None:
    h264 = resolve_encoding("mp4")
    largest = (2304, 4096)  # 36,864 macroblocks, H.264's level 5.2

    assert check_frame(h264, *largest) is None
    assert "--codec hevc or av1 or vp9" in (check_frame(h264, 2304, 4112) or "")
    assert "--codec" not in (check_frame(h264, 8192, 8192) or "--codec")  # too large for all
    assert check_frame(resolve_encoding("mp4", "hevc"), 4352, 8192) is None
    assert check_frame(resolve_encoding("gif"), 8192, 8192) is None
    assert check_frame(None, 8192, 8192) is None  # PNG frames


@pytest.mark.parametrize("kind", ["missing", "a folder", "not executable", "of another machine"])
def test_an_ffmpeg_that_the_variable_misnames_is_told_with_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program = tmp_path / "ffmpeg"
    if kind == "a folder":
        program.mkdir()
    elif kind != "missing":
        program.write_bytes(b"\x7fELF of another machine")
        program.chmod(0o755 if kind == "of another machine" else 0o644)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    path = tmp_path / "a.mp4"

    for attempt in (
        lambda: output_options(resolve_encoding("mp4"), loop=True),
        lambda: write_video(path, [np.zeros((16, 16, 3), np.uint8)]),
        lambda: start_ffmpeg(["-version"]),
    ):
        with pytest.raises(StyleCLIError, match=f"IMAGEIO_FFMPEG_EXE names {program}"):
            attempt()
    assert not path.exists()


def test_where_there_is_no_ffmpeg_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)

    with pytest.raises(StyleCLIError, match="IMAGEIO_FFMPEG_EXE"):
        start_ffmpeg(["-version"])
