"""Augmentation equals the official program's, differentiates twice and heeds no neighbours."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylecli.training import augment as augmenting
from stylecli.training.augment import Pipe, StreamDraws, augment, make_pipe
from stylecli.training.config import AUGMENT_PIPES
from tests.conftest import FIXTURES

OFFICIAL = json.loads((FIXTURES / "official" / "ada_augment.json").read_text())
EVERYTHING = Pipe(**dict.fromkeys(Pipe.__dataclass_fields__, 1.0))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    with np.load(FIXTURES / "official" / "ada_augment.npz") as stored:
        return dict(stored)


class Recorded:
    """Hands out the draws of a recorded case; refuses another kind or number of them."""

    def __init__(self, arrays: dict[str, Any], case: int) -> None:
        names = sorted(name for name in arrays if name.startswith(f"{case}:draw"))
        self.left = [(name.rsplit(":")[-1], torch.from_numpy(arrays[name])) for name in names]

    def _next(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        found, values = self.left.pop(0)
        assert found == kind
        return values.double().reshape(len(values), *shape)

    def uniform(self, *shape: int) -> Tensor:
        return self._next("uniform", shape)

    def normal(self, *shape: int) -> Tensor:
        return self._next("normal", shape)


class Own(StreamDraws):
    """Draws in float64, of one seed."""

    def __init__(self, batch: int, *parts: tuple[int, int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(generator, torch.device("cpu"), batch, *parts)

    def uniform(self, *shape: int) -> Tensor:
        return super().uniform(*shape).double()

    def normal(self, *shape: int) -> Tensor:
        return super().normal(*shape).double()


def pictures(count: int = 6, channels: int = 3, size: tuple[int, int] = (16, 16)) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (count, channels, *size)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("side", [256, 0], ids=["by matrices", "by filters"])
@pytest.mark.parametrize("case", OFFICIAL["cases"], ids=lambda case: f"case {case['index']}")
def test_official_pictures_and_gradients(
    case: Any, side: int, recorded: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(augmenting, "MATRIX_SIDE", side)
    images, wanted, upstream, grad = (
        torch.from_numpy(recorded[f"{case['index']}:{name}"]).double()
        for name in ("images", "out", "upstream", "grad")
    )
    images.requires_grad_(True)
    draws = Recorded(recorded, case["index"])
    found = augment(images, Pipe(**case["arguments"]), case["p"], draws)
    (gradient,) = torch.autograd.grad((found * upstream).sum(), images)

    assert not draws.left
    assert (found - wanted).abs().max() < 1e-4
    assert (gradient - grad).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", OFFICIAL["shares"], ids=lambda row: f"{row['transform']}-{row['p']}"
)
def test_official_shares_of_pictures_are_changed(row: Any) -> None:
    pipe = Pipe(**{row["transform"]: 1.0})
    images = pictures(400, size=(32, 32))
    unchanged = augment(images, pipe, 0.0, Own(400))  # geometry resamples even then
    changed = augment(images, pipe, row["p"], Own(400))
    share = ((changed - unchanged).abs().amax(dim=(1, 2, 3)) > 1e-3).double().mean()

    assert abs(share - row["share_changed_more_than_1e_3"]) < 0.1


@pytest.mark.parametrize(
    "channels", [3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 4))]
)
@pytest.mark.parametrize("pipe", ["bgcfnc", "diffaugment"])
def test_everything_differentiates_twice(pipe: str, channels: int) -> None:
    """Of one picture: another one's neighbours change nothing in it, as the next test says."""
    images = pictures(1, channels, (5, 4)).requires_grad_(True)

    def changed(x: Tensor) -> Tensor:
        return augment(x, make_pipe(pipe), 0.9, Own(1)).pow(3)

    assert torch.autograd.gradcheck(changed, images)
    assert torch.autograd.gradgradcheck(changed, images)


@pytest.mark.parametrize("side", [256, 0], ids=["by matrices", "by filters"])
def test_a_picture_heeds_neither_its_neighbours_nor_ranks_nor_passes(
    side: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(augmenting, "MATRIX_SIDE", side)
    images = pictures(8)
    whole = augment(images, EVERYTHING, 0.7, Own(8))
    for rank in range(2):
        mine = images[rank::2]
        for index in range(2):
            part = augment(mine[index::2], EVERYTHING, 0.7, Own(8, (rank, 2), (index, 2)))
            assert torch.allclose(part, whole[rank::2][index::2], atol=1e-12)


def test_transparency_moves_with_its_picture_and_keeps_its_value() -> None:
    images = pictures(channels=4)
    recoloured = augment(images, make_pipe("color"), 1.0, Own(6))
    assert torch.equal(recoloured[:, 3], images[:, 3])
    assert (recoloured[:, :3] != images[:, :3]).any(dim=1).all()

    alike = pictures(channels=1).expand(-1, 4, -1, -1).contiguous()
    moved = augment(alike, make_pipe("bg"), 1.0, Own(6))
    assert torch.allclose(moved[:, :1].expand(-1, 4, -1, -1), moved, atol=1e-12)
    assert (moved[:, 0] - alike[:, 0]).abs().amax(dim=(1, 2)).min() > 0.1


def test_grey_stays_grey() -> None:
    grey = pictures(channels=1)
    pipe = Pipe(brightness=1.0, contrast=1.0, lumaflip=1.0)  # what grey and colours both draw
    found = augment(grey, pipe, 1.0, Own(6))
    coloured = augment(grey.expand(-1, 3, -1, -1), pipe, 1.0, Own(6))
    assert torch.allclose(found, coloured.mean(dim=1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("side", [4, 8])
def test_small_pictures_of_early_growth_take_every_transform(side: int) -> None:
    images = pictures(size=(side, side))
    for name in AUGMENT_PIPES:
        found = augment(images, make_pipe(name), 1.0, Own(6))
        assert found.shape == images.shape
        assert found.isfinite().all()


def test_names_of_pipes() -> None:
    assert make_pipe("bgc").any(("hue",))
    assert not make_pipe("bgc").any(("imgfilter", "noise", "cutout"))
    assert not make_pipe("bgcfn").cutout
    assert make_pipe("bgcfnc").cutout == make_pipe("color").hue == make_pipe("geom").scale == 1
    assert not make_pipe("color").cutout


def test_diffaugment_moves_by_an_eighth_and_hides_a_quarter() -> None:
    ones = torch.ones(200, 1, 32, 32, dtype=torch.float64)
    shifted = augment(ones, Pipe(shift=1.0), 1.0, Own(200))
    lost = (1 - shifted).sum(dim=(1, 2, 3))
    assert 0 <= lost.min() < lost.max() <= 32**2 - 28**2
    hidden = (1 - augment(ones, Pipe(hole=1.0), 1.0, Own(200))).mean(dim=(1, 2, 3))
    assert hidden.min() >= 1 / 16
    assert 0.2 < hidden.max() <= 0.2501
    assert torch.equal(augment(ones, make_pipe("diffaugment"), 0.0, Own(200)), ones)
