"""From one item of a source to the pixels of a dataset, whatever the picture: used or skipped.

The rule on size: pictures that would have to be enlarged are skipped, unless ``enlarge``. When no
resolution is asked for, ``transforms.choose_resolution`` takes the largest power of two that 95 %
of the pictures reach, so that few are lost.

Worker processes import this module: nothing here may import torch, and numpy only where it is used.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageOps

from stylecli.data import colours, decoding
from stylecli.data.codec import encode
from stylecli.data.layout import CODECS, Codec, pixel_digest
from stylecli.data.sources.base import Item, Source
from stylecli.data.transforms import (
    FILTERS,
    Filter,
    Placement,
    Transform,
    name_transform,
    place,
    target_size,
)
from stylecli.data.workers import count_workers, ordered_map
from stylecli.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
}
_CHUNK_PIXELS = 1 << 17  # small pictures travel to the workers many at a time
_ORIENTATION = 274  # an EXIF tag; from 5 on the picture lies on its side


@dataclass(frozen=True)
class Recipe:
    """How every picture becomes [channels, resolution, resolution]. All of it goes on record."""

    resolution: int  # px
    channels: int = 3  # 1 grey, 3 RGB, 4 RGBA
    filter: Filter = "lanczos"
    transform: Transform = "center-crop"  # or one of transforms.ALIASES
    width: int | None = None  # px on the square, for "tall"; None: three quarters of it
    height: int | None = None  # the same for "wide"
    exif: bool = False  # turn pictures upright by their EXIF tag; official tools do not
    icc: Literal["convert", "ignore"] = "convert"  # colour profiles to sRGB
    background: tuple[int, int, int] = (255, 255, 255)  # under transparent pictures
    enlarge: bool = False  # use pictures smaller than the resolution, too
    codec: Codec = "raw"  # how the worker encodes the pixels, without loss

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        object.__setattr__(self, "transform", name_transform(self.transform))
        object.__setattr__(self, "background", tuple(self.background))  # JSON makes it a list
        if self.resolution < 1:
            raise UsageError(f"resolution {self.resolution} is no number of pixels")
        if self.channels not in colours.TARGETS:
            raise UsageError(f"channels {self.channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
        for name, value, allowed in (
            ("filter", self.filter, FILTERS),
            ("icc", self.icc, ("convert", "ignore")),
            ("codec", self.codec, CODECS),
        ):
            if value not in allowed:
                raise UsageError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise UsageError(f"background {self.background} is not three levels from 0 to 255")
        target_size(self.transform, self.resolution, self.width, self.height)

    def recorded(self) -> dict[str, Any]:
        """Return what decides about the pixels, as JSON has it, for a dataset's header."""
        target = target_size(self.transform, self.resolution, self.width, self.height)
        record = asdict(self)
        del record["codec"]  # lossless: it changes no pixel
        return record | {
            "width": target[0],
            "height": target[1],
            "background": list(self.background),
        }


@dataclass(frozen=True)
class Prepared:
    """A picture ready to be stored."""

    shape: tuple[int, int, int]  # C, R, R
    stored: bytes  # the pixels in the recipe's codec
    raw: bytes | None  # the pixels as they are, unless that is what `stored` holds
    digest: bytes  # SHA-256 of the raw pixels
    side: int  # shorter side of the picture before, px
    enlarged: bool = False  # it had fewer pixels than its place has
    note: str = ""  # what was left out, such as a broken colour profile

    @property
    def pixels(self) -> "npt.NDArray[np.uint8]":
        """The picture as uint8 [C, R, R], read-only."""
        return _as_array(self.stored if self.raw is None else self.raw, self.shape)


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why."""

    name: str
    cause: str


def prepare(item: Item, recipe: Recipe) -> Prepared | Skipped:
    """Open, convert, cut, resize and encode one picture.

    Never raises for a picture: what cannot be used is returned as ``Skipped`` with its cause.
    """
    with decoding.quiet():
        try:
            with item.open() as picture:
                return _prepare(picture, recipe)
        except Exception as error:  # items and decoders raise anything on damaged files
            return Skipped(item.name, decoding.name_cause(error))


def prepare_all(
    source: Source,
    indices: Sequence[int],
    recipe: Recipe,
    *,
    workers: int | None = None,
) -> Iterator[Prepared | Skipped]:
    """Yield ``prepare`` of the source's items at ``indices``, in order, from several processes.

    A picture that brings its process down (a crash in a decoder, out of memory) is skipped as
    well. Close the iterator to end the processes early.
    """
    return ordered_map(
        functools.partial(prepare, recipe=recipe),
        (source[index] for index in indices),
        workers=count_workers(len(indices)) if workers is None else workers,
        chunk=max(1, min(32, _CHUNK_PIXELS // recipe.resolution**2)),
        on_death=_skip_killer,
    )


def _skip_killer(item: Item, cause: str) -> Prepared | Skipped:
    return Skipped(item.name, f"ended the process that decoded it ({cause})")


def _prepare(picture: Image.Image, recipe: Recipe) -> Prepared:
    decoding.check_kind(picture)
    width, height = picture.size
    # Pillow turns TIFF itself, and says so in the size already.
    turned = recipe.exif and picture.format != "TIFF"
    lies = turned and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    placement = place(
        recipe.transform,
        (height, width) if lies else (width, height),
        recipe.resolution,
        target_size(recipe.transform, recipe.resolution, recipe.width, recipe.height),
    )
    if placement.scale < 1 and not recipe.enlarge:
        wanted = " x ".join(map(str, placement.size))
        raise DataError(
            f"is too small: {width} x {height} px for {wanted}; pack with a lower --resolution, "
            "or with --enlarge"
        )
    profile = picture.info.get("icc_profile") if recipe.icc == "convert" else None
    region = _resized_region(picture, placement, recipe, grey_first=not profile)
    content, note = colours.finish(
        region, recipe.channels, profile=profile, background=recipe.background
    )
    raw = _planes(_on_canvas(content, placement, recipe.resolution))
    shape = (recipe.channels, recipe.resolution, recipe.resolution)
    is_raw = recipe.codec == "raw"
    return Prepared(
        shape=shape,
        stored=raw if is_raw else encode(_as_array(raw, shape), recipe.codec),
        raw=None if is_raw else raw,
        digest=pixel_digest(raw),
        side=min(width, height),
        enlarged=placement.scale < 1,
        note=note,
    )


def _resized_region(
    picture: Image.Image, placement: Placement, recipe: Recipe, *, grey_first: bool
) -> Image.Image:
    """Decode the picture and return its region at the target size, in a mode of ``simplify``."""
    before, eighths = picture.size, 8
    if recipe.filter != "box":  # a box filter promises plain means, which JPEG's own are not
        eighths = decoding.draft(picture, placement.scale)
    picture.load()
    if picture.size != decoding.drafted_size(before, eighths):
        raise DataError("is damaged: its pixels have another size than its header says")
    if recipe.exif:
        picture = ImageOps.exif_transpose(picture)
    left, top, right, bottom = (edge * eighths / 8 for edge in placement.box)
    # Cut first, so that no pixel from outside reaches the result through the filter.
    outer = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    if outer != (0, 0, *picture.size):
        picture = picture.crop(outer)
    picture = colours.simplify(picture)
    if grey_first and recipe.channels == 1 and picture.mode == "RGB":
        picture = picture.convert("L")
    inner = left - outer[0], top - outer[1], right - outer[0], bottom - outer[1]
    return picture.resize(placement.size, _RESAMPLING[recipe.filter], box=inner)


def _on_canvas(content: Image.Image, placement: Placement, resolution: int) -> Image.Image:
    """Lay the content on a black (with alpha: clear) square, unless it fills it."""
    if placement.size == (resolution, resolution):
        return content
    canvas = Image.new(content.mode, (resolution, resolution))
    canvas.paste(content, placement.offset)
    return canvas


def _planes(picture: Image.Image) -> bytes:
    """Return the pixels as bytes in the order [C, H, W]."""
    return b"".join(plane.tobytes() for plane in picture.split())


def _as_array(raw: bytes, shape: tuple[int, int, int]) -> "npt.NDArray[np.uint8]":
    import numpy as np

    return np.frombuffer(raw, np.uint8).reshape(shape)
