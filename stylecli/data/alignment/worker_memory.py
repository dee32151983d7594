"""How many processes may align faces at once without running out of memory."""

import math

import numpy as np

from stylecli.data.alignment.cropping import AlignSettings, Face
from stylecli.data.alignment.geometry import face_quad
from stylecli.data.workers import count_workers
from stylecli.errors import DataError, UsageError
from stylecli.hardware import available_bytes

PHOTO_BYTES = 300 << 20  # a photograph of 24 megapixels, decoded and copied; and the interpreter
PADDED_BYTES = 20  # for each pixel of the padded crop; see padding.extend


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
