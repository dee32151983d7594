"""The StyleGAN1 epilogue in plain PyTorch: definition, gradient and both normalisations."""

import torch
from torch import Tensor
from torch.nn import functional as F

LEAKY_SLOPE = 0.2
EPSILON = 1e-8


def pixel_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over channels: x / sqrt(mean_C(x²) + 1e-8)."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def instance_norm(x: Tensor) -> Tensor:
    """Bring every feature map [H, W] to zero mean and unit (biased) variance."""
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return x * (x.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()


def style_epilogue_ref(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    style: Tensor | None = None,
    use_pixel_norm: bool = False,
    use_instance_norm: bool = True,
) -> Tensor:
    """Do what style_epilogue does in plain steps: the definition, and its second derivative."""
    if noise is not None and noise_strength is not None:
        x = x + noise * noise_strength.view(1, -1, 1, 1)
    x = F.leaky_relu(x + bias.view(1, -1, 1, 1), LEAKY_SLOPE)
    if use_pixel_norm:
        x = pixel_norm(x)
    if use_instance_norm:
        x = instance_norm(x)
    if style is not None:
        scale, shift = split_style(style, x)
        x = x * scale + shift
    return x


def split_style(style: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Split a style [N, 2C] into the factor (scale + 1) and the shift, each [N, C, 1, 1]."""
    scale, shift = style.view(like.shape[0], 2, like.shape[1], 1, 1).unbind(1)
    return scale + 1, shift


def style_epilogue_gradient_ref(
    dy: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return dx and sums [N·C, 4]: d scale, d shift, sum of dx, sum of dx·noise.

    With instance norm and a style, where the output's gradient is ``dy``. Closed form in
    differentiable steps, so that it gives the second derivative.
    """
    u = x if noise is None or strength is None else x + noise * strength.view(1, -1, 1, 1)
    a = F.leaky_relu(u + bias.view(1, -1, 1, 1), LEAKY_SLOPE)
    centred = a - a.mean(dim=(2, 3), keepdim=True)
    inverse = (centred.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()
    h = centred * inverse
    factor, _ = split_style(style, x)
    mean_dy = dy.mean(dim=(2, 3), keepdim=True)
    mean_dy_h = (dy * h).mean(dim=(2, 3), keepdim=True)
    da = (dy - mean_dy - h * mean_dy_h) * (factor * inverse)
    dx = torch.where(a > 0, da, da * LEAKY_SLOPE)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    with_noise = dx * (0 if noise is None else noise)
    sums = [one.sum(dim=(2, 3), dtype=wide).flatten() for one in (dy * h, dy, dx, with_noise)]
    return dx, torch.stack(sums, dim=1)
