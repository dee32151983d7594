"""Pictures known by their headers, JPEGs decoded lean, colours of any kind brought to sRGB."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from stylecli.data import pictures
from stylecli.data.pictures import (
    BROKEN_PROFILE,
    check_kind,
    convert_colours,
    draft,
    finish,
    name_cause,
    open_picture,
    read_header,
    simplify,
)
from stylecli.errors import DataError
from tests.data.profiles import wide_gamut_profile

ORANGE = (255, 153, 0)  # a colour of Pillow's default palette, too


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
        (io.BytesIO(b"\x89PNG\r\n\x1a\n"), "begins like PNG but cannot be read: copy it again"),
        (io.BytesIO(b"\0\0\0\x1cftypavif"), "begins like AVIF but cannot be read: copy it again"),
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
    with pytest.raises(DataError, match="is too large: 100 x 100 px; at most 9,998 pixels"):
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
    assert picture.size == pictures.drafted_size((401, 250), eighths)


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
    monkeypatch.setattr(pictures, "_decodes_three_eighths", lambda: False)
    assert draft(open_picture(written(texture(401, 250), "jpeg")), 6.0) == 4


def test_this_pillow_decodes_three_eighths():
    assert pictures._decodes_three_eighths()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (DataError("has no face"), "has no face"),
        (MemoryError(), "does not fit into memory"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (OSError("image file is truncated"), "is cut short: copy it again"),
        (EOFError("Unexpected end of file: Extent in iloc box"), "is cut short: copy it again"),
        (ValueError("two\nlines"), "cannot be decoded: two lines"),
        (KeyError(), "cannot be decoded: KeyError"),
    ],
)
def test_causes_are_one_sentence(error, cause):
    assert name_cause(error) == cause


OPEN_OWN_BYTES = {
    "data/pictures.py",  # the one place for the files of others
    "data/format.py",  # the pixels of a dataset
    "data/alignment/aligning.py",  # a picture that was just written or is known by its MD5
    "data/demo_faces.py",
    "images.py",  # provenance: lies below data/
    "report/page.py",
    "report/network_pages.py",
    "video.py",
}


def test_pictures_of_others_are_opened_in_one_place():
    package = Path(pictures.__file__).parent.parent
    openers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "Image.open(" in path.read_text("utf-8")
    }
    assert openers <= OPEN_OWN_BYTES
    assert "data/pictures.py" in openers


def colour(picture, channels=3):
    """Return the first pixel after conversion."""
    return np.atleast_1d(convert_colours(picture, channels).getpixel((0, 0))).tolist()


def stored(picture, kind, **options):
    """Write a picture and open it again."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image.open(file)


def plain(mode, value):
    """Return a small picture of one colour."""
    return Image.new(mode, (4, 4), value)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA", "YCbCr", "HSV", "RGBX"])
def test_colours_survive_every_mode(mode):
    assert np.abs(np.subtract(colour(plain("RGB", ORANGE).convert(mode)), ORANGE)).max() <= 3


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 255), ("LA", (255, 255))])
def test_grey_survives_every_mode(mode, value):
    assert colour(plain(mode, value), 1) == [255]
    assert colour(plain(mode, value), 3) == [255] * 3
    assert colour(plain(mode, value), 4) == [255] * 4


def test_transparent_pictures_lie_on_the_background_unless_alpha_is_kept():
    faint = plain("RGBA", (*ORANGE, 0))
    assert colour(faint, 3) == [255, 255, 255]
    assert colour(faint, 4) == [*ORANGE, 0]
    half = simplify(picture := plain("RGBA", (200, 0, 0, 128)), read_header(picture))
    blended, _ = finish(half, 3, background=(0, 0, 255))
    assert blended.getpixel((0, 0)) == pytest.approx((100, 0, 127), abs=1)


@pytest.mark.parametrize(
    ("picture", "transparency"),
    [(plain("P", 0), 0), (plain("L", 7), 7), (plain("RGB", ORANGE), ORANGE)],
)
def test_a_transparent_colour_is_seen(picture, transparency):
    assert colour(stored(picture, "png", transparency=transparency)) == [255, 255, 255]


def test_cmyk_jpegs_are_not_negatives():
    file = stored(plain("CMYK", (0, 102, 255, 0)), "jpeg", quality=95)  # Adobe's inverted kind
    assert np.abs(np.subtract(colour(file), ORANGE)).max() <= 4


def test_lab_is_converted():
    lab = stored(plain("LAB", (255, 128, 128)), "tiff")
    assert lab.mode == "LAB" and min(colour(lab)) >= 254


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm"])
def test_sixteen_bit_grey_is_scaled_and_rounded(kind):
    def level(value):
        picture = Image.fromarray(np.full((4, 4), value, np.uint16))
        return colour(stored(picture if kind != "ppm" else picture.convert("I"), kind), 1)

    assert [level(value) for value in (0, 257 * 100, 257 * 100 + 129, 65535)] == [
        [0], [100], [101], [255],
    ]  # fmt: skip


def test_sixteen_bit_colours_keep_their_upper_half():
    pixel = b"".join(value.to_bytes(2, "little") for value in (65535, 257 * 153, 0))
    header = b"II*\0" + (8).to_bytes(4, "little")
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 206), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        + value.to_bytes(4, "little") for tag, kind, count, value in tags
    )  # fmt: skip
    file = (header + len(tags).to_bytes(2, "little") + entries + bytes(4)).ljust(200, b"\0")
    file += b"\x10\0" * 3 + pixel
    assert colour(Image.open(io.BytesIO(file))) == list(ORANGE)


def test_twelve_bit_grey_reaches_white():
    grey = Image.fromarray(np.full((4, 4), 4095, np.uint16))
    grey.tag_v2 = TiffImagePlugin.ImageFileDirectory_v2()
    grey.tag_v2[258] = 12
    assert colour(grey, 1) == [255]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(mode):
    with pytest.raises(DataError, match=f"has {mode} pixels: expected 8 or 16 bits"):
        colour(plain(mode, 0))


def test_a_profile_is_converted_to_srgb():
    green, note = finish(plain("RGB", (0, 200, 0)), 3, profile=wide_gamut_profile())
    r, g, b = green.getpixel((0, 0))
    assert note == "" and r == 0 and g > 205 and b == 0  # beyond sRGB: as green as it gets
    grey, _ = finish(plain("RGB", (120, 120, 120)), 3, profile=wide_gamut_profile())
    assert np.abs(np.subtract(grey.getpixel((0, 0)), 120)).max() <= 2


def test_alpha_passes_by_the_profile():
    picture, _ = finish(plain("RGBA", (0, 200, 0, 50)), 4, profile=wide_gamut_profile())
    assert picture.getpixel((0, 0))[3] == 50 and picture.getpixel((0, 0))[1] > 205


def test_an_srgb_profile_changes_not_one_bit():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    converted, note = finish(noise, 3, profile=srgb)
    assert converted.tobytes() == noise.tobytes() and note == ""


@pytest.mark.parametrize("profile", [b"no profile", wide_gamut_profile()[:200]])
def test_a_broken_profile_is_left_out_and_noted(profile):
    picture, note = finish(plain("RGB", ORANGE), 3, profile=profile)
    assert picture.getpixel((0, 0)) == ORANGE and note == BROKEN_PROFILE


def test_a_profile_of_another_kind_is_left_out_and_noted():
    picture, note = finish(plain("L", 99), 1, profile=wide_gamut_profile())
    assert picture.getpixel((0, 0)) == 99 and note == BROKEN_PROFILE
