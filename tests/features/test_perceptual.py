"""Distances that a search follows: LPIPS as it is measured, masks, the stand-in."""

import numpy as np
import pytest
import torch

from stylecli import weights
from stylecli.errors import UsageError, WeightsError
from stylecli.features import perceptual, vgg16
from stylecli.features.perceptual import Distance, choose_distance, open_distance
from stylecli.features.vgg16 import LPIPS, MIN_SIDE


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> LPIPS:
    """LPIPS a sixteenth as wide, with made-up weights."""
    monkeypatch.setattr(vgg16, "_BLOCKS", tuple((w // 16, n) for w, n in vgg16._BLOCKS))
    random = np.random.default_rng(0)
    arrays = {
        name: np.abs(random.standard_normal(shape, np.float32))
        if name.startswith("head")
        else random.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        for name, shape in vgg16.lpips_shapes().items()
    }
    return LPIPS.from_state_dict(arrays)


def pictures(count: int, side: int, channels: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=random) * 2 - 1


def test_the_sum_of_squared_differences_is_lpips(narrow: LPIPS) -> None:
    a, b = pictures(6, 32).chunk(2)
    distance = Distance("lpips", narrow.maps, min_side=MIN_SIDE)
    torch.testing.assert_close(distance(a, b), narrow(a, b))
    # Larger pictures are seen at 256 px, by means of areas.
    large = a.repeat_interleave(16, 2).repeat_interleave(16, 3)
    small = a.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(distance(large, large.flip(3)), narrow(small, small.flip(3)))


def test_its_gradient_is_that_of_the_plain_convolutions(narrow: LPIPS) -> None:
    a, b = pictures(2, 16).chunk(2)
    found = []
    for plain in (False, True):
        x = a.clone().requires_grad_()
        if plain:
            narrow._differentiable = lambda name, y: torch.nn.functional.conv2d(  # type: ignore[method-assign]
                y, narrow._tensors[f"{name}.weight"], narrow._tensors[f"{name}.bias"], padding=1
            ).relu()
        distance = Distance("lpips", narrow.maps)
        (distance.features(x) - distance.features(b)).square().sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def test_masks_leave_out_what_does_not_count() -> None:
    a, b = pictures(1, 16), pictures(2, 16)[1:]
    distance = open_distance("pyramid", "cpu")
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    painted = torch.where(mask > 0, a, b)
    assert distance(a, painted, mask).item() == 0 < distance(a, painted).item()
    half = distance(a, b, mask).item()
    assert half == pytest.approx(distance(a, b).item(), rel=0.5)  # a mean, not a sum
    torch.testing.assert_close(distance(a, b, torch.ones_like(mask)), distance(a, b))


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_are_seen(channels: int) -> None:
    a, b = pictures(2, 16, channels).chunk(2)
    assert open_distance("pyramid", "cpu")(a, b).item() > 0


def test_the_stand_in_is_taken_where_no_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.find_feature_network(perceptual.LPIPS_NETWORK)
    monkeypatch.setattr(weights, "locate", lambda name: None)
    assert choose_distance(None) == "pyramid" == choose_distance("pyramid")
    with pytest.raises(WeightsError, match="weights"):
        choose_distance("lpips")
    with pytest.raises(UsageError, match="lpips"):
        choose_distance("lpip")


def test_the_stand_in_is_taken_for_pictures_that_are_too_small() -> None:
    assert weights.find_feature_network(perceptual.LPIPS_NETWORK)
    assert choose_distance(None, MIN_SIDE - 1) == "pyramid"
    assert choose_distance("lpips", MIN_SIDE - 1) == "lpips"  # which then refuses them


def test_pictures_too_small_are_refused(narrow: LPIPS) -> None:
    with pytest.raises(UsageError, match="16 px"):
        Distance("lpips", narrow.maps, min_side=MIN_SIDE).features(pictures(1, 8))
