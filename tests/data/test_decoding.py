"""Pictures that must not be decoded are recognised by their headers; JPEGs are decoded lean."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from stylecli.data import decoding
from stylecli.data.decoding import check_kind, draft, name_cause, open_picture
from stylecli.errors import DataError


def written(picture, kind, **options):
    """Return a file that holds a picture."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def texture(width, height):
    """Return smooth noise with some grain, roughly as photographs have."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    grain = rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def huge_png(width, height):
    """Return a PNG whose header promises more than its few bytes hold."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))))


def test_only_headers_are_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(huge_png(8000, 8000).getvalue())
    with open_picture(path) as picture:
        assert picture.size == (8000, 8000)


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        (io.BytesIO(b"no picture"), "is not a picture of a known kind"),
        (huge_png(30000, 30000), "is too large: it has more than 178,956,970 pixels"),
    ],
)
def test_says_why_a_file_cannot_be_opened(file, cause):
    with pytest.raises(DataError) as error:
        open_picture(file)
    assert str(error.value) == cause


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        open_picture(tmp_path / "nothing.png")


def test_large_pictures_below_the_limit_open_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(huge_png(12000, 12000)).size == (12000, 12000)


def test_bombs_are_refused_whoever_opened_them(monkeypatch):
    picture = Image.new("L", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(DataError, match="is too large: 100 x 100 px, at most 9,998 pixels"):
        check_kind(picture)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_films_are_refused(kind):
    frames = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(3)]
    film = written(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DataError, match="has 3 frames"):
        check_kind(open_picture(film))
    check_kind(open_picture(written(frames[0], kind)))


@pytest.mark.parametrize("kind", ["tiff", "mpo"])
def test_pages_and_previews_are_no_film(kind):
    pages = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(2)]
    picture = open_picture(written(pages[0], kind, save_all=True, append_images=pages[1:]))
    assert picture.n_frames == 2
    check_kind(picture)


def test_drawings_are_refused():
    with pytest.raises(DataError, match=r"is a drawing \(EPS\)"):
        check_kind(open_picture(written(Image.new("RGB", (8, 8)), "eps")))


@pytest.mark.parametrize(
    ("scale", "eighths"),
    [(1.0, 8), (3.99, 8), (4.0, 4), (5.32, 4), (5.34, 3), (8.0, 2), (15.9, 2), (16.0, 1)],
)
def test_a_draft_leaves_twice_what_is_needed(scale, eighths):
    picture = open_picture(written(texture(401, 250), "jpeg"))
    assert draft(picture, scale) == eighths
    picture.load()
    assert picture.size == decoding.drafted_size((401, 250), eighths)


@pytest.mark.parametrize("mode", ["L", "CMYK", "MPO"])
def test_every_jpeg_can_be_drafted(mode):
    picture = texture(161, 96)
    kind, picture = ("mpo", picture) if mode == "MPO" else ("jpeg", picture.convert(mode))
    stored = open_picture(written(picture, kind))
    assert draft(stored, 6.0) == 3
    stored.load()
    assert stored.size == (61, 36)


def test_other_kinds_are_not_drafted():
    picture = open_picture(written(texture(64, 64), "png"))
    assert draft(picture, 16.0) == 8 and picture.size == (64, 64)


@pytest.mark.parametrize("side", [256, 341, 512, 1024])
def test_a_draft_hardly_changes_the_result(side):
    file = written(texture(side, side), "jpeg", quality=92)
    whole = np.asarray(Image.open(file).resize((64, 64), Image.Resampling.LANCZOS)).astype(float)
    drafted = open_picture(file)
    eighths = draft(drafted, side / 64)
    box = (0, 0, side * eighths / 8, side * eighths / 8)
    small = np.asarray(drafted.resize((64, 64), Image.Resampling.LANCZOS, box=box)).astype(float)
    assert eighths < 8
    assert 10 * np.log10(255**2 / np.mean((small - whole) ** 2)) > 44  # dB


def test_without_three_eighths_a_half_is_taken(monkeypatch):
    monkeypatch.setattr(decoding, "_decodes_three_eighths", lambda: False)
    assert draft(open_picture(written(texture(401, 250), "jpeg")), 6.0) == 4


def test_this_pillow_decodes_three_eighths():
    assert decoding._decodes_three_eighths()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DataError("has no face"), "has no face"),
        (MemoryError(), "does not fit into memory"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (OSError("image file is truncated"), "cannot be decoded: image file is truncated"),
        (ValueError("two\nlines"), "cannot be decoded: two lines"),
        (KeyError(), "cannot be decoded: KeyError"),
    ],
)
def test_causes_are_one_sentence(error, cause):
    assert name_cause(error) == cause
