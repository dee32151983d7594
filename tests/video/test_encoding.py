"""Encodings: what goes together, and what a small ffmpeg lacks."""

from pathlib import Path

import imageio_ffmpeg
import pytest

from stylecli.errors import StyleCLIError, UsageError
from stylecli.video.encoding import output_options, resolve_encoding


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
