"""Pictures to plant faults among: drawn at random, each unlike the others."""

import io

import numpy as np
from PIL import Image, ImageDraw


def draw(seed, side=64):
    """Draw a face-like picture: a plain background, an oval, some dots and strokes on it."""
    rng = np.random.default_rng(seed)
    colours = [tuple(int(level) for level in rng.integers(0, 256, 3)) for _ in range(8)]
    large = Image.new("RGB", (4 * side, 4 * side), colours[0])
    pen = ImageDraw.Draw(large)
    scale = 4 * side
    left, top = rng.uniform(0.05, 0.3, 2) * scale
    right, bottom = rng.uniform(0.7, 0.95, 2) * scale
    pen.ellipse((left, top, right, bottom), fill=colours[1])
    for colour in colours[2:]:
        x, y = rng.uniform(0.1, 0.8, 2) * scale
        width, height = rng.uniform(0.05, 0.3, 2) * scale
        pen.ellipse((x, y, x + width, y + height), fill=colour)
    return large.resize((side, side), Image.Resampling.BOX)


def pixels_of(picture):
    """Return a picture's pixels as uint8 [3, H, W]."""
    return np.asarray(picture).transpose(2, 0, 1)


def encode_again(picture, quality=85):
    """Return what is left of a picture after JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=quality, subsampling=0)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def brighten(picture):
    """Return a picture a little brighter."""
    return picture.point([min(255, round(1.04 * level + 4)) for level in range(256)] * 3)


def shift(picture):
    """Return a picture moved one pixel to the right, its left edge repeated."""
    moved = picture.copy()
    moved.paste(picture, (1, 0))
    return moved
