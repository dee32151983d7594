"""What follows every synthesis convolution: noise, bias, leaky ReLU, normalisation, style.

The common case, instance norm with a style, is one autograd node with a hand-written gradient:
the plain version spends most of a small network's time in some forty tiny autograd steps.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.ops.dispatch import Route, route
from stylecli.ops.epilogue_reference import (
    EPSILON,
    LEAKY_SLOPE,
    instance_norm,
    pixel_norm,
    split_style,
    style_epilogue_ref,
)
from stylecli.ops.fused_epilogue import NAME, fused_style_epilogue
from stylecli.ops.partial_derivatives import partial_gradients
from stylecli.ops.registered_epilogue import style_epilogue_op

__all__ = [
    "EPSILON",
    "LEAKY_SLOPE",
    "instance_norm",
    "pixel_norm",
    "style_epilogue",
    "style_epilogue_ref",
]


def style_epilogue(
    x: Tensor,
    bias: Tensor,
    *,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    style: Tensor | None = None,
    use_pixel_norm: bool = False,
    use_instance_norm: bool = True,
) -> Tensor:
    """Finish a synthesis layer: AdaIN (Karras et al. 2018, Eq. 1) behind noise and activation.

    x [N, C, H, W]; bias and noise_strength [C]; noise [N or 1, 1, H, W]; style [N, 2C], of which
    the first half is the scale (added to one) and the second the shift. Order: noise, bias, leaky
    ReLU 0.2, pixel norm, instance norm, ``x·(scale + 1) + shift``. Differentiable twice.
    """
    if style is not None and use_instance_norm and not use_pixel_norm:
        if noise is None or noise_strength is None:
            noise = noise_strength = None
        way = route(NAME, x, bias, noise, noise_strength, style)
        if way is Route.EAGER:
            return fused_style_epilogue(x, bias, noise, noise_strength, style)
        if way is Route.COMPILED:
            return style_epilogue_op(x, bias, noise, noise_strength, style)
        return _StyleEpilogue.apply(  # type: ignore[no-any-return, no-untyped-call]
            x, bias, noise, noise_strength, style
        )
    return style_epilogue_ref(
        x, bias, noise, noise_strength, style, use_pixel_norm, use_instance_norm
    )


class _StyleEpilogue(torch.autograd.Function):
    """y = h·(scale + 1) + shift, h = instance_norm(lrelu(x + noise·strength + bias))."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        strength: Tensor | None,
        style: Tensor,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        offset = bias.view(1, -1, 1, 1)
        if noise is not None and strength is not None:
            u = torch.addcmul(x, noise, strength.view(1, -1, 1, 1)).add_(offset)
        else:
            u = x + offset
        a = F.leaky_relu_(u, LEAKY_SLOPE)
        centred = a - a.mean(dim=(2, 3), keepdim=True)
        # Two passes on purpose: E[a²] - E[a]² cancels badly on nearly constant planes.
        inverse = (centred.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()
        h = centred.mul_(inverse)
        factor, shift = split_style(style, x)
        ctx.save_for_backward(x, bias, noise, strength, style, a, h, inverse)
        return torch.addcmul(shift, h, factor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, bias, noise, strength, style, a, h, inverse = ctx.saved_tensors
        if grad is None:
            return None, None, None, None, None
        inputs = (x, bias, noise, strength, style)
        if torch.is_grad_enabled():  # a second derivative is wanted
            return tuple(
                partial_gradients(
                    lambda *own: (style_epilogue_ref(*own),), inputs, ctx.needs_input_grad, (grad,)
                )
            )
        factor, _ = split_style(style, x)
        mean_grad = grad.mean(dim=(2, 3), keepdim=True)
        mean_grad_h = (grad * h).mean(dim=(2, 3), keepdim=True)
        pixels = x.shape[2] * x.shape[3]
        grad_style = torch.cat([mean_grad_h, mean_grad], dim=1).view(len(x), -1) * pixels
        # Through the normalisation: (g - mean g - h·mean(g·h))·factor/σ, then the leaky ReLU.
        grad_a = torch.addcmul(grad - mean_grad, h, mean_grad_h, value=-1).mul_(factor * inverse)
        grad_x = torch.ops.aten.leaky_relu_backward(grad_a, a, LEAKY_SLOPE, True)
        grad_bias = grad_x.sum(dim=(0, 2, 3))
        grad_noise = grad_strength = None
        if noise is not None and strength is not None:
            if ctx.needs_input_grad[3]:
                grad_strength = (grad_x * noise).sum(dim=(0, 2, 3))
            if ctx.needs_input_grad[2]:
                grad_noise = (grad_x * strength.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
                grad_noise = grad_noise.sum_to_size(noise.shape)
        return grad_x, grad_bias, grad_noise, grad_strength, grad_style
