"""Directions of a network by name: their file, and ``smile:+2,pose:-1`` as people write edits.

All directions of a network are in one safetensors file. Its header names the network by its SHA-256
and has an entry for each direction: name, method, layers, scale, and how it was found. Tensor ``N``
belongs to entry N: a unit vector [w_dim] in w, or [channels] in the styles of one layer. Strength 1
is ``scale`` along it: one standard deviation of the network's faces. Files come from strangers:
nothing in them is executed, and every number is checked. Only ``resolve`` needs torch.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from stylecli import __version__, files, shipped
from stylecli.errors import NetworkError, UsageError
from stylecli.latents import NAME, Edit
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import FORMAT, read_header
from stylecli.styles import name_layers, style_layers

if TYPE_CHECKING:
    from stylecli.rendering import Edits

KIND = "directions"
FILE = "directions.safetensors"  # beside what else is made of a network
MAX_BYTES = 64 << 20
MAX_DIRECTIONS = 2000
_MAX_WIDTH, _MAX_LAYERS = 1 << 16, 1000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LENGTH_ERROR = 1e-3

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """Where a network's directions lie."""

    sha256: str  # of the network's file
    network: str  # its name
    num_ws: int
    w_dim: int
    style_sides: tuple[int, ...]  # of what each latent styles; empty without a w
    keeps_length: bool = False  # latents lie on a sphere

    def layers(self, text: str) -> list[int]:
        """Return the layers that ``text`` names: a band, or numbers such as 4-7."""
        if not self.style_sides:
            raise UsageError(
                f"layers {text} are asked for, but this network draws from one latent: leave out "
                f"@{text}"
            )
        return style_layers(text, self.style_sides)

    def name_layers(self, layers: Sequence[int]) -> str:
        """Return what to call layers: all, a band or numbers."""
        if len(layers) == self.num_ws:
            return "all"
        return name_layers(layers, self.style_sides)


@dataclass(frozen=True)
class Direction:
    """A direction in w, or in the styles of one layer."""

    name: str
    method: str  # sefa, ganspace, labels or channels
    vector: Vector  # of length 1: [w_dim], or [channels] of a layer's styles
    scale: float  # strength 1: one standard deviation of the network's faces
    layers: tuple[int, ...]  # latents of ws that it moves
    style_map: int | None = None  # whose styles it moves, by place; None: it moves w
    found: Mapping[str, Any] = field(default_factory=dict)  # how: settings, accuracy, effects


@dataclass(frozen=True)
class Directions:
    """All directions of a network, by name, and the file they are from."""

    space: Space
    by_name: Mapping[str, Direction]
    path: Path | None = None

    def __getitem__(self, name: str) -> Direction:
        """Return a direction; raise UsageError with the near ones for an unknown name."""
        if name not in self.by_name:
            raise UsageError(unknown_direction(name, list(self.by_name)))
        return self.by_name[name]

    def check_network(self, config: NetworkConfig, sha256: str) -> None:
        """Raise NetworkError unless these are directions of the network with this SHA-256."""
        where = self.path or "this file"
        if self.space.sha256 != sha256:
            raise NetworkError(
                f"{where} holds directions of another network, {self.space.network} "
                f"({self.space.sha256[:12]}...): find those of this one with stylecli directions "
                f"find --force"
            )
        if replace(self.space, network="") != space_of(config, "", sha256):
            raise NetworkError(
                f"{where} holds directions of other layers than this network has: find them again "
                f"with stylecli directions find --force"
            )

    def adding(self, more: Iterable[Direction]) -> "Directions":
        """Return these and more; one of a name that is here takes its place."""
        found = {**self.by_name, **{direction.name: direction for direction in more}}
        if len(found) > MAX_DIRECTIONS:
            raise UsageError(
                f"{len(found)} directions are more than a file may have, which is {MAX_DIRECTIONS}"
            )
        return replace(self, by_name=found)

    def describe(self) -> list[dict[str, Any]]:
        """Return the rows of a list: name, method, layers and band, scale, and how it was found."""
        return [
            {
                **one.found, "name": one.name, "method": one.method, "layers": list(one.layers),
                "band": self.space.name_layers(one.layers), "scale": one.scale,
                "edits": "w" if one.style_map is None else "styles",
            }
            for one in self.by_name.values()
        ]  # fmt: skip


def unknown_direction(name: str, names: Sequence[str]) -> str:
    """Return the sentence about a direction that there is not: the near ones, or some."""
    import difflib

    near = difflib.get_close_matches(name, names, 3, 0.5)
    near += [other for other in names if name.lower() in other.lower() and other not in near]
    if near:
        return f"unknown direction {name!r}. Did you mean {' or '.join(map(repr, near[:3]))}?"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (
        f"unknown direction {name!r}: expected one of {', '.join(names[:8])}{more}; see "
        f"stylecli directions list"
        if names
        else f"unknown direction {name!r}: this network has none yet; run stylecli directions find"
    )


def resolve(edits: Sequence[Edit], directions: Directions) -> "Edits":
    """Return what is added to styles; raise UsageError for an unknown name or layers it lacks."""
    import torch

    from stylecli.rendering import Edits

    space = directions.space
    offset = np.zeros((space.num_ws, space.w_dim), np.float64)
    shifts: dict[int, NDArray[np.float64]] = {}
    moves = False
    for edit in edits:
        direction = directions[edit.name]
        step = edit.strength * direction.scale * direction.vector.astype(np.float64)
        if direction.style_map is not None:
            if edit.layers is not None:
                raise UsageError(
                    f"{edit.name!r} moves single styles of layer {direction.layers[0]}: leave out "
                    f"@{edit.layers}"
                )
            place = direction.style_map
            shifts[place] = shifts[place] + step if place in shifts else step
            continue
        layers = direction.layers if edit.layers is None else space.layers(edit.layers)
        offset[list(layers)] += step
        moves = True
    return Edits(
        torch.from_numpy(offset.astype(np.float32)) if moves else None,
        {place: torch.from_numpy(shift.astype(np.float32)) for place, shift in shifts.items()},
        space.keeps_length,
    )


# ---- files


def space_of(config: NetworkConfig, network: str, sha256: str) -> Space:
    """Return where the directions of a network lie, by its configuration, name and SHA-256."""
    return Space(
        sha256, network, config.num_ws, config.w_out_dim,
        tuple(config.style_sides) if config.has_w else (),
        not config.has_w and not config.truncates,
    )  # fmt: skip


def find_directions(
    folder: Path, digest: str, config: NetworkConfig, given: Path | None = None
) -> Directions:
    """Return the directions of a network: of the file that was given, of its folder, or shipped.

    ``folder`` is where what is made of the network goes, ``digest`` its SHA-256. Raises
    NetworkError where there are none, or where they are of another network.
    """
    path = locate(folder, digest, given)
    if path is None:
        raise NetworkError(
            "this network has no directions yet: find some with stylecli directions find"
        )
    directions = read_directions(path)
    directions.check_network(config, digest)
    return directions


def directions_before(
    folder: Path, digest: str, config: NetworkConfig, given: Path | None = None, *,
    network: str, replacing: bool = False,
) -> Directions:  # fmt: skip
    """Return the directions of a network to which others are added; none where it has none yet.

    As ``find_directions``; ``network`` is its name. With ``replacing``, those of another network
    count as none.
    """
    none = Directions(space_of(config, network, digest), {})
    path = given or locate(folder, digest)
    if path is None or not path.exists():
        return none
    known = read_directions(path)
    if replacing and known.space.sha256 != digest:
        return none
    known.check_network(config, digest)
    return known


def locate(folder: Path, digest: str, given: Path | None = None) -> Path | None:
    """Return the file of a network's directions; None where there is none.

    The shipped network's own come with the package until some are found in ``folder``.
    """
    own = shipped.shipped_directions()
    if given is not None:
        if given == Path(shipped.NAME) and not given.exists() and own is not None:
            return own
        return given
    if (folder / FILE).is_file():
        return folder / FILE
    if own is not None and read_directions(own).space.sha256 == digest:
        return own
    return None


def write_directions(path: Path, directions: Directions) -> None:
    """Write directions to one file, atomically."""
    space = directions.space
    header = {
        "format": FORMAT,
        "kind": KIND,
        "info": {"stylecli": __version__},
        "network": {"file": space.network, "sha256": space.sha256},
        "space": {
            "num_ws": space.num_ws, "w_dim": space.w_dim, "style_sides": list(space.style_sides),
            "keeps_length": space.keeps_length,
        },
        "directions": [
            {
                **one.found, "name": one.name, "method": one.method, "scale": one.scale,
                "layers": list(one.layers), "style_map": one.style_map, "found": dict(one.found),
            }
            for one in directions.by_name.values()
        ],
    }  # fmt: skip
    tensors = {
        str(number): np.ascontiguousarray(one.vector, np.float32)
        for number, one in enumerate(directions.by_name.values())
    }
    metadata = {"stylecli": files.to_json(header).decode()}
    size = sum(array.nbytes for array in tensors.values()) + len(str(metadata)) + (64 << 10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.room_for(path, size), files.replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_directions(path: Path) -> Directions:
    """Read a file of ``write_directions``; raise NetworkError for what is none, or damaged."""
    if not path.is_file():
        raise NetworkError(
            f"directions {path} do not exist: find some with stylecli directions find"
        )
    if (size := path.stat().st_size) > MAX_BYTES:
        raise NetworkError(f"{path} has {size:,} bytes: expected at most {MAX_BYTES:,}")
    header = read_header(path)
    if header.get("kind") != KIND:
        raise NetworkError(
            f"{path} holds no directions: give a file that stylecli directions find wrote"
        )
    try:
        space = _read_space(header)
        rows = header["directions"]
        if not isinstance(rows, list) or len(rows) > MAX_DIRECTIONS:
            raise ValueError(f"expected a list of at most {MAX_DIRECTIONS} directions")
        found: dict[str, Direction] = {}
        with safe_open(path, framework="np") as file:
            for number, row in enumerate(rows):
                one = _read_row(row, np.asarray(file.get_tensor(str(number))), space)
                found[one.name] = one
    except (KeyError, TypeError, ValueError, OverflowError, SafetensorError, OSError) as error:
        raise NetworkError(f"{path} has damaged directions: {_words(error)}") from None
    return Directions(space, found, path)


def _words(error: BaseException) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _read_space(header: Mapping[str, Any]) -> Space:
    network, space = header["network"], header["space"]
    digest, name = network["sha256"], network["file"]
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or not isinstance(name, str):
        raise ValueError("the network has no name or no SHA-256")
    sides = tuple(_whole(side, 1, _MAX_WIDTH, "a side") for side in space["style_sides"])
    num_ws = _whole(space["num_ws"], 1, _MAX_LAYERS, "num_ws")
    if sides and len(sides) != num_ws:
        raise ValueError(f"{len(sides)} sides for {num_ws} layers")
    return Space(
        digest, name, num_ws, _whole(space["w_dim"], 1, _MAX_WIDTH, "w_dim"), sides,
        bool(space.get("keeps_length", False)),
    )  # fmt: skip


def _read_row(row: Mapping[str, Any], vector: NDArray[Any], space: Space) -> Direction:
    name, method, found = row["name"], row["method"], row.get("found", {})
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("a direction has no usable name")
    if not isinstance(method, str) or not isinstance(found, dict):
        raise ValueError(f"direction {name} does not say how it was found")
    layers = tuple(_whole(layer, 0, space.num_ws - 1, f"a layer of {name}")
                   for layer in row["layers"])  # fmt: skip
    place = row.get("style_map")
    place = None if place is None else _whole(place, 0, 3 * _MAX_LAYERS, f"the styles of {name}")
    scale = row["scale"]
    if not files.is_number(scale) or not 0 < scale < math.inf:
        raise ValueError(f"direction {name} has scale {str(scale)[:20]}")
    wide = vector.shape == (space.w_dim,) if place is None else vector.ndim == 1
    if vector.dtype != np.float32 or not wide or not 0 < len(vector) <= _MAX_WIDTH or not layers:
        raise ValueError(
            f"direction {name} has {vector.dtype} {list(vector.shape)}: expected float32 "
            f"[{space.w_dim}]"
        )
    length = float(np.linalg.norm(vector))
    if not abs(length - 1) < _LENGTH_ERROR:
        raise ValueError(f"direction {name} has length {length:g}: expected 1")
    return Direction(name, method, vector, float(scale), layers, place, found)


def _whole(value: Any, low: int, high: int, what: str) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is {str(value)[:20]}: expected {low} to {high}")
    return value
