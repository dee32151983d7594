"""Sliced Wasserstein distance: how far patches of fakes are from patches of reals, size by size.

Karras et al. 2017 (Progressive GAN), section 5. It looks at pixels, not through a network: what
training on features could please by itself does not please it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stylecli.features.extractors import PYRAMID, Extractor
from stylecli.features.resizing import COARSEST, level_sizes
from stylecli.metrics import NAMES_OF
from stylecli.metrics.collecting import Accumulator, Rows
from stylecli.metrics.tasks import PictureMetric, PictureTask, Score, Subject
from stylecli.statistics.arrays import Float64, check_features, check_same_width

PATCHES, SIDE = 128, 7  # of every level of a picture; px
DIRECTIONS = 512  # the published program's four times 128
PUBLISHED_PICTURES = 16_384
SCALE = 1000.0  # as the paper's tables have it
_PLACES_STREAM, _DIRECTIONS_STREAM = 1 << 33, (1 << 33) - 1  # of Philox
_AT_ONCE = 1 << 24  # projected values in memory, of either side


def sliced_wasserstein(real: Any, fake: Any, directions: Any) -> float:
    """Return the mean distance of two sets of rows [N, d], [M, d], seen along directions [k, d].

    Along a direction of unit length the sets are N and M numbers, whose Wasserstein distance (W1)
    is the mean difference of both in ascending order; where N and M differ, of their quantiles.
    Raises UsageError for wrong shapes or values that are not finite. Rabin et al. 2011.
    """
    real, fake, directions = np.asarray(real), np.asarray(fake), np.asarray(directions)
    for name, values in (("real", real), ("fake", fake), ("directions", directions)):
        check_features(name, values)
    check_same_width("real", real, "fake", fake)
    check_same_width("real", real, "directions", directions)
    step = max(1, _AT_ONCE // max(len(real), len(fake)))
    total = 0.0
    for start in range(0, len(directions), step):
        some = directions[start : start + step]
        total += float(_distances(_along(real, some), _along(fake, some)).sum())
    return total / len(directions)


def _along(rows: NDArray[Any], directions: NDArray[Any]) -> NDArray[Any]:
    """Return rows [N, d] along directions [k, d], ascending: [k, N]."""
    projected: NDArray[Any] = np.ascontiguousarray(directions @ rows.T)
    projected.sort(axis=1)
    return projected


def _distances(a: NDArray[Any], b: NDArray[Any]) -> Float64:
    """Return the W1 of every row of two arrays of ascending values [k, N], [k, M]."""
    n, m = a.shape[1], b.shape[1]
    if n == m:
        same: Float64 = np.abs(a - b).mean(axis=1, dtype=np.float64)
        return same
    # Quantiles change at 1/N, 2/N, ... and at 1/M, 2/M, ...: in between both are constant.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # of n * m
    widths = np.diff(ends, prepend=0) / (n * m)
    between = np.abs(a[:, (ends - 1) // m] - b[:, (ends - 1) // n])
    found: Float64 = (between * widths).sum(axis=1, dtype=np.float64)
    return found


class Patches(Rows):
    """Patches of every level of ``count`` pictures, [count, levels * PATCHES * C * SIDE²].

    The places are random, and those of picture i depend on i alone: not on the batch, not on the
    rank that read it, and both sides have the same ones.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.key = f"{PATCHES} patches of {SIDE} px"

    def _take(self, features: NDArray[Any]) -> None:
        rows = [
            np.concatenate([features[i, :2], *_patches(features[i], self.seen + i)])
            for i in range(len(features))
        ]
        super()._take(np.stack(rows))


def _patches(pyramid: NDArray[Any], number: int) -> Iterator[NDArray[Any]]:
    """Yield the patches of a picture, level by level, as one row of values each."""
    random = np.random.Generator(np.random.Philox(key=[_PLACES_STREAM, number]))
    start = 2  # height and width of the picture stand before its levels
    for height, width in level_sizes(int(pyramid[0]), int(pyramid[1])):
        level = pyramid[start : start + 3 * height * width].reshape(3, height, width)
        start += level.size
        y, x = (random.integers(size - SIDE + 1, size=PATCHES) for size in (height, width))
        found = sliding_window_view(level, (SIDE, SIDE), axis=(1, 2))[:, y, x]
        yield found.transpose(1, 0, 2, 3).reshape(-1)  # [PATCHES, 3, SIDE, SIDE]


def normalised(patches: NDArray[Any]) -> NDArray[np.float32]:
    """Return patches [N, C, s, s] as rows [N, C * s²], each colour with mean 0 and deviation 1."""
    mean = patches.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    found: NDArray[np.float32] = patches - mean.astype(np.float32)
    squares = np.einsum("ncij,ncij->c", found, found, dtype=np.float64)
    deviation = np.sqrt(squares / (patches.size / patches.shape[1]))
    deviation[deviation == 0.0] = 1.0  # a set of one grey
    found /= deviation.astype(np.float32)[:, None, None]
    return found.reshape(len(patches), -1)


def random_directions(seed: int, width: int = 3 * SIDE**2) -> NDArray[np.float32]:
    """Return DIRECTIONS unit vectors [DIRECTIONS, width], evenly over the sphere."""
    random = np.random.Generator(np.random.Philox(key=[seed, _DIRECTIONS_STREAM]))
    found = random.standard_normal((DIRECTIONS, width))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


class SlicedWasserstein(PictureMetric):
    """The distance at every level of the pyramid, times 1000; its mean is the result."""

    kind = "swd"
    names = NAMES_OF["swd"]
    network = PYRAMID
    cpu_samples, gpu_samples = 1000, PUBLISHED_PICTURES
    most_pictures = PUBLISHED_PICTURES

    def plan(self, name: str, asked: int | None, subject: Subject) -> list[PictureTask]:
        """Return the task; skipped for pictures of several sizes, or of one that has no level."""
        (task,) = super().plan(name, asked, subject)
        if why := _unfit(subject):
            task = self._task(name, PYRAMID, asked, subject, None, why)
        return [task]

    def accumulator(self, task: PictureTask, count: int, extractor: Extractor) -> Accumulator:
        """Return what keeps the patches."""
        return Patches(count)

    def score(
        self, task: PictureTask, reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the mean over levels, and the distance of each in the definition."""
        height, width = (int(side) for side in fakes[0, :2])
        directions, found = random_directions(seed), {}
        for place, size in enumerate(level_sizes(height, width)):
            real, fake = (normalised(_level(rows, place)) for rows in (reals, fakes))
            found[f"{size[0]} x {size[1]} px"] = SCALE * sliced_wasserstein(real, fake, directions)
        facts = {"levels": found, "patches": PATCHES, "directions": DIRECTIONS,
                 "rows": len(fakes), "rows_of_reals": len(reals)}  # fmt: skip
        return [(float(np.mean(list(found.values()))), None)], facts

    def meaning(self, name: str, value: float) -> str:
        """Return what 0 is."""
        return "×1000; distance of patches from the dataset's, 0 is best"


def _level(rows: NDArray[Any], place: int) -> NDArray[Any]:
    """Return the patches of a level of all pictures, [N * PATCHES, 3, SIDE, SIDE]."""
    size = PATCHES * 3 * SIDE**2
    return rows[:, 2 + place * size : 2 + (place + 1) * size].reshape(-1, 3, SIDE, SIDE)


def _unfit(subject: Subject) -> str | None:
    sizes: Sequence[str] = list(dict.fromkeys(subject.sizes))
    if len(sizes) > 1 or any(" to " in size for size in sizes):
        return (
            f"it compares pictures of one size, and these have {' and '.join(sizes)}: "
            "pack both at one size"
        )
    if subject.config is not None and min(subject.config.size) < COARSEST:
        height, width = subject.config.size
        return f"it needs pictures of {COARSEST} px or more, and these have {width} x {height} px"
    return None


SWD = SlicedWasserstein()
"""The distance of patches of a Laplacian pyramid."""
