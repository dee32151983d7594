"""Provenance in videos: every format carries it and still plays."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.errors import DataError
from stylecli.video import marking, read_video_provenance, write_video
from stylecli.video.encoding import FORMATS, resolve_encoding

LONG = {"command": "interpolate", "note": 'a=b; #1 \\ "ü"\nnext', "more": "x" * 1000}
FRAMES = [np.full((16, 16, 3), 40 * index, np.uint8) for index in range(5)]


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

    monkeypatch.setattr(marking, "start_ffmpeg", started)
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
    monkeypatch.setattr(marking, "_SECONDS", 0.1)
    with pytest.raises(DataError, match="not readable: ffmpeg took over"):
        read_video_provenance(path)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_other_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("no video")

    with pytest.raises(DataError, match="not a readable"):
        read_video_provenance(path)
