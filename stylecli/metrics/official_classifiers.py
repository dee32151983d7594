"""The 40 CelebA attribute classifiers that StyleGAN's separability is defined with.

They are published as TensorFlow pickles, ``celebahq-classifier-00-male.pkl`` to
``celebahq-classifier-39-wearing-necktie.pkl``: discriminator networks for 256 px with one logit a,
read here as p = softmax([a, -a]), which is sigmoid(2a). Nothing in a file is run.
"""

import re
from pathlib import Path

import torch

from stylecli.checkpoint import load_state
from stylecli.errors import NetworkError, WeightsError
from stylecli.interop.foreign_tree import TFNetwork, read_foreign_tree
from stylecli.interop.tf_stylegan1 import convert_tf_discriminator
from stylecli.metrics.classifiers import (
    CELEBA,
    AttributeClassifier,
    AttributeClassifiers,
    new_classifier_network,
)

COUNT = 40
PUBLISHED = "the folder stylegan/networks/metrics of NVIDIA's download site"
VALUES = ("positive", "negative")  # by the sign of a; which is which, no source says
_NAME = re.compile(rf"{CELEBA}-(\d\d)-(.+)\.pkl")


def list_official(folder: Path) -> dict[int, Path]:
    """Return number -> file of the official classifiers in a folder, in order."""
    found = {
        int(match[1]): path
        for path in sorted(folder.glob(f"{CELEBA}-*.pkl"))
        if (match := _NAME.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def load_official_classifiers(folder: Path) -> AttributeClassifiers:
    """Read every ``celebahq-classifier-NN-name.pkl`` of a folder; on the CPU, in eval mode.

    Raises WeightsError when there is none, NetworkError for a file that is no such classifier.
    """
    files = list_official(folder)
    if not files:
        raise WeightsError(
            f"{folder} holds no {CELEBA}-NN-name.pkl: the {COUNT} files are in {PUBLISHED}; put "
            "them there, or train others with stylecli metrics ls --train-classifiers"
        )
    return AttributeClassifiers([_read(path) for path in files.values()], {"source": CELEBA})


def _read(path: Path) -> AttributeClassifier:
    match = _NAME.fullmatch(path.name)
    name = match[2] if match else path.stem
    tree = read_foreign_tree(path)
    if not isinstance(tree, TFNetwork):
        raise NetworkError(f"{path} is not one network: expected a published {CELEBA} file")
    try:
        foreign = convert_tf_discriminator(tree)
    except NetworkError as error:
        raise NetworkError(f"{path} is no attribute classifier: {error}") from None
    network = new_classifier_network(foreign.config, 0)
    arrays = {f"D.{key}": torch.from_numpy(array) for key, array in foreign.networks["D"].items()}
    load_state(path, "D", network, arrays)
    outputs = network.head.dense1.weight.shape[0]
    if outputs != 1 or foreign.config.channels != 3:
        raise NetworkError(
            f"{path} has {outputs} logits for {foreign.config.channels} channels: expected one "
            "logit for colour pictures"
        )
    network.lod = 0.0
    return AttributeClassifier(name, VALUES, network.eval().requires_grad_(False))
