"""Continue a picture beyond its edges: mirrored, ever more blurred, fading to its median colour."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
BLOCK = 256  # rows that one matrix product blurs; near twice the usual radius is quickest


def extend(pixels: Pixels, pads: tuple[int, int, int, int], *, sigma: float) -> Pixels:
    """Return uint8 [H + top + bottom, W + left + right, C] around ``pixels`` [H, W, C].

    ``pads`` are left, top, right, bottom in pixels, each at least 1. The picture is mirrored about
    its edge pixels, as often as needed. With m = 1 at the new edge, 0 at the old one and falling
    further inwards, it is blended with its Gaussian blur by clip(3 m + 1) and then with the median
    of each channel by clip(m). Channels, and rows in bands, are worked on one after the other,
    which bounds the memory to some 20 bytes for each pixel of the result.
    """
    left, top, right, bottom = pads
    mirrored = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="reflect")
    height, width, channels = mirrored.shape
    bands = [slice(start, min(start + BLOCK, height)) for start in range(0, height, BLOCK)]
    for channel in range(channels):
        plane = mirrored[:, :, channel].astype(np.float32)
        blur = blurred(plane, sigma)
        for rows in bands:
            edge = edge_distance(height, width, pads, rows)
            plane[rows] += (blur[rows] - plane[rows]) * np.clip(edge * 3.0 + 1.0, 0.0, 1.0)
        median = np.median(plane)
        for rows in bands:
            edge = edge_distance(height, width, pads, rows)
            plane[rows] += (median - plane[rows]) * np.clip(edge, 0.0, 1.0)
        mirrored[:, :, channel] = np.clip(np.rint(plane), 0, 255)
    return mirrored


def edge_distance(
    height: int, width: int, pads: tuple[int, int, int, int], rows: slice
) -> npt.NDArray[np.float64]:
    """Return m of ``extend`` for some rows of the padded picture, [rows, width].

    It is the greater of both axes' values, each relative to that side's padding.
    """
    left, top, right, bottom = pads
    y, x = np.arange(height)[rows, None], np.arange(width)[None, :]
    across = 1.0 - np.minimum(x / left, (width - 1 - x) / right)
    down = 1.0 - np.minimum(y / top, (height - 1 - y) / bottom)
    return np.maximum(across, down)


def blurred(plane: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Return [H, W] under a Gaussian of ``sigma`` pixels, cut off at four sigma.

    Beyond its edges the plane is mirrored with the edge pixel repeated. Sums are float64, each
    axis is rounded to float32: SciPy's ``gaussian_filter`` does the same, so results agree but for
    the order of additions.
    """
    return _blur_rows(_blur_rows(plane, sigma).T, sigma).T


def _blur_rows(plane: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    """Blur along the first axis, block by block, as products with one banded matrix.

    The matrix multiplies mostly zeros and is yet several times quicker than a loop over the taps.
    """
    radius = int(4.0 * sigma + 0.5)
    if not radius:
        return plane
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 / (sigma * sigma) * offsets**2)
    taps /= taps.sum()
    rows = len(plane)
    block = min(BLOCK, rows)
    band = np.zeros((block, block + 2 * radius))
    for row in range(block):
        band[row, row : row + len(taps)] = taps
    source = np.pad(plane, ((radius, radius), (0, 0)), mode="symmetric")
    result = np.empty_like(plane)
    for start in range(0, rows, block):
        count = min(block, rows - start)
        window = source[start : start + count + 2 * radius].astype(np.float64)
        result[start : start + count] = band[:count, : len(window)] @ window
    return result
