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
    from stylecli.metrics.inception import tensor_shapes

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
