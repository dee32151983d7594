"""Which part of a picture goes where on the square: every transform as plain arithmetic.

A transform turns a picture's size into a ``Placement``: the region that is taken, the size it gets,
and where on the black canvas it lies. Pixels are moved in ``preparation.py``. The names are those
people know; NVIDIA's own are accepted too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from stylecli.data.layout import MIN_RESOLUTION
from stylecli.errors import DataError, UsageError

Filter = Literal["lanczos", "box", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)
Transform = Literal["center-crop", "wide", "tall", "letterbox", "pad", "stretch", "celeba"]
TRANSFORMS: tuple[Transform, ...] = get_args(Transform)
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
        raise UsageError(f"transform {name!r} is not one of {', '.join(known)}")
    return known[name]


def target_size(
    transform: Transform, resolution: int, width: int | None = None, height: int | None = None
) -> Size:
    """Return the (width, height) that pictures have on the square of ``resolution`` px.

    ``wide`` takes width = resolution and, unless told, height = 3/4 of it; ``tall`` the reverse;
    all others fill the square. Raises UsageError for sizes that do not fit.
    """
    if transform == "wide":
        size = width or resolution, height or resolution * 3 // 4
        fits = size[0] == resolution and 0 < size[1] <= resolution
    elif transform == "tall":
        size = width or resolution * 3 // 4, height or resolution
        fits = size[1] == resolution and 0 < size[0] <= resolution
    else:
        size = width or resolution, height or resolution
        fits = size == (resolution, resolution)
    if not fits:
        raise UsageError(
            f"{size[0]} x {size[1]} px do not fit transform {transform!r} at resolution "
            f"{resolution}: only 'wide' takes another height, only 'tall' another width"
        )
    return size


def place(transform: Transform, picture: Size, resolution: int, target: Size) -> Placement:
    """Return where a picture of (width, height) goes on the square of ``resolution`` px.

    ``target`` is what ``target_size`` returned. Raises DataError when the transform has no place
    for a picture of this size.
    """
    width, height = picture
    whole = (0, 0, width, height)
    if transform == "letterbox":
        longest = max(width, height)
        target = (
            max(1, round(width * resolution / longest)),
            max(1, round(height * resolution / longest)),
        )
        box = whole
    elif transform == "pad":
        if max(width, height) > resolution:
            raise DataError(
                f"is {width} x {height} px, larger than {resolution}: pack it with a larger "
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
    offset = (resolution - target[0]) // 2, (resolution - target[1]) // 2
    return Placement(box, target, offset)


def most_of(count: int) -> float:
    """Return how many pictures of a set decide about its size: 95 %, or all but one of a few."""
    return min(_SHARE * count, max(count - 1, 1))


def choose_resolution(sizes: Sequence[Size], transform: Transform, limit: int) -> int:
    """Return the resolution for pictures of these sizes when none was asked for.

    The largest power of two, at most ``limit``, that enough pictures (``most_of``) reach without
    being enlarged; with ``pad``, the smallest that as many fit into. The rest is skipped or
    enlarged, as the recipe says. Without any size, the smallest there is.
    """
    counts = Counter(sizes)  # most sets have few
    powers = [1 << k for k in range(MIN_RESOLUTION.bit_length() - 1, limit.bit_length())]
    needed = most_of(len(sizes))
    if transform == "pad":
        fitting = [
            r for r in powers if sum(n for size, n in counts.items() if max(size) <= r) >= needed
        ]
        return fitting[0] if fitting else limit
    if transform == "celeba":
        return CELEBA_BOX[2] - CELEBA_BOX[0]
    reached = [MIN_RESOLUTION]
    for r in powers:
        target = target_size(transform, r)
        scales = {size: place(transform, size, r, target).scale for size in counts}
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
