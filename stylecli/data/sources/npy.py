"""Read an npy file of numbers: its header is checked against its size before memory is taken."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.errors import DataError

_MAX_BYTES = 1 << 32


def read_npy(path: Path, *, empty: bool = False) -> npt.NDArray[Any]:
    """Return the array of integers, floats or booleans that an npy file holds; ``empty``: or none.

    Raises DataError when it is damaged or holds anything else; objects are never unpickled.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
            size = math.prod(shape) * dtype.itemsize
            there = path.stat().st_size - file.tell()
            if dtype.kind not in "biuf" or min(shape, default=0) < (not empty):
                raise DataError(f"{path} holds {dtype} of shape {list(shape)}: expected numbers")
            if size != there or size > _MAX_BYTES:
                raise DataError(f"{path} says it holds {size:,} bytes, but {there:,} are there")
            array = np.frombuffer(file.read(size), dtype)
    except DataError:
        raise
    except Exception as error:  # the header is parsed as Python text and fails in many ways
        raise DataError(f"{path} is not a readable npy file: {error or type(error)}") from None
    return array.reshape(shape, order="F" if fortran else "C")
