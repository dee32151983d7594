"""Seeds to pictures: what a seed means, and that nothing but it decides the picture."""

from typing import Any

import numpy as np
import pytest
import torch

import stylecli
from stylecli.errors import UsageError
from stylecli.sampling import map_seeds, mix_ws, one_hot, seed_latents


@pytest.fixture
def labelled_network(tiny_config_fields: dict[str, Any]) -> Any:
    return stylecli.new_network("f", label_dim=3, **tiny_config_fields)


def _draw(network: Any, seeds: list[int], **options: Any) -> np.ndarray:
    return np.stack([picture for _, picture in stylecli.generate(network, seeds, **options)])


def test_a_seed_is_the_latent_of_the_official_tools() -> None:
    expected = np.random.RandomState(7).randn(1, 8).astype(np.float32)

    np.testing.assert_array_equal(seed_latents([3, 7], 8)[1:].numpy(), expected)


def test_pictures_are_those_of_the_generator(tiny_network: Any) -> None:
    G, z = tiny_network.G_ema, seed_latents([0, 1], 8)
    with torch.no_grad():
        images = G(z, truncation_psi=0.5, truncation_cutoff=2)

    pictures = _draw(tiny_network, [0, 1], psi=0.5, psi_cutoff=2)

    np.testing.assert_array_equal(pictures, stylecli.images.to_uint8(images))


def test_noise_seed_decides_the_noise_and_the_seed_the_rest(tiny_network: Any) -> None:
    own = _draw(tiny_network, [1], noise_mode="random")
    same = _draw(tiny_network, [1], noise_mode="random", noise_seed=1)
    other = _draw(tiny_network, [1], noise_mode="random", noise_seed=2)

    np.testing.assert_array_equal(own, same)
    assert (own != other).any()


def test_psi_zero_is_the_average_for_every_seed(tiny_network: Any) -> None:
    tiny_network.G_ema.mapping.w_avg.fill_(0.3)

    ws = map_seeds(tiny_network.G_ema, [1, 2], psi=0.0)

    torch.testing.assert_close(ws, torch.full_like(ws, 0.3))


def test_labelled_networks_show_their_classes_in_turn(labelled_network: Any) -> None:
    in_turn = map_seeds(labelled_network.G_ema, [3, 4])
    second = map_seeds(labelled_network.G_ema, [3, 4], label=1)

    assert not torch.equal(in_turn[0], second[0])  # seed 3 is of class 0
    assert torch.equal(in_turn[1], second[1])  # seed 4 is of class 1


def test_labels_that_do_not_exist_are_refused(tiny_network: Any, labelled_network: Any) -> None:
    assert one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(UsageError, match="label 3 does not exist: this network has classes 0 to 2"):
        stylecli.generate(labelled_network, [0], label=3)
    with pytest.raises(UsageError, match="without labels"):
        stylecli.generate(tiny_network, [0], label=0)


def test_truncation_without_w_is_refused_at_once(tiny_config_fields: dict[str, Any]) -> None:
    traditional = stylecli.new_network("b", **tiny_config_fields)

    assert _draw(traditional, [0]).shape == (1, 16, 16, 3)
    with pytest.raises(UsageError, match=r"psi 0\.7 needs an intermediate latent space"):
        stylecli.generate(traditional, [0], psi=0.7)


def test_mixed_styles_come_from_both(tiny_network: Any) -> None:
    rows, columns = map_seeds(tiny_network.G_ema, [1, 2]).split(1)

    mixed = mix_ws(rows, columns, [0, 1])

    assert torch.equal(mixed[:, :2], columns[:, :2])
    assert torch.equal(mixed[:, 2:], rows[:, 2:])
