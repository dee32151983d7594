"""Every pixel format and profile ends as the 8-bit sRGB one would expect."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from stylecli.data.colours import BROKEN_PROFILE, convert_colours, finish, simplify
from stylecli.data.decoding import read_header
from stylecli.errors import DataError
from tests.data.profiles import wide_gamut_profile

ORANGE = (255, 153, 0)  # a colour of Pillow's default palette, too


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
