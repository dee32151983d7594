"""Keep large freed blocks of memory in the process, where the C library lets us ask for that.

glibc hands every block over some megabytes back to the system when it is freed and takes fresh,
unmapped pages for the next one. The features of one 1024 px picture are such blocks, so that
drawing on a CPU spends as much time in page faults as in arithmetic.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_LARGEST_BLOCK = 1 << 30
_KEPT_AT_THE_TOP = 2**31 - 1
_GROWTH = 64 << 20


def keep_large_blocks() -> bool:
    """Set the allocator's thresholds for the whole process; tell whether it could be done.

    Freed memory, up to 2 GiB at the top of the heap, is then used again instead of returned. Does
    nothing outside Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_MMAP_THRESHOLD, _LARGEST_BLOCK),
        (_TRIM_THRESHOLD, _KEPT_AT_THE_TOP),
        (_TOP_PAD, _GROWTH),
    )
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)
