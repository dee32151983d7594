"""Provenance in videos: every format carries it and still plays."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.errors import DataError
from stylecli.video import read_video_provenance, write_video
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


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_other_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("no video")

    with pytest.raises(DataError, match="not a readable"):
        read_video_provenance(path)
