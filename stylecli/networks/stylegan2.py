"""StyleGAN2 (Karras et al. 2019), as its program with adaptive augmentation (2020) has it.

Equation and figure numbers are of "Analyzing and Improving the Image Quality of StyleGAN".
Parameters bear the names of NVIDIA's PyTorch programs; filters are made from the configuration.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stylecli.networks import model
from stylecli.networks.layers import (
    EqualLinear,
    check_labels,
    minibatch_stddev,
    whole_precision,
)
from stylecli.networks.stylegan2_config import ModulatedConfig, StyleGAN2Config
from stylecli.ops.activation import bias_act
from stylecli.ops.convolution import in_quick_layout
from stylecli.ops.modulation import (
    demodulation,
    filter_padding,
    modulated_conv2d,
    prefers_grouped,
    resampled_conv2d,
    within_half_range,
)
from stylecli.ops.reference import per_plane, pixel_norm
from stylecli.ops.resampling import upfirdn2d

_SEPARABLE_FROM = 8  # taps: shorter filters go over the picture in one pass
RESIDUAL_GAIN = math.sqrt(0.5)  # of both branches of a residual block: keeps their variance


# ---- what generator and discriminator share


def low_pass(taps: Sequence[float]) -> Tensor:
    """Return a filter of sum 1: [n, n], or [n] from 8 taps on, which goes by two passes."""
    f = torch.tensor(taps, dtype=torch.float32)
    f = f if len(taps) >= _SEPARABLE_FROM else torch.outer(f, f)
    return f / f.sum()


def add_dense_layers(module: nn.Module, widths: Sequence[int], lrmul: float) -> None:
    """Give a module dense layers ``fc0``, ``fc1``, ... from one width to the next."""
    for index in range(len(widths) - 1):
        layer = EqualLinear(widths[index], widths[index + 1], gain=1.0, lrmul=lrmul)
        module.add_module(f"fc{index}", layer)


def run_dense_layers(module: nn.Module, count: int, x: Tensor) -> Tensor:
    """Run the layers of ``add_dense_layers``, each followed by √2·lrelu."""
    for index in range(count):
        x = bias_act(getattr(module, f"fc{index}")(x), act="lrelu")
    return x


def compute_dtype(x: Tensor, config: ModulatedConfig, side: int) -> torch.dtype:
    """Return what a block at ``side`` px computes in: float16 in the highest, on a GPU alone."""
    if x.dtype not in (torch.float32, torch.float16):
        return x.dtype
    return torch.float16 if x.is_cuda and side >= config.lowest_fp16_side else torch.float32


def enlarged(images: Tensor, f: Tensor) -> Tensor:
    """Double the side of images [N, C, H, W] by a low-pass filter."""
    before, after = filter_padding(f.shape[-1], up=2)
    return upfirdn2d(images, f, up=2, padding=[before, after, before, after], gain=4)


def halved(images: Tensor, f: Tensor) -> Tensor:
    """Halve the side of images [N, C, H, W] by a low-pass filter."""
    before, after = filter_padding(f.shape[-1], down=2)
    return upfirdn2d(images, f, down=2, padding=[before, after, before, after])


class ConvLayer(nn.Module):
    """A convolution without style, its bias, activation, gain and clamp; weight [O, I, k, k]."""

    f: Tensor | None

    def __init__(
        self, config: ModulatedConfig, fan_in: int, fan_out: int, kernel: int, *,
        act: str = "lrelu", bias: bool = True, up: int = 1, down: int = 1, clamp: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None
        self.scale = 1 / math.sqrt(fan_in * kernel**2)
        self.act, self.up, self.down = act, up, down
        self.clamp = config.conv_clamp if clamp else None
        resamples = up > 1 or down > 1
        self.register_buffer(
            "f", low_pass(config.resample_filter) if resamples else None, persistent=False
        )

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        """x [N, I, H, W] -> [N, O, H·up/down, W·up/down]; clamp and gain go together."""
        weight = (self.weight * self.scale).to(x.dtype)
        x = resampled_conv2d(x, weight, up=self.up, down=self.down, f=self.f)
        clamp = None if self.clamp is None else self.clamp * gain
        full = gain * (math.sqrt(2) if self.act == "lrelu" else 1.0)
        return bias_act(x, self.bias, act=self.act, gain=full, clamp=clamp)


# ---- mapping


class MappingNetwork(model.MappingNetwork):
    """f: Z -> W; z and the label's embedding are normalised apart, or together (TensorFlow)."""

    config: ModulatedConfig

    def __init__(self, config: ModulatedConfig) -> None:
        super().__init__(config)
        if config.label_dim:
            joint = config.label_mode == "joint"
            layer = EqualLinear(config.label_dim, config.embedded_width, gain=1.0, bias=not joint)
            self.add_module("label", layer)
        add_dense_layers(self, config.mapping_widths, config.mapping_lrmul)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map latents [N, z_dim] (and labels [N, label_dim]) to w [N, w_dim], nothing else."""
        self.check_latents(z, c)
        config = self.config
        x = z if config.label_mode == "joint" else pixel_norm(z)
        if config.label_dim and c is not None:
            label = self.get_submodule("label")(c.to(z.dtype))
            x = torch.cat([x, label if config.label_mode == "joint" else pixel_norm(label)], dim=1)
        if config.label_mode == "joint":
            x = pixel_norm(x)
        return run_dense_layers(self, config.mapping_layers, x)


class LabelMapping(nn.Module):
    """Labels [N, label_dim] -> [N, cmap_width], which the discriminator projects onto."""

    def __init__(self, config: ModulatedConfig) -> None:
        super().__init__()
        self.count, width = config.D_mapping_layers, config.cmap_width
        self.label = EqualLinear(config.label_dim, width, gain=1.0)
        add_dense_layers(self, [width] * (self.count + 1), 0.01)

    def forward(self, c: Tensor) -> Tensor:
        """c [N, label_dim] -> [N, cmap_width]."""
        return run_dense_layers(self, self.count, pixel_norm(self.label(c)))


# ---- synthesis


class Modulated(nn.Module):
    """Weight, bias and style of a modulated convolution; the style's bias begins at one."""

    def __init__(self, config: StyleGAN2Config, fan_in: int, fan_out: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.affine = EqualLinear(config.w_dim, fan_in, gain=1.0)
        nn.init.ones_(cast(nn.Parameter, self.affine.bias))
        self.clamp = config.conv_clamp

    def styles(self, w: Tensor) -> Tensor:
        """w [N, w_dim] -> styles [N, I], in whole precision: demodulation squares them."""
        with torch.autocast(w.device.type, enabled=False):
            return self.affine(whole_precision(w))  # type: ignore[no-any-return]


class SynthesisLayer(Modulated):
    """A modulated and demodulated 3×3 convolution, noise, bias and activation (Figure 2c, d)."""

    noise_const: Tensor
    f: Tensor | None

    def __init__(
        self, config: StyleGAN2Config, fan_in: int, fan_out: int, side: int, *, up: int
    ) -> None:
        super().__init__(config, fan_in, fan_out, 3)
        self.up = up
        self.noise_strength: nn.Parameter | None = None
        if config.use_noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(*config.size_at(side)))
        f = low_pass(config.resample_filter) if up > 1 else None
        self.register_buffer("f", f, persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, *, gain: float = 1.0) -> Tensor:
        """x [N, I, h, w], w [N, w_dim], noise [N or 1, 1, H, W] -> [N, O, H, W]."""
        styles = self.styles(w)
        scale = None
        if prefers_grouped(x):
            x = modulated_conv2d(x, self.weight, styles, up=self.up, f=self.f, grouped=True)
        else:  # the last scale rides on the activation
            weight: Tensor = self.weight
            if x.dtype == torch.float16:
                weight, styles = within_half_range(weight, styles)
            scale = demodulation(weight, styles)
            x = x * per_plane(styles.to(x.dtype), x)
            x = resampled_conv2d(x, weight.to(x.dtype), up=self.up, f=self.f)
        return bias_act(
            x, self.bias, act="lrelu", gain=math.sqrt(2) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
            scale=scale, noise=noise, noise_strength=self.noise_strength,
        )  # fmt: skip


class ToRGB(Modulated):
    """Features -> colours: a modulated 1×1 convolution that is not demodulated (§2.2)."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> whole precision [N, C, H, W]."""
        styles = self.styles(w) / math.sqrt(self.weight.shape[1])
        x = modulated_conv2d(x, self.weight, styles, demodulate=False)
        return whole_precision(bias_act(x, self.bias, clamp=self.clamp))


class SynthesisBlock(nn.Module):
    """The layers of one resolution, and what its architecture (Figure 7) adds to them."""

    f: Tensor

    def __init__(self, config: StyleGAN2Config, side: int) -> None:
        super().__init__()
        self.config, self.side = config, side
        maps = config.fmaps(side)
        if side == 4:
            self.const = nn.Parameter(torch.randn(maps, *config.grid))
        else:
            before = config.fmaps(side // 2)
            self.conv0 = SynthesisLayer(config, before, maps, side, up=2)
        self.conv1 = SynthesisLayer(config, maps, maps, side, up=1)
        self.torgb: ToRGB | None = None
        if config.G_architecture == "skip" or side == config.resolution:
            self.torgb = ToRGB(config, maps, config.channels, 1)
        self.skip: ConvLayer | None = None
        if config.G_architecture == "resnet" and side > 4:
            self.skip = ConvLayer(
                config, before, maps, 1, act="linear", bias=False, up=2, clamp=False
            )
        self.register_buffer("f", low_pass(config.resample_filter), persistent=False)

    @property
    def convolutions(self) -> list[SynthesisLayer]:
        """The layers that take noise, in order."""
        return [self.conv1] if self.side == 4 else [self.conv0, self.conv1]

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Return this resolution's features and picture.

        x [N, I, h, w] and image [N, C, h, w] of the resolution before (None at 4×4); ws [N, 2 or 3,
        w_dim]: one per convolution and one for the colours; a noise map per convolution.
        """
        if x is None:
            x = in_quick_layout(self.const.to(ws.dtype).expand(ws.shape[0], -1, -1, -1))
        x = x.to(compute_dtype(x, self.config, self.side))
        shortcut = None if self.skip is None else self.skip(x, gain=RESIDUAL_GAIN)
        gain = 1.0 if shortcut is None else RESIDUAL_GAIN
        if self.side > 4:
            x = self.conv0(x, ws[:, 0], noise[0])
        x = self.conv1(x, ws[:, len(noise) - 1], noise[-1], gain=gain)
        if shortcut is not None:
            x = x + shortcut
        if image is not None:
            image = enlarged(image, self.f)
        if self.torgb is not None:
            colours = self.torgb(x, ws[:, len(noise)])
            image = colours if image is None else image + colours
        return x, image


class SynthesisNetwork(model.SynthesisNetwork):
    """g: one latent per layer -> image."""

    config: StyleGAN2Config

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config)
        for side in config.sides:
            self.add_module(f"b{side}", SynthesisBlock(config, side))

    @property
    def blocks(self) -> list[SynthesisBlock]:
        """The blocks, from 4×4 on."""
        return [cast(SynthesisBlock, getattr(self, f"b{side}")) for side in self.config.sides]

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        generator: torch.Generator | None = None,
        halvings: int = 0,
    ) -> Tensor:
        """Draw images [N, C, H, W], about -1 to 1, from ws [N, num_ws, w_dim].

        ``noise_mode``: const (stored maps), random (from ``generator``), none. ``noise`` overrides
        it with a list of one [N or 1, 1, h, w] map (None: no noise) per convolution;
        ``noise_scale`` multiplies it, a number or one per convolution. A block's colours share
        their w with the next block's first convolution. ``halvings`` leaves out as many of the
        highest resolutions: the sum of the colours so far, at 1/2^halvings of the sides.
        Raises UsageError for bad arguments.
        """
        self.check_inputs(ws, noise_mode, noise)
        scales = self.layer_scales(noise_scale)
        x: Tensor | None = None
        image: Tensor | None = None
        first = 0  # number of the block's first convolution, and of its w
        for block in self.blocks[: len(self.blocks) - halvings]:
            last = first + len(block.convolutions)
            maps = [
                self.layer_noise(layer, ws, noise_mode, noise, scales[layer], generator)
                for layer in range(first, last)
            ]
            x, image = block(x, image, ws[:, first : last + 1], maps)
            first = last
        assert image is not None
        return image

    def stored_noise(self, layer: int) -> Tensor:
        """Return a layer's constant noise map [1, 1, h, w]."""
        block = cast(SynthesisBlock, getattr(self, f"b{self.config.layer_side(layer)}"))
        plane = block.convolutions[(layer + 1) % 2 if layer else 0].noise_const
        return plane.view(1, 1, *plane.shape)

    def style_maps(self) -> list[model.StyleMap]:
        """Return the styles of the convolutions, and of the colours at full resolution."""
        layers: list[Modulated] = [
            layer for block in self.blocks for layer in block.convolutions
        ]  # fmt: skip
        colours = self.blocks[-1].torgb
        assert colours is not None
        return [
            model.StyleMap(at, layer.affine, layer) for at, layer in enumerate([*layers, colours])
        ]


class Generator(model.Generator):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    halves = MappingNetwork, SynthesisNetwork


# ---- discriminator


class DiscriminatorBlock(nn.Module):
    """Features at a resolution -> features at half of it (Figure 7)."""

    f: Tensor

    def __init__(self, config: ModulatedConfig, side: int) -> None:
        super().__init__()
        self.config, self.side = config, side
        maps, after = config.D_fmaps(side), config.D_fmaps(side // 2)
        self.fromrgb: ConvLayer | None = None
        if side == config.resolution or config.D_architecture == "skip":
            self.fromrgb = ConvLayer(config, config.channels, maps, 1)
        self.conv0 = ConvLayer(config, maps, maps, 3)
        self.conv1 = ConvLayer(config, maps, after, 3, down=2)
        self.skip: ConvLayer | None = None
        if config.D_architecture == "resnet":
            self.skip = ConvLayer(
                config, maps, after, 1, act="linear", bias=False, down=2, clamp=False
            )
        self.register_buffer("f", low_pass(config.resample_filter), persistent=False)

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, and the picture, at half the side of image [N, C, 2h, 2w]."""
        dtype = compute_dtype(image, self.config, self.side)
        x = None if x is None else x.to(dtype)
        if self.fromrgb is not None:
            colours = self.fromrgb(image.to(dtype))
            x = colours if x is None else x + colours
        if self.config.D_architecture == "skip":
            image = halved(image, self.f)
        assert x is not None
        if self.skip is None:
            return self.conv1(self.conv0(x)), image
        shortcut = self.skip(x, gain=RESIDUAL_GAIN)
        return shortcut + self.conv1(self.conv0(x), gain=RESIDUAL_GAIN), image


class DiscriminatorHead(nn.Module):
    """Features at 4×4 -> outputs: minibatch stddev, convolution, two dense layers."""

    def __init__(self, config: ModulatedConfig) -> None:
        super().__init__()
        maps = config.D_fmaps(4)
        self.group_size, self.features = config.mbstd_group_size, config.mbstd_features
        self.fromrgb: ConvLayer | None = None
        if config.D_architecture == "skip" or config.resolution == 4:
            self.fromrgb = ConvLayer(config, config.channels, maps, 1)
        extra = self.features if self.group_size else 0
        self.conv = ConvLayer(config, maps + extra, maps, 3)
        self.fc = EqualLinear(config.size_at(4).pixels * maps, maps, gain=1.0)
        self.out = EqualLinear(maps, config.D_outputs, gain=1.0)

    def forward(self, x: Tensor | None, image: Tensor) -> Tensor:
        """x [N, C, *base], image [N, channels, *base] -> [N, outputs]."""
        if self.fromrgb is not None:
            colours = self.fromrgb(image)
            x = colours if x is None else x + colours
        assert x is not None
        if self.group_size:
            x = minibatch_stddev(x, self.group_size, self.features)
        x = self.conv(x).flatten(1)
        return self.out(bias_act(self.fc(x), act="lrelu"))  # type: ignore[no-any-return]


class Discriminator(model.Discriminator):
    """D: image -> logit; positive means real.

    Labels, by ``config.D_label_mode``: ``project`` takes the product of the outputs with the mapped
    label over √width; ``select`` has an output per class (TensorFlow).
    """

    config: ModulatedConfig

    def __init__(self, config: ModulatedConfig) -> None:
        super().__init__(config)
        for side in reversed(config.sides[1:]):
            self.add_module(f"b{side}", DiscriminatorBlock(config, side))
        self.b4 = DiscriminatorHead(config)
        self.mapping: LabelMapping | None = None
        if config.label_dim and config.D_label_mode == "project":
            self.mapping = LabelMapping(config)

    def forward(
        self, images: Tensor, c: Tensor | None = None, *, lod: float | None = None
    ) -> Tensor:
        """Score images [N, C, H, W]: logits [N, 1].

        ``c`` is one-hot [N, label_dim]; ``lod`` is None or 0, since nothing grows. Raises
        UsageError for wrong shapes, labels or batches that do not divide into stddev groups.
        """
        self.config.check_lod(lod or 0.0)
        check_labels(c, self.config.label_dim, images.shape[0])
        logits = self.outputs(images)  # [N, outputs]
        if not self.config.label_dim or c is None:
            return logits
        c = c.to(logits.dtype)
        if self.mapping is None:
            return (logits * c).sum(dim=1, keepdim=True)
        with torch.autocast(logits.device.type, enabled=False):
            label: Tensor = self.mapping(c)
        return (logits * label).sum(dim=1, keepdim=True) / math.sqrt(label.shape[1])

    def outputs(self, images: Tensor) -> Tensor:
        """Return all outputs [N, outputs] of the last layer, before labels are looked at."""
        images = self.checked(images)
        x: Tensor | None = None
        for side in reversed(self.config.sides[1:]):
            x, images = getattr(self, f"b{side}")(x, images)
        with torch.autocast(images.device.type, enabled=False):  # logits need all bits
            x = None if x is None else whole_precision(x)
            return self.b4(x, whole_precision(images))  # type: ignore[no-any-return]
