"""Reference arrays, and feature networks with made-up weights: nothing here needs a download."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REFERENCES = Path(__file__).parent / "references"


@pytest.fixture(scope="session")
def arrays() -> dict[str, Any]:
    with np.load(REFERENCES / "statistics.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    return json.loads((REFERENCES / "statistics.json").read_text())


def made_weights(expected: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return arrays of these shapes that keep activations about as large as they were."""
    random = np.random.default_rng(0)
    made = {}
    for name, shape in expected.items():
        if name.endswith("running_var"):
            made[name] = np.ones(shape, np.float32)
        elif name.startswith("head"):
            made[name] = np.full(shape, 0.1, np.float32)
        elif len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            made[name] = random.standard_normal(shape, np.float32) * np.float32(scale)
        else:
            made[name] = np.full(shape, "weight" in name, np.float32)
    return made


@pytest.fixture(scope="session")
def made_lpips() -> dict[str, Any]:
    from stylecli.metrics.lpips import tensor_shapes

    return made_weights(tensor_shapes())


@pytest.fixture(scope="session")
def made_efficientnet() -> dict[str, Any]:
    from stylecli.metrics.efficientnet import tensor_shapes

    return made_weights(tensor_shapes())


@pytest.fixture(scope="session")
def made_inception() -> dict[str, Any]:
    from stylecli.metrics.inception_shapes import tensor_shapes

    return made_weights(tensor_shapes())


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: Any) -> Path:
    """A cache without weights on a machine whose packages bring none."""
    from stylecli import weights

    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    return tmp_path / "cache"


@pytest.fixture
def filled_cache(
    empty_cache: Path, tmp_path: Path, made_lpips: Any, made_efficientnet: Any
) -> Path:
    """A cache with made-up EfficientNet and LPIPS weights, and no Inception."""
    from stylecli import weights

    source = tmp_path / "made.bin"
    source.write_bytes(b"made up")
    weights.store("vgg16-lpips", made_lpips, file=source)
    weights.store("efficientnet-lite0", made_efficientnet, file=source)
    return empty_cache


@pytest.fixture(scope="session")
def official_separability() -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and the official answer; the hyperplanes of scikit-learn on other points."""
    with np.load(REFERENCES / "separability.npz") as stored:
        arrays = dict(stored)
    known = json.loads((REFERENCES / "separability.json").read_text())
    return arrays, known["linear_separability"]


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
    from stylecli.metrics.attribute_tables import read_attributes
    from stylecli.metrics.classifier_training import train_classifiers

    dataset = open_dataset(coloured_lmdb)
    return train_classifiers(dataset, read_attributes(dataset), recipe=tiny_recipe, device="cpu")


@pytest.fixture
def tiny_classifier_file(tiny_classifiers: Any, tmp_path: Path) -> Path:
    from stylecli.metrics.classifiers import save_classifiers

    path = tmp_path / "classifiers.safetensors"
    save_classifiers(path, tiny_classifiers)
    return path
