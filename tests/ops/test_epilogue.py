"""The fused epilogue equals its plain definition, with first and second derivatives."""

from typing import Any

import pytest
import torch

from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.reference import style_epilogue_ref


def inputs(dtype: torch.dtype, shape: tuple[int, ...] = (2, 3, 4, 5)) -> list[torch.Tensor]:
    torch.manual_seed(0)
    n, c, h, w = shape
    sizes = [shape, (c,), (n, 1, h, w), (c,), (n, 2 * c)]
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


def fused(x: Any, bias: Any, noise: Any, strength: Any, style: Any) -> torch.Tensor:
    return style_epilogue(x, bias, noise=noise, noise_strength=strength, style=style)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("with_noise", [False, True])
def test_output_and_gradients_equal_the_definition(channels_last: bool, with_noise: bool) -> None:
    x, bias, noise, strength, style = inputs(torch.float64)
    if channels_last:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    arguments = [x, bias, *((noise, strength) if with_noise else (None, None)), style]
    wanted_of = [tensor for tensor in arguments if tensor is not None]
    found, wanted = fused(*arguments), style_epilogue_ref(*arguments)
    assert torch.allclose(found, wanted, atol=1e-12)
    weights = torch.randn_like(found)
    for ours, reference in zip(
        torch.autograd.grad((found * weights).sum(), wanted_of),
        torch.autograd.grad((wanted * weights).sum(), wanted_of),
        strict=True,
    ):
        assert torch.allclose(ours, reference, atol=1e-12)


def test_one_noise_map_for_the_whole_batch() -> None:
    x, bias, noise, strength, style = inputs(torch.float64)
    shared = noise.detach()[:1].requires_grad_()
    arguments = (x, bias, shared, strength, style)
    assert torch.autograd.gradcheck(fused, arguments)


def test_second_derivatives() -> None:
    assert torch.autograd.gradcheck(fused, inputs(torch.float64, (2, 2, 3, 3)))
    assert torch.autograd.gradgradcheck(fused, inputs(torch.float64, (2, 2, 3, 3)))


def test_constant_planes_become_the_shift() -> None:
    """At initialisation layer 0 sees a constant plane: its variance is exactly zero."""
    style = torch.tensor([[3.0, 7.0]])
    y = style_epilogue(torch.full((1, 1, 4, 4), 123.456), torch.zeros(1), style=style)
    assert torch.allclose(y, torch.full_like(y, 7.0), atol=1e-3)
