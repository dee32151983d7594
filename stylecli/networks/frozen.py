"""A generator that no longer changes, prepared for drawing on a CPU.

Training derives every kernel again from its weight: equalised scale, the 4×4 kernels of upsampling,
the scale of the style layers. For a network of the paper's size that costs as much as a third of
a picture, so it is done once here. Noise, bias, activation, normalisation and style then take
PyTorch's own fused kernels: the bias rides on the convolution before it, and AdaIN of one picture
is a batch norm over its pixels with the style as its affine part.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.networks.layers import EqualConv2d
from stylecli.networks.stylegan1 import EXACT_SIDE, SynthesisLayer, SynthesisNetwork
from stylecli.ops.convolution import Convolution, fixed_conv2d, upsampling_kernel
from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.reference import EPSILON, LEAKY_SLOPE, blur_taps

# From this many values on, normalising picture by picture is quicker than all at once.
_LARGE_FEATURES = 1 << 16


class FrozenSynthesis(SynthesisNetwork):
    """Draws what ``source`` draws, on a CPU and without gradients, to some 1e-4 of the range.

    A copy: later changes of ``source`` do not show, except that it starts with its ``lod``.
    ``dtype`` bfloat16 computes the layers above 8×8 in it, which moves pictures a little
    (docs/bench.md states how much); images are float32 all the same.
    """

    def __init__(self, source: SynthesisNetwork, dtype: torch.dtype = torch.float32) -> None:
        nn.Module.__init__(self)
        self.config = source.config
        self.lod = source.lod
        with torch.no_grad():
            layers = [cast(SynthesisLayer, layer) for layer in source.layers]
            self.layers = nn.ModuleList(
                FrozenLayer(layer, torch.float32 if layer.resolution <= EXACT_SIDE else dtype)
                for layer in layers
            )
            colours = [cast(EqualConv2d, rgb) for rgb in source.to_rgb]
            self.to_rgb = nn.ModuleList(_FrozenPointwise(rgb) for rgb in colours)


class FrozenLayer(nn.Module):
    """One synthesis layer with everything that depends on weights alone worked out."""

    noise_const: Tensor

    def __init__(self, layer: SynthesisLayer, dtype: torch.dtype) -> None:
        super().__init__()
        config = layer.config
        self.dtype = dtype
        self.pixel_norm, self.instance_norm = config.pixel_norm, config.instance_norm
        self.adaptive = config.use_styles and config.instance_norm and not config.pixel_norm
        self.const = None if layer.const is None else layer.scaled(layer.const).detach().clone()
        self.dense = None if layer.dense is None else layer.dense.weight * layer.dense.scale
        self.bias = layer.scaled(layer.bias).detach().clone()
        strength = layer.noise_strength
        self.strength = None if strength is None else layer.scaled(strength).detach().clone()
        if config.use_noise:
            self.noise_const = layer.noise_const.clone()
        self.style_weight = None if layer.style is None else layer.style.weight * layer.style.scale
        self.style_bias = None if layer.style is None else _copied(layer.style.bias)
        self.convolutions = () if layer.conv is None else self._convolutions(layer, layer.conv)

    def _convolutions(self, layer: SynthesisLayer, conv: EqualConv2d) -> tuple[Convolution, ...]:
        """Return the layer's convolution, and the blur behind it; the last one adds the bias."""
        bias = self.bias.to(self.dtype) if self.adaptive else None
        if not layer.upsamples:
            kernel = conv.scaled_weight.to(self.dtype)
            return (fixed_conv2d(kernel, bias, side=layer.resolution),)
        kernel = upsampling_kernel(conv.scaled_weight, fused=layer.fused).to(self.dtype)
        side = layer.resolution // 2
        if not layer.config.blur:
            return (fixed_conv2d(kernel, bias, side=side, transposed=True),)
        channels = len(self.bias)
        taps = blur_taps(channels, self.dtype, self.bias.device)
        early, late = (bias, None) if layer.early_bias else (None, bias)
        blur = fixed_conv2d(taps, late, side=layer.resolution, groups=channels)
        return fixed_conv2d(kernel, early, side=side, transposed=True), blur

    def forward(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, I, h, w] or None at the input, w [N, w_dim] -> [N, O, res, res]."""
        style = None
        if self.style_weight is not None:
            style = F.linear(w, self.style_weight, self.style_bias)  # [N, 2·O]
        if not self.adaptive:
            return style_epilogue(
                self._features(x, w).float(),
                self.bias,
                noise=noise,
                noise_strength=self.strength,
                style=style,
                use_pixel_norm=self.pixel_norm,
                use_instance_norm=self.instance_norm,
            ).to(self.dtype)
        assert style is not None
        x = self._features(x, w)
        if noise is not None and self.strength is not None:
            _add_noise(x, noise, self.strength)
        return _normalise(F.leaky_relu_(x, LEAKY_SLOPE), style)

    def _features(self, x: Tensor | None, w: Tensor) -> Tensor:
        """Return what the epilogue takes, in fresh memory: with the bias if that is adaptive."""
        if x is None:
            x = self._input(w).to(self.dtype).contiguous(memory_format=torch.channels_last)
            return x + self.bias.to(self.dtype).view(1, -1, 1, 1) if self.adaptive else x.clone()
        x = x.to(self.dtype)
        for convolution in self.convolutions:
            x = convolution(x)
        return x

    def _input(self, w: Tensor) -> Tensor:
        """Return the 4×4 input [N, C, 4, 4]: the constant, or a dense layer of w."""
        if self.const is not None:
            return self.const.expand(len(w), -1, -1, -1)
        assert self.dense is not None
        return F.linear(w, self.dense).view(len(w), -1, 4, 4)


class _FrozenPointwise(nn.Module):
    """A 1×1 convolution [N, I, h, w] -> float32 [N, O, h, w], as a matrix product in x's dtype."""

    def __init__(self, conv: EqualConv2d) -> None:
        super().__init__()
        self.weight = conv.scaled_weight.flatten(1)
        self.bias = _copied(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.permute(0, 2, 3, 1), self.weight.to(x.dtype), None).float()
        return (y if self.bias is None else y + self.bias).permute(0, 3, 1, 2)


def _copied(parameter: Tensor | None) -> Tensor | None:
    """Return a plain tensor of the same values, which training cannot change."""
    return None if parameter is None else parameter.detach().clone()


def _add_noise(x: Tensor, noise: Tensor, strength: Tensor) -> None:
    """Add noise [N or 1, 1, h, w] times strength [C] to x [N, C, h, w] in place."""
    if x.dtype == torch.float32:
        x.addcmul_(noise, strength.view(1, -1, 1, 1))
        return
    # In bfloat16 the broadcast product is slow; as an outer product it is one matrix update.
    noise = noise.expand(len(x), -1, -1, -1).to(x.dtype).reshape(-1, 1)
    pixels = x.permute(0, 2, 3, 1).view(-1, x.shape[1])  # channels-last: a view of x
    pixels.addmm_(noise, strength.to(x.dtype).view(1, -1))


def _normalise(x: Tensor, style: Tensor) -> Tensor:
    """Return instance_norm(x)·(scale + 1) + shift (Karras et al. 2018, Eq. 1)."""
    scale, shift = style.view(len(x), 2, -1).unbind(1)  # each [N, C]
    scale = scale + 1
    if x[0].numel() < _LARGE_FEATURES and len(x) > 1:
        values = x.float()
        centred = values - values.mean(dim=(2, 3), keepdim=True)
        variance = centred.square().mean(dim=(2, 3), keepdim=True)
        factor = scale[:, :, None, None] * (variance + EPSILON).rsqrt()
        return torch.addcmul(shift[:, :, None, None], centred, factor).to(x.dtype)
    planes = [
        F.batch_norm(
            x[row : row + 1], None, None, scale[row], shift[row], training=True, eps=EPSILON
        )
        for row in range(len(x))
    ]
    return planes[0] if len(planes) == 1 else torch.cat(planes)
