"""Path lengths: official slerp and trimming, a closed form, and independence of batches."""

import numpy as np
import pytest
import torch

from stylecli.errors import UsageError
from stylecli.metrics import ppl_trim
from stylecli.metrics.path_length import PathSetting, measure_path_distances, slerp
from stylecli.networks.model import new_network


def squared_difference(a, b):
    return (a.double() - b.double()).square().sum((1, 2, 3))


def test_slerp_equals_the_official_one(arrays):
    a, b, t = (torch.from_numpy(arrays[f"slerp_{name}"]) for name in "abt")
    np.testing.assert_allclose(slerp(a, b, t), arrays["slerp_out"], atol=1e-6)


def test_slerp_between_parallel_latents_stays_there():
    a = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    np.testing.assert_allclose(slerp(a, 2 * a, torch.tensor([[0.3]])), a / 5)


def test_trimming_equals_the_official_one(arrays, values):
    assert ppl_trim(arrays["ppl_trim_distances"]) == pytest.approx(
        values["ppl_trim"]["mean"], rel=1e-6
    )


def test_trimming_drops_both_tails():
    assert ppl_trim([-1e9, *[5.0] * 298, 1e9]) == 5.0


def test_trimming_refuses_nothing():
    with pytest.raises(UsageError, match="N > 0"):
        ppl_trim([])


class _Linear(torch.nn.Module):
    """A generator whose picture is c times w: every path in w has the length c²·|w1 - w0|²."""

    def __init__(self, config):
        super().__init__()
        self.config, self.scale = config, torch.nn.Parameter(torch.tensor(3.0))
        self.synthesis = self
        self.mapping = self._map
        self.drawn = []

    def _map(self, z, c=None):
        self.drawn.append(z)
        return z[:, None, :].expand(-1, 2, -1)

    def forward(self, ws, noise=None):
        self.noise = noise
        return (self.scale * ws[:, 0]).view(len(ws), 1, 2, 4).expand(-1, 3, -1, -1)


def test_a_linear_generator_has_a_closed_form(tiny_network):
    G = _Linear(tiny_network.config)
    found = measure_path_distances(
        G, squared_difference, PathSetting(epsilon=1e-2), samples=6, batch=6
    )
    z0, z1 = G.drawn[0].chunk(2)
    expected = 3 * 9 * (z1 - z0).square().sum(1)  # three channels, c² = 9
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_both_ends_share_noise_and_pairs_do_not(tiny_network):
    G = _Linear(tiny_network.config)
    measure_path_distances(G, squared_difference, PathSetting(), samples=2, batch=2)
    maps = G.noise[0]
    assert maps.shape == (4, 1, 4, 4)
    assert torch.equal(maps[:2], maps[2:]) and not torch.equal(maps[0], maps[1])


@pytest.mark.parametrize("setting", [PathSetting("z"), PathSetting("w", "end")])
def test_neither_batch_nor_global_state_matters(tiny_network, setting):
    torch.manual_seed(1)
    one = measure_path_distances(
        tiny_network.G_ema, squared_difference, setting, samples=5, batch=5
    )
    torch.manual_seed(2)
    two = measure_path_distances(
        tiny_network.G_ema, squared_difference, setting, samples=5, batch=2
    )
    np.testing.assert_allclose(one, two, rtol=2e-2)  # ε² divides the float32 rounding of pictures


def test_the_crop_sees_the_face_only(tiny_network):
    seen = []

    def distance(a, b):
        seen.append(a)
        return torch.zeros(len(a))

    for crop in (False, True):
        measure_path_distances(tiny_network.G_ema, distance, PathSetting(crop=crop), samples=1)
    whole, face = seen
    assert torch.equal(face, whole[:, :, 6:14, 4:12])


def test_grey_pictures_are_shown_in_three_channels(tiny_config_fields):
    network = new_network("f", channels=1, **tiny_config_fields)

    def distance(a, b):
        assert a.shape[1] == 3
        return torch.zeros(len(a))

    measure_path_distances(network.G_ema, distance, PathSetting(), samples=1)


def test_a_network_without_w_has_no_path_in_w(tiny_config_fields):
    network = new_network("a", **tiny_config_fields | {"mapping_layers": 0})
    with pytest.raises(UsageError, match="measure ppl_zfull"):
        measure_path_distances(network.G_ema, squared_difference, PathSetting("w"), samples=1)
    found = measure_path_distances(
        network.G_ema, squared_difference, PathSetting("z"), samples=2, batch=2
    )
    assert (found > 0).all()
