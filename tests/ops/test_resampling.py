"""Resampling: official numbers, the definition step by step, what is refused; and the blur."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylecli import ops
from stylecli.errors import UsageError
from stylecli.ops.reference import blur2d_ref
from stylecli.ops.resampling import blur2d
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
CALLS = json.loads((OFFICIAL / "upfirdn2d.json").read_text("utf-8"))["calls"]


def arguments_of(function: str, f: Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the official conveniences pass to upfirdn2d."""
    size, settings = f.shape[0], {"padding": 0, **settings}
    low, high = {
        "upfirdn2d": (0, 0),
        "filter2d": (size // 2, (size - 1) // 2),
        "upsample2d": ((size + 1) // 2, (size - 2) // 2),
        "downsample2d": ((size - 1) // 2, (size - 2) // 2),
    }[function]
    if function == "upfirdn2d":
        return settings
    if function == "upsample2d":
        settings |= {"up": 2, "gain": 4}
    if function == "downsample2d":
        settings |= {"down": 2}
    extra = settings["padding"]
    # The official code counts width and height apart; here one filter is 2×3.
    wide = f.shape[-1]
    low_x = {"filter2d": wide // 2, "upsample2d": (wide + 1) // 2, "downsample2d": (wide - 1) // 2}
    high_x = {"filter2d": (wide - 1) // 2, "upsample2d": (wide - 2) // 2,
              "downsample2d": (wide - 2) // 2}  # fmt: skip
    settings["padding"] = [
        extra + low_x[function], extra + high_x[function], extra + low, extra + high,
    ]  # fmt: skip
    return settings


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call['index']} {call['function']}")
def test_official_values_and_gradients(call: dict[str, Any]) -> None:
    data = np.load(OFFICIAL / "upfirdn2d.npz")
    index, name = call["index"], call["filter"]
    f = None if name is None else torch.tensor(data[f"filter_{name}"])
    settings = call["kwargs"]
    if f is not None:
        settings = arguments_of(call["function"], f, settings)
    x = torch.tensor(data[f"{index}_x"], requires_grad=True)
    y = ops.upfirdn2d(x, f, **settings)
    (dx,) = torch.autograd.grad(y, x, torch.tensor(data[f"{index}_dy"]))
    assert torch.allclose(y, torch.tensor(data[f"{index}_y"]), atol=1e-5)
    assert torch.allclose(dx, torch.tensor(data[f"{index}_dx"]), atol=1e-5)


def by_definition(
    x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, ...], flip: bool
) -> Tensor:
    """Zeros, padding, a sum over the filter, every n-th pixel: nothing clever."""
    count, channels, height, width = x.shape
    wide = torch.zeros(count, channels, height * up, width * up, dtype=x.dtype)
    wide[:, :, ::up, ::up] = x
    wide = torch.nn.functional.pad(wide, padding)
    kernel = f if flip else f.flip(0, 1)
    rows, columns = wide.shape[2] - f.shape[0] + 1, wide.shape[3] - f.shape[1] + 1
    y = torch.zeros(count, channels, rows, columns, dtype=x.dtype)
    for i in range(f.shape[0]):
        for j in range(f.shape[1]):
            y += kernel[i, j] * wide[:, :, i : i + rows, j : j + columns]
    return y[:, :, ::down, ::down]


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (3, 1, 2, 4), (-2, 1, 3, -1)])
@pytest.mark.parametrize("flip", [False, True])
def test_it_is_the_definition(up: int, down: int, padding: tuple[int, ...], flip: bool) -> None:
    x, f = torch.randn(1, 2, 7, 6, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    found = ops.upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip)
    assert torch.allclose(found, by_definition(x, f, up, down, padding, flip), atol=1e-12)


def test_a_row_of_taps_stands_for_its_square() -> None:
    x, f = torch.randn(1, 2, 9, 8), torch.randn(5)
    one = ops.upfirdn2d(x, f, up=2, down=3, padding=[1, 2], gain=3)
    both = ops.upfirdn2d(x, torch.outer(f, f), up=2, down=3, padding=(1, 1, 2, 2), gain=3)
    assert torch.allclose(one, both, atol=1e-5)


def test_pairs_are_x_then_y() -> None:
    assert ops.upfirdn2d(torch.zeros(1, 1, 4, 4), None, up=(3, 1)).shape == (1, 1, 4, 12)
    assert ops.upfirdn2d(torch.zeros(1, 1, 4, 4), None, down=[1, 2]).shape == (1, 1, 2, 4)
    assert ops.upfirdn2d(torch.zeros(1, 1, 4, 4), None, padding=[1, 2]).shape == (1, 1, 8, 6)


def test_the_filter_itself_can_be_trained() -> None:
    f = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: ops.upfirdn2d(x, f, up=2), [f])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"up": 0}, "up is 0"),
        ({"down": [1, 0]}, r"down is \[1, 0\]"),
        ({"padding": [1, 2, 3]}, "padding has 3 numbers"),
        ({"padding": -2}, "would return 0×0 pixels"),
        ({"f": torch.zeros(0)}, "a filter has shape"),
        ({"x": torch.zeros(2, 4, 4)}, r"x has shape \[2, 4, 4\]"),
    ],
)
def test_what_makes_no_sense_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ops.upfirdn2d(**({"x": torch.zeros(1, 1, 4, 4), "f": None} | settings))


def test_a_crop_may_reach_into_the_padding() -> None:
    """Five zeros to the left of one pixel, then three columns off at the right, as in the order."""
    x = torch.ones(1, 1, 2, 1)

    y = ops.upfirdn2d(x, torch.tensor([1.0]), padding=[5, -3, 0, 0])

    assert y.tolist() == [[[[0.0] * 3] * 2]]


@pytest.mark.parametrize(
    "wrong",
    [{"up": [1, 2, 3]}, {"up": 1.5}, {"down": [1.5, 2]}, {"padding": 1.0}, {"padding": [0.5, 0.5]}],
    ids=str,
)
def test_numbers_that_are_not_whole_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected (one or two )?whole numbers"):
        ops.upfirdn2d(torch.ones(1, 1, 4, 4), None, **wrong)


def test_whole_numbers_of_numpy_are_numbers_and_pixels_must_be_floating() -> None:
    assert ops.upfirdn2d(torch.ones(1, 1, 2, 2), None, up=np.int64(2)).shape == (1, 1, 4, 4)
    with pytest.raises(UsageError, match="needs floating-point x"):
        ops.upfirdn2d(torch.ones(1, 1, 4, 4, dtype=torch.uint8), None)


# ---- the blur


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 2, 1, 7)])
def test_blur_and_its_derivatives(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.equal(blur2d(x), blur2d_ref(x))
    assert torch.autograd.gradcheck(blur2d, [x])
    assert torch.autograd.gradgradcheck(blur2d, [x])


def test_blur_keeps_brightness_away_from_the_border() -> None:
    assert torch.allclose(blur2d(torch.ones(1, 2, 5, 5))[..., 1:-1, 1:-1], torch.ones(()))
