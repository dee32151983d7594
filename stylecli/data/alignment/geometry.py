"""The FFHQ crop of a face as pure functions: landmarks → square → pixels.

The steps and their constants are those of the FFHQ dataset (Karras et al. 2019, appendix A), down
to the grey level: shrink by a whole number, crop, mirror and blur what is missing, map the square
to ``transform_size`` with bilinear sampling, reduce with Lanczos. All coordinates are float64
pixels (x, y) of the picture as it is passed.

What is missing beyond the picture's edges is continued: mirrored, ever more blurred, fading to the
median colour. A face and the settings that make a square picture of it are here as well, and how
many processes may do so at once without running out of memory.
"""

import hashlib
import json
import math
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.pictures import (
    check_kind,
    convert_colours,
    name_cause,
    open_picture,
    quiet,
    read_header,
)
from stylecli.data.preparation import DecodeSettings, decode_pixels
from stylecli.data.workers import count_workers
from stylecli.errors import DataError, UsageError
from stylecli.hardware import available_bytes

Pixels = npt.NDArray[np.uint8]
BLOCK = 256  # rows that one matrix product blurs; near twice the usual radius is quickest

Float64 = npt.NDArray[np.float64]

OUTPUT_SIZE = 1024  # px, the side of FFHQ's pictures
TRANSFORM_SIZE = 4096  # px, the side that is sampled before the reduction
MAX_SIDE = 32_768  # px; Pillow's own limits are not far above
MAX_COORDINATE = 1e6  # px; no picture reaches so far, and a square of it stays exact

SUPERSAMPLING = 4  # FFHQ samples 4096 px for 1024
LEAST_SUPERSAMPLING = 2
TWICE = "twice the square"  # what alignment.json has in place of a side
MIN_SIZE, MAX_SIZE = 4, 4096
_UPRIGHT = DecodeSettings(exif=True)
_AS_STORED = DecodeSettings(icc="ignore")

PHOTO_BYTES = 300 << 20  # a photograph of 24 megapixels, decoded and copied; and the interpreter
PADDED_BYTES = 20  # for each pixel of the padded crop; see ``extend``


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
        raise DataError(f"landmarks reach {reach:g} px, beyond any picture")
    return points


def crop_quad(
    image: Image.Image,
    quad: Any,
    *,
    side: float | None = None,
    output_size: int = OUTPUT_SIZE,
    transform_size: int | None = TRANSFORM_SIZE,
    padding: bool = True,
) -> Image.Image:
    """Map a square of a picture, corners [4, 2] as in ``face_quad``, to RGB of ``output_size``.

    ``side`` is the square's side in pixels where it is known better than from the corners.
    ``transform_size`` None samples twice that side, but 2 to 4 times ``output_size``.
    Raises UsageError for sizes that are none and corners of another shape, DataError when the
    square misses the picture.
    """
    output_size = _check_size(output_size, "output")
    if transform_size is not None:
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

    if transform_size is None:
        least, most = (times * output_size for times in (LEAST_SUPERSAMPLING, SUPERSAMPLING))
        transform_size = min(max(math.ceil(2 * side), least), most)
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
        raise DataError("the square's corners are not coordinates of a picture")
    return corners


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


@dataclass(frozen=True)
class Face:
    """One face in one photograph; coordinates are pixels (x, y) of the photograph."""

    photo: Path
    name: str  # unique among the faces, such as "party.jpg" or "party.jpg#2"
    landmarks: Sequence[tuple[float, float]]  # 68 (dlib) or 5 (eyes, nose, mouth corners)
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom
    metadata: dict[str, Any] = field(
        default_factory=dict
    )  # author, licence, ... (aligned_folder.py)
    quad: Sequence[tuple[float, float]] | None = None  # the square, where not from the landmarks
    number: int | None = None  # what its file is called; None: its place in the list
    # The photograph is taken as people see it: turned as its EXIF tag says, and the result in sRGB.
    # Off for FFHQ, whose official program knows neither.
    upright: bool = False

    def decode(self) -> Image.Image:
        """Return the photograph as RGB, turned as the coordinates need it. Raises DataError."""
        with open_picture(self.photo) as photo, quiet():
            try:
                return decode_photo(photo, upright=self.upright)
            except Exception as error:  # plugins raise anything on damaged files
                raise DataError(name_cause(error)) from None


def decode_photo(photo: Image.Image, *, upright: bool) -> Image.Image:
    """Decode an opened photograph to RGB, ``upright`` as explained at ``Face``.

    Raises DataError for what cannot be used; Pillow's plugins raise anything.
    """
    header = read_header(photo, upright=upright)
    check_kind(header)
    return decode_pixels(photo, header, _UPRIGHT if upright else _AS_STORED)[0]


@dataclass(frozen=True)
class AlignSettings:
    """How faces become square pictures."""

    size: int = OUTPUT_SIZE  # px
    transform_size: int | None = None  # px, sampled before the reduction; None: 4 x size
    twice: bool = False  # instead, twice the face's square, but 2 to 4 x size
    padding: bool = True  # mirror and blur what lies outside the photograph, else black
    rotate: bool = True  # turn the eyes level

    def __post_init__(self) -> None:
        """Check the sizes; raise UsageError."""
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise UsageError(
                f"size {self.size} is out of range: expected {MIN_SIZE} to {MAX_SIZE} px"
            )
        if self.transform_size is not None and not 1 <= self.transform_size <= 8 * MAX_SIZE:
            raise UsageError(f"transform size {self.transform_size} is out of range")

    @property
    def sampled_size(self) -> int:
        """The side that is sampled before the reduction, in pixels; the most it may be."""
        return self.transform_size or SUPERSAMPLING * self.size

    @property
    def sampling(self) -> int | str:
        """The same in words where it is each face's own."""
        return TWICE if self.twice else self.sampled_size

    def align(self, face: Face) -> Image.Image:
        """Return the face as RGB of ``size``. Raises DataError with the cause."""
        photo = face.decode()
        try:
            square = None
            if face.quad is None:
                square = face_square(face.landmarks, rotate=self.rotate)
            return crop_quad(
                photo,
                square.quad() if square else face.quad,
                side=square.side if square else None,
                output_size=self.size,
                transform_size=None if self.twice else self.sampled_size,
                padding=self.padding,
            )
        except (DataError, UsageError) as error:
            raise DataError(f"cannot be aligned: {error}") from None
        except MemoryError:
            raise DataError("cannot be aligned: not enough memory") from None

    def recipe(self, face: Face) -> str:
        """Return a digest of all that the aligned pixels depend on, but the photograph's own.

        The photograph counts by its name and its size in bytes: nothing needs to be decoded.
        """
        try:
            photo_bytes = os.stat(face.photo).st_size
        except OSError:
            photo_bytes = -1  # it is skipped with its cause when it is opened
        points = face.landmarks if face.quad is None else face.quad
        described = [
            face.photo.name,
            photo_bytes,
            [list(map(float, point)) for point in points],
            face.quad is None,
            face.upright and "colours first",
            self.size,
            self.sampling,
            self.padding,
            self.rotate,
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def bytes_needed(face: Face, settings: AlignSettings) -> int:
    """Estimate the memory that aligning a face takes at its peak.

    The photograph is reduced until the square's side is under 4 times ``size``; the crop is its
    bounding box with a border of 0.1 of the side, and then padded by 0.3 of it, all around.
    """
    try:
        quad = face_quad(face.landmarks, rotate=settings.rotate)  # a moved square is no larger
    except (DataError, UsageError):
        return PHOTO_BYTES  # it is skipped
    side = math.dist(quad[0], quad[3])
    reach = (float(np.ptp(quad, axis=0).max()) + 0.8 * side) * min(1.0, 4.0 * settings.size / side)
    padded = PADDED_BYTES * reach * reach if settings.padding else 0
    return int(PHOTO_BYTES + padded + 6 * settings.sampled_size**2)


def fitting_workers(faces: int, bytes_each: int) -> int:
    """Return one process per CPU (at most 8, at most one per face) that memory has room for."""
    wanted = min(count_workers(), faces)
    room = available_bytes()
    return max(1, wanted if room is None else min(wanted, room // max(bytes_each, 1)))
