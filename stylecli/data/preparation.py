"""From one item of a source to the pixels of a dataset, whatever the picture: used or skipped.

A transform turns a picture's size into a ``Placement``: the region that is taken, the size it gets,
and where on the black canvas it lies. The names are those people know; NVIDIA's own are accepted
too.

The rule on size: pictures that would have to be enlarged are skipped, unless ``enlarge``. When no
resolution is asked for, ``choose_resolution`` takes the largest power of two that 95 % of the
pictures reach, so that few are lost.

Worker processes import this module: nothing here may import torch, and numpy only where it is used.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image

from stylecli import shapes
from stylecli.data.format import CODECS, MIN_RESOLUTION, Codec, encode, pixel_digest
from stylecli.data.pictures import (
    TARGETS,
    WHITE,
    Colour,
    PictureHeader,
    check_kind,
    draft,
    drafted_size,
    finish,
    name_cause,
    quiet,
    read_header,
    simplify,
    turn_upright,
)
from stylecli.data.sources.base import Item, Source
from stylecli.data.workers import count_workers, ordered_map
from stylecli.errors import DataError, UsageError
from stylecli.shapes import SQUARE, Grid, checked_grid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Profile = npt.NDArray[np.float64]


Filter = Literal["lanczos", "box", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)
Transform = Literal[
    "center-crop", "subject", "wide", "tall", "letterbox", "pad", "stretch", "celeba"
]
TRANSFORMS: tuple[Transform, ...] = get_args(Transform)
WITH_BARS: tuple[Transform, ...] = ("letterbox", "pad", "wide", "tall")
ONLY_SQUARE: tuple[Transform, ...] = ("wide", "tall", "celeba")
ALIASES: dict[str, Transform] = {
    "centre-crop": "center-crop",
    "center-crop-wide": "wide",
    "center-crop-tall": "tall",
    "none": "stretch",
}

CELEBA_SIZE = (178, 218)  # aligned CelebA: width, height
CELEBA_BOX = (25, 57, 153, 185)  # the 128 px square around (89, 121), as in the GAN papers
_SHARE = 0.95  # of the pictures must reach a resolution that is chosen for them

Size = tuple[int, int]  # width, height in px
Box = tuple[int, int, int, int]  # left, top, right, bottom in px
Face = tuple[float, float, float, float]  # the same, of a face
FaceFinder = Callable[[Image.Image], Sequence[Face]]

_RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
}
_CHUNK_PIXELS = 1 << 17  # small pictures travel to the workers many at a time
_ICC = ("convert", "ignore")


@dataclass(frozen=True)
class Placement:
    """Take ``box`` of the picture, resize it to ``size``, lay it on the canvas at ``offset``."""

    box: Box
    size: Size
    offset: tuple[int, int]

    @property
    def scale(self) -> float:
        """Source pixels per target pixel in the direction with fewer: below 1 it is enlarged."""
        left, top, right, bottom = self.box
        return min((right - left) / self.size[0], (bottom - top) / self.size[1])


def name_transform(name: str) -> Transform:
    """Return a transform's own name for one of its names. Raises UsageError for an unknown one."""
    known: dict[str, Transform] = {**{own: own for own in TRANSFORMS}, **ALIASES}
    if name not in known:
        raise UsageError(f"unknown transform {name!r}: expected one of {', '.join(known)}")
    return known[name]


def target_size(
    transform: Transform, canvas: Size, width: int | None = None, height: int | None = None
) -> Size:
    """Return the (width, height) that pictures have on the canvas (width, height).

    On a square, ``wide`` takes its width and, unless told, 3/4 of its height; ``tall`` the reverse;
    all others fill the canvas. Raises UsageError for sizes that do not fit.
    """
    resolution = max(canvas)
    if transform in ONLY_SQUARE and canvas[0] != canvas[1]:
        raise UsageError(
            f"transform {transform!r} is for square pictures: leave it out, or leave out --shape"
        )
    if transform == "wide":
        size = width or resolution, height or resolution * 3 // 4
        fits = size[0] == resolution and 0 < size[1] <= resolution
    elif transform == "tall":
        size = width or resolution * 3 // 4, height or resolution
        fits = size[1] == resolution and 0 < size[0] <= resolution
    else:
        size = width or canvas[0], height or canvas[1]
        fits = size == canvas
    if not fits:
        raise UsageError(
            f"{size[0]} x {size[1]} px do not fit transform {transform!r} at resolution "
            f"{resolution}: only 'wide' takes another height, only 'tall' another width"
        )
    return size


def place(transform: Transform, picture: Size, canvas: Size, target: Size) -> Placement:
    """Return where a picture of (width, height) lies on the canvas (width, height).

    ``target`` is what ``target_size`` returned. Raises DataError when the transform has no place
    for a picture of this size.
    """
    width, height = picture
    whole = (0, 0, width, height)
    if transform == "letterbox":
        if width * canvas[1] >= height * canvas[0]:
            target = canvas[0], max(1, round(height * canvas[0] / width))
        else:
            target = max(1, round(width * canvas[1] / height)), canvas[1]
        box = whole
    elif transform == "pad":
        if width > canvas[0] or height > canvas[1]:
            larger = canvas[0] if canvas[0] == canvas[1] else " x ".join(map(str, canvas))
            raise DataError(
                f"is {width} x {height} px, larger than {larger}: pack it with a larger "
                "--resolution, or with --transform letterbox"
            )
        target, box = picture, whole
    elif transform == "stretch":
        box = whole
    elif transform == "celeba":
        if picture != CELEBA_SIZE:
            raise DataError(
                f"is {width} x {height} px: transform celeba is for the aligned pictures of "
                "178 x 218"
            )
        box = CELEBA_BOX
    else:
        box = _central_box(picture, target)
    offset = (canvas[0] - target[0]) // 2, (canvas[1] - target[1]) // 2
    return Placement(box, target, offset)


def most_of(count: int) -> float:
    """Return how many pictures of a set decide about its size: 95 %, or all but one of a few."""
    return min(_SHARE * count, max(count - 1, 1))


def choose_resolution(
    sizes: Sequence[Size], transform: Transform, limit: int, grid: Grid = SQUARE
) -> int:
    """Return the resolution for pictures of these sizes when none was asked for.

    The largest power of two, at most ``limit``, that enough pictures (``most_of``) reach without
    being enlarged, or for another ``grid`` the largest level; with ``pad``, the smallest that as
    many fit into. The rest is skipped or enlarged, as the recipe says. Without any size, the
    smallest there is.
    """
    counts = Counter(sizes)  # most sets have few
    powers = [1 << k for k in range(MIN_RESOLUTION.bit_length() - 1, limit.bit_length())]
    needed = most_of(len(sizes))
    if transform == "pad":
        fitting = [
            r
            for r in powers
            if sum(
                n
                for (width, height), n in counts.items()
                if width <= grid.at(r).width and height <= grid.at(r).height
            )
            >= needed
        ]
        return fitting[0] if fitting else limit
    if transform == "celeba":
        return CELEBA_BOX[2] - CELEBA_BOX[0]
    reached = [MIN_RESOLUTION]
    for r in powers:
        canvas = grid.at(r).width, grid.at(r).height
        target = target_size(transform, canvas)
        scales = {size: place(transform, size, canvas, target).scale for size in counts}
        if sum(n for size, n in counts.items() if scales[size] >= 1) >= needed:
            reached.append(r)
    return max(reached) if sizes else MIN_RESOLUTION


def _central_box(picture: Size, target: Size) -> Box:
    """Return the largest central box of the target's proportions."""
    width, height = picture
    if width * target[1] >= height * target[0]:
        width = max(1, round(height * target[0] / target[1]))
    else:
        height = max(1, round(width * target[1] / target[0]))
    left, top = (picture[0] - width) // 2, (picture[1] - height) // 2
    return left, top, left + width, top + height


@dataclass(frozen=True)
class DecodeSettings:
    """How a file becomes 8-bit colours: the part of a recipe that measuring shares with packing.

    The fields are explained at ``Recipe``; what they are by default is what ``pack`` does.
    """

    channels: int = 3
    exif: bool = True
    icc: Literal["convert", "ignore"] = "convert"
    background: Colour = WHITE

    @classmethod
    def of_record(cls, record: Any) -> "DecodeSettings":
        """Return those of a dataset's recorded settings; the default for what they do not say."""
        record = record if isinstance(record, dict) else {}
        channels, exif, icc = (record.get(name) for name in ("channels", "exif", "icc"))
        background = record.get("background")
        levels = background if isinstance(background, list) else []
        is_colour = len(levels) == 3 and all(
            isinstance(level, int) and 0 <= level <= 255 for level in levels
        )
        return cls(
            channels=channels if channels in TARGETS else cls.channels,
            exif=exif if isinstance(exif, bool) else cls.exif,
            icc=icc if icc in _ICC else cls.icc,
            background=(levels[0], levels[1], levels[2]) if is_colour else cls.background,
        )

    def described(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self) | {"background": list(self.background)}


@dataclass(frozen=True)
class Recipe:
    """How every picture becomes [channels, height, width]. All of it goes on record."""

    resolution: int  # px on a side of square pictures, else their level
    channels: int = 3  # 1 grey, 3 RGB, 4 RGBA
    filter: Filter = "lanczos"
    transform: Transform = "center-crop"  # or one of ALIASES
    width: int | None = None  # px on the square, for "tall"; None: three quarters of it
    height: int | None = None  # the same for "wide"
    exif: bool = True  # turn pictures upright by their EXIF tag; official tools do not
    icc: Literal["convert", "ignore"] = "convert"  # colour profiles to sRGB
    background: Colour = WHITE  # under transparent pictures
    enlarge: bool = False  # use pictures smaller than the resolution, too
    subject: str = ""  # for "subject", what finds it: a face detector's name, or "contrast"
    codec: Codec = "raw"  # how the worker encodes the pixels, without loss
    base: Grid = SQUARE  # height and width that are doubled

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        object.__setattr__(self, "transform", name_transform(self.transform))
        object.__setattr__(self, "background", tuple(self.background))  # JSON makes it a list
        if self.resolution < 1:
            raise UsageError(f"resolution {self.resolution} is not a number of pixels")
        if self.channels not in TARGETS:
            raise UsageError(f"channels {self.channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
        for name, value, allowed in (
            ("filter", self.filter, FILTERS),
            ("icc", self.icc, _ICC),
            ("codec", self.codec, CODECS),
        ):
            if value not in allowed:
                raise UsageError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise UsageError(f"background {self.background} is not three levels from 0 to 255")
        object.__setattr__(self, "base", checked_grid(self.base))
        target_size(self.transform, self.canvas, self.width, self.height)

    @property
    def size(self) -> shapes.Size:
        """Height and width of the pictures that are made."""
        return self.base.at(self.resolution)

    @property
    def canvas(self) -> Size:
        """Width and height of the pictures that are made."""
        return self.size.width, self.size.height

    @property
    def decoding(self) -> DecodeSettings:
        """The part that says how colours and orientation are decoded."""
        return DecodeSettings(self.channels, self.exif, self.icc, self.background)

    def recorded(self) -> dict[str, Any]:
        """Return what decides about the pixels, as JSON has it, for a dataset's header."""
        target = target_size(self.transform, self.canvas, self.width, self.height)
        record = asdict(self)
        if self.base == SQUARE:
            del record["base"]
        del record["codec"]  # lossless: it changes no pixel
        if self.transform != "subject":
            del record["subject"]
        return record | {
            "width": target[0],
            "height": target[1],
            "background": list(self.background),
        }


@dataclass(frozen=True)
class Prepared:
    """A picture ready to be stored."""

    shape: tuple[int, int, int]  # C, H, W
    stored: bytes  # the pixels in the recipe's codec
    raw: bytes | None  # the pixels as they are, unless that is what `stored` holds
    digest: bytes  # SHA-256 of the raw pixels
    side: int  # shorter side of the picture before, px
    enlarged: bool = False  # it had fewer pixels than its place has
    note: str = ""  # what was left out, such as a broken colour profile

    @property
    def pixels(self) -> "npt.NDArray[np.uint8]":
        """The picture as uint8 [C, H, W], read-only."""
        return _as_array(self.stored if self.raw is None else self.raw, self.shape)


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why."""

    name: str
    cause: str


def prepare(item: Item, recipe: Recipe, faces: FaceFinder | None = None) -> Prepared | Skipped:
    """Open, convert, cut, resize and encode one picture; ``faces`` finds them for "subject".

    Never raises for a picture: what cannot be used is returned as ``Skipped`` with its cause.
    """
    with quiet():
        try:
            centre = (0.5, 0.5)
            if recipe.transform == "subject":
                with item.open() as picture:
                    centre = _find_subject(picture, recipe, faces)
            with item.open() as picture:
                return _prepare(picture, recipe, centre)
        except Exception as error:  # items and decoders raise anything on damaged files
            return Skipped(item.name, name_cause(error))


def _find_subject(
    picture: Image.Image, recipe: Recipe, faces: FaceFinder | None
) -> tuple[float, float]:
    header = read_header(picture, upright=recipe.exif)
    check_kind(header)
    draft(picture, max(header.size) / SEARCHED_SIDE)
    picture.load()
    upright = simplify(turn_upright(picture, header), header)
    upright.thumbnail((SEARCHED_SIDE, SEARCHED_SIDE), Image.Resampling.BOX)
    return crop_towards_subject(finish(upright, 3)[0], faces, recipe.base)


def prepare_all(
    source: Source,
    indices: Sequence[int],
    recipe: Recipe,
    *,
    faces: FaceFinder | None = None,
    workers: int | None = None,
) -> Iterator[Prepared | Skipped]:
    """Yield ``prepare`` of the source's items at ``indices``, in order, from several processes.

    A picture that brings its process down (a crash in a decoder, out of memory) is skipped as
    well. Close the iterator to end the processes early.
    """
    return ordered_map(
        functools.partial(prepare, recipe=recipe, faces=faces),
        (source[index] for index in indices),
        workers=count_workers(len(indices)) if workers is None else workers,
        chunk=max(1, min(32, _CHUNK_PIXELS // math.prod(recipe.canvas))),
        on_death=_skip_killer,
    )


def _skip_killer(item: Item, cause: str) -> Prepared | Skipped:
    return Skipped(item.name, f"ended the process that decoded it ({cause})")


def decode_pixels(
    picture: Image.Image,
    header: PictureHeader,
    settings: DecodeSettings,
    placement: Placement | None = None,
    filter: Filter = "lanczos",
) -> tuple[Image.Image, str]:
    """Decode a picture that was just opened: the one way from a file to pixels, for every use.

    Returns the region of ``placement`` (of the upright picture) at its size, or the whole picture
    as it is, in 8-bit grey, RGB or RGBA; and a sentence about what was left out, or "". Raises
    DataError for pixels of unknown range and for damage; Pillow's plugins raise anything.
    """
    eighths = 8
    if placement is not None and filter != "box":  # a box filter promises plain means, which
        eighths = draft(picture, placement.scale)  # JPEG's own are not
    picture.load()
    if picture.size != drafted_size(header.size, eighths):
        raise DataError("is damaged: its pixels and its header differ in size")
    picture = turn_upright(picture, header)
    box: tuple[float, float, float, float] | None = None
    if placement is not None:
        left, top, right, bottom = (edge * eighths / 8 for edge in placement.box)
        # Cut first, so that no pixel from outside reaches the result through the filter.
        outer = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
        if outer != (0, 0, *picture.size):
            picture = picture.crop(outer)
        box = left - outer[0], top - outer[1], right - outer[0], bottom - outer[1]
    picture = simplify(picture, header)
    profile = header.profile if settings.icc == "convert" else None
    if settings.channels == 1 and picture.mode == "RGB" and not profile:
        picture = picture.convert("L")
    if placement is not None:
        picture = picture.resize(placement.size, _RESAMPLING[filter], box=box)
    return finish(picture, settings.channels, profile=profile, background=settings.background)


def _prepare(picture: Image.Image, recipe: Recipe, centre: tuple[float, float]) -> Prepared:
    header = read_header(picture, upright=recipe.exif)
    check_kind(header)
    width, height = header.size
    placement = place(
        recipe.transform,
        header.upright_size,
        recipe.canvas,
        target_size(recipe.transform, recipe.canvas, recipe.width, recipe.height),
    )
    placement = replace(placement, box=_moved(placement.box, header.upright_size, centre))
    if placement.scale < 1 and not recipe.enlarge:
        wanted = " x ".join(map(str, placement.size))
        raise DataError(
            f"is too small: {width} x {height} px for {wanted}; pack with a lower --resolution, "
            "or with --enlarge"
        )
    content, note = decode_pixels(picture, header, recipe.decoding, placement, recipe.filter)
    raw = _planes(_on_canvas(content, placement, recipe.canvas))
    shape = (recipe.channels, recipe.canvas[1], recipe.canvas[0])
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


def _moved(box: Box, size: Size, centre: tuple[float, float]) -> Box:
    """Return a central box moved to another centre, as far as the picture goes."""
    if centre == (0.5, 0.5):
        return box
    width, height = box[2] - box[0], box[3] - box[1]
    left = min(max(round(centre[0] * size[0] - width / 2), 0), size[0] - width)
    top = min(max(round(centre[1] * size[1] - height / 2), 0), size[1] - height)
    return left, top, left + width, top + height


def _on_canvas(content: Image.Image, placement: Placement, size: Size) -> Image.Image:
    """Lay the content on a black (with alpha: clear) canvas, unless it fills it."""
    if placement.size == size:
        return content
    canvas = Image.new(content.mode, size)
    canvas.paste(content, placement.offset)
    return canvas


def _planes(picture: Image.Image) -> bytes:
    """Return the pixels as bytes in the order [C, H, W]."""
    return b"".join(plane.tobytes() for plane in picture.split())


def _as_array(raw: bytes, shape: tuple[int, int, int]) -> "npt.NDArray[np.uint8]":
    import numpy as np

    return np.frombuffer(raw, np.uint8).reshape(shape)


# ---- "subject": where the box goes that is cut out, towards faces, else towards what stands out
#
# The box, a square or of another shape, is as large as one side, so it only moves along the other.
# With faces it holds all of them, or the largest where they are too far apart. Without, it goes
# where edges and colours unlike the picture's rim are, and stays in the middle where nothing is.

SEARCHED_SIDE = 640  # px of the longer side: a detector finds a face of an eighth of that
_LOOKED_AT = 96  # px of the longer side, for what stands out
_EDGES = 2.0  # weight of edges beside colours
_CENTRE = 0.25  # how much of what stands out in the middle a place at the end must have more
_ALIKE = 1.05  # pictures whose shape is closer to the box's than this have no room to move


def crop_towards_subject(
    picture: Image.Image, faces: FaceFinder | None = None, base: Grid = SQUARE
) -> tuple[float, float]:
    """Return the centre (x, y) of the box, each a share from 0 to 1 of the picture's side.

    ``picture`` is upright RGB of any size; ``faces`` finds faces in such a picture; ``base`` is the
    height and width whose shape the box has.
    """
    common = math.gcd(*base)
    sides = picture.width * (base[0] // common), picture.height * (base[1] // common)
    if max(sides) <= _ALIKE * min(sides):
        return 0.5, 0.5
    found = list(faces(picture)) if faces is not None else []
    ends = 0 if sides[0] > sides[1] else 1  # the axis to move along
    length = picture.size[ends]
    spans = [(face[ends] / length, face[ends + 2] / length, _area(face)) for face in found]
    window = min(sides) / max(sides)
    place = _of_faces(spans, window) if spans else _of_contrast(picture, window, ends)
    place = min(max(place, window / 2), 1 - window / 2)
    return (place, 0.5) if ends == 0 else (0.5, place)


def _area(face: Face) -> float:
    return (face[2] - face[0]) * (face[3] - face[1])


def _of_faces(spans: Sequence[tuple[float, float, float]], window: float) -> float:
    """Return the middle of all faces (start, end, area) if they fit, else of the largest."""
    start, end = min(span[0] for span in spans), max(span[1] for span in spans)
    if end - start > window:
        start, end, _ = max(spans, key=lambda span: span[2])
    return (start + end) / 2


def _of_contrast(picture: Image.Image, window: float, ends: int) -> float:
    """Return the middle of the window that holds most of what stands out, along an axis."""
    import numpy as np

    scale = _LOOKED_AT / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    levels = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float64)
    if ends == 1:
        levels = levels.transpose(1, 0, 2)
    profile = _standing_out(levels)  # [L] along the axis
    length = max(1, min(len(profile), round(window * len(profile))))
    sums = np.convolve(profile, np.ones(length), "valid")
    if sums.max() <= 0:
        return 0.5
    places = (np.arange(len(sums)) + length / 2) / len(profile)
    away = np.abs(places - 0.5) / max(0.5 - window / 2, 1e-6)
    best = int(np.argmax(sums / sums.max() - _CENTRE * away))
    return float(places[best])


def _standing_out(levels: "npt.NDArray[np.float64]") -> "Profile":
    """Return how much each column of [H, W, 3] stands out: colour unlike the rim, and edges."""
    import numpy as np

    rim: Any = np.concatenate([levels[0], levels[-1]])
    colour = np.linalg.norm(levels - np.median(rim, axis=0), axis=2)
    grey = levels.mean(axis=2)
    edges = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    edges += np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    total: Profile = (colour + _EDGES * edges).sum(axis=0)
    total -= total.min()
    return total
