"""What every conversion returns, and the arithmetic and checks that conversions share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import NetworkError
from stylecli.interop.pickles import shown
from stylecli.networks.config import NetworkConfig

Arrays = dict[str, NDArray[Any]]
_MAX_BLOCKS = 9
_LONGEST = 200  # letters of a name
_MAX_LISTED = 12  # lines of a table
_AVERAGED, _CHUNK = 10_000, 1_000  # latents, and how many at a time


@dataclass
class ForeignNetworks:
    """What a foreign file holds, in our names: arrays per network and each one's stored lod."""

    config: NetworkConfig
    networks: dict[str, Arrays]  # "G", "D", "G_ema" -> state dict
    lods: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


class Variables:
    """Named arrays of which every one is to be used: what is left over is an error.

    A converter that overlooks a variable would draw something other than the source does.
    """

    def __init__(self, arrays: Arrays, what: str) -> None:
        self.what = what
        self._arrays = arrays
        self._used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def names(self) -> list[str]:
        """Return all names."""
        return list(self._arrays)

    def take(self, name: str, *shape: int | None) -> NDArray[np.float32]:
        """Return an array as float32; raise NetworkError if it is missing or of another shape.

        ``shape`` has None where any length will do; without it every shape does.
        """
        array = self._arrays.get(name)
        if array is None:
            raise NetworkError(f"{self.what} has no {name!r}")
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
        )
        if shape and not fits:
            raise NetworkError(f"{self.what} has {name!r} of shape {list(array.shape)}")
        if array.dtype.kind not in "fiu":
            raise NetworkError(f"{self.what} has {name!r} of type {array.dtype}")
        self._used.add(name)
        return array.astype(np.float32)

    def skip(self, *names: str) -> None:
        """Count variables as used that hold nothing to convert."""
        self._used.update(names)

    def finish(self) -> None:
        """Raise NetworkError if a variable was not used."""
        left = sorted(set(self._arrays) - self._used)
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise NetworkError(
                f"{self.what} has {', '.join(map(repr, left[:3]))}{more}, which no network of this "
                "family has"
            )


def state_dict(tree: Any, what: str) -> Arrays:
    """Return a state dict whose entries are checked to be arrays with names."""
    if not isinstance(tree, dict):
        raise NetworkError(f"{what} is not a state dict")
    for name, value in tree.items():
        if not isinstance(name, str) or len(name) > _LONGEST or not isinstance(value, np.ndarray):
            raise NetworkError(f"{what} holds something other than arrays under {shown(name)}")
    return tree


def square_side(width: Any, height: Any) -> Any:
    """Return the side of pictures that forks give by width and height.

    Raises NetworkError where these differ: every network here draws squares.
    """
    if width != height:
        raise NetworkError(
            f"its pictures are {shown(width)} x {shown(height)} px, and every network here draws "
            "squares"
        )
    return width


def difference_table(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], prefix: str = ""
) -> str:
    """Return how shapes by name differ, a line each and a dozen at most; empty if they do not."""
    lines = [f"missing     {prefix}{key} {list(wanted[key])}" for key in wanted.keys() - found]
    lines += [f"unexpected  {prefix}{key} {list(found[key])}" for key in found.keys() - wanted]
    lines += [
        f"shape       {prefix}{key}: the file has {list(found[key])}, the configuration "
        f"{list(wanted[key])}"
        for key in wanted.keys() & found
        if tuple(found[key]) != tuple(wanted[key])
    ]
    rest = [f"… and {len(lines) - _MAX_LISTED} more"] if len(lines) > _MAX_LISTED else []
    return "\n  ".join([*sorted(lines)[:_MAX_LISTED], *rest])


def infer_channels(widths: list[int], usual: tuple[int, ...] = (8192,)) -> tuple[int, int]:
    """Return (fmap_base, fmap_max) that give these feature maps from 4×4 upwards.

    Block 2^r has min(fmap_base / 2^(r - 1), fmap_max) of them. Where several do, ``usual`` are
    tried first: the papers'. Raises NetworkError if no such pair exists.
    """
    if not 1 <= len(widths) <= _MAX_BLOCKS:
        raise NetworkError(f"it has {len(widths)} blocks: 4 to 1024 px make 1 to {_MAX_BLOCKS}")
    widest = max(widths)
    least = max(width << (index + 1) for index, width in enumerate(widths))
    for base in (*usual, least):
        if [min(base >> (index + 1), widest) for index in range(len(widths))] == widths:
            return base, widest
    raise NetworkError(f"its layers have {widths} feature maps, which no base and maximum give")


def estimate_w_avg(mapping: list[tuple[Any, Any]], z_dim: int, labels: Any = None) -> Any:
    """Return the mean of w over 10,000 latents, for files that store none.

    ``mapping`` holds each layer's run-time (weight [out, in], bias [out]). z is drawn as seeds are,
    from ``RandomState(0)``; ``labels`` [classes, n] are rows to append in turn.
    """
    rng = np.random.RandomState(0)
    total = np.float64(0)
    for _ in range(_AVERAGED // _CHUNK):
        x = rng.randn(_CHUNK, z_dim).astype(np.float32)
        if labels is not None:
            x = np.concatenate([x, labels[np.arange(_CHUNK) % len(labels)]], axis=1)
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-8)
        for weight, bias in mapping:
            if weight.shape[1] != x.shape[1]:
                raise NetworkError("its mapping layers do not fit together")
            x = x @ weight.T + bias
            x = np.maximum(x, np.float32(0.2) * x)
        total = total + x.sum(axis=0, dtype=np.float64)
    return (total / _AVERAGED).astype(np.float32)


def noise_maps(count: int, *, shared: bool) -> Arrays:
    """Return the constant noise of ``count`` layers, which no file of a reimplementation has.

    Drawn from ``RandomState(0)``; ``shared`` gives both layers of a resolution one map.
    """
    rng = np.random.RandomState(0)
    maps: Arrays = {}
    for index in range(count):
        side = 2 ** (index // 2 + 2)
        again = shared and index % 2
        maps[f"synthesis.layers.{index}.noise_const"] = (
            maps[f"synthesis.layers.{index - 1}.noise_const"]
            if again
            else rng.randn(1, 1, side, side).astype(np.float32)
        )
    return maps
