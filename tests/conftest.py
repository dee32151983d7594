"""Tiny networks and data that every test can afford, reference numbers, made-up weights."""

import os

# One thread each: the tests run beside others, and small convolutions gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# A script's background processes ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCES = Path(__file__).parent / "references"  # its README says whose numbers


@pytest.fixture(scope="module", autouse=True)
def _whatever_stays_is_searched_for_garbage_once() -> Iterator[None]:
    """Measuring memory collects garbage, and would look at all that is loaded each time."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    """Keep tests away from the user's cache of feature networks."""
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_config_fields() -> dict[str, Any]:
    return {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
            "mapping_layers": 2, "mapping_fmaps": 8}  # fmt: skip


def _new_tiny_network(tiny_config_fields: dict[str, Any]) -> Any:
    import torch

    from stylecli.networks.model import new_network

    bundle = new_network("f", seed=0, **tiny_config_fields)
    with torch.no_grad():
        for network in (bundle.G, bundle.G_ema):
            for layer in network.synthesis.layers:
                layer.noise_strength.fill_(0.1)
    return bundle


@pytest.fixture
def tiny_network(tiny_config_fields: dict[str, Any]) -> Any:
    """A fresh 16 px network whose noise strengths are not zero, so that noise shows."""
    return _new_tiny_network(tiny_config_fields)


@pytest.fixture(scope="session")
def _stored_tiny_network(
    tiny_config_fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from stylecli.checkpoint import save_network

    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    save_network(path, _new_tiny_network(tiny_config_fields))
    return path


@pytest.fixture
def tiny_network_file(_stored_tiny_network: Path, tmp_path: Path) -> Path:
    """A copy of a file with this network, which is written once."""
    return Path(shutil.copy(_stored_tiny_network, tmp_path))


@pytest.fixture(scope="session")
def tiny_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 RGB pictures of 16 px in 3 classes: smooth gradients plus a little noise."""
    from stylecli.data.writer import DatasetWriter

    path = tmp_path_factory.mktemp("data") / "tiny.lmdb"
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 16)
    with DatasetWriter(path, resolution=16, channels=3, class_names=["a", "b", "c"]) as writer:
        for index in range(24):
            colour = rng.uniform(0.2, 1.0, size=(3, 1, 1))
            picture = colour * (ramp[None, :, None] if index % 2 else ramp[None, None, :])
            picture = picture + rng.uniform(0, 20, size=(3, 16, 16))
            writer.add(picture.astype(np.uint8), label=index % 3)
    return path


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
    from stylecli.features.vgg16 import lpips_shapes

    return made_weights(lpips_shapes())


@pytest.fixture(scope="session")
def made_efficientnet() -> dict[str, Any]:
    from stylecli.features.efficientnet import tensor_shapes

    return made_weights(tensor_shapes())


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: Any) -> Path:
    """A cache without weights on a machine whose packages bring none."""
    from stylecli import weights
    from stylecli.cache_folder import CACHE_VARIABLE

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def stored_weights(
    tmp_path_factory: pytest.TempPathFactory, made_lpips: Any, made_efficientnet: Any
) -> Path:
    """A cache with made-up EfficientNet and LPIPS weights, written once: tests get copies."""
    from stylecli import weights
    from stylecli.cache_folder import CACHE_VARIABLE

    folder = tmp_path_factory.mktemp("weights")
    source = folder / "made.bin"
    source.write_bytes(b"made up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        weights.store("vgg16-lpips", made_lpips, file=source)
        weights.store("efficientnet-lite0", made_efficientnet, file=source)
    return folder / "cache"


@pytest.fixture
def filled_cache(empty_cache: Path, stored_weights: Path, monkeypatch: Any) -> Path:
    """A cache with made-up EfficientNet and LPIPS weights, and no Inception.

    EfficientNet looks at small pictures: a twelfth of the work, and none of it depends on its size.
    """
    monkeypatch.setattr("stylecli.features.efficientnet.SIDE", 64)
    shutil.copytree(stored_weights, empty_cache)
    return empty_cache


@pytest.fixture(scope="session")
def official_separability() -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and the official answer; the hyperplanes of scikit-learn on other points."""
    with np.load(REFERENCES / "separability.npz") as stored:
        arrays = dict(stored)
    known = json.loads((REFERENCES / "separability.json").read_text())
    return arrays, known["linear_separability"]


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """pillow-heif as where it is not installed: not found, its format unknown to Pillow."""
    from PIL import Image

    monkeypatch.setattr("stylecli.data.pictures.find_spec", lambda name: None)
    if "HEIF" in Image.OPEN:
        monkeypatch.delitem(Image.OPEN, "HEIF")
        monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each != "HEIF"])
