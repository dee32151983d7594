"""Videos: encoded, read back frame by frame and by their mark, interrupted, refused."""

import re
import subprocess
import weakref
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from stylecli.errors import DataError, Interrupted, StyleCLIError, UsageError
from stylecli.ffmpeg import start_ffmpeg
from stylecli.images import Pictures, read_provenance
from stylecli.video import (
    FORMATS,
    check_frame,
    output_options,
    read_video_provenance,
    resolve_encoding,
    write_frames,
    write_video,
)

HOW = {"command": "interpolate", "settings": {"seeds": "0-3"}}
LONG = {"command": "interpolate", "note": 'a=b; #1 \\ "ü"\nnext', "more": "x" * 1000}
FRAMES = [np.full((16, 16, 3), 40 * index, np.uint8) for index in range(5)]


def play(path: Path | str) -> tuple[str, Pictures]:
    """Return what ffmpeg says of a video, and its frames [N, H, W, 3]."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
    shown = subprocess.run([program, "-i", path, *raw], capture_output=True, check=True)
    facts = shown.stderr.decode()
    width, height = map(int, re.findall(r", (\d+)x(\d+)", facts)[0])
    return facts, np.frombuffer(shown.stdout, np.uint8).reshape(-1, height, width, 3)


def test_formats_have_their_usual_codec_and_quality() -> None:
    assert (resolve_encoding("mp4").codec, resolve_encoding("mp4").crf) == ("h264", 16)
    assert (resolve_encoding("webm").codec, resolve_encoding("gif").codec) == ("vp9", None)
    assert resolve_encoding("mp4", "av1", 60).crf == 60


@pytest.mark.parametrize(
    ("format", "codec", "crf", "fps", "message"),
    [
        ("avi", None, None, 30, "unknown format 'avi': expected mp4, webm, gif, webp"),
        ("webm", "h264", None, 30, "'h264' does not go into webm: expected vp9, av1"),
        ("gif", "vp9", None, 30, "'vp9' does not go into gif: leave --codec out"),
        ("gif", None, 5, 30, "crf 5"),
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


def _slow_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ffmpeg start a second late: all frames are drawn long before the file is written."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nsleep 1\nexec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))


def test_no_bar_is_full_before_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    _slow_ffmpeg(tmp_path, monkeypatch)
    told: list[tuple[float, float, str, bool]] = []

    write_video(
        path, _frames(6), total=6,
        progress=lambda done, total, note="": told.append((done, total, note, path.exists())),
    )  # fmt: skip

    assert [row[:3] for row in told[:5]] == [(n, 6, "") for n in range(1, 6)]
    writing = told[5:-1]
    assert writing and {(note, done < 6) for done, _, note, _ in writing} == {
        ("writing the video", True)
    }
    assert told[-1] == (6, 6, "", True)  # the file has its name


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_the_video_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int
) -> None:
    """Nothing is left to save then, so once is too little; twice leaves no half of a file."""
    _slow_ffmpeg(tmp_path, monkeypatch)
    left = presses

    def press(done: float, total: float, note: str = "") -> None:
        nonlocal left
        if note and left:
            left -= 1
            raise KeyboardInterrupt

    if presses == 1:
        write_video(tmp_path / "a.mp4", _frames(6), total=6, keep_shorter=True, progress=press)
        assert len(play(tmp_path / "a.mp4")[1]) == 6
    else:
        with pytest.raises(KeyboardInterrupt):
            write_video(tmp_path / "a.mp4", _frames(6), total=6, keep_shorter=True, progress=press)
        assert [file.name for file in tmp_path.iterdir()] == ["bin"]


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
    for last in ("exit 228", "echo a.mp4: No space left on device >&2; echo done >&2; exit 1"):
        program.write_text(f"#!/bin/sh\n{last}\n")  # its own words are of streams and packets
        with pytest.raises(StyleCLIError, match="the disk is full"):
            write_video(tmp_path / "out" / "a.mp4", _frames())


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no frames"):
        write_video(tmp_path / "a.mp4", iter(()))
    with pytest.raises(UsageError, match="the first was"):
        write_video(tmp_path / "a.mp4", [*_frames(1), *_frames(1, (16, 16, 3))])
    with pytest.raises(UsageError, match="is not a picture"):
        write_video(tmp_path / "a.mp4", [np.zeros((4, 4), np.uint8)])


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
    with pytest.raises(
        Interrupted, match=r"2 of 6 frames are in .*: run the same command to continue"
    ):
        write_frames(tmp_path, _stopped, 6, provenance=HOW)
    first = (tmp_path / "frame-000001.png").stat().st_mtime_ns

    assert write_frames(tmp_path, _draw, 6, provenance=HOW) == 4
    assert write_frames(tmp_path, _draw, 6, provenance=HOW) == 0
    assert len(list(tmp_path.iterdir())) == 6
    assert (tmp_path / "frame-000001.png").stat().st_mtime_ns == first


def test_frames_of_something_else_are_replaced_by_force_only(tmp_path: Path) -> None:
    write_frames(tmp_path, _draw, 6, provenance=HOW)

    with pytest.raises(UsageError, match=r"frame-000000.png"):
        write_frames(tmp_path, _draw, 6, provenance={**HOW, "command": "mix"})
    with pytest.raises(UsageError, match=r"frame-000004.png"):
        write_frames(tmp_path, _draw, 4, provenance=HOW)

    short = {**HOW, "command": "mix"}
    write_frames(tmp_path, lambda start: list(_draw(start))[:2], 2, provenance=short, force=True)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("")

    with pytest.raises(UsageError, match="frames need a folder"):
        write_frames(tmp_path / "frames", _draw, 6)


@pytest.mark.parametrize("format", FORMATS)
def test_provenance_survives_awkward_characters(tmp_path: Path, format: str) -> None:
    marked, plain = tmp_path / f"a.{format}", tmp_path / f"plain.{format}"

    write_video(marked, FRAMES, encoding=resolve_encoding(format), provenance=LONG)
    write_video(plain, FRAMES, encoding=resolve_encoding(format))

    assert read_video_provenance(marked) == LONG
    assert read_video_provenance(plain) is None


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_a_mark_changes_no_frame(tmp_path: Path, format: str) -> None:
    shown = []
    for name, provenance in (("marked", LONG), ("plain", None)):
        path = tmp_path / f"{name}.{format}"
        write_video(path, FRAMES, encoding=resolve_encoding(format), provenance=provenance)
        with Image.open(path) as image:
            frames = []
            for index in range(image.n_frames):  # type: ignore[attr-defined]
                image.seek(index)
                frames.append(np.asarray(image.convert("RGB")))
        shown.append(np.stack(frames))

    assert len(shown[0]) == 5
    np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("name", ["take1:final.mp4", "-y.mp4", "50%.webm", "http:a.mp4"])
def test_any_name_is_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    encoding = resolve_encoding(name[-4:].lstrip("."))

    write_video(name, FRAMES, encoding=encoding, provenance=LONG)

    assert [path.name for path in Path().iterdir()] == [name]
    assert read_video_provenance(name) == LONG


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mov"])
@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_script_named_as_a_video_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, suffix: str
) -> None:
    write_video(tmp_path / "other.mp4", FRAMES, provenance=LONG)
    (tmp_path / f"a{suffix}").write_text(script)

    def started(*_: object, **__: object) -> None:
        pytest.fail("ffmpeg was started")

    monkeypatch.setattr("stylecli.video.start_ffmpeg", started)
    with pytest.raises(DataError, match="not a readable video"):
        read_video_provenance(tmp_path / f"a{suffix}")


def test_a_container_that_is_damaged_or_takes_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(500))
    with pytest.raises(DataError, match="not a readable video"):
        read_video_provenance(path)

    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr("stylecli.video._READING_SECONDS", 0.1)
    with pytest.raises(DataError, match="not readable: ffmpeg took over"):
        read_video_provenance(path)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_other_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("no video")

    with pytest.raises(DataError, match="not a readable"):
        read_video_provenance(path)
