"""The route of the official CelebA pickles, on official discriminators that stand in for them."""

import pickle
import sys
import types

import numpy as np
import pytest

from stylecli.errors import NetworkError, WeightsError
from stylecli.interop.foreign_tree import read_foreign_tree
from stylecli.metrics.official_classifiers import load_official_classifiers
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
TRAP = "raise SystemExit('executed code from a pickle')"


@pytest.fixture
def write_discriminator(monkeypatch):
    """Return a function that writes the D of an official triple as a pickle of its own."""
    module = types.ModuleType("dnnlib.tflib.network")

    class Network:
        def __getstate__(self):
            return self.content

    Network.__module__, Network.__qualname__ = module.__name__, "Network"
    module.Network = Network
    for name in ("dnnlib", "dnnlib.tflib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def write(triple, path):
        network = Network()
        network.content = {**read_foreign_tree(OFFICIAL / triple)[1].state}
        network.content["build_module_src"] = TRAP
        path.write_bytes(pickle.dumps(network, protocol=4))

    return write


def test_probabilities_are_the_sigmoid_of_twice_the_official_score(tmp_path, write_discriminator):
    for number, name in ((3, "wavy-hair"), (0, "male")):
        path = tmp_path / f"celebahq-classifier-{number:02d}-{name}.pkl"
        write_discriminator("stylegan1_auto128_G_D_Gs.pkl", path)
    (tmp_path / "celebahq-classifier-notes.txt").write_text("not one")
    found = load_official_classifiers(tmp_path)
    assert list(found.values) == ["male", "wavy-hair"] and found.is_official
    assert found.resolution == 128
    with np.load(OFFICIAL / "stylegan1_auto128_io.npz") as official:
        images, scores = official["d_images_uint8"], official["d_scores_lod0"]
    p = found.predict(images)["male"]
    np.testing.assert_allclose(p[:, 0], 1 / (1 + np.exp(-2 * scores[:, 0])), atol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_larger_pictures_are_reduced_by_box_means(tmp_path, write_discriminator):
    write_discriminator(
        "progan_stylegan_repo_G_D_Gs.pkl", tmp_path / "celebahq-classifier-00-male.pkl"
    )
    found = load_official_classifiers(tmp_path)
    small = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    large = small.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(
        found.predict(large)["male"], found.predict(small)["male"], atol=1e-5
    )


def test_a_network_with_several_logits_is_refused(tmp_path, write_discriminator):
    path = tmp_path / "celebahq-classifier-00-male.pkl"
    write_discriminator("stylegan1_labels_G_D_Gs.pkl", path)
    with pytest.raises(NetworkError, match="has 4 logits for 3 channels: expected one logit"):
        load_official_classifiers(tmp_path)


def test_a_triple_is_no_classifier(tmp_path):
    content = (OFFICIAL / "stylegan1_labels_G_D_Gs.pkl").read_bytes()
    (tmp_path / "celebahq-classifier-00-male.pkl").write_bytes(content)
    with pytest.raises(NetworkError, match="is not one network"):
        load_official_classifiers(tmp_path)


def test_a_folder_without_them_says_where_they_are(tmp_path):
    with pytest.raises(WeightsError, match="the 40 files are in the folder stylegan/networks"):
        load_official_classifiers(tmp_path)
