"""filtered_lrelu: official numbers, the tiles against the definition, gradients, memory."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stylecli.errors import UsageError
from stylecli.ops.filtered_lrelu import PhasedActivation, filtered_lrelu
from stylecli.ops.reference import FilteredActivation, filtered_lrelu_ref
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
CALLS = json.loads((OFFICIAL / "filtered_lrelu.json").read_text("utf-8"))
# (up, down, sides of fu and fd, padding, input h×w): tiles that fill up, overrun, and are one
SHAPES = [
    (2, 2, (12,), (12,), (9, 8, 9, 8), (36, 40)),
    (4, 2, (24,), (12, 12), (-6, -9, -6, -9), (36, 20)),
    (2, 2, (12,), (12,), (-11, -12, -11, -12), (52, 52)),
    (2, 2, (12,), (12, 12), (11, 10, 3, -4), (70, 9)),
    (3, 2, (5, 7), (3,), (1, -2, 4, 0), (25, 45)),
    (1, 4, (3,), (1,), (2, 0, 0, 1), (66, 70)),
    (1, 1, (1,), (1,), (0, 0, 0, 0), (5, 40)),
    (5, 1, (2,), (4, 3), (0, 3, -7, 2), (10, 20)),
]


def case(
    up: int, down: int, fu: tuple[int, ...], fd: tuple[int, ...], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(up * 10 + down)
    x = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, torch.randn(fu, generator=generator), torch.randn(fd, generator=generator), b


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call["index"]))
def test_official_values_and_gradients(call: dict[str, Any]) -> None:
    data = np.load(OFFICIAL / "filtered_lrelu.npz")
    settings = {key: call[key] for key in ("up", "down", "padding", "gain", "slope", "clamp")}
    part = {key: torch.tensor(data[f"{call['index']}_{key}"]) for key in ("x", "b", "y", "dy")}
    filters = [
        torch.tensor(data[name]) if (name := f"{call['index']}_{key}") in data else None
        for key in ("fu", "fd")
    ]
    x, b = part["x"].requires_grad_(), part["b"].requires_grad_()
    y = filtered_lrelu(x, *filters, b, **settings, flip_filter=call["flip_filter"])
    assert list(y.shape) == call["out_shape"]
    dx, db = torch.autograd.grad(y, (x, b), part["dy"])
    for found, name in ((y, "y"), (dx, "dx"), (db, "db")):
        wanted = torch.tensor(data[f"{call['index']}_{name}"])
        assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()


@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_are_the_definition(shape: Any, flip: bool, clamp: float | None) -> None:
    up, down, fu_shape, fd_shape, padding, size = shape
    x, fu, fd, b = case(up, down, fu_shape, fd_shape, size)
    how = FilteredActivation(up, down, padding, 1.3, 0.1, -1.0 if clamp is None else clamp, flip)
    results = []
    for tiled in (True, False):
        if tiled:
            y = filtered_lrelu(
                x, fu, fd, b, up=up, down=down, padding=padding, gain=1.3, slope=0.1,
                clamp=clamp, flip_filter=flip,
            )  # fmt: skip
        else:
            y = filtered_lrelu_ref(x, fu, fd, b, how)
        seen = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).requires_grad_()
        dx, db = torch.autograd.grad(y, (x, b), seen, create_graph=True)
        (ddy,) = torch.autograd.grad(dx.square().sum() + db.sum(), seen, create_graph=True)
        (third,) = torch.autograd.grad(ddy.square().sum(), seen)
        results.append((y, dx, db, ddy, third))
    for found, wanted in zip(*results, strict=True):
        # A filter [h, w] is the sum of its products to 1e-9, others to rounding.
        assert (found - wanted).abs().max() <= 1e-8 * wanted.abs().max().clamp(min=1e-9)


def test_derivatives_are_those_of_finite_differences() -> None:
    x, fu, fd, b = case(2, 2, (4,), (4, 4), (5, 6))
    x, b = x.detach()[:1, :2].requires_grad_(), b.detach()[:2].requires_grad_()

    def call(x: Tensor, b: Tensor) -> Tensor:
        return filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=3, clamp=3.0)

    assert torch.autograd.gradcheck(call, (x, b))
    assert torch.autograd.gradgradcheck(call, (x, b))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operator returns, in its own memory or another's."""

    values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.values = max(self.values, result.untyped_storage().nbytes() // 4)
        return result


def test_the_upsampled_picture_is_never_whole() -> None:
    x = torch.randn(1, 8, 256, 256, requires_grad=True)
    fu, fd = torch.ones(24) / 24, torch.ones(12) / 12
    with Largest() as largest:
        y = filtered_lrelu(x, fu, fd, up=4, down=4, padding=16)
        y.sum().backward()
    assert largest.values <= 2 * x.numel()  # upsampled it has 16 times as many
    with Largest() as largest:
        filtered_lrelu_ref(x.detach(), fu, fd, None, FilteredActivation(4, 4, (16,) * 4))
    assert largest.values > 15 * x.numel()


def test_drawing_then_training_share_the_matrices() -> None:
    x, fu, fd, _ = case(2, 2, (12,), (12,), (8, 8))
    with torch.inference_mode():
        filtered_lrelu(x, fu, fd, up=2, down=2, padding=8)
    filtered_lrelu(x, fu, fd, up=2, down=2, padding=8).sum().backward()
    assert x.grad is not None


def test_float32_stays_float32_under_autocast() -> None:
    x, fu, fd, b = (one.detach().float() for one in case(2, 2, (12,), (12,), (8, 8)))
    wanted = filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=8)
    with torch.autocast("cpu", torch.bfloat16):
        found = filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=8)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x": torch.zeros(1, 1, 4)}, r"\[1, 1, 4\]"),
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.int32)}, "int32"),
        ({"b": torch.zeros(2)}, r"\[2\]"),
        ({"fu": torch.zeros(1, 1, 1)}, r"\[1, 1, 1\]"),
        ({"up": 0}, "up is 0"),
        ({"padding": (1, 2, 3)}, "padding"),
        ({"fd": torch.zeros(9)}, "pixels"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        filtered_lrelu(**{"x": torch.zeros(1, 1, 4, 4), **change})


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("taps", [(12, 12), (5, 7), (1, 6)])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("padding", [(9, 8, 9, 8), (0, 3, 0, 3), (-2, 1, -2, 1)])
def test_it_is_what_the_definition_says(
    factor: int, taps: tuple[int, int], square: bool, padding: tuple[int, int, int, int]
) -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, 37, 31, 29, generator=source).contiguous(memory_format=torch.channels_last)
    scale, bias = torch.rand(2, 37, generator=source), torch.randn(37, generator=source)
    fu = torch.rand(taps[0], generator=source) / taps[0]
    fd = torch.rand(*[taps[1]] * (1 + square), generator=source) / taps[1]
    how = FilteredActivation(factor, factor, padding, 1.3, 0.2, 0.8)

    phased = PhasedActivation(
        fu, fd, 37, factor=factor, padding=padding, gain=1.3, slope=0.2, clamp=0.8
    )
    with torch.no_grad():
        found = phased(x, scale, bias)
        wanted = filtered_lrelu_ref(x * scale[:, :, None, None], fu, fd, bias, how)

    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_without_a_scale_only_the_bias_is_added() -> None:
    x, bias = torch.ones(1, 3, 4, 4), torch.tensor([0.0, 1.0, -1.0])
    one = torch.ones(1)
    phased = PhasedActivation(
        one, one, 3, factor=1, padding=(0, 0, 0, 0), gain=1.0, slope=0.5, clamp=None
    )

    assert torch.equal(phased(x, None, bias)[0, :, 0, 0], torch.tensor([1.0, 2.0, 0.0]))
