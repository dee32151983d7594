"""What follows every synthesis convolution: noise, bias, leaky ReLU, normalisation, style."""

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
    ReLU 0.2, pixel norm, instance norm, ``x·(scale + 1) + shift``.
    """
    if noise is not None and noise_strength is not None:
        x = x + noise * noise_strength.view(1, -1, 1, 1)
    x = F.leaky_relu(x + bias.view(1, -1, 1, 1), LEAKY_SLOPE)
    if use_pixel_norm:
        x = pixel_norm(x)
    if use_instance_norm:
        x = instance_norm(x)
    if style is not None:
        scale, shift = style.view(x.shape[0], 2, x.shape[1], 1, 1).unbind(1)
        x = x * (scale + 1) + shift
    return x
