"""Find pictures that are nearly the same: re-encoded, brightened, shifted by a pixel.

First pictures whose hashes share one of several bands of bits are candidates, then the hashes, then
the thumbnails are compared: what is left of the difference after the best gain, offset and small
shift. The worst of 36 blocks decides, so that an open and a closed mouth are different pictures.

The hash is learned from the set. Pictures of one set are alike: all faces, all centred. Plain
low-frequency hashes then agree for most of them (measured on Fashion-MNIST: 16 million pairs within
6 of 64 bits). So the hash is fitted: the low DCT-II coefficients of the grey 32 x 32 px thumbnail,
scaled to equal contrast, are reduced to the directions in which the set varies (PCA), evened out,
rotated at random, and every bit is cut at the set's median. Brightness and contrast do not enter;
compression flips a few bits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.format import box_mean
from stylecli.progress import Progress, silent

THUMBNAIL_SIDE = 32  # px
BITS = 64
_BASIS = 12  # DCT rows
_FREQUENCIES = 63
_DIRECTIONS = 32  # more take in noise, fewer tell too little apart
# A direction whose variance is less is compression noise (thumbnails have contrast 1 and 1,024
# pixels, so a noise of a tenth of the contrast has a variance of 0.01 in every coefficient).
_NOISE = 0.1
_SOFT = 4.0  # grey levels added to the contrast, so that flat pictures do not become noise
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's grey

Grey = npt.NDArray[np.float32]

Indices = npt.NDArray[np.int64]
Thumbnails = npt.NDArray[np.uint8]  # [B, 32, 32], or [B, C, 32, 32]

FITTED_ON = 2000  # thumbnails, spread over the set
# A shift by half a thumbnail's pixel costs up to 6 of 64 bits, compression and brightness up to 3.
MAX_DISTANCE, MAX_DISTANCE_LARGE = 6, 4
LARGE_SET = 20_000  # pictures; in more, chance agreements are many, so the limits are narrower
# A hash agrees after a shift by a pixel only at sizes near 32 px: so each picture is also looked
# up as it would look one pixel on. The other directions come from the other picture's turn.
SHIFTS = ((0, 0), (0, 1), (1, 0))  # down, right
MAX_PER_LOOKUP = 256  # in one band; a set of equal frames would otherwise be compared all with all
# Before a shift is taken out, at 16 x 16 px: quick, and leaves few. A pixel's shift costs 0.06
# and 13 grey levels, root mean square, in the drawings of the tests.
MIN_CORRELATION, MAX_QUICK = 0.93, 14.0
# Measured on Fashion-MNIST and drawn faces at 32 px: up to 4 the pairs are the same article or
# face, at 8 faces with other eyebrows and other shirts of one cut come in. 6 because of copies
# shifted by half a thumbnail's pixel: 91 % of the tests' drawings stay below it, 76 % below 5.
WORST_BLOCK = 6.0  # grey levels, root mean square
RELATIVE = 0.12  # of the picture's own contrast, root mean square
_BLOCK = 5  # px: 6 x 6 blocks cover the 30 x 30 px that have neighbours on all sides
_LEAST = np.array([0.7, -1.5, -1.5], np.float32)  # gain, shift down, shift right
_MOST = np.array([1.4, 1.5, 1.5], np.float32)
_CHUNK = 4096


def shrink(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bring pictures uint8 [B, C, H, W] to [B, 1 or 3, 32, 32]; transparency is dropped.

    Squares of a power of two are averaged, or smaller ones repeated; others are stretched to one.
    """
    pixels = pixels[:, :3] if pixels.shape[1] == 4 else pixels
    side = pixels.shape[-1]
    if pixels.shape[-2] != side or side & (side - 1):
        rows, columns = (_areas(length) for length in pixels.shape[-2:])
        means: Grey = rows @ pixels.astype(np.float32) @ columns.T
        return np.rint(means).astype(np.uint8)
    if side >= THUMBNAIL_SIDE:
        return box_mean(pixels, (side // THUMBNAIL_SIDE).bit_length() - 1)
    times = THUMBNAIL_SIDE // side
    return pixels.repeat(times, axis=-1).repeat(times, axis=-2)


def _areas(length: int) -> npt.NDArray[np.float32]:
    """Return how much of each of ``length`` pixels lies in each of 32 that cover the same."""
    edges = np.linspace(0, length, THUMBNAIL_SIDE + 1)[:, None]
    first = np.arange(length)
    inside = np.minimum(edges[1:], first + 1) - np.maximum(edges[:-1], first)
    return (inside.clip(0) * (THUMBNAIL_SIDE / length)).astype(np.float32)


def to_grey(pictures: npt.NDArray[Any]) -> Grey:
    """Return the grey levels, float32 [B, H, W], of pictures [B, 1, 3 or 4, H, W]."""
    if pictures.shape[1] == 1:
        return pictures[:, 0].astype(np.float32)
    grey: Grey = np.tensordot(_LUMA, pictures[:, :3].astype(np.float32), axes=(0, 1))
    return grey


@dataclass(frozen=True)
class PerceptualHash:
    """A fitted hash: call it on grey thumbnails [B, 32, 32] for uint64 [B]."""

    directions: npt.NDArray[np.float32]  # [63, 64]
    thresholds: npt.NDArray[np.float32]  # [64]

    def __call__(self, grey: Grey) -> npt.NDArray[np.uint64]:
        bits = _spectrum(grey) @ self.directions > self.thresholds
        hashes: npt.NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0]
        return hashes.astype(np.uint64)


def fit_hash(sample: Grey) -> PerceptualHash:
    """Fit a hash to a sample of a set's grey thumbnails [B, 32, 32]; some hundred are enough.

    A set that hardly varies (frames of one film) gets a hash that is nearly the same for all:
    then its pictures are all candidates, and are compared by their pixels.
    """
    spectrum = _spectrum(sample)
    centred = spectrum - spectrum.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / max(1, len(sample) - 1))
    order = np.argsort(variances)[::-1][:_DIRECTIONS]
    order = order[variances[order] > _NOISE]
    scales = 1 / np.sqrt(variances[order] + np.median(variances[order])) if len(order) else []
    turned = np.random.default_rng(0).standard_normal((len(order), BITS))
    directions = (vectors[:, order] * scales @ turned).astype(np.float32)
    thresholds = np.median(spectrum @ directions, axis=0).astype(np.float32)
    return PerceptualHash(directions, thresholds)


def _spectrum(grey: Grey) -> npt.NDArray[np.float32]:
    """Return the 63 lowest DCT coefficients but the constant one, at contrast 1: [B, 63]."""
    centred = grey - grey.mean(axis=(1, 2), keepdims=True)
    contrast = np.sqrt((centred * centred).mean(axis=(1, 2))) + _SOFT
    coefficients = (_ROWS @ centred @ _ROWS.T).reshape(len(grey), -1)[:, _ORDER]
    scaled: npt.NDArray[np.float32] = coefficients / contrast[:, None]
    return scaled


def _dct_rows() -> npt.NDArray[np.float32]:
    """Return the first rows of the orthonormal DCT-II matrix, [12, 32]."""
    positions = (2 * np.arange(THUMBNAIL_SIDE) + 1) / (2 * THUMBNAIL_SIDE)
    rows = np.cos(np.pi * np.arange(_BASIS)[:, None] * positions) * np.sqrt(2 / THUMBNAIL_SIDE)
    rows[0] /= np.sqrt(2)
    exact: npt.NDArray[np.float32] = rows.astype(np.float32)
    return exact


_ROWS = _dct_rows()
_ORDER = np.argsort(
    np.add.outer(np.arange(_BASIS) ** 2, np.arange(_BASIS) ** 2).ravel(), kind="stable"
)[1 : _FREQUENCIES + 1]


def find_near_duplicates(
    thumbnails: Thumbnails,
    indices: Indices,
    fetch: Callable[[Sequence[int]], Thumbnails],
    progress: Progress = silent,
) -> list[tuple[int, int]]:
    """Return pairs (i, j), i < j, of nearly equal pictures among ``indices``.

    ``thumbnails`` are grey [N, 32, 32] and may lie in a file; ``fetch`` returns the pictures'
    thumbnails in colour [B, C, 32, 32], and is asked only for pairs that are equal in grey.
    """
    if len(indices) < 2:
        return []
    step = max(1, len(indices) // FITTED_ON)
    hashing = fit_hash(thumbnails[indices[::step]].astype(np.float32))
    hashes = _hash_all(hashing, thumbnails, indices)
    chunks = -(-len(indices) // _CHUNK)
    total = chunks * len(SHIFTS) * (BITS // _band_bits(len(indices)))
    found: list[Indices] = []
    for done, (left, right, shift) in enumerate(_candidates(hashes), 1):
        for start in range(0, len(left), _CHUNK):
            part = slice(start, start + _CHUNK)
            i, j = indices[left[part]], indices[right[part]]
            moved = move(thumbnails[i].astype(np.float32), shift)
            equal = _alike(moved, thumbnails[j].astype(np.float32))
            found.append(np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1)[equal])
        progress(done, total)
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)
    return list(_alike_in_colour(pairs, fetch))


def group_pairs(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Join pairs to groups, each sorted, the largest first."""
    leader: dict[int, int] = {}

    def find(index: int) -> int:
        while (above := leader.setdefault(index, index)) != index:
            leader[index] = leader[above] if above in leader else above
            index = above
        return index

    for left, right in pairs:
        leader[find(right)] = find(left)
    groups: dict[int, list[int]] = {}
    for index in sorted(leader):
        groups.setdefault(find(index), []).append(index)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def move(pictures: Grey, shift: tuple[int, int]) -> Grey:
    """Shift pictures [..., 32, 32] down and right by whole pixels, repeating their edges."""
    if shift == (0, 0):
        return pictures
    places = np.arange(THUMBNAIL_SIDE)
    rows, columns = (np.clip(places - by, 0, THUMBNAIL_SIDE - 1) for by in shift)
    moved: Grey = pictures[..., rows[:, None], columns]
    return moved


def _hash_all(
    hashing: PerceptualHash, thumbnails: Thumbnails, indices: Indices
) -> npt.NDArray[np.uint64]:
    """Return the hashes of all pictures under each shift, [shifts, N]."""
    hashes = np.empty((len(SHIFTS), len(indices)), np.uint64)
    for start in range(0, len(indices), _CHUNK):
        part = thumbnails[indices[start : start + _CHUNK]].astype(np.float32)
        for row, shift in enumerate(SHIFTS):
            hashes[row, start : start + _CHUNK] = hashing(move(part, shift))
    return hashes


def _candidates(
    hashes: npt.NDArray[np.uint64],
) -> Iterator[tuple[Indices, Indices, tuple[int, int]]]:
    """Yield (left, right, shift): places whose hashes agree once left is shifted.

    Bands of 10 bits find all pairs within 5 bits; those of 16, for large sets, all within 3 and
    nine in ten of those at 4.
    """
    width = _band_bits(hashes.shape[1])
    limit = MAX_DISTANCE_LARGE if hashes.shape[1] > LARGE_SET else MAX_DISTANCE
    plain = hashes[0]
    count = len(plain)
    rank = np.empty(count, np.int64)
    for band in range(BITS // width):
        offset, mask = np.uint64(width * band), np.uint64((1 << width) - 1)
        keys = (plain >> offset) & mask
        order = np.argsort(keys, kind="stable")
        rank[order] = np.arange(count)
        ordered = keys[order]
        for row, shift in enumerate(SHIFTS):
            wanted = (hashes[row] >> offset) & mask
            low = np.searchsorted(ordered, wanted, "left")
            high = np.searchsorted(ordered, wanted, "right")
            if row == 0:
                low = rank + 1  # each pair once
            high = np.minimum(high, low + MAX_PER_LOOKUP)
            for start in range(0, count, _CHUNK):
                some = slice(start, start + _CHUNK)
                sizes = np.maximum(high[some] - low[some], 0)
                left = np.repeat(np.arange(start, start + len(sizes)), sizes)
                within = np.arange(len(left)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
                right = order[np.repeat(low[some], sizes) + within]
                near = np.bitwise_count(hashes[row][left] ^ plain[right]) <= limit
                near &= left != right
                yield left[near], right[near], shift


def _band_bits(count: int) -> int:
    return 16 if count > LARGE_SET else 10


def _alike(a: Grey, b: Grey) -> npt.NDArray[np.bool_]:
    """Tell which pairs of thumbnails [B, 32, 32] or [B, C, 32, 32] show the same: bool [B]."""
    alike = _roughly_alike(a, b)
    rows = np.flatnonzero(alike)
    for start in range(0, len(rows), 1024):
        some = rows[start : start + 1024]
        worst, whole, contrast = residual(a[some], b[some])
        alike[some] = (worst <= WORST_BLOCK) & (whole <= RELATIVE * contrast)
    return alike


def _roughly_alike(a: Grey, b: Grey) -> npt.NDArray[np.bool_]:
    a, b = (_halve(x).reshape(len(x), -1) for x in (a, b))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    power = (a * a).sum(axis=1)
    correlation = (a * b).sum(axis=1) / (np.sqrt(power * (b * b).sum(axis=1)) + 1e-6)
    left = np.sqrt(np.maximum(0, 1 - correlation**2) * power / a.shape[1])
    roughly: npt.NDArray[np.bool_] = (correlation >= MIN_CORRELATION) & (left <= MAX_QUICK)
    return roughly


def _halve(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x = x[..., ::2, :] + x[..., 1::2, :]
    halved: npt.NDArray[Any] = (x[..., ::2] + x[..., 1::2]) / 4
    return halved


def residual(a: Grey, b: Grey) -> tuple[npt.NDArray[Any], ...]:
    """Return (worst block, whole picture, contrast of a), each RMS in grey levels, [B].

    What is left of a - b after the best a ~ gain · b + offset + dy · ∂b/∂y + dx · ∂b/∂x, by least
    squares over all channels: a shift to first order, as in Lucas and Kanade 1981. Gain is kept
    within 0.7 to 1.4 and the shift within 1.5 px.
    """
    a, b = (_soften(x.reshape(len(x), -1, *x.shape[-2:])) for x in (a, b))
    dy = (b[..., 2:, 1:-1] - b[..., :-2, 1:-1]) / 2
    dx = (b[..., 1:-1, 2:] - b[..., 1:-1, :-2]) / 2
    a, b = a[..., 1:-1, 1:-1], b[..., 1:-1, 1:-1]
    shape = a.shape
    columns = [(x - x.mean(axis=(1, 2, 3), keepdims=True)).reshape(len(x), -1) for x in (b, dy, dx)]
    terms = np.stack(columns, axis=1)  # [B, 3, pixels]; the offset is taken out beforehand
    wanted = a.reshape(len(a), -1)
    wanted = wanted - wanted.mean(axis=1, keepdims=True)
    normal = terms @ terms.transpose(0, 2, 1) + np.eye(3, dtype=np.float32)
    right = terms @ wanted[:, :, None]
    best = np.clip(np.linalg.solve(normal, right)[:, :, 0], _LEAST, _MOST)
    left = wanted - (best[:, None] @ terms)[:, 0]
    squares = (left * left).reshape(shape).mean(axis=1)  # [B, 30, 30], over the channels
    blocks = squares.reshape(len(a), shape[2] // _BLOCK, _BLOCK, -1, _BLOCK).mean(axis=(2, 4))
    return np.sqrt(blocks.max(axis=(1, 2))), np.sqrt(squares.mean(axis=(1, 2))), wanted.std(axis=1)


def _soften(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Blur by (1 2 1) / 4 both ways, so that slopes say how a shift changes the picture."""
    x = np.concatenate([x[..., :1, :], x, x[..., -1:, :]], axis=-2)
    x = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
    x = np.concatenate([x[..., :1], x, x[..., -1:]], axis=-1)
    softened: npt.NDArray[Any] = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return softened


def _alike_in_colour(
    pairs: Indices, fetch: Callable[[Sequence[int]], Thumbnails]
) -> Iterator[tuple[int, int]]:
    for start in range(0, len(pairs), 512):
        some = pairs[start : start + 512]
        needed = np.unique(some)
        pictures = fetch(needed.tolist()).astype(np.float32)
        left, right = (pictures[np.searchsorted(needed, some[:, side])] for side in (0, 1))
        alike = np.zeros(len(some), bool)
        for shift in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
            alike |= _alike(move(left, shift), right)
        yield from ((int(i), int(j)) for i, j in some[alike])
