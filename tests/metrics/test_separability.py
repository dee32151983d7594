"""Separability against official values; what it does with many values, one value, no w."""

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError
from stylecli.metrics import conditional_entropy, measure_separability
from stylecli.metrics.picture_sets import draw_samples
from stylecli.metrics.separability import measure_attribute
from stylecli.networks.model import new_network


def test_equals_the_official_values(values):
    for official in values["conditional_entropy"]:
        found = conditional_entropy(official["table"])
        assert found == pytest.approx(official["conditional_entropy"], abs=1e-6)


def test_rows_are_what_is_given():
    table = np.array([[1, 1], [0, 2]])
    assert conditional_entropy(table) == pytest.approx(0.5)
    assert conditional_entropy(table.T) == pytest.approx(0.75 * np.log2(3) - 0.5)


def test_refuses_an_empty_table():
    with pytest.raises(UsageError, match="at least one above 0"):
        conditional_entropy(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("latents", "score"), [("ls_latents", "score_z"), ("ls_dlatents", "score_w")]
)
def test_latents_and_predictions_give_the_official_score(official_separability, latents, score):
    arrays, official = official_separability
    bits = sum(
        measure_attribute(
            str(number), arrays[latents], arrays[f"ls_predictions_{number}"], official["num_keep"]
        ).conditional_entropy
        for number in official["attributes"]
    )
    assert 2**bits == pytest.approx(official[score], rel=1e-5)


def three_values(random, noise):
    """Latents of a plane whose angle decides between three values, and sure predictions."""
    x = random.standard_normal((600, 5))
    value = ((np.arctan2(x[:, 1], x[:, 0]) + np.pi) // (2 * np.pi / 3)).clip(0, 2).astype(int)
    value = np.where(random.random(600) < noise, random.integers(0, 3, 600), value)
    return x, np.eye(3)[value] * 0.9 + 0.1 / 3


def test_several_values_are_told_by_one_hyperplane_each():
    random = np.random.default_rng(0)
    clear = measure_attribute("a", *three_values(random, 0.0))
    blurred = measure_attribute("a", *three_values(random, 0.5))
    assert clear.seen == 3 and clear.entropy == pytest.approx(np.log2(3), abs=0.01)
    assert clear.conditional_entropy < 0.5 < blurred.conditional_entropy


def test_only_the_surest_half_counts():
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 3))
    right = x[:, 0] > 0
    sure = np.arange(200) % 2 == 0  # the unsure half is called at random
    p = np.where(sure, np.where(right, 0.9, 0.1), random.choice([0.4, 0.6], 200))
    found = measure_attribute("a", x, np.stack([p, 1 - p], axis=1))
    assert found.conditional_entropy == 0.0
    everything = measure_attribute("a", x, np.stack([p, 1 - p], axis=1), keep=200)
    assert everything.conditional_entropy > 0.3


def test_where_one_value_is_left_there_is_nothing_to_tell():
    found = measure_attribute("a", np.zeros((10, 2)), np.tile([0.9, 0.1], (10, 1)))
    assert (found.seen, found.conditional_entropy, found.entropy) == (1, 0.0, 0.0)


def test_one_pass_gives_both_spaces_and_no_batch_matters(tiny_network, tiny_classifiers):
    runs = [
        measure_separability(tiny_network.G_ema, tiny_classifiers, samples=60, batch=batch)
        for batch in (60, 7)
    ]
    assert list(runs[0]) == ["z", "w"]
    for space in "zw":
        one, two = (run[space] for run in runs)
        assert one.score == pytest.approx(2**one.bits) and one.score >= 1
        assert one.bits == pytest.approx(two.bits, abs=0.2)  # a picture on the border may cross
    alone = measure_separability(tiny_network.G_ema, tiny_classifiers, spaces=["w"], samples=60)
    assert alone["w"].bits == pytest.approx(runs[0]["w"].bits, abs=0.2)


def test_samples_are_the_fakes_with_their_latents(tiny_network):
    G = tiny_network.G_ema
    (sample,) = draw_samples(G, 3, seed=4, batch=3, labels=None)
    fakes = sample.pictures
    with torch.inference_mode():
        assert torch.equal(G.mapping(sample.z)[:, -1], sample.w)
    grey = (sample.images.double() * 127.5 + 128).clamp(0, 255).floor().numpy()
    assert np.abs(grey - fakes).max() <= 1


def test_w_of_a_network_without_w_is_refused(tiny_classifiers, tiny_config_fields):
    network = new_network("b", seed=0, **tiny_config_fields)
    with pytest.raises(UsageError, match="measure ls_z"):
        measure_separability(network.G_ema, tiny_classifiers, samples=8)
