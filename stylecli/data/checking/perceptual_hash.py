"""What a picture looks like in 64 bits, learned from the set it belongs to.

Pictures of one set are alike: all faces, all centred. Plain low-frequency hashes then agree for
most of them (measured on Fashion-MNIST: 16 million pairs within 6 of 64 bits). So the hash is
fitted: the low DCT-II coefficients of the grey 32 x 32 px thumbnail, scaled to equal contrast, are
reduced to the directions in which the set varies (PCA), evened out, rotated at random, and every
bit is cut at the set's median. Brightness and contrast do not enter; compression flips a few bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.pyramid import box_mean

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


def shrink(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bring square pictures uint8 [B, C, R, R], R a power of two, to [B, 1 or 3, 32, 32].

    Larger pictures are averaged, smaller ones repeated; transparency is dropped.
    """
    pixels = pixels[:, :3] if pixels.shape[1] == 4 else pixels
    side = pixels.shape[-1]
    if side >= THUMBNAIL_SIDE:
        return box_mean(pixels, (side // THUMBNAIL_SIDE).bit_length() - 1)
    times = THUMBNAIL_SIDE // side
    return pixels.repeat(times, axis=-1).repeat(times, axis=-2)


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
