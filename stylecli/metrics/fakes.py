"""Pictures for measuring: drawn one by one from (seed, number), so that batches cannot matter."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylecli.data.format import to_picture
from stylecli.data.pictures import WHITE, Colour, lay_over
from stylecli.errors import DataError, UsageError
from stylecli.images import to_uint8
from stylecli.networks.model import Generator
from stylecli.sampling import device_of, prepare_synthesis

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


def level_for(dataset: PictureSet, resolution: int) -> int:
    """Return the pyramid level at which the dataset has ``resolution``; DataError if it has not."""
    level = (dataset.resolution // resolution).bit_length() - 1
    if level < 0 or dataset.resolution != resolution << level:
        raise DataError(
            f"the dataset has {dataset.resolution} px and the network {resolution} px: "
            f"run stylecli pack PICTURES/ --resolution {resolution}, or give another --data"
        )
    return level


@dataclass(frozen=True)
class Sample:
    """Some generated images with the latents that they came from, on the generator's device."""

    z: Tensor  # [B, z_dim]
    w: Tensor  # [B, w_dim]: that of the last layer
    images: Tensor  # [B, C, R, R], about [-1, 1]

    @functools.cached_property
    def pixels(self) -> Pictures:
        """The images as uint8 [B, C, R, R], quantised as saved pictures are."""
        return to_uint8(self.images).transpose(0, 3, 1, 2)

    @property
    def pictures(self) -> Pictures:
        """The same in colour over white, [B, 3, R, R]."""
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

    A dataset's own digest is that of its pixels: the same pictures may be labelled anew.
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
        has = "no labels" if labels is None or dataset is None else f"{dataset.label_dim} classes"
        raise UsageError(
            f"the network was trained with {wanted} classes and the dataset has {has}: "
            "give the dataset it was trained on with --data"
        )
    table = labels

    def draw(random: np.random.Generator, count: int) -> Tensor:
        chosen = table[random.integers(len(table), size=count)]
        if chosen.ndim == 2:
            return torch.from_numpy(np.asarray(chosen, np.float32))
        return torch.nn.functional.one_hot(torch.from_numpy(chosen), wanted).float()

    return draw
