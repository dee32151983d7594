"""Train attribute classifiers from pictures whose attributes a dataset or a CSV tells.

The recipe of StyleGAN (Karras, Laine, Aila 2018, section 4.2 and appendix): for each attribute a
network of the discriminator's architecture without minibatch standard deviation, trained with a
logistic loss and Adam. Here an attribute may have K values: K logits and softmax cross entropy,
which for K = 2 is the logistic loss.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.data.reader import Dataset
from stylecli.errors import DataError, Interrupted, UsageError, plural
from stylecli.hardware import resolve_device
from stylecli.metrics.classifiers import (
    AttributeClassifier,
    AttributeClassifiers,
    list_official,
    load_classifiers,
    new_classifier_network,
    save_classifiers,
)
from stylecli.metrics.picture_sets import Pictures, PictureSet, as_colour, grid_of, level_for
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import read_header
from stylecli.networks.model import Discriminator
from stylecli.networks.registry import make_config
from stylecli.progress import Progress, silent
from stylecli.rendering import exact_kernels
from stylecli.shapes import SQUARE, Grid

# Attribute name -> its value for every picture; None where it is not known.
AttributeTable = Mapping[str, Sequence[str | None]]

MAX_VALUES = 100  # more are names or dates, not an attribute
_PICTURE_COLUMNS = ("source", "picture", "image", "image_id", "file", "filename")


def read_attributes(dataset: Dataset) -> dict[str, list[str | None]]:
    """Return what the dataset itself knows: the pictures' ``attributes``, else their labels.

    Metadata come first (the demo faces have them: hair, mouth, skin, ...). Classes become one
    attribute ``class``; label vectors of zeros and ones one attribute per column with the values
    ``yes`` and ``no``, under the columns' names. What does not vary, or has more than 100 values,
    is left out. Raises DataError when nothing is left.
    """
    table = keep_usable(_from_metadata(dataset) or _from_labels(dataset))
    if not table:
        raise DataError(
            f"{dataset.path} has no attributes of its pictures: give a table with --attributes "
            f"FILE.csv (first column: names of pictures), or a dataset with classes"
        )
    return table


def read_attribute_csv(path: Path, dataset: Dataset) -> dict[str, list[str | None]]:
    """Return the attributes of a CSV file, in the order of the dataset's pictures.

    The first row names the columns. The first column holds each picture's name as it was packed
    (``source`` in its metadata) or its number in the dataset; empty cells mean not known. Raises
    DataError when the file is not such a table or no picture of the dataset is in it.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from None
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    if len(header) < 2:
        raise DataError(
            f"{path} has {plural(len(header), 'column')}: expected a picture and its attributes"
        )
    if uneven := [number for number, row in enumerate(rows, 2) if row and len(row) != len(header)]:
        raise DataError(
            f"{path} line {uneven[0]} does not have {len(header)} cells like the header"
        )
    by_name = {row[0]: row[1:] for row in rows if row}
    numbered = header[0].lower() not in _PICTURE_COLUMNS and all(n.isdecimal() for n in by_name)
    keys = [
        str(index) if numbered else str(dataset.metadata(index).get("source", index))
        for index in range(len(dataset))
    ]
    found = [by_name.get(key) or by_name.get(Path(key).name) for key in keys]
    if not any(found):
        raise DataError(
            f"{path} names no picture of {dataset.path}: its first column should hold names such "
            f"as {keys[0]}"
        )
    table = {
        name: [row[column] or None if row else None for row in found]
        for column, name in enumerate(header[1:])
    }
    if not (usable := keep_usable(table)):
        raise DataError(f"{path} has no attribute with two values or more, up to {MAX_VALUES}")
    return usable


def keep_usable(table: AttributeTable) -> dict[str, list[str | None]]:
    """Drop attributes with fewer than 2 or more than 100 values, a value counted from 2 pictures.

    A value seen once cannot be both learnt and tested: such pictures count as not known.
    """
    usable = {}
    for name, column in table.items():
        counts = Counter(value for value in column if value is not None)
        values = {value for value, count in counts.items() if count > 1}
        if 2 <= len(values) <= MAX_VALUES:
            usable[name] = [value if value in values else None for value in column]
    return usable


def _from_metadata(dataset: Dataset) -> dict[str, list[str | None]]:
    table: dict[str, list[str | None]] = {}
    for index in range(len(dataset)):
        known = dataset.metadata(index).get("attributes")
        for name, value in known.items() if isinstance(known, dict) else ():
            column = table.setdefault(str(name), [None] * len(dataset))
            column[index] = None if value is None else str(value)
    return table


def _from_labels(dataset: Dataset) -> dict[str, list[str | None]]:
    labels, names = dataset.labels, dataset.class_names
    if labels is None:
        return {}
    if labels.ndim == 1:
        texts = names or [str(number) for number in range(dataset.label_dim)]
        return {"class": [texts[int(label)] for label in labels]}
    texts = names or [f"label {number}" for number in range(labels.shape[1])]
    return {
        name: ["yes" if value else "no" for value in labels[:, column]]
        for column, name in enumerate(texts)
        if np.isin(labels[:, column], (0.0, 1.0)).all()
    }


SMALL_SIDE = 64  # up to here the small recipe is the default
_IN_MEMORY = 256 << 20  # bytes of pictures that are read once for all attributes
_REPORT_EVERY = 20  # steps
_FOLDER = "classifiers"  # of the cache


@dataclass(frozen=True)
class ClassifierRecipe:
    """How one attribute's network is built and trained."""

    resolution: int = 256  # pixels the networks look at
    fmap_base: int = 8192  # widths, as in NetworkConfig
    fmap_max: int = 512
    images: int = 150_000  # shown in training, repeats counted
    batch: int = 8
    lr: float = 0.001
    adam_beta1: float = 0.0  # those of the discriminator
    adam_beta2: float = 0.99
    decay: float = 0.0  # the last share of training over which lr falls linearly to 0
    held_out: float = 0.1  # share of the pictures that is kept for the accuracy


def default_recipe(resolution: int) -> ClassifierRecipe:
    """Return the paper's recipe for pictures of this size, or the small one up to 64 px.

    The small one (narrow networks, 60,000 pictures shown) takes about 45 CPU seconds an attribute
    at 32 px.
    """
    if resolution > SMALL_SIDE:
        return ClassifierRecipe(resolution=min(resolution, 256))
    return ClassifierRecipe(
        resolution=resolution, fmap_base=8 * resolution, fmap_max=32, images=60_000, batch=16,
        lr=0.002, decay=1 / 3,
    )  # fmt: skip


def train_classifiers(
    dataset: PictureSet,
    attributes: AttributeTable,
    *,
    recipe: ClassifierRecipe | None = None,
    seed: int = 0,
    path: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: Progress = silent,
) -> AttributeClassifiers:
    """Train one classifier per attribute on a dataset; return them on the CPU.

    ``attributes``: name -> value per picture, None where it is not known; attributes of fewer than
    two values are left out. With ``path`` every finished attribute is saved there, and those that
    are there from the same dataset, recipe and seed are kept. A classifier depends on its own
    attribute and ``seed`` alone. Raises UsageError for a column of another length or an attribute
    table without any usable attribute, DataError for a dataset smaller than the recipe's size.
    """
    recipe = recipe or default_recipe(dataset.resolution)
    for name, column in attributes.items():
        if len(column) != len(dataset):
            raise UsageError(
                f"attribute {name!r} has {plural(len(column), 'value')}: expected one for each of "
                f"the {plural(len(dataset), 'picture')}"
            )
    table = keep_usable(attributes)
    if not table:
        raise UsageError(
            "no attribute has two values that occur twice each: there is nothing to learn"
        )
    info = {
        "source": "trained from a dataset",
        "dataset_digest": dataset.digest,
        "dataset_count": len(dataset),
        "seed": seed,
        "recipe": asdict(recipe),
    }
    done = _resume(path, info, table)
    complete = info | {"complete": True}  # so that nobody takes an interrupted file for whole
    device = resolve_device(device) if isinstance(device, str) else device
    pictures = _PictureStore(dataset, recipe.resolution)
    finished = {classifier.name: classifier for classifier in done.classifiers}
    for number, (name, column) in enumerate(table.items()):
        if name not in finished:
            meter = _PartOf(progress, number, len(table), name)
            finished[name] = _train_one(pictures, name, column, recipe, seed, device, meter)
            done = AttributeClassifiers([finished[n] for n in table if n in finished], info)
            if path is not None:
                _save(path, done)
        progress(number + 1, len(table), _remark(finished[name]))
    done = AttributeClassifiers([finished[name] for name in table], complete)
    if path is not None:
        _save(path, done)
    return done


def train_into_cache(
    dataset: PictureSet,
    attributes: AttributeTable,
    resolution: int,
    *,
    device: torch.device | str = "auto",
    progress: Progress = silent,
) -> tuple[Path, AttributeClassifiers]:
    """Train, or finish, a dataset's classifiers in the cache; return their file and them.

    By the usual recipe for pictures of ``resolution`` px. Raises Interrupted on Ctrl-C, which says
    what is kept; else as train_classifiers.
    """
    recipe = default_recipe(min(dataset.resolution, resolution))
    path = cached_path(dataset, attributes, recipe)
    try:
        return path, train_classifiers(
            dataset, attributes, recipe=recipe, path=path, device=device, progress=progress
        )
    except KeyboardInterrupt:
        kept = f"finished classifiers are kept in {path}" if path.exists() else "none is finished"
        raise Interrupted(f"interrupted: {kept}, run the same command to continue") from None


def find_in_cache(
    dataset: PictureSet | None, resolution: int, *, tell: Callable[[str], None] = lambda why: None
) -> Path | None:
    """Return classifiers from the cache: a file of this dataset's, else the official ones' folder.

    ``tell`` gets a sentence where the official ones are left out, since others may write there.
    """
    path = find_cached(dataset, resolution) if dataset is not None else None
    if path is None and list_official(folder := _cache()):
        if reason := whose(folder):
            tell(f"the classifiers in {folder} are left out: {reason}")
        else:
            path = folder
    return path


def _save(path: Path | str, done: AttributeClassifiers) -> None:
    cached = Path(path).parent == _cache()
    if cached:
        private_folder(_FOLDER)
    save_classifiers(path, done)
    if cached:
        keep_private(Path(path))


def cached_path(dataset: PictureSet, attributes: AttributeTable, recipe: ClassifierRecipe) -> Path:
    """Return where classifiers of this dataset, attributes and recipe belong in the cache."""
    key = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    for name, column in sorted(attributes.items()):
        key.update(json.dumps([name, list(column)]).encode())
    return _cache() / f"{dataset.digest[:24]}-{key.hexdigest()[:16]}.safetensors"


def find_cached(dataset: PictureSet, resolution: int) -> Path | None:
    """Return the newest complete classifiers of a dataset for pictures of at least this size."""
    found = _cache().glob(f"{dataset.digest[:24]}-*.safetensors")
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if whose(path):  # what somebody else may have written
            continue
        info = read_header(path).get("info", {})
        if info.get("complete") and info["recipe"]["resolution"] <= resolution:
            return path
    return None


def _cache() -> Path:
    return cache_folder() / _FOLDER


def _resume(
    path: Path | str | None, info: dict[str, Any], table: AttributeTable
) -> AttributeClassifiers:
    """Return what ``path`` holds of this very training; DataError when it holds another."""
    if path is None or not Path(path).exists():
        return AttributeClassifiers([], info)
    found = load_classifiers(path)
    for key, value in info.items():
        if found.info.get(key) != value:
            raise DataError(
                f"{path} holds classifiers of another {key.partition('_')[0]}: "
                "remove it or name another file"
            )
    kept = [
        one
        for one in found.classifiers
        if one.name in table and one.values == _values(table[one.name])
    ]
    return AttributeClassifiers(kept, info)


def _train_one(
    pictures: "_PictureStore",
    name: str,
    column: Any,
    recipe: ClassifierRecipe,
    seed: int,
    device: torch.device,
    progress: "_PartOf",
) -> AttributeClassifier:
    values = _values(column)
    numbers = {value: number for number, value in enumerate(values)}
    known = np.array([i for i, value in enumerate(column) if value is not None])
    classes = np.array([numbers.get(value, -1) for value in column], np.int64)
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")
    random = np.random.Generator(np.random.Philox(key=[own_seed, 0]))
    order = random.permutation(known)
    count = max(1, round(recipe.held_out * len(order)))
    held_out, rest = order[:count], order[count:]
    network = new_classifier_network(
        network_config(recipe, len(values), pictures.grid), own_seed
    ).to(device)
    with exact_kernels(device):
        _fit(network, pictures, rest, classes, recipe, random, progress)
    network.eval().requires_grad_(False)
    found = AttributeClassifier(name, values, network)
    right = 0
    for start in range(0, count, 256):
        part = held_out[start : start + 256]
        with torch.inference_mode():
            best = found.probabilities(pictures.images(part, device)).argmax(dim=1).cpu().numpy()
        right += int((best == classes[part]).sum())
    network.cpu()
    commonest = float(np.bincount(classes[held_out]).max() / count)
    return AttributeClassifier(name, values, network, right / count, commonest, count)


def _fit(
    network: Discriminator,
    pictures: "_PictureStore",
    chosen: NDArray[np.int64],
    classes: NDArray[np.int64],
    recipe: ClassifierRecipe,
    random: np.random.Generator,
    progress: "_PartOf",
) -> None:
    """Show ``recipe.images`` pictures in batches, every one once before any comes again."""
    device = next(network.parameters()).device
    betas = (recipe.adam_beta1, recipe.adam_beta2)
    adam = torch.optim.Adam(network.parameters(), lr=recipe.lr, betas=betas, eps=1e-8)
    steps = max(1, recipe.images // recipe.batch)
    batches = _endless_batches(chosen, recipe.batch, random)
    for step in range(steps):
        part = next(batches)
        left = 1.0 - step / steps
        adam.param_groups[0]["lr"] = recipe.lr * min(
            1.0, left / recipe.decay if recipe.decay else 1
        )
        target = torch.from_numpy(classes[part]).to(device)
        loss = F.cross_entropy(network.outputs(pictures.images(part, device)), target)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        if step % _REPORT_EVERY == 0:
            progress(step / steps, float(loss.detach()))


def network_config(recipe: ClassifierRecipe, outputs: int, grid: Grid = SQUARE) -> NetworkConfig:
    """Return the discriminator's configuration with ``outputs`` logits and without stddev."""
    return make_config(
        "f",
        resolution=recipe.resolution,
        base=grid,
        channels=3,
        label_dim=outputs,
        fmap_base=recipe.fmap_base,
        fmap_max=recipe.fmap_max,
        mbstd_group_size=0,
    )


def _values(column: Any) -> tuple[str, ...]:
    return tuple(sorted({value for value in column if value is not None}))


def _endless_batches(
    chosen: NDArray[np.int64], batch: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    waiting = chosen[:0]
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, random.permutation(chosen)])
        yield waiting[:batch]
        waiting = waiting[batch:]


class _PictureStore:
    """The dataset's pictures as images: read once where they fit into memory."""

    def __init__(self, dataset: PictureSet, resolution: int) -> None:
        self.grid = grid_of(dataset)
        self._dataset, self._level = dataset, level_for(dataset, resolution, self.grid)
        fits = len(dataset) * 3 * self.grid.at(resolution).pixels <= _IN_MEMORY
        self._all: Pictures | None = self._read(np.arange(len(dataset))) if fits else None

    def images(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """Return images [N, 3, H, W] from -1 to 1."""
        pictures = self._read(indices) if self._all is None else self._all[indices]
        return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).float() / 127.5 - 1.0

    def _read(self, indices: NDArray[np.int64]) -> Pictures:
        return as_colour(self._dataset.read(indices, self._level))


def _remark(classifier: AttributeClassifier) -> str:
    share = 100 * (classifier.accuracy or 0.0)
    return f"{classifier.name} {share:.1f} % of {classifier.held_out} held out"


class _PartOf:
    """Reports the progress of one attribute within that of all."""

    def __init__(self, report: Progress, number: int, total: int, name: str) -> None:
        self._report, self._number, self._total, self._name = report, number, total, name

    def __call__(self, share: float, loss: float) -> None:
        note = f"{self._name}, loss {loss:.2f}"
        self._report(self._number + round(share, 2), self._total, note)
