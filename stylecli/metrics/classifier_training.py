"""Train attribute classifiers from pictures whose attributes are known.

The recipe of StyleGAN (Karras, Laine, Aila 2018, section 4.2 and appendix): for each attribute a
network of the discriminator's architecture without minibatch standard deviation, trained with a
logistic loss and Adam. Here an attribute may have K values: K logits and softmax cross entropy,
which for K = 2 is the logistic loss.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stylecli.cache_folder import cache_folder, keep_private, private_folder, whose
from stylecli.checkpoint import read_header
from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.hardware import resolve_device
from stylecli.metrics.attribute_tables import AttributeTable, keep_usable
from stylecli.metrics.classifiers import (
    AttributeClassifier,
    AttributeClassifiers,
    list_official,
    load_classifiers,
    new_classifier_network,
    save_classifiers,
)
from stylecli.metrics.fakes import Pictures, PictureSet, as_colour, level_for
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Discriminator
from stylecli.networks.registry import make_config
from stylecli.progress import Progress, silent

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
                f"attribute {name!r} has {len(column)} values: expected one for each of the "
                f"{len(dataset)} pictures"
            )
    table = keep_usable(attributes)
    if not table:
        raise UsageError("no attribute has two values that are seen twice: nothing can be learnt")
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
    network = new_classifier_network(network_config(recipe, len(values)), own_seed).to(device)
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


def network_config(recipe: ClassifierRecipe, outputs: int) -> NetworkConfig:
    """Return the discriminator's configuration with ``outputs`` logits and without stddev."""
    return make_config(
        "f",
        resolution=recipe.resolution,
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
        self._dataset, self._level = dataset, level_for(dataset, resolution)
        fits = len(dataset) * 3 * resolution**2 <= _IN_MEMORY
        self._all: Pictures | None = self._read(np.arange(len(dataset))) if fits else None

    def images(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """Return images [N, 3, R, R] from -1 to 1."""
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
