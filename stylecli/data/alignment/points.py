"""Landmarks in little memory: 70,000 faces of 68 points are 76 MB instead of 530."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Points(Sequence[tuple[float, float]]):
    """Points (x, y) that read like a tuple of pairs and are stored as plain float64."""

    __slots__ = ("_flat",)

    def __init__(self, pairs: Iterable[Iterable[float]]) -> None:
        """Take pairs; raise TypeError or ValueError where they are none."""
        self._flat = array("d")
        for x, y in pairs:
            self._flat.append(x)
            self._flat.append(y)

    def __len__(self) -> int:
        return len(self._flat) // 2

    @overload
    def __getitem__(self, index: int) -> tuple[float, float]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[float, float], ...]: ...
    def __getitem__(
        self, index: int | slice
    ) -> tuple[float, float] | tuple[tuple[float, float], ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        index = range(len(self))[index]  # negative indices, and IndexError
        return self._flat[2 * index], self._flat[2 * index + 1]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return zip(self._flat[::2], self._flat[1::2], strict=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Points):
            return self._flat == other._flat
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Points({list(self)!r})"
