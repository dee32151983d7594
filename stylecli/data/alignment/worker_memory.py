"""How many processes may align faces at once without running out of memory."""

import math
import os
from pathlib import Path

import numpy as np

from stylecli.data.alignment.cropping import AlignSettings, Face
from stylecli.data.alignment.geometry import face_quad
from stylecli.data.workers import count_workers
from stylecli.errors import DataError, UsageError

PHOTO_BYTES = 300 << 20  # a photograph of 24 megapixels, decoded and copied; and the interpreter
PADDED_BYTES = 20  # for each pixel of the padded crop; see padding.extend
_LIMITS = ("memory.max", "memory.current")


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


def available_bytes() -> int | None:
    """Return the memory that is free here, by the system and by the container; None: not known."""
    rooms = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                rooms.append(int(line.split()[1]) << 10)
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    try:
        limit, used = (int((Path("/sys/fs/cgroup") / name).read_text("ascii")) for name in _LIMITS)
        rooms.append(max(limit - used, 0))
    except (OSError, ValueError):
        pass  # no container, or "max": no limit
    if not rooms and hasattr(os, "sysconf"):
        try:
            rooms.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            pass
    return min(rooms, default=None)
