"""Feature networks as metrics call them: how each looks, and what is said of it."""

import shutil

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.errors import UsageError
from stylecli.features.extractors import INCEPTION, STAND_IN, View, open_extractors
from stylecli.features.inception import InceptionV3, tensor_shapes
from stylecli.features.resizing import resize_clean
from tests.conftest import made_weights
from tests.metrics.all_metrics import narrow_inception

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def made_inception(patched):
    narrow_inception(patched)
    return made_weights(tensor_shapes())


@pytest.fixture(scope="module")
def with_inception(stored_weights, tmp_path_factory, made_inception, patched):
    folder = tmp_path_factory.mktemp("inception")
    shutil.copytree(stored_weights, folder / "cache")
    source = folder / "inception.bin"
    source.write_bytes(b"made up")
    patched.setenv(CACHE_VARIABLE, str(folder / "cache"))
    weights.store(INCEPTION, made_inception, file=source)
    return folder / "cache"


@pytest.fixture(autouse=True)
def _cache(with_inception, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(with_inception))


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 40, 24), np.uint8)


def test_a_clean_view_resizes_by_pils_rule_before_inception(pictures, made_inception):
    views = [View(INCEPTION), View(INCEPTION, clean=True)]
    usual, clean = open_extractors(views, CPU).values()
    network = InceptionV3.from_state_dict(made_inception)
    resized = torch.from_numpy(resize_clean(pictures))
    np.testing.assert_array_equal(
        clean.extract(pictures), network(resized, outputs=["2048"])["2048"]
    )
    np.testing.assert_array_equal(
        usual.extract(pictures), network(pictures, outputs=["2048"])["2048"]
    )
    assert clean.sha256 == usual.sha256
    assert "PIL bicubic to 299 px" in clean.resize and "TensorFlow" in usual.resize


def test_views_of_one_network_load_it_once(monkeypatch):
    opened = []
    obtain = weights.load_cached
    monkeypatch.setattr(weights, "load_cached", lambda name: opened.append(name) or obtain(name))
    views = [View(INCEPTION), View(STAND_IN), View(INCEPTION, True), View(INCEPTION, False, "bf16")]
    assert list(open_extractors(views, CPU)) == [
        INCEPTION, f"{INCEPTION} clean", f"{INCEPTION} bf16", STAND_IN
    ]  # fmt: skip
    assert opened == [INCEPTION, STAND_IN]


def test_16_bits_give_near_features_in_float32(pictures):
    views = [View(INCEPTION), View(INCEPTION, precision="bf16")]
    exact, rough = (one.extract(pictures) for one in open_extractors(views, CPU).values())
    assert rough.dtype == np.float32
    assert 0 < np.linalg.norm(rough - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(STAND_IN, clean=True), "inception"),
        (View(STAND_IN, precision="bf16"), "bf16"),
        (View("vgg16-lpips"), "gives no features"),
    ],
)
def test_a_view_that_a_network_does_not_have_is_refused(view, message):
    with pytest.raises(UsageError, match=message):
        open_extractors([view], CPU)
