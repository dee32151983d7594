"""The FFHQ crop of a face as pure functions: landmarks → square → pixels.

The steps and their constants are those of the FFHQ dataset (Karras et al. 2019, appendix A), down
to the grey level: shrink by a whole number, crop, mirror and blur what is missing, map the square
to ``transform_size`` with bilinear sampling, reduce with Lanczos. All coordinates are float64
pixels (x, y) of the picture as it is passed.
"""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.alignment.padding import extend
from stylecli.data.colours import convert_colours
from stylecli.data.decoding import name_cause, quiet
from stylecli.errors import DataError, UsageError

Float64 = npt.NDArray[np.float64]

OUTPUT_SIZE = 1024  # px, the side of FFHQ's pictures
TRANSFORM_SIZE = 4096  # px, the side that is sampled before the reduction
MAX_SIDE = 32_768  # px; Pillow's own limits are not far above
MAX_COORDINATE = 1e6  # px; no picture reaches so far, and a square of it stays exact


@dataclass(frozen=True)
class FaceSquare:
    """The square that frames a face: its centre and the half side along its own x axis."""

    centre: Float64  # [2]
    x: Float64  # [2], from the centre to the middle of the right side

    @property
    def side(self) -> float:
        """Its side in pixels."""
        return float(np.hypot(*self.x)) * 2

    def quad(self) -> Float64:
        """Return [4, 2]: upper-left, lower-left, lower-right, upper-right corner."""
        c, x, y = self.centre, self.x, np.array([-self.x[1], self.x[0]])
        return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def align_face(
    image: Image.Image,
    landmarks: Any,
    *,
    output_size: int = OUTPUT_SIZE,
    transform_size: int = TRANSFORM_SIZE,
    padding: bool = True,
    rotate: bool = True,
) -> Image.Image:
    """Cut a face out of a picture as FFHQ does: RGB, ``output_size`` square.

    ``landmarks`` [68, 2] in dlib's order, or [5, 2]: left and right eye of the picture, nose, left
    and right mouth corner. Colours other than 8-bit RGB are converted first, transparency over
    white. With ``padding`` what lies outside the picture is mirrored, blurred and faded to the
    median colour, else it is black. ``rotate`` off keeps the picture's own axes.

    Raises UsageError for landmarks of another shape and for sizes that are none, DataError for
    points that give no square, and when the square lies outside the picture.
    """
    square = face_square(landmarks, rotate=rotate)
    return crop_quad(
        image,
        square.quad(),
        side=square.side,
        output_size=output_size,
        transform_size=transform_size,
        padding=padding,
    )


def face_quad(
    landmarks: Any, *, rotate: bool = True, shift: tuple[float, float] = (0.0, 0.0)
) -> Float64:
    """Return the corners [4, 2] of a face's square, float64: upper-left, lower-left, lower-right,
    upper-right.

    ``shift`` moves the centre by fractions of the square's side along the picture's axes. Raises
    like ``align_face``.
    """
    return face_square(landmarks, rotate=rotate, shift=shift).quad()


def face_square(
    landmarks: Any, *, rotate: bool = True, shift: tuple[float, float] = (0.0, 0.0)
) -> FaceSquare:
    """Return the square that frames a face; arguments and errors as ``face_quad``.

    With e the vector between the eyes and m that from their middle to the mouth's, the square
    points along e - (-m_y, m_x), its half side is max(2 |e|, 1.8 |m|), and its centre lies 0.1 m
    below the eyes.
    """
    left, right, mouth_left, mouth_right = _eyes_and_mouth(check_landmarks(landmarks))
    eyes = (left + right) * 0.5
    across = right - left
    down = (mouth_left + mouth_right) * 0.5 - eyes
    half = max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    if half == 0:
        raise DataError("the landmarks give no square: eyes and mouth are one point")
    x = np.array([1.0, 0.0])
    if rotate:
        x = across - np.array([-down[1], down[0]])
        length = np.hypot(*x)
        if length == 0:
            raise DataError(
                "the landmarks give no direction: the mouth lies above the eyes by as much as the "
                "eyes are apart"
            )
        x /= length
    x *= half
    centre = eyes + down * 0.1 + np.hypot(*x) * 2 * np.asarray(shift, np.float64)
    return FaceSquare(centre, x)


def check_landmarks(landmarks: Any) -> Float64:
    """Return landmarks as float64 [68, 2] or [5, 2].

    Raises UsageError for another shape or kind, DataError for values that are no coordinates.
    """
    if hasattr(landmarks, "detach"):  # a tensor, perhaps on a device, of a dtype numpy lacks
        landmarks = landmarks.detach().cpu().double()
    try:
        points = np.asarray(landmarks)
        if points.dtype.kind not in "iuf":
            raise TypeError
        points = points.astype(np.float64)
    except (TypeError, ValueError):  # ragged lists, words, complex numbers
        raise UsageError(
            "landmarks are not an array of numbers: expected [68, 2] or [5, 2]"
        ) from None
    if points.shape not in ((68, 2), (5, 2)):
        raise UsageError(
            f"landmarks have shape {list(points.shape)}: expected [68, 2] (dlib's points) or "
            "[5, 2] (eyes, nose, mouth corners)"
        )
    if not np.isfinite(points).all():
        raise DataError("landmarks hold a coordinate that is not finite")
    if (reach := float(np.abs(points).max())) > MAX_COORDINATE:
        raise DataError(f"landmarks reach {reach:g} px: no picture does")
    return points


def crop_quad(
    image: Image.Image,
    quad: Any,
    *,
    side: float | None = None,
    output_size: int = OUTPUT_SIZE,
    transform_size: int = TRANSFORM_SIZE,
    padding: bool = True,
) -> Image.Image:
    """Map a square of a picture, corners [4, 2] as in ``face_quad``, to RGB of ``output_size``.

    ``side`` is the square's side in pixels where it is known better than from the corners.
    Raises UsageError for sizes that are none and corners of another shape, DataError when the
    square misses the picture.
    """
    output_size = _check_size(output_size, "output")
    transform_size = _check_size(transform_size, "transform")
    corners = _check_quad(quad)
    side = float(np.hypot(*(corners[3] - corners[0]))) if side is None else side
    picture = _to_rgb(image)

    factor = int(np.floor(side / output_size * 0.5))
    if factor > 1:
        width, height = (int(np.rint(length / factor)) for length in picture.size)
        if not (width and height):
            raise DataError(
                f"the face of {side:.0f} px is far larger than the picture of "
                f"{picture.width} × {picture.height} px"
            )
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        corners, side = corners / factor, side / factor

    border = max(int(np.rint(side * 0.1)), 3)
    picture, origin = _crop(picture, corners, border)
    corners = corners - origin
    if padding:
        pads = _missing(picture.size, corners, border)
        if max(pads) > border - 4:
            least = int(np.rint(side * 0.3))
            left, top, right, bottom = (max(pad, least) for pad in pads)
            if not min(left, top, right, bottom):
                raise DataError(f"the face is too small: its square has a side of {side:.2g} px")
            pixels = extend(np.asarray(picture), (left, top, right, bottom), sigma=side * 0.02)
            picture = Image.fromarray(pixels)
            corners = corners + np.array([left, top])

    mapped = picture.transform(
        (transform_size, transform_size),
        Image.Transform.QUAD,
        (corners + 0.5).flatten().tolist(),
        Image.Resampling.BILINEAR,
    )
    if output_size != transform_size:
        mapped = mapped.resize((output_size, output_size), Image.Resampling.LANCZOS)
    return mapped


def _eyes_and_mouth(points: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Return left eye, right eye, left and right mouth corner, each [2]."""
    if len(points) == 5:
        return points[0], points[1], points[3], points[4]
    return points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[48], points[54]


def _to_rgb(image: Any) -> Image.Image:
    """Decode a picture to RGB, with errors that name no file."""
    if not isinstance(image, Image.Image):
        raise UsageError(f"the picture is of type {type(image).__name__}: expected a Pillow image")
    try:
        with quiet():
            return convert_colours(image, 3)
    except Exception as error:  # decoding may happen here; plugins raise anything when damaged
        raise DataError(f"the picture {name_cause(error)}") from None


def _crop(picture: Image.Image, quad: Float64, border: int) -> tuple[Image.Image, Float64]:
    """Cut off what lies further than ``border`` from the square; return also the cut's origin."""
    low, high = _bounds(quad)
    left, top = (max(edge - border, 0) for edge in low)
    right, bottom = (
        min(edge + border, length) for edge, length in zip(high, picture.size, strict=True)
    )
    if left >= right or top >= bottom:
        middle = quad.mean(axis=0)
        raise DataError(
            f"the face at ({middle[0]:.0f}, {middle[1]:.0f}) lies outside the picture of "
            f"{picture.width} × {picture.height} px"
        )
    if (right - left, bottom - top) == picture.size:
        return picture, np.zeros(2)
    return picture.crop((left, top, right, bottom)), np.array([left, top], np.float64)


def _missing(size: tuple[int, int], quad: Float64, border: int) -> tuple[int, int, int, int]:
    """Return how far square and border leave the picture: left, top, right, bottom."""
    low, high = _bounds(quad)
    return (
        max(border - low[0], 0),
        max(border - low[1], 0),
        max(high[0] - size[0] + border, 0),
        max(high[1] - size[1] + border, 0),
    )


def _bounds(quad: Float64) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the whole pixels that enclose a square: (x, y) lowest and highest."""
    low, high = np.floor(quad.min(axis=0)), np.ceil(quad.max(axis=0))
    return (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))


def _check_size(size: Any, what: str) -> int:
    try:
        number = operator.index(size)
    except TypeError:
        number = 0
    if not 1 <= number <= MAX_SIDE:
        raise UsageError(f"{what} size {size!r} is not a whole number from 1 to {MAX_SIDE}")
    return number


def _check_quad(quad: Any) -> Float64:
    corners = np.asarray(quad, np.float64)
    if corners.shape != (4, 2):
        raise UsageError(f"the square has shape {list(corners.shape)}: expected 4 corners [4, 2]")
    if not np.isfinite(corners).all() or np.abs(corners).max() > 8 * MAX_COORDINATE:
        raise DataError("the square's corners are no coordinates of a picture")
    return corners
