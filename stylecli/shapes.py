"""Pictures of any shape: a grid of a few pixels, doubled. Only this file relates height to width.

A network's first layer has ``Grid`` pixels, 4×4 for square pictures, and every level doubles them.
A level is named by the side of the square picture with as many doublings: 4, 8, 16, ... That name
counts feature maps, orders stages and bears the layers; ``Grid.at`` has its height and width.

    Grid(3, 4) for --shape 4:3      level 4: 3×4 px, level 8: 6×8, ... level 256: 192×256
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from stylecli.errors import UsageError

UNIT = 4  # px: the first level of square pictures, after which levels are counted
LEAST, MOST = 3, 16  # px on a side of a grid


class Size(NamedTuple):
    """Pixels of a picture or of features."""

    height: int
    width: int

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.height * self.width

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height == self.width

    def __str__(self) -> str:
        """Return the size as people write it: ``256`` of a square, else width first: 256x192."""
        return str(self.width) if self.is_square else f"{self.width}x{self.height}"


class Grid(NamedTuple):
    """Pixels of a network's first layer."""

    height: int = UNIT
    width: int = UNIT

    def __str__(self) -> str:
        """Return width and height, as sizes are written: 4x3."""
        return f"{self.width}x{self.height}"

    @property
    def is_usual(self) -> bool:
        """Whether it is the 4×4 of every published network."""
        return self == SQUARE

    def at(self, level: int) -> Size:
        """Return the pixels of a level, 4, 8, 16, ...; of 4, the grid's own."""
        return Size(level * self.height // UNIT, level * self.width // UNIT)

    def facts(self, level: int) -> dict[str, Any]:
        """Return what descriptions tell of a level: its name, and the size that is not a square."""
        size = self.at(level)
        return {"resolution": level, **({} if size.is_square else {"size": f"{size} px"})}

    def square_level(self, level: int) -> int:
        """Return the level of the square network whose pictures have most nearly as many pixels."""
        times = math.log2(self.height * self.width / UNIT**2) / 2
        return level << round(times) if times > 0 else level >> -round(times)

    def level_with(self, resolution: int, most: int) -> int:
        """Return the level whose shorter side is ``resolution`` px; UsageError if none up to most.

        For 4×4 that is the resolution itself.
        """
        shorter = min(self)
        factor, over = divmod(resolution, shorter)
        level = UNIT * factor
        if over or factor < 1 or factor & (factor - 1) or level > most:
            sides = [shorter << n for n in range((most // UNIT).bit_length())]
            near = min(sides, key=lambda side: abs(side - resolution))
            raise UsageError(
                f"resolution {resolution} is not {shorter} doubled: the shorter side of shape "
                f"{self.ratio} is one of {', '.join(map(str, sides))} px, such as "
                f"--resolution {near}"
            )
        return level

    @property
    def ratio(self) -> str:
        """Width to height in the least numbers, as --shape takes it."""
        least = Fraction(self.width, self.height)
        return f"{least.numerator}:{least.denominator}"

    def kept(self, height: int, width: int) -> float:
        """Return the share of a picture's pixels that the largest crop of this shape keeps."""
        wide = width * self.height / (height * self.width)
        return min(wide, 1 / wide)


SQUARE = Grid(UNIT, UNIT)


def checked_grid(base: object) -> Grid:
    """Return a grid from (height, width), as files and callers give it.

    Raises UsageError unless both are whole numbers from 3 to 16.
    """
    sides = tuple(base) if isinstance(base, list | tuple) else ()
    if len(sides) != 2 or any(type(side) is not int or not LEAST <= side <= MOST for side in sides):
        raise UsageError(
            f"base {str(base)[:40]} is not a height and a width of {LEAST} to {MOST} whole pixels"
        )
    return Grid(*sides)


def parse_shape(text: str) -> Grid:
    """Return the grid of a shape ``width:height``, such as ``4:3``.

    The least numbers, doubled until the shorter is 3 or more: 4:3 is 3×4, 3:2 is 4×6, 1:1 is 4×4.
    Raises UsageError for other text, and for shapes with more than 16 px on a side.
    """
    width, colon, height = text.replace("x", ":").partition(":")
    if not colon or not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise UsageError(f"cannot read shape {text!r}: expected width:height, such as 4:3")
    across, along = int(width), int(height)
    if not across or not along:
        raise UsageError(f"shape {text!r} has no pixels: expected width:height, such as 4:3")
    grid = _smallest(across, along)
    if grid is None:
        near = fitting_grid({(along, across): 1})
        raise UsageError(
            f"shape {text} needs a first layer of more than {MOST} px on a side: use {near.ratio}, "
            "which is near"
        )
    return grid


def fitting_grid(sizes: Mapping[tuple[int, int], int]) -> Grid:
    """Return the grid that keeps most of pictures when all are cropped to it.

    ``sizes`` are (height, width) and how many pictures have them. It is the square one if that
    keeps nearly as much as the best, within two per cent; else the simplest that does.
    """
    grids = {
        grid
        for width in range(1, MOST + 1)
        for height in range(1, MOST + 1)
        if (grid := _smallest(width, height)) is not None
    }
    kept = {grid: share_kept(grid, sizes) for grid in grids}
    enough = 0.98 * max(kept.values())
    close = [grid for grid in grids if kept[grid] >= enough]
    return min(
        close, key=lambda grid: (not grid.is_usual, grid.height * grid.width, -kept[grid], grid)
    )


def propose_shape(sizes: Mapping[tuple[int, int], int]) -> str:
    """Say which shape keeps more of pictures than a square; "" where none keeps much more.

    ``sizes`` are (height, width) and how many pictures have them.
    """
    grid = fitting_grid(sizes)
    if grid.is_usual:
        return ""
    kept, square = (share_kept(each, sizes) for each in (grid, SQUARE))
    return f"--shape {grid.ratio} keeps {kept:.0%} of the pixels, a square {square:.0%}"


def share_kept(grid: Grid, sizes: Mapping[tuple[int, int], int]) -> float:
    """Return the share of its pixels that a picture keeps, as a mean over ``sizes``."""
    kept = sum(grid.kept(*size) * count for size, count in sizes.items())
    return kept / max(1, sum(sizes.values()))


def _smallest(width: int, height: int) -> Grid | None:
    divisor = math.gcd(width, height)
    width, height = width // divisor, height // divisor
    while min(width, height) < LEAST:
        width, height = 2 * width, 2 * height
    return Grid(height, width) if max(width, height) <= MOST else None
