"""Pictures that are measured: a packed dataset, a folder as it is, or what a network draws.

A network's pictures are drawn one by one from (seed, number), so that batches cannot matter.

Pictures of a folder keep their own sizes: only the feature network's own resize changes them.
Their colours are decoded as packing decodes them, by the recipe of the dataset they are measured
with, so that a dataset and its own sources are the same pictures.
"""

import contextlib
import functools
import hashlib
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylecli.data.format import to_picture
from stylecli.data.pictures import (
    WHITE,
    Colour,
    check_kind,
    lay_over,
    name_cause,
    quiet,
    read_header,
)
from stylecli.data.preparation import DecodeSettings, decode_pixels
from stylecli.data.sources.base import keeps_as_stored
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import is_scratch
from stylecli.images import to_uint8
from stylecli.networks.model import Generator
from stylecli.rendering import device_of, prepare_synthesis
from stylecli.shapes import SQUARE, Grid

Pictures = NDArray[np.uint8]
LabelSource = Callable[[np.random.Generator, int], Tensor]
_FIRST_STREAM = 1 << 32  # picture i draws from Philox(seed, _FIRST_STREAM + i)


class PictureSet(Protocol):
    """What metrics need of a dataset; ``stylecli.data.reader.Dataset`` is one."""

    def __len__(self) -> int: ...
    @property
    def resolution(self) -> int: ...
    @property
    def label_dim(self) -> int: ...
    @property
    def labels(self) -> NDArray[np.int64] | NDArray[np.float32] | None: ...
    @property
    def digest(self) -> str: ...
    def read(self, indices: NDArray[np.int64], level: int = 0) -> Pictures: ...


def level_for(dataset: PictureSet, resolution: int, grid: Grid = SQUARE) -> int:
    """Return the pyramid level at which the dataset has pictures of a network's size.

    That is ``resolution`` of its ``grid``. Raises DataError if it has not.
    """
    level = (dataset.resolution // resolution).bit_length() - 1
    own = grid_of(dataset)
    if level < 0 or dataset.resolution != resolution << level or own != grid:
        size = grid.at(resolution)
        shape = "" if own == grid else f" --shape {grid.ratio}"
        raise DataError(
            f"the dataset has {own.at(dataset.resolution)} px and the network {size} px: "
            f"run stylecli pack PICTURES/{shape} --resolution {min(size)}, or give another --data"
        )
    return level


@dataclass(frozen=True)
class Sample:
    """Some generated images with the latents that they came from, on the generator's device."""

    z: Tensor  # [B, z_dim]
    w: Tensor  # [B, w_dim]: that of the last layer
    images: Tensor  # [B, C, H, W], about [-1, 1]

    @functools.cached_property
    def pixels(self) -> Pictures:
        """The images as uint8 [B, C, H, W], quantised as saved pictures are."""
        return to_uint8(self.images).transpose(0, 3, 1, 2)

    @property
    def pictures(self) -> Pictures:
        """The same in colour over white, [B, 3, H, W]."""
        return as_colour(self.pixels)


def draw_samples(
    G: Generator,
    count: int,
    *,
    seed: int,
    batch: int,
    labels: LabelSource | None,
    first: int = 0,
    psi: float = 1.0,
) -> Iterator[Sample]:
    """Yield ``count`` generated images with their latents, ``batch`` at a time, from ``first`` on.

    Latent, label and noise maps of picture i come from (seed, i) alone. ``psi`` 1 is no
    truncation.
    """
    device, synthesis = device_of(G), prepare_synthesis(G)
    for start in range(first, first + count, batch):
        numbers = range(start, min(start + batch, first + count))
        randoms = [
            np.random.Generator(np.random.Philox(key=[seed, _FIRST_STREAM + number]))
            for number in numbers
        ]
        z = torch.from_numpy(
            np.stack([random.standard_normal(G.config.z_dim, np.float32) for random in randoms])
        ).to(device)
        given = [labels(random, 1) for random in randoms] if labels else []
        noise = [
            torch.from_numpy(
                np.stack([random.standard_normal(shape[1:], np.float32) for random in randoms])
            ).to(device)
            for shape in G.config.noise_shapes()
        ]
        with torch.inference_mode():
            c = torch.cat(given).to(device) if given else None
            ws = G.mapping(z, c, truncation_psi=psi) if psi != 1.0 else G.mapping(z, c)
            images = synthesis(ws, noise=noise or None)
        yield Sample(z, ws[:, -1], images)


def as_colour(pictures: Pictures, background: Colour = WHITE, *, grey: bool = False) -> Pictures:
    """Return [N, 3, H, W]: alpha laid over the background, grey repeated.

    With ``grey`` colours become grey first, by Pillow's weights as packing does it.
    """
    if pictures.shape[1] == 4:
        pictures = _each(pictures, lambda picture: lay_over(picture, background))
    if grey and pictures.shape[1] == 3:
        pictures = _each(pictures, lambda picture: picture.convert("L"))
    return np.repeat(pictures, 3, axis=1) if pictures.shape[1] == 1 else pictures


def _each(pictures: Pictures, convert: Callable[[Image.Image], Image.Image]) -> Pictures:
    """Convert pictures [N, C, H, W] one by one by Pillow's rules, which files are decoded by."""
    height, width = pictures.shape[2:]
    converted = [np.asarray(convert(to_picture(picture))) for picture in pictures]
    return np.stack([np.atleast_3d(one).transpose(2, 0, 1) for one in converted]).reshape(
        len(pictures), -1, height, width
    )


def labels_digest(dataset: PictureSet | None) -> str:
    """Return the SHA-256 of a dataset's labels, as hex; empty where it has none.

    A dataset's own digest is that of its pixels: the same pictures may be labelled again.
    """
    labels = None if dataset is None else dataset.labels
    if labels is None:
        return ""
    shape = f"{labels.dtype.str} {labels.shape} "
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(labels).tobytes()).hexdigest()


def label_source(G: Generator, dataset: PictureSet | None) -> LabelSource | None:
    """Return a function drawing one-hot labels [count, label_dim] from the dataset's own labels.

    None for a network without labels. Raises UsageError when the dataset cannot give them.
    """
    wanted = G.config.label_dim
    if not wanted:
        return None
    labels = None if dataset is None else dataset.labels
    if dataset is None or labels is None or dataset.label_dim != wanted:
        has = (
            "no labels"
            if labels is None or dataset is None
            else f"{plural(dataset.label_dim, 'class', 'classes')}"
        )
        raise UsageError(
            f"the network has {plural(wanted, 'class', 'classes')} and the dataset has {has}: "
            f"give the dataset that "
            f"it was trained on with --data"
        )
    table = labels

    def draw(random: np.random.Generator, count: int) -> Tensor:
        chosen = table[random.integers(len(table), size=count)]
        if chosen.ndim == 2:
            return torch.from_numpy(np.asarray(chosen, np.float32))
        return torch.nn.functional.one_hot(torch.from_numpy(chosen), wanted).float()

    return draw


if TYPE_CHECKING:
    from stylecli.data.sources.base import Source

_LOOKED_AT = 16  # pictures spread over a set, for their sizes
LEAST_SIDE = 8  # px; feature networks enlarge pictures, but less holds nothing to measure
# What of two datasets' recipes measuring cannot make equal, as a sentence calls it.
_FIXED = ("resolution", "base", "transform", "width", "height", "filter", "exif", "icc")

Recorded = dict[str, Any]  # the settings that a dataset was packed with


class MeasuredSet(Protocol):
    """Pictures by number, and what tells them from all other pictures."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def sizes(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def recorded(self) -> Recorded | None: ...
    @property
    def settings(self) -> DecodeSettings: ...
    def __len__(self) -> int: ...
    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]: ...
    def decoded_by(self, settings: DecodeSettings) -> "MeasuredSet": ...


def grid_of(dataset: PictureSet) -> Grid:
    """Return what the pictures of a set double: 4×4 where it does not tell."""
    grid: Grid = getattr(dataset, "grid", SQUARE)
    return grid


@dataclass(frozen=True)
class DatasetPictures:
    """A packed dataset at one of its resolutions.

    Alpha is laid over the background of ``how``, else of the dataset's recipe; ``how`` of one
    channel makes colours grey.
    """

    dataset: PictureSet
    resolution: int
    how: DecodeSettings | None = None

    @property
    def name(self) -> str:
        """Where it lies."""
        return str(getattr(self.dataset, "path", "the dataset"))

    @property
    def recorded(self) -> Recorded:
        """The settings that it was packed with; only its channels where none are recorded."""
        info = getattr(self.dataset, "info", {})
        recorded = info.get("settings")
        channels = {"channels": info["channels"]} if "channels" in info else {}
        return {**(recorded if isinstance(recorded, dict) else {}), **channels}

    @property
    def settings(self) -> DecodeSettings:
        """How its pictures are shown."""
        return self.how or DecodeSettings.of_record(self.recorded)

    @property
    def digest(self) -> str:
        """Empty where the dataset has none."""
        if not self.dataset.digest:
            return ""
        stored, shown = self.recorded.get("channels"), self.settings
        over = f" over {shown.background}" if stored == 4 else ""
        grey = " in grey" if shown.channels == 1 and stored != 1 else ""
        return f"{self.dataset.digest} at {self.resolution}{over}{grey}"

    @property
    def sizes(self) -> str:
        """Say how large the pictures are."""
        height, width = grid_of(self.dataset).at(self.resolution)
        return f"{width} x {height} px"

    @property
    def notes(self) -> list[str]:
        """Say nothing: a dataset is used whole."""
        return []

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]:
        """Return pictures uint8 [N, 3, H, W]. Raises DataError for damaged ones."""
        level = level_for(self.dataset, self.resolution, grid_of(self.dataset))
        shown = self.settings
        pixels = self.dataset.read(numbers, level)
        return [as_colour(pixels, shown.background, grey=shown.channels == 1)]

    def decoded_by(self, settings: DecodeSettings) -> "DatasetPictures":
        """Return the same pictures, shown by other settings."""
        return replace(self, how=settings)


class FolderPictures:
    """A folder, a zip or any other source that can be packed, without packing it.

    Its files are decoded by ``settings``, by default as ``pack`` would. Raises DataError when there
    is no picture.
    """

    recorded = None

    def __init__(
        self,
        path: Path,
        settings: DecodeSettings | None = None,
        *,
        source: "Source | None" = None,
    ) -> None:
        from stylecli.data.sources.recognition import find_source

        self.path = path
        self._source: Source = source or find_source(path, own_labels=False, include_generated=True)
        self.settings = settings or DecodeSettings(exif=not keeps_as_stored(self._source))
        if not len(self._source):
            raise DataError(f"{path} holds no pictures: expected some to measure")
        self._digest = ""

    @property
    def name(self) -> str:
        """Where it lies."""
        return str(self.path)

    @property
    def digest(self) -> str:
        """SHA-256 of names and contents of all files: sizes and times can stay while pixels change.

        Reading them is cheap beside any feature network.
        """
        if not self._digest:
            found = hashlib.sha256(f"{self._source.fingerprint()} {self.settings}".encode())
            for file in _files(self.path):
                name = os.fsencode(os.path.relpath(file, self.path))
                found.update(name + b"\0" + _content(file) + b"\n")
            self._digest = found.hexdigest()
        return self._digest

    @property
    def sizes(self) -> str:
        """Say how large the pictures are: the smallest and the largest of some all over the set."""
        found = set()
        count = min(len(self._source), _LOOKED_AT)
        for number in (place * len(self._source) // count for place in range(count)):
            # What is damaged is named when its turn comes; Pillow's plugins raise anything.
            with (
                contextlib.suppress(Exception),
                quiet(),
                self._source[number].open() as picture,
            ):
                found.add(read_header(picture, upright=self.settings.exif).upright_size)
        if not found:
            return "unknown size"
        ends = sorted(found, key=lambda size: (size[0] * size[1], size))
        shown = [f"{width} x {height}" for width, height in dict.fromkeys((ends[0], ends[-1]))]
        return " to ".join(shown) + " px"

    @property
    def notes(self) -> list[str]:
        """Sentences about the pictures, such as which files are left out."""
        return self._source.notes

    def __len__(self) -> int:
        return len(self._source)

    def read(self, numbers: NDArray[np.int64]) -> list[Pictures]:
        """Return pictures uint8 [N, 3, H, W], one array for each run of equal sizes.

        Raises DataError naming a picture that cannot be read.
        """
        runs: list[list[NDArray[Any]]] = []
        for number in numbers:
            picture = self._decode(int(number))
            if not runs or runs[-1][0].shape != picture.shape:
                runs.append([])
            runs[-1].append(picture)
        return [np.stack(run) for run in runs]

    def decoded_by(self, settings: DecodeSettings) -> "FolderPictures":
        """Return the same pictures, decoded by other settings."""
        return FolderPictures(self.path, settings, source=self._source)

    def _decode(self, number: int) -> Pictures:
        """Return one picture as uint8 [3, H, W]: alpha is laid over the background at once."""
        item = self._source[number]
        seen = replace(self.settings, channels=1 if self.settings.channels == 1 else 3)
        try:
            with quiet(), item.open() as opened:
                header = read_header(opened, upright=seen.exif)
                check_kind(header)
                pixels = np.asarray(decode_pixels(opened, header, seen)[0], np.uint8)
        except Exception as error:  # Pillow's plugins raise anything on damaged files
            raise DataError(
                f"picture {item.name} of {self.path} {name_cause(error)}; remove it, or measure a "
                f"dataset: stylecli pack {shlex.quote(str(self.path))} skips such pictures"
            ) from None
        if min(pixels.shape[:2]) < LEAST_SIDE:
            height, width = pixels.shape[:2]
            raise DataError(
                f"picture {item.name} of {self.path} is {width} x {height} px: "
                f"expected at least {LEAST_SIDE} px on a side"
            )
        (picture,) = as_colour(np.atleast_3d(pixels).transpose(2, 0, 1)[None])
        return np.ascontiguousarray(picture)


def agree_on_colours(
    measured: MeasuredSet, reference: MeasuredSet
) -> tuple[MeasuredSet, MeasuredSet]:
    """Return both sets decoded in one way: as the dataset among them was packed.

    Of two datasets the reference decides; but alpha is laid over the background that the one
    without alpha was packed with, and both are grey where one is. Two folders are decoded as
    ``pack`` would.
    """
    records = [one.recorded for one in (reference, measured) if one.recorded is not None]
    if not records:  # each as it is seen: NVIDIA's as stored, all others upright
        return measured, reference
    else:
        packed = [DecodeSettings.of_record(record) for record in records]
        flat = [one for one in packed if one.channels != 4]
        settings = replace(
            packed[0],
            channels=min(one.channels for one in packed),
            background=(flat or packed)[0].background,
        )
    return measured.decoded_by(settings), reference.decoded_by(settings)


def describe_differences(measured: MeasuredSet, reference: MeasuredSet) -> str:
    """Say in one sentence what about two sets is not made equal by decoding, or return ""."""
    names = f"{measured.name} and {reference.name}"
    ending = "this is part of the distance"
    if measured.recorded is not None and reference.recorded is not None:
        one, other = measured.recorded, reference.recorded
        named = [key for key in _FIXED if key in one and key in other and one[key] != other[key]]
        if "resolution" in named:
            named = [key for key in named if key not in ("width", "height")]  # they follow from it
        told = [f"{key} {one[key]} and {other[key]}" for key in named]
        if measured.sizes != reference.sizes and "resolution" not in named:
            told.insert(0, f"{measured.sizes} and {reference.sizes}")
        return f"{names} were packed differently ({', '.join(told)}): {ending}" if told else ""
    if measured.sizes == reference.sizes:
        return ""
    ways = ""
    for one_set in (measured, reference):
        if one_set.recorded and "transform" in one_set.recorded and "filter" in one_set.recorded:
            way = f"{one_set.recorded['transform']}, {one_set.recorded['filter']}"
            ways = f"; {one_set.name} was cropped and resized when it was packed ({way})"
    return (
        f"{names} have pictures of {measured.sizes} and {reference.sizes}{ways}: the feature "
        f"network's own resize makes them equal, and {ending}"
    )


def _files(path: Path) -> list[Path]:
    """Return the files at or below ``path``; links are followed, each folder once."""
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not is_scratch(name)]
        files += [Path(folder, name) for name in names]
    return sorted(file for file in files if file.is_file())


def _content(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return b"unreadable"  # a picture is named when its turn comes, anything else is none


def open_set(path: Path) -> MeasuredSet:
    """Return what lies at ``path``: a packed dataset at its resolution, or loose pictures.

    Raises DataError when it is neither.
    """
    from stylecli.data.reader import open_dataset
    from stylecli.data.sources.lmdb_pictures import is_lmdb

    if path.is_dir() and is_lmdb(path):
        dataset = open_dataset(path)
        return DatasetPictures(dataset, dataset.resolution)
    return FolderPictures(path)


def choose(count: int, size: int, *, first: bool) -> tuple[NDArray[np.int64], str]:
    """Return the numbers of ``count`` of ``size`` pictures, and in words which they are.

    All, or the ``first`` ones as published definitions say, or the same random ones every time: a
    dataset may be sorted by class.
    """
    if count >= size:
        return np.arange(size), "all"
    if first:
        return np.arange(count), "the first"
    random = np.random.Generator(np.random.Philox(key=[0, size]))
    return np.sort(random.permutation(size)[:count]), "the same random ones every time"
