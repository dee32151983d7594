"""Frames to videos: whole files, true colours, no debris, streamed."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from stylecli.errors import Interrupted, StyleCLIError, UsageError
from stylecli.images import Pictures
from stylecli.video import write_video
from stylecli.video.encoding import resolve_encoding
from tests.video.played import play


def _frames(count: int = 6, shape: tuple[int, int, int] = (32, 48, 3)) -> Iterator[Pictures]:
    for index in range(count):
        yield np.full(shape, (40 * index, 120, 200)[: shape[2]], dtype=np.uint8)


def _interrupted(count: int) -> Iterator[Pictures]:
    yield from _frames(count)
    raise KeyboardInterrupt


def test_a_video_plays_what_was_written(tmp_path: Path) -> None:
    assert write_video(tmp_path / "a.mp4", _frames(), fps=12) == 6

    facts, frames = play(tmp_path / "a.mp4")
    assert "h264" in facts and "yuv420p(tv, bt709" in facts and "12 fps" in facts
    assert "Duration: 00:00:00.50" in facts
    for shown, written in zip(frames, _frames(), strict=True):
        assert abs(shown.astype(int) - written).max() <= 4


@pytest.mark.parametrize(
    ("format", "codec"),
    [("mp4", "hevc"), ("mp4", "av1"), ("mp4", "vp9"), ("webm", "vp9"), ("webm", "av1")],
)
def test_every_codec_plays_in_its_format(tmp_path: Path, format: str, codec: str) -> None:
    path = tmp_path / f"a.{format}"

    write_video(path, _frames(4, (64, 64, 3)), 25, encoding=resolve_encoding(format, codec))

    facts, frames = play(path)
    assert f"Video: {codec}" in facts and "25 fps" in facts
    for shown, written in zip(frames, _frames(4, (64, 64, 3)), strict=True):
        assert abs(shown.astype(int) - written).max() <= 8


def test_a_gif_plays_at_its_speed_in_a_loop(tmp_path: Path) -> None:
    from PIL import Image

    write_video(tmp_path / "a.gif", _frames(), 20, encoding=resolve_encoding("gif", fps=20))

    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (6, (48, 32), 50)  # type: ignore[attr-defined]
        assert gif.info["loop"] == 0  # for ever


def test_an_animated_webp_has_every_frame(tmp_path: Path) -> None:
    from PIL import Image

    write_video(tmp_path / "a.webp", _frames(), 20, encoding=resolve_encoding("webp"))

    with Image.open(tmp_path / "a.webp") as webp:
        assert (webp.n_frames, webp.size) == (6, (48, 32))  # type: ignore[attr-defined]
        webp.seek(5)
        assert abs(np.asarray(webp.convert("RGB")).astype(int) - (200, 120, 200)).max() <= 8


@pytest.mark.parametrize(
    ("shape", "played"), [((33, 47, 3), (34, 48, 3)), ((16, 16, 1), (16, 16, 3))]
)
def test_odd_sizes_become_even_and_grey_stays_grey(
    tmp_path: Path, shape: tuple[int, int, int], played: tuple[int, int, int]
) -> None:
    write_video(tmp_path / "a.mp4", _frames(shape=shape))

    _, frames = play(tmp_path / "a.mp4")
    assert frames[0].shape == played
    assert abs(frames[3].astype(int)[0, 0, 0] - 120) <= 4


def test_frames_pass_one_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[Pictures]] = []
    most = 0

    def watched() -> Iterator[Pictures]:
        nonlocal most
        for _ in range(40):
            frame = np.zeros((16, 16, 3), np.uint8)
            alive.append(weakref.ref(frame))
            most = max(most, sum(held() is not None for held in alive))
            yield frame

    write_video(tmp_path / "a.mp4", watched())

    assert most <= 3  # this one, the one before, and the first, whose size the others must have


def test_a_failing_source_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Pictures]:
        yield from _frames(3)
        raise RuntimeError("out of faces")

    with pytest.raises(RuntimeError, match="out of faces"):
        write_video(tmp_path / "a.mp4", broken(), keep_shorter=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["mp4", "webm", "gif", "webp"])
def test_ctrl_c_keeps_a_whole_shorter_video_where_wanted(tmp_path: Path, format: str) -> None:
    path, shorter = tmp_path / f"a.{format}", tmp_path / f"a-first-4-frames.{format}"

    with pytest.raises(Interrupted, match=r"first-4-frames.* holds the first 4 of 9 frames"):
        write_video(
            path, _interrupted(4), encoding=resolve_encoding(format), total=9, keep_shorter=True
        )

    assert [file.name for file in tmp_path.iterdir()] == [shorter.name]
    if format != "webp":  # ffmpeg reads no animations of it
        assert len(play(shorter)[1]) == 4


def test_ctrl_c_leaves_an_older_video_alone(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("older")

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", _interrupted(4))
    with pytest.raises(Interrupted):
        write_video(tmp_path / "a.mp4", _interrupted(4), keep_shorter=True)

    assert (tmp_path / "a.mp4").read_text() == "older"


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
    with pytest.raises(UsageError, match="is no picture"):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4), np.uint8)])
