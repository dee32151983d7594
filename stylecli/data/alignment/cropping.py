"""A face in a photograph, and the settings that make a square picture of it."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.alignment.geometry import OUTPUT_SIZE, crop_quad, face_square
from stylecli.data.decoding import check_kind, name_cause, open_picture, quiet, read_header
from stylecli.data.preparation import DecodeSettings, decode_pixels
from stylecli.errors import DataError, UsageError

SUPERSAMPLING = 4  # FFHQ samples 4096 px for 1024
MIN_SIZE, MAX_SIZE = 4, 4096
_UPRIGHT = DecodeSettings(exif=True)
_AS_STORED = DecodeSettings(icc="ignore")


@dataclass(frozen=True)
class Face:
    """One face in one photograph; coordinates are pixels (x, y) of the photograph."""

    photo: Path
    name: str  # unique among the faces, such as "party.jpg" or "party.jpg#2"
    landmarks: Sequence[tuple[float, float]]  # 68 (dlib) or 5 (eyes, nose, mouth corners)
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom
    metadata: dict[str, Any] = field(default_factory=dict)  # author, licence, ... (credits.py)
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
        """The side that is sampled before the reduction, in pixels."""
        return self.transform_size or SUPERSAMPLING * self.size

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
                transform_size=self.sampled_size,
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
            self.sampled_size,
            self.padding,
            self.rotate,
        ]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()
