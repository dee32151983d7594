"""A dataset with attributes and classifiers trained on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def coloured_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of 16 px with a red or blue block at one of three sides; metadata say which."""
    from stylecli.data.writer import DatasetWriter

    path = tmp_path_factory.mktemp("coloured") / "coloured.lmdb"
    random = np.random.default_rng(0)
    sides = {"left": np.s_[:, :6], "right": np.s_[:, 10:], "top": np.s_[:6, :]}
    with DatasetWriter(path, resolution=16, channels=3) as writer:
        for index in range(60):
            colour, side = ("red", "blue")[index % 2], list(sides)[index % 3]
            picture = random.integers(90, 110, (3, 16, 16), np.uint8)
            picture[0 if colour == "red" else 2][sides[side]] = 230
            attributes = {"colour": colour, "side": side}
            writer.add(picture, metadata={"attributes": attributes, "source": f"{index}.png"})
    return path


@pytest.fixture(scope="session")
def tiny_recipe() -> Any:
    from stylecli.metrics.classifier_training import ClassifierRecipe

    return ClassifierRecipe(
        resolution=16, fmap_base=64, fmap_max=8, images=960, batch=16, lr=0.01, decay=0.5
    )


@pytest.fixture(scope="session")
def tiny_classifiers(coloured_lmdb: Path, tiny_recipe: Any) -> Any:
    """Classifiers of ``colour`` and ``side`` that were trained on those pictures."""
    from stylecli.data.reader import open_dataset
    from stylecli.metrics.classifier_training import read_attributes, train_classifiers

    dataset = open_dataset(coloured_lmdb)
    return train_classifiers(dataset, read_attributes(dataset), recipe=tiny_recipe, device="cpu")


@pytest.fixture
def tiny_classifier_file(tiny_classifiers: Any, tmp_path: Path) -> Path:
    from stylecli.metrics.classifiers import save_classifiers

    path = tmp_path / "classifiers.safetensors"
    save_classifiers(path, tiny_classifiers)
    return path
