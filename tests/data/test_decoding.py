"""Pictures that must not be decoded are recognised by their headers; JPEGs are decoded lean."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.data import decoding
from stylecli.data.colours import BROKEN_PROFILE, finish, simplify
from stylecli.data.decoding import check_kind, draft, name_cause, open_picture, read_header
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


def png_chunk(name, content):
    """Return a chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def huge_png(width, height):
    """Return a PNG whose header promises more than its few bytes hold."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(100))))


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


LONG = zlib.compress(bytes(3 << 20))  # Pillow stops at 1 MiB of text


@pytest.mark.parametrize(
    "chunk",
    [png_chunk(b"zTXt", b"Comment\0\0" + LONG),
     png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
     png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20))) * 65,
     png_chunk(b"iCCP", b"profile\0\0" + LONG)],
    ids=["text", "XMP", "much text", "profile"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_long_text_is_no_reason_to_skip_a_png(tmp_path, chunk, place, on_disk):
    picture = texture(80, 80)
    content = written(picture, "png").getvalue()
    at = 33 if place == "first" else len(content) - 12  # after IHDR; before IEND
    content = content[:at] + chunk + content[at:]
    (tmp_path / "long.png").write_bytes(content)
    with open_picture(tmp_path / "long.png" if on_disk else io.BytesIO(content)) as opened:
        assert read_header(opened).size == (80, 80)
        assert opened.tobytes() == picture.tobytes()


def test_a_profile_that_is_too_long_is_noted():
    content = written(texture(80, 80), "png").getvalue()
    content = content[:33] + png_chunk(b"iCCP", b"profile\0\0" + LONG) + content[33:]
    picture = open_picture(io.BytesIO(content))
    header = read_header(picture)
    assert finish(simplify(picture, header), 3, profile=header.profile)[1] == BROKEN_PROFILE


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>Quota exceeded</title>", "is a web page"),
        (b"\xef\xbb\xbf<HTML>", "is a web page"),
        (b'<?xml version="1.0"?><html xmlns="...">', "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "is an XML document"),
        (b'<?xml version="1.0"?><svg width="8">', "is an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
        (b"<<<<", "is not a picture of a known kind"),
    ],
)
@pytest.mark.parametrize("on_disk", [True, False])
def test_what_came_instead_of_a_picture_is_named(tmp_path, content, cause, on_disk):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=cause):
        open_picture(tmp_path / "a.jpg" if on_disk else io.BytesIO(content))


def test_large_pictures_below_the_limit_open_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_picture(huge_png(12000, 12000)).size == (12000, 12000)


def test_bombs_are_refused_whoever_opened_them(monkeypatch):
    picture = Image.new("L", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)
    with pytest.raises(DataError, match="is too large: 100 x 100 px, at most 9,998 pixels"):
        check_kind(read_header(picture))


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_films_are_refused(kind):
    frames = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(3)]
    film = written(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(DataError, match="has 3 frames"):
        check_kind(read_header(open_picture(film)))
    check_kind(read_header(open_picture(written(frames[0], kind))))


@pytest.mark.parametrize("kind", ["tiff", "mpo"])
def test_pages_and_previews_are_no_film(kind):
    pages = [Image.new("RGB", (8, 8), (80 * number, 0, 0)) for number in range(2)]
    picture = open_picture(written(pages[0], kind, save_all=True, append_images=pages[1:]))
    assert picture.n_frames == 2
    check_kind(read_header(picture))


def test_drawings_are_refused():
    with pytest.raises(DataError, match=r"is a drawing \(EPS\)"):
        check_kind(read_header(open_picture(written(Image.new("RGB", (8, 8)), "eps"))))


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


OPEN_OWN_BYTES = {
    "data/decoding.py",  # the one place for the files of others
    "data/codec.py",  # the pixels of a dataset
    "data/alignment/making.py",  # a picture that was just written or is known by its MD5
    "data/demo_faces.py",
    "images.py",  # provenance: lies below data/
    "report/page.py",
    "report/figures_page.py",
    "video.py",
}


def test_pictures_of_others_are_opened_in_one_place():
    package = Path(decoding.__file__).parent.parent
    openers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "Image.open(" in path.read_text("utf-8")
    }
    assert openers <= OPEN_OWN_BYTES
    assert "data/decoding.py" in openers
