"""Every pixel format ends as the 8-bit pixels one would expect."""

import numpy as np
import pytest
from PIL import Image

from stylecli.data.transforms import square_pixels
from stylecli.errors import DataError

ORANGE = (255, 153, 0)  # a colour of Pillow's default palette, too


def corner(picture, channels):
    """Return the colour of the first pixel after conversion, at the picture's own size."""
    return square_pixels(picture, picture.height, channels)[:, 0, 0].tolist()


def test_cuts_out_the_central_square():
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    assert (square_pixels(Image.fromarray(wide), 4, 3) == 200).all()


def test_box_filter_takes_plain_means():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    means = pixels.reshape(4, 2, 4, 2).mean((1, 3))
    small = square_pixels(Image.fromarray(pixels), 4, 1, "box")[0]
    assert np.abs(small - means).max() <= 1  # Pillow rounds after each of its two passes


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA"])
def test_colours_survive_every_mode(mode):
    assert corner(Image.new("RGB", (4, 4), ORANGE).convert(mode), 3) == list(ORANGE)


def test_transparent_pictures_lie_on_white_unless_alpha_is_kept():
    faint = Image.new("RGBA", (4, 4), (*ORANGE, 0))
    assert corner(faint, 3) == [255, 255, 255]
    assert corner(faint, 4) == [*ORANGE, 0]


def test_a_transparent_palette_colour_is_seen(tmp_path):
    picture = Image.new("P", (4, 4))
    picture.putpalette([255, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P" and corner(stored, 3) == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled():
    grey = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert corner(grey, 1) == [255]
    assert corner(Image.fromarray(np.full((4, 4), 257 * 100, np.uint16)), 3) == [100] * 3


def test_refuses_floating_point_pixels():
    with pytest.raises(DataError, match="has F pixels"):
        corner(Image.new("F", (4, 4)), 3)
