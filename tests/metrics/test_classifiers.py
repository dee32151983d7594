"""Attribute classifiers: training, files, what they look at; the route of the official pickles."""

import dataclasses
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from stylecli.checkpoint import read_tensors, write_tensors
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, NetworkError, UsageError, WeightsError
from stylecli.interop.trees import read_foreign_tree
from stylecli.metrics import classifier_training
from stylecli.metrics.classifier_training import (
    ClassifierRecipe,
    cached_path,
    default_recipe,
    find_cached,
    read_attributes,
    train_classifiers,
)
from stylecli.metrics.classifiers import (
    AttributeClassifiers,
    load_classifiers,
    load_official_classifiers,
    save_classifiers,
)
from stylecli.metrics.evaluation import evaluate
from stylecli.networks.model import new_network
from stylecli.shapes import Grid
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
TRAP = "raise SystemExit('executed code from a pickle')"


def weights_of(classifiers):
    return [
        tensor for one in classifiers.classifiers for tensor in one.network.state_dict().values()
    ]


def test_learns_what_can_be_seen_and_says_how_well(tiny_classifiers, coloured_lmdb):
    dataset = open_dataset(coloured_lmdb)
    assert tiny_classifiers.values == {"colour": ("blue", "red"), "side": ("left", "right", "top")}
    assert tiny_classifiers.accuracy == {"colour": 1.0, "side": 1.0}
    found = tiny_classifiers.predict(dataset.read(np.arange(12)))
    names = np.array(tiny_classifiers.values["side"])[found["side"].argmax(axis=1)]
    assert list(names) == [dataset.metadata(i)["attributes"]["side"] for i in range(12)]
    np.testing.assert_allclose(found["side"].sum(axis=1), 1.0, rtol=1e-5)


def test_they_have_the_shape_of_their_dataset(tiny_recipe, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "wide.lmdb"
    with DatasetWriter(path, resolution=16, channels=3, grid=Grid(3, 4)) as writer:
        for index in range(48):
            picture = random.integers(0, 80, (3, 12, 16), np.uint8)
            picture[index % 2] += 150
            writer.add(picture, metadata={"attributes": {"hue": ("red", "green")[index % 2]}})
    dataset = open_dataset(path)
    quick = dataclasses.replace(tiny_recipe, images=320)

    found = train_classifiers(dataset, read_attributes(dataset), recipe=quick, device="cpu")

    save_classifiers(tmp_path / "classifiers.safetensors", found)
    found = load_classifiers(tmp_path / "classifiers.safetensors")
    assert found.grid == Grid(3, 4)
    hues = found.predict(dataset.read(np.arange(6)))["hue"].argmax(axis=1)
    assert [found.values["hue"][hue] for hue in hues] == ["red", "green"] * 3
    with pytest.raises(UsageError, match="16x12"):
        found.predict(np.zeros((1, 3, 16, 16), np.uint8))
    net = new_network(
        "f", base=(3, 4), resolution=16, z_dim=8, w_dim=8, fmap_base=64, fmap_max=8,
        mapping_fmaps=8, mapping_layers=2,
    )  # fmt: skip
    (score,) = evaluate(["ls_w"], net, samples=40, classifiers=found, device="cpu", cache=False)
    assert score.value is not None and score.value >= 1


def test_an_attribute_depends_on_seed_and_itself_alone(coloured_lmdb, tiny_recipe):
    dataset = open_dataset(coloured_lmdb)
    table = read_attributes(dataset)
    quick = ClassifierRecipe(**{**vars(tiny_recipe), "images": 32})
    both = train_classifiers(dataset, table, recipe=quick, device="cpu")
    torch.manual_seed(3)
    alone = train_classifiers(dataset, {"side": table["side"]}, recipe=quick, device="cpu")
    assert both.select(["side"]).digest == alone.digest
    other = train_classifiers(dataset, {"side": table["side"]}, recipe=quick, seed=1, device="cpu")
    assert other.digest != alone.digest


def test_a_file_gives_back_the_same_classifiers(tiny_classifiers, tiny_classifier_file):
    found = load_classifiers(tiny_classifier_file)
    assert found.digest == tiny_classifiers.digest
    assert found.accuracy == tiny_classifiers.accuracy
    assert found.info["recipe"]["images"] == tiny_classifiers.info["recipe"]["images"]


def test_what_was_finished_before_an_interruption_is_kept(
    coloured_lmdb, tiny_recipe, tmp_path, monkeypatch
):
    dataset, path = open_dataset(coloured_lmdb), tmp_path / "a.safetensors"
    table, quick = read_attributes(dataset), ClassifierRecipe(**{**vars(tiny_recipe), "images": 32})
    train_one = classifier_training._train_one
    trained = []

    def interrupted(*words):
        trained.append(words[1])
        if trained == ["colour", "side"]:
            raise KeyboardInterrupt
        return train_one(*words)

    monkeypatch.setattr(classifier_training, "_train_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_classifiers(dataset, table, recipe=quick, path=path, device="cpu")
    half = load_classifiers(path)
    assert list(half.values) == ["colour"] and "complete" not in half.info
    whole = train_classifiers(dataset, table, recipe=quick, path=path, device="cpu")
    assert trained == ["colour", "side", "side"]
    monkeypatch.undo()
    assert whole.digest == train_classifiers(dataset, table, recipe=quick, device="cpu").digest


def test_a_file_of_another_training_is_not_touched(
    coloured_lmdb, tiny_recipe, tiny_classifier_file
):
    dataset = open_dataset(coloured_lmdb)
    with pytest.raises(DataError, match="another seed: remove it or name another file"):
        train_classifiers(
            dataset, read_attributes(dataset), recipe=tiny_recipe, seed=9, device="cpu",
            path=tiny_classifier_file,
        )  # fmt: skip


def test_the_cache_answers_with_complete_classifiers_of_this_dataset(
    coloured_lmdb, tiny_lmdb, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path))
    dataset = open_dataset(coloured_lmdb)
    table, quick = read_attributes(dataset), ClassifierRecipe(**{**vars(tiny_recipe), "images": 32})
    path = cached_path(dataset, table, quick)
    train_classifiers(dataset, table, recipe=quick, path=path, device="cpu")
    assert find_cached(dataset, 16) == path
    assert find_cached(dataset, 8) is None  # they look at 16 px
    assert find_cached(open_dataset(tiny_lmdb), 16) is None


def test_larger_grey_and_transparent_pictures_are_seen_as_colour_at_their_size(tiny_classifiers):
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (2, 3, 16, 16), np.uint8)
    large = small.repeat(4, axis=2).repeat(4, axis=3)
    opaque = np.concatenate([small, np.full_like(small[:, :1], 255)], axis=1)
    clear = np.concatenate([small, np.zeros_like(small[:, :1])], axis=1)
    white = tiny_classifiers.predict(np.full_like(small, 255))
    for name, p in tiny_classifiers.predict(small).items():
        np.testing.assert_allclose(tiny_classifiers.predict(large)[name], p, atol=1e-5)
        np.testing.assert_allclose(tiny_classifiers.predict(opaque)[name], p, atol=1e-6)
        np.testing.assert_allclose(tiny_classifiers.predict(clear)[name], white[name], atol=1e-6)
        grey = tiny_classifiers.predict(small[:, :1])[name]
        spread = tiny_classifiers.predict(small[:, :1].repeat(3, axis=1))[name]
        np.testing.assert_allclose(grey, spread, atol=1e-6)


def test_smaller_pictures_are_refused(tiny_classifiers):
    with pytest.raises(UsageError, match="needs 16 px"):
        tiny_classifiers.predict(np.zeros((1, 3, 8, 8), np.uint8))


def test_other_files_are_refused(tiny_network_file, tmp_path):
    with pytest.raises(NetworkError, match="holds no attribute classifiers"):
        load_classifiers(tiny_network_file)
    with pytest.raises(NetworkError, match="do not exist"):
        load_classifiers(tmp_path / "none.safetensors")


def test_a_table_that_does_not_fit_is_refused(coloured_lmdb, tiny_recipe):
    dataset = open_dataset(coloured_lmdb)
    with pytest.raises(UsageError, match="has 2 values: expected one for each of the 60"):
        train_classifiers(dataset, {"a": ["x", "y"]}, recipe=tiny_recipe)
    with pytest.raises(UsageError, match="no attribute has two values"):
        train_classifiers(dataset, {"a": ["x"] * 60}, recipe=tiny_recipe)


def test_the_papers_recipe_is_the_default_above_64_px():
    paper = default_recipe(1024)
    assert (paper.resolution, paper.images, paper.batch, paper.lr) == (256, 150_000, 8, 0.001)
    assert default_recipe(32).resolution == 32 and default_recipe(32).fmap_max < 64
    assert classifier_training.network_config(paper, 2).mbstd_group_size == 0


def test_what_cannot_be_seen_is_left_out_and_named(tiny_classifiers):
    colour, side = tiny_classifiers.classifiers
    blind = dataclasses.replace(side, accuracy=0.41, commonest=0.4)
    found = AttributeClassifiers([colour, blind], {"seed": 0}).recognising()
    assert list(found.values) == ["colour"]
    assert found.info == {"seed": 0, "left_out": {"side": 0.41}}


def test_a_header_of_a_larger_network_than_the_file_holds_is_refused(
    tiny_classifier_file, tmp_path
):
    header, tensors = read_tensors(tiny_classifier_file)
    header["attributes"][0]["config"] |= {"fmap_base": 1 << 20, "fmap_max": 1 << 14}
    write_tensors(tmp_path / "large.safetensors", tensors, header)
    with pytest.raises(NetworkError, match="describes a larger network than the file holds"):
        load_classifiers(tmp_path / "large.safetensors")


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
    with pytest.raises(WeightsError, match="the 40 files from the folder stylegan/networks"):
        load_official_classifiers(tmp_path)
