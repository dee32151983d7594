"""Points as two digits of 8 bits each, whose products are exact integers.

A row x is turned by an orthogonal matrix, so that no coordinate stands out, and written as
s·(q + p/254) + rest, s = its largest coordinate / 127, q and p from -127 to 127. A processor with
instructions for products of bytes multiplies q about seven times as fast as float32. The lengths
of the rests are computed, not guessed: with them Cauchy and Schwarz bound what the products miss.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecli.metrics.distance_blocks import Float32, PointSet, rows_together

WIDEST = 65_536  # d: beyond it a sum of products could leave int32
FINE = 254.0  # second digits in a first

_UNIT = 2.0**-24
_TURNED = 64  # coordinates turned together
# ‖turned as computed - turned‖ / ‖x‖: each of 64 sums of 64 is off by (64 + a few) units of
# Σ|x|/8 at most, and that sum by ‖x‖; centring and scaling take the last units.
_TURNING = (np.sqrt(_TURNED) * (_TURNED + 4) + 8) * _UNIT
_SMALLEST = 1e-30  # a row of smaller numbers than this is all rest


class Codes:
    """The digits of a set [N, d'], d' = d filled up to a multiple of 64, and what they leave out.

    ``lengths`` [N]: upper bounds of the lengths of a row and of its codes; ``rests`` [N]: of what
    the first digit leaves; ``fine_rests`` [N]: of what both leave; ``fine`` [N]: the length of the
    second digit's part.
    """

    def __init__(self, points: PointSet) -> None:
        n, width = len(points), -(-points.width // _TURNED) * _TURNED
        self.first = torch.empty((n, width), dtype=torch.int8)
        self.second = torch.empty((n, width), dtype=torch.int8)
        self.scales = torch.empty(n, dtype=torch.float32)
        self.rests, self.fine_rests, self.fine = np.empty(n), np.empty(n), np.empty(n)
        turn = _turn()
        step = rows_together(width)
        for start in range(0, n, step):
            self._write(slice(start, min(start + step, n)), points, turn)
        # Sums of squares in float32 are off by a unit for each term.
        scales = self.scales.double().numpy() * (1.0 + (width + 16) * _UNIT)
        lengths = np.sqrt(points.squares) * (1.0 + 1e-6)
        for rest in (self.rests, self.fine_rests):
            rest *= scales
            rest += _TURNING * lengths + np.sqrt(width) * _SMALLEST
        self.fine *= scales
        self.lengths = lengths + np.maximum(self.rests, self.fine_rests)

    def _write(self, rows: slice, points: PointSet, turn: Float32) -> None:
        values = points.centred(rows)
        padding = self.first.shape[1] - values.shape[1]
        if padding:
            values = np.pad(values, ((0, 0), (0, padding)))
        values = (values.reshape(-1, _TURNED) @ turn).reshape(values.shape)
        largest = np.maximum(values.max(axis=1), -values.min(axis=1))
        scales = np.where(largest > _SMALLEST, largest / np.float32(127), np.float32(1))
        values /= scales[:, None]
        self.scales[rows] = torch.from_numpy(scales)
        rest = torch.from_numpy(values)
        for digits, norms, step in (
            (self.first, self.rests, 1.0),
            (self.second, self.fine_rests, FINE),
        ):
            digit = (rest * step).round_().clamp_(-127, 127)
            digits[rows] = digit
            rest -= digit.div_(step)
            norms[rows] = rest.square().sum(dim=1).sqrt_().numpy()
        self.fine[rows] = digit.square_().sum(dim=1).sqrt_().numpy()


def _turn() -> Float32:
    """Return an orthogonal matrix [64, 64] of ±1/8, exact: Hadamard's with columns' signs drawn."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < _TURNED:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    signs = np.random.RandomState(0).choice([-1, 1], _TURNED)
    return np.asarray(signs[:, None] * matrix / 8, np.float32)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Return a·bᵀ of int8 [B, d] and [C, d], exact as int32 [B, C]."""
    return torch._int_mm(a, b.T)


@cache
def bytes_are_fast() -> bool:
    """Return whether this machine multiplies bytes exactly and at twice the rate of float32.

    Without the instructions some builds of PyTorch saturate in between, others are slow, so both
    are tried: on products at the ends of the range, and by the clock. Either way the numbers that
    follow are the same; this chooses how soon they come.
    """
    random = np.random.RandomState(0)
    ends = torch.from_numpy(random.choice([-127, 127], (64, 256)).astype(np.int8))
    ends[:32] = 127
    try:
        if not torch.equal(products(ends, ends), (ends.int() @ ends.int().T)):
            return False
        digits = torch.from_numpy(random.randint(-127, 128, (256, 2048)).astype(np.int8))
        floats = digits.float().numpy()
        quick = _seconds(lambda: products(digits, digits))
    except (AttributeError, RuntimeError):  # a private name of PyTorch's, on CPUs since 2.4
        return False
    return quick * 2 < _seconds(lambda: floats @ floats.T)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the shortest of four times of ``work``."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
