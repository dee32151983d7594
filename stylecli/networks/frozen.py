"""Generators that no longer change, prepared for drawing on a CPU.

Training derives every kernel again from its weight: equalised scale, the 4×4 kernels of upsampling,
the scale of the style layers. For a network of the paper's size that costs as much as a third of
a picture, so it is done once here. Noise, bias, activation, normalisation and style then take
PyTorch's own fused kernels: the bias rides on the convolution before it, and AdaIN of one picture
is a batch norm over its pixels with the style as its affine part.

For StyleGAN2 and StyleGAN3, what depends on weights alone is worked out once: kernels in the layout
of the library, their energies for demodulation, √2 of the activation. A style then multiplies
whatever is smallest: the kernels where pictures are large, the features where they are small, and
behind a filter its taps. All else happens in place: fresh memory costs more than the arithmetic.
"""

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.networks import model, stylegan1, stylegan2, stylegan3
from stylecli.networks.layers import EqualConv2d, EqualLinear
from stylecli.networks.stylegan1 import EXACT_SIDE, SynthesisLayer
from stylecli.ops.convolution import Convolution, fixed_conv2d, upsampling_kernel
from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.filtered_lrelu import PhasedActivation, filtered_lrelu
from stylecli.ops.modulation import filter_padding
from stylecli.ops.reference import EPSILON, LEAKY_SLOPE, SQRT2, blur_taps

# From this many values on, normalising picture by picture is quicker than all at once.
_LARGE_FEATURES = 1 << 16


class FrozenSynthesis(stylegan1.SynthesisNetwork):
    """Draws what ``source`` draws, on a CPU and without gradients, to some 1e-4 of the range.

    A copy: later changes of ``source`` do not show, except that it starts with its ``lod``.
    ``dtype`` bfloat16 computes the layers above 8×8 in it, which moves pictures a little
    (docs/bench.md states how much); images are float32 all the same.
    """

    def __init__(
        self, source: stylegan1.SynthesisNetwork, dtype: torch.dtype = torch.float32
    ) -> None:
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
        self.grid = config.grid
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
        """Return the input [N, C, *grid], usually 4×4: the constant, or a dense layer of w."""
        if self.const is not None:
            return self.const.expand(len(w), -1, -1, -1)
        assert self.dense is not None
        return F.linear(w, self.dense).view(len(w), -1, *self.grid)


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


# Kernels take the style, picture by picture, where they have so many fewer values than features.
_FEATURES_PER_WEIGHT = 2


class _Affine:
    """The style of a layer: w [N, w_dim] -> [N, I], with the scales of its weight in it."""

    def __init__(self, layer: nn.Module, scale: float | Tensor = 1.0) -> None:
        affine = cast(EqualLinear, layer.get_submodule("affine"))
        self.weight = affine.weight.detach() * affine.scale * scale
        self.bias = cast(Tensor, affine.bias).detach() * scale

    def __call__(self, w: Tensor) -> Tensor:
        return F.linear(w, self.weight, self.bias)


def _per_plane(values: Tensor) -> Tensor:
    """[N, C] -> [N, C, 1, 1]."""
    return values[:, :, None, None]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# ---- StyleGAN2


class FrozenStyleGAN2(stylegan2.SynthesisNetwork):
    """Draws what ``source`` draws, on a CPU and without gradients, to 1e-5 of the range.

    A copy: later changes of ``source`` do not show. Computes in float32 whatever ``dtype`` is.
    """

    def __init__(
        self, source: stylegan2.SynthesisNetwork, dtype: torch.dtype = torch.float32
    ) -> None:
        model.SynthesisNetwork.__init__(self, source.config)
        with torch.no_grad():
            for block in source.blocks:
                self.add_module(f"b{block.side}", _FrozenBlock(block))


class _FrozenBlock(nn.Module):
    """The layers of one resolution, as ``stylegan2.SynthesisBlock`` has them."""

    def __init__(self, block: stylegan2.SynthesisBlock) -> None:
        super().__init__()
        shortcut = block.skip is not None
        gain = stylegan2.RESIDUAL_GAIN if shortcut else 1.0
        side, first = block.side, block.side == 4
        self.const = _channels_last(block.const.detach()[None].clone()) if first else None
        inner = [] if first else [_FrozenLayer(block.conv0, side // 2, 1.0)]
        self.convolutions = [*inner, _FrozenLayer(block.conv1, side, gain)]
        self.torgb = None if block.torgb is None else _FrozenColours(block.torgb)
        self.skip = None if block.skip is None else _FrozenSkip(block.skip, side // 2)
        self.doubling = _Doubling(block.f, block.config.channels)

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Do what ``stylegan2.SynthesisBlock.forward`` does."""
        if self.const is not None:
            x = self.const.expand(len(ws), -1, -1, -1)
        assert x is not None
        shortcut = None if self.skip is None else self.skip(x)
        for index, layer in enumerate(self.convolutions):
            x = layer(x, ws[:, index], noise[index])
        if shortcut is not None:
            x = x.add_(shortcut)
        if image is not None:
            image = self.doubling(image)
        if self.torgb is not None:
            colours = self.torgb(x, ws[:, len(noise)])
            image = colours if image is None else image.add_(colours)
        return x, image


class _FrozenLayer:
    """A modulated convolution, noise, bias and activation, whose gain is in all that it adds."""

    def __init__(self, layer: stylegan2.SynthesisLayer, side: int, gain: float) -> None:
        weight = layer.weight.detach()
        self.gain = SQRT2 * gain
        self.clamp = None if layer.clamp is None else layer.clamp * gain
        self.affine = _Affine(layer)
        self.energy = weight.square().sum(dim=(2, 3)).T.contiguous()  # [I, O]
        self.bias = layer.bias.detach() * self.gain
        strength = layer.noise_strength
        self.strength = None if strength is None else float(strength.detach()) * self.gain
        if strength is not None:
            self.noise_const = layer.noise_const.clone()
        self.weight: Tensor | None = None
        self.convolution: Convolution | None = None
        self.filter: _Filter | None = None
        if layer.up > 1:
            assert layer.f is not None
            turned = weight.transpose(0, 1).contiguous()
            self.convolution = fixed_conv2d(turned, side=side, transposed=True, padding=(0, 0))
            self.filter = _Filter(layer.f, len(self.bias))
        elif weight[0].numel() * _FEATURES_PER_WEIGHT <= side**2:
            self.weight = _channels_last(weight.clone())
        else:
            self.convolution = fixed_conv2d(weight.clone(), side=side)

    def __call__(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, I, h, w], w [N, w_dim], noise [N or 1, 1, H, W] -> [N, O, H, W]."""
        styles = self.affine(w)
        scale = (styles.square() @ self.energy + EPSILON).rsqrt_().mul_(self.gain)  # [N, O]
        if self.convolution is None:
            y = self._by_kernels(x, styles, scale)
        else:
            y = self.convolution(x * _per_plane(styles))
            if self.filter is not None:
                y = self.filter(y, scale, self.bias)
            else:
                y = y.mul_(_per_plane(scale)).add_(self.bias[:, None, None])
        if noise is not None and self.strength:
            y.add_(noise * self.strength)
        y = F.leaky_relu_(y, LEAKY_SLOPE)
        return y if self.clamp is None else y.clamp_(-self.clamp, self.clamp)

    def _by_kernels(self, x: Tensor, styles: Tensor, scale: Tensor) -> Tensor:
        """Convolve every picture with kernels that hold both of its scales."""
        assert self.weight is not None
        rows = []
        for index in range(len(x)):
            kernel = self.weight * styles[index, :, None, None] * scale[index, :, None, None, None]
            rows.append(F.conv2d(x[index : index + 1], kernel, self.bias, padding=1))
        return rows[0] if len(rows) == 1 else torch.cat(rows)


class _Filter:
    """The low-pass behind a transposed convolution, times a scale per map, and the bias."""

    def __init__(self, f: Tensor, channels: int) -> None:
        before, after = filter_padding(f.shape[-1], up=2)
        square = f if f.ndim == 2 else torch.outer(f, f)
        self.channels = channels
        self.taps = square.flip(0, 1)[None, None] * 4  # [1, 1, n, n], the gain of doubling in it
        self.sides = (before - 1, after)  # the transposed 3×3 convolution begins a pixel early

    def __call__(self, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """y [N, C, 2h + 1, 2w + 1], scale [N, C], bias [C] -> [N, C, 2h, 2w]."""
        left, right = self.sides
        padding = left if left == right and left >= 0 else 0
        if (left, right) != (padding, padding):
            y = _channels_last(F.pad(y, (left, right, left, right)))
        rows = [
            F.conv2d(
                y[index : index + 1], self.taps * scale[index, :, None, None, None], bias,
                padding=padding, groups=self.channels,
            )
            for index in range(len(y))
        ]  # fmt: skip
        return rows[0] if len(rows) == 1 else torch.cat(rows)


class _FrozenColours:
    """Features [N, I, H, W] -> colours [N, C, H, W]: the style is in the matrix."""

    def __init__(self, layer: stylegan2.ToRGB) -> None:
        self.affine = _Affine(layer, 1 / math.sqrt(layer.weight.shape[1]))
        self.weight = layer.weight.detach().flatten(1).clone()
        self.bias = layer.bias.detach()[:, None].clone()
        self.clamp = layer.clamp

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        matrices = self.weight * self.affine(w)[:, None, :]  # [N, C, I]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H·W, I]: a view, channels last
        y = torch.stack([m @ p.T for m, p in zip(matrices, pixels, strict=True)]).add_(self.bias)
        y = y.view(len(x), -1, *x.shape[2:])
        return y if self.clamp is None else y.clamp_(-self.clamp, self.clamp)


class _FrozenSkip:
    """The 1×1 convolution beside a residual block, and its doubling."""

    def __init__(self, layer: stylegan2.ConvLayer, side: int) -> None:
        assert layer.f is not None
        kernel = layer.weight.detach() * (layer.scale * stylegan2.RESIDUAL_GAIN)
        self.weight = kernel.flatten(1)
        self.doubling = _Doubling(layer.f, len(kernel))

    def __call__(self, x: Tensor) -> Tensor:
        y = F.linear(x.permute(0, 2, 3, 1), self.weight).permute(0, 3, 1, 2)
        return _channels_last(self.doubling(y))


class _Doubling:
    """Twice the side by a low-pass, without zeros in between.

    Along each axis every second tap belongs to one phase of the new pixels, so four depthwise
    filters of half the taps make the four pixels of each.
    """

    def __init__(self, f: Tensor, channels: int) -> None:
        square = f if f.ndim == 2 else torch.outer(f, f)
        size = square.shape[-1]
        before, _ = filter_padding(size, up=2)
        flipped = square.flip(0, 1) * 4
        # out[o] = Σₜ flipped[t]·z[o + t - before] with z[2i] = x[i]: offsets from lowest.
        lowest = -(before // 2)
        highest = (1 + size - 1 - before) // 2
        width = highest - lowest + 1
        taps = torch.zeros(2, 2, width, width)
        for row in range(2):
            for column in range(2):
                for t in range(size):
                    for s in range(size):
                        if (row + t - before) % 2 == 0 and (column + s - before) % 2 == 0:
                            y, x = (row + t - before) // 2, (column + s - before) // 2
                            taps[row, column, y - lowest, x - lowest] = flipped[t, s]
        self.channels = channels
        self.taps = taps.view(4, 1, width, width).repeat(channels, 1, 1, 1)
        self.sides = (-lowest, highest)

    def __call__(self, x: Tensor) -> Tensor:
        """x [N, C, h, w] -> [N, C, 2h, 2w]."""
        before, after = self.sides
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return F.pixel_shuffle(F.conv2d(x, self.taps, padding=before, groups=self.channels), 2)


# ---- StyleGAN3


class FrozenStyleGAN3(stylegan3.SynthesisNetwork):
    """Draws what ``source`` draws, on a CPU and without gradients, to 1e-5 of the range.

    A copy: later changes of ``source`` do not show. Computes in float32 whatever ``dtype`` is.
    """

    def __init__(
        self, source: stylegan3.SynthesisNetwork, dtype: torch.dtype = torch.float32
    ) -> None:
        model.SynthesisNetwork.__init__(self, source.config)
        self.names = source.names
        self.input = copy.deepcopy(source.input)
        with torch.no_grad():
            for name in source.names:
                layer = cast(stylegan3.SynthesisLayer, getattr(source, name))
                self.add_module(name, _FrozenFilteredLayer(layer))


class _FrozenFilteredLayer(nn.Module):
    """A modulated convolution and a filtered activation, as ``stylegan3.SynthesisLayer``."""

    def __init__(self, layer: stylegan3.SynthesisLayer) -> None:
        super().__init__()
        self.plan = plan = layer.plan
        self.clamp, self.filters = layer.clamp, (layer.up_filter, layer.down_filter)
        self.bias = layer.bias.detach().clone()
        weight = layer.weight.detach()
        scale = layer.magnitude_ema.rsqrt()
        self.magnitude = float(scale)
        if plan.is_to_rgb:
            self.affine = _Affine(layer, scale / math.sqrt(plan.in_channels))
            self.energy = None
        else:
            self.affine = _Affine(layer)
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            self.energy = weight.square().sum(dim=(2, 3)).T.contiguous()  # [I, O]
        pad = plan.kernel - 1
        self.matrix = weight.flatten(1).clone() if plan.kernel == 1 else None
        self.convolution = fixed_conv2d(weight.clone(), side=plan.in_size.width, padding=(pad, pad))
        self.activation = self._phases()

    def _phases(self) -> PhasedActivation | None:
        """Return the activation in phases; None where tiles are quicker."""
        plan, (fu, fd) = self.plan, self.filters
        if fu is None or fd is None or fu.ndim != 1 or plan.up != plan.down:
            return None
        return PhasedActivation(
            fu, fd, plan.out_channels, factor=plan.up, padding=plan.padding,
            gain=SQRT2, slope=LEAKY_SLOPE, clamp=self.clamp,
        )  # fmt: skip

    def forward(self, x: Tensor, w: Tensor, *, update_emas: bool = False) -> Tensor:
        """x [N, I, in, in], w [N, w_dim] -> [N, O, out, out], channels last."""
        plan = self.plan
        styles = self.affine(w)  # [N, I]
        scale: Tensor | None = None
        if self.energy is not None:
            styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
            scale = (styles.square() @ self.energy + EPSILON).rsqrt_().mul_(self.magnitude)
        x = _channels_last(x) * _per_plane(styles)
        if self.matrix is not None:  # on CPUs quicker than a 1×1 convolution
            x = F.linear(x.permute(0, 2, 3, 1), self.matrix).permute(0, 3, 1, 2)
        else:
            x = self.convolution(x)
        if self.activation is not None:
            return self.activation(x, scale, self.bias)
        if scale is not None:
            x = x * _per_plane(scale)
        up_filter, down_filter = self.filters
        return filtered_lrelu(
            x, up_filter, down_filter, self.bias, up=plan.up, down=plan.down,
            padding=plan.padding, clamp=self.clamp,
            gain=1.0 if plan.is_to_rgb else SQRT2, slope=1.0 if plan.is_to_rgb else LEAKY_SLOPE,
        )  # fmt: skip
