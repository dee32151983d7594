"""Attribute classifiers: a network for each attribute, pictures in, probabilities out.

The 40 CelebA attribute classifiers that StyleGAN's separability is defined with are published as
TensorFlow pickles, ``celebahq-classifier-00-male.pkl`` to
``celebahq-classifier-39-wearing-necktie.pkl``: discriminator networks for 256 px with one logit a,
read here as p = softmax([a, -a]), which is sigmoid(2a). Nothing in a file is run.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli import __version__
from stylecli.checkpoint import load_state, read_tensors, write_tensors
from stylecli.errors import NetworkError, UsageError, WeightsError
from stylecli.images import over_white
from stylecli.interop.families import read_foreign_classifier
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import read_header
from stylecli.networks.layers import box_average
from stylecli.networks.model import Discriminator
from stylecli.networks.registry import build_discriminator, config_from_dict
from stylecli.rendering import exact_kernels
from stylecli.shapes import Grid

KIND = "attribute-classifiers"
CELEBA = "celebahq-classifier"  # the source of the official ones: the begin of their file names
_LEAST_GAIN = 0.1
_VALUES_PER_CHUNK = 1 << 20  # of the pictures classified at once: bounds memory
OFFICIAL_CLASSIFIERS = 40
_OFFICIAL_PLACE = "the folder stylegan/networks/metrics of NVIDIA's download site"
_OFFICIAL_VALUES = ("positive", "negative")  # by the sign of a; which is which, no source says
_OFFICIAL_NAME = re.compile(rf"{CELEBA}-(\d\d)-(.+)\.pkl")


@dataclass(frozen=True)
class AttributeClassifier:
    """The network of one attribute, and how well it does on pictures it was not trained on."""

    name: str
    values: tuple[str, ...]  # K of them; with one logit a, K = 2 and p = softmax([a, -a])
    network: Discriminator  # K logits, or one
    accuracy: float | None = None  # share of held-out pictures it names rightly
    commonest: float | None = None  # share that naming the commonest value always would reach
    held_out: int = 0  # pictures

    @property
    def recognises(self) -> bool:
        """Whether it sees its attribute: a tenth of the way from the commonest answer to perfect.

        What pictures do not show is answered at chance, and a hyperplane for such answers means
        nothing. Without a known accuracy it counts as seeing.
        """
        if self.accuracy is None or self.commonest is None:
            return True
        return self.accuracy - self.commonest > _LEAST_GAIN * (1.0 - self.commonest)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return softmax probabilities [N, K] of images [N, 3, H, W] about [-1, 1], float32.

        Larger images are reduced to the network's size by box means, grey is repeated, alpha
        laid over white. Raises UsageError for images smaller than the network's, or no whole
        multiple of it.
        """
        config = self.network.config
        factor, rest = divmod(images.shape[2], config.height)
        if factor < 1 or rest or images.shape[3] != factor * config.width:
            raise UsageError(
                f"pictures of {images.shape[3]}x{images.shape[2]} px do not fit the classifier of "
                f"{self.name!r}, which needs {config.size} px: use classifiers trained "
                "at that size or smaller (stylecli metrics ls --train-classifiers)"
            )
        small = box_average(over_white(images), factor)
        chunks = torch.split(small, self._chunk())
        logits = torch.cat([self.network.outputs(chunk) for chunk in chunks])
        if logits.shape[1] == 1:  # StyleGAN's metric: p = sigmoid(2a)
            logits = torch.cat([logits, -logits], dim=1)
        return torch.softmax(logits, dim=1)

    def _chunk(self) -> int:
        config = self.network.config
        if config.mbstd_group_size > 1:  # a picture's neighbours count: one group at a time
            return config.mbstd_group_size
        return max(4, _VALUES_PER_CHUNK // (3 * config.size.pixels))


@dataclass
class AttributeClassifiers:
    """Classifiers of several attributes; ``info`` says where they come from."""

    classifiers: list[AttributeClassifier] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)  # source, recipe, seed, dataset

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> names of its K values, in the order of the probabilities."""
        return {classifier.name: classifier.values for classifier in self.classifiers}

    @property
    def accuracy(self) -> dict[str, float | None]:
        """Attribute -> accuracy on held-out pictures, None where it is not known."""
        return {classifier.name: classifier.accuracy for classifier in self.classifiers}

    @property
    def resolution(self) -> int:
        """Side, or level, of the smallest pictures that all can look at."""
        return max(c.network.config.resolution for c in self.classifiers)

    @property
    def grid(self) -> Grid:
        """What the height and width of these pictures double."""
        return self.classifiers[0].network.config.grid

    @property
    def is_official(self) -> bool:
        """Whether these are the CelebA classifiers that StyleGAN's separability is defined with."""
        return self.info.get("source") == CELEBA

    @property
    def digest(self) -> str:
        """SHA-256 over names, values and weights: what a result names them by."""
        digest = hashlib.sha256()
        for classifier in self.classifiers:
            digest.update(repr((classifier.name, classifier.values)).encode())
            for key, tensor in sorted(classifier.network.state_dict().items()):
                digest.update(key.encode() + tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> "AttributeClassifiers":
        """Move all networks to a device; return self."""
        for classifier in self.classifiers:
            classifier.network.to(device)
        return self

    def select(self, names: Iterable[str]) -> "AttributeClassifiers":
        """Return those of the named attributes, in that order; UsageError for an unknown name."""
        known = {classifier.name: classifier for classifier in self.classifiers}
        names = list(names)
        if unknown := [name for name in names if name not in known]:
            raise UsageError(
                f"there is no classifier of {unknown[0]!r}: expected one of {', '.join(known)}"
            )
        return AttributeClassifiers([known[name] for name in names], self.info)

    def recognising(self) -> "AttributeClassifiers":
        """Return those that see their attribute; ``info["left_out"]`` has the others' accuracy."""
        left_out = {c.name: c.accuracy for c in self.classifiers if not c.recognises}
        info = {**self.info, "left_out": left_out} if left_out else self.info
        return AttributeClassifiers([c for c in self.classifiers if c.recognises], info)

    def classify(self, images: Tensor) -> dict[str, Tensor]:
        """Return attribute -> probabilities [N, K] of images [N, C, H, W] about [-1, 1]."""
        device = next(self.classifiers[0].network.parameters()).device
        with torch.inference_mode(), exact_kernels(device):
            return {c.name: c.probabilities(images.to(device)) for c in self.classifiers}

    def predict(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return attribute -> probabilities [N, K] of pictures uint8 [N, C, H, W].

        R is the classifiers' size or a multiple of it. Raises UsageError for other pictures.
        """
        if pictures.ndim != 4 or pictures.dtype != np.uint8 or not len(pictures):
            raise UsageError(
                f"pictures are {pictures.dtype} {list(pictures.shape)}: expected uint8 [N, C, H, W]"
            )
        images = torch.from_numpy(np.ascontiguousarray(pictures)).float() / 127.5 - 1.0
        return {name: found.cpu().numpy() for name, found in self.classify(images).items()}


def save_classifiers(path: Path | str, classifiers: AttributeClassifiers) -> None:
    """Write classifiers to one .safetensors file with a JSON header, atomically."""
    header = {
        "kind": KIND,
        "info": {**classifiers.info, "stylecli": __version__},
        "attributes": [
            {
                "name": one.name,
                "values": list(one.values),
                "accuracy": one.accuracy,
                "commonest": one.commonest,
                "held_out": one.held_out,
                "config": one.network.config.to_dict(),
            }
            for one in classifiers.classifiers
        ],
    }
    tensors = {
        f"{number}.{key}": tensor
        for number, one in enumerate(classifiers.classifiers)
        for key, tensor in one.network.state_dict().items()
    }
    write_tensors(path, tensors, header)


def is_classifier_file(path: Path | str) -> bool:
    """Tell whether a file of ours holds attribute classifiers; NetworkError when it is not ours."""
    return read_header(path).get("kind") == KIND


def load_classifiers(path: Path | str) -> AttributeClassifiers:
    """Read a file of ``save_classifiers``; on the CPU, in eval mode. Raises NetworkError."""
    if not Path(path).is_file():
        raise NetworkError(f"classifiers {path} do not exist: make them with stylecli metrics ls "
                           "--train-classifiers")  # fmt: skip
    if not is_classifier_file(path):
        raise NetworkError(f"{path} holds no attribute classifiers")
    header, tensors = read_tensors(path)
    try:
        rows = list(header["attributes"])
        found = [_read_one(Path(path), n, row, tensors) for n, row in enumerate(rows)]
        return AttributeClassifiers(found, dict(header["info"]))
    except (KeyError, TypeError, UsageError) as error:
        raise NetworkError(f"{path} has a damaged header: {error}") from None


def new_classifier_network(config: NetworkConfig, seed: int) -> Discriminator:
    """Return a fresh network; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_discriminator(config)


def _read_one(
    path: Path, number: int, row: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> AttributeClassifier:
    config = config_from_dict(row["config"])
    held = sum(t.numel() for name, t in tensors.items() if name.startswith(f"{number}."))
    if config.count_weights("D") > held:  # before a network is built that the file cannot fill
        raise UsageError(f"classifier {number} describes a larger network than the file holds")
    network = new_classifier_network(config, 0)
    load_state(path, str(number), network, tensors)
    return AttributeClassifier(
        name=str(row["name"]),
        values=tuple(map(str, row["values"])),
        network=network.eval().requires_grad_(False),
        accuracy=row.get("accuracy"),
        commonest=row.get("commonest"),
        held_out=int(row.get("held_out", 0)),
    )


def list_official(folder: Path) -> dict[int, Path]:
    """Return number -> file of the official classifiers in a folder, in order."""
    found = {
        int(match[1]): path
        for path in sorted(folder.glob(f"{CELEBA}-*.pkl"))
        if (match := _OFFICIAL_NAME.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def load_official_classifiers(folder: Path) -> AttributeClassifiers:
    """Read every ``celebahq-classifier-NN-name.pkl`` of a folder; on the CPU, in eval mode.

    Raises WeightsError when there is none, NetworkError for a file that is no such classifier.
    """
    files = list_official(folder)
    if not files:
        raise WeightsError(
            f"{folder} holds no {CELEBA}-NN-name.pkl: download the {OFFICIAL_CLASSIFIERS} files "
            f"from {_OFFICIAL_PLACE}, or train your own with stylecli metrics ls "
            "--train-classifiers"
        )
    return AttributeClassifiers(
        [_read_official(path) for path in files.values()], {"source": CELEBA}
    )


def _read_official(path: Path) -> AttributeClassifier:
    match = _OFFICIAL_NAME.fullmatch(path.name)
    name = match[2] if match else path.stem
    foreign = read_foreign_classifier(path)
    network = new_classifier_network(foreign.config, 0)
    arrays = {f"D.{key}": torch.from_numpy(array) for key, array in foreign.networks["D"].items()}
    load_state(path, "D", network, arrays)
    config = foreign.config
    outputs = network.outputs(torch.zeros(1, config.channels, *config.size)).shape[1]
    if outputs != 1 or foreign.config.channels != 3:
        raise NetworkError(
            f"{path} has {outputs} logits for {foreign.config.channels} channels: expected one "
            "logit for colour pictures"
        )
    network.lod = 0.0
    return AttributeClassifier(name, _OFFICIAL_VALUES, network.eval().requires_grad_(False))
