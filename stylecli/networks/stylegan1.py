"""StyleGAN (Karras, Laine, Aila 2018) and, by switches, Progressive GAN: mapping, synthesis, D.

Generator and discriminator grow by ``lod``: 0 is full resolution, whole numbers are halvings, and
fractions fade from one resolution to the next.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.networks import model
from stylecli.networks.layers import (
    SQRT2,
    EqualConv2d,
    EqualLinear,
    ToRGB,
    box_average,
    check_labels,
    leaky_relu,
    lerp,
    minibatch_stddev,
    split_lod,
    upscale_nearest,
    whole_precision,
)
from stylecli.networks.stylegan1_config import StyleGAN1Config
from stylecli.ops.convolution import conv2d_downsample, in_quick_layout, upsample_conv2d
from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.reference import pixel_norm
from stylecli.ops.resampling import blur2d


class MappingNetwork(model.MappingNetwork):
    """f: Z -> W, a stack of dense layers behind a normalisation of the input (§2 of the paper)."""

    config: StyleGAN1Config

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__(config)
        width = config.z_dim
        self.label_embedding: nn.Parameter | None = None
        if config.label_dim:
            if config.label_mode == "embed":
                # No equalised learning rate here, as in the official networks.
                self.label_embedding = nn.Parameter(torch.randn(config.label_dim, config.z_dim))
                width += config.z_dim
            else:
                width += config.label_dim
        self.layers = nn.ModuleList()
        for index in range(config.mapping_layers):
            last = index == config.mapping_layers - 1
            out = config.w_dim if last else config.mapping_fmaps
            self.layers.append(EqualLinear(width, out, gain=SQRT2, lrmul=config.mapping_lrmul))
            width = out
        self.register_buffer("w_avg", torch.zeros(width))

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map latents [N, z_dim] (and labels [N, label_dim]) to w [N, w_dim], nothing else."""
        self.check_latents(z, c)
        x = z
        if self.config.label_dim and c is not None:
            c = c.to(z.dtype)
            label = c if self.label_embedding is None else c @ self.label_embedding
            x = torch.cat([z, label], dim=1)
        x = pixel_norm(x)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return x


# A constant 4×4 input plus a little noise is normalised right away: in bfloat16, whose steps are
# 1/128 near 1, most of that noise would be lost. Layers up to 8×8 cost nothing in float32.
EXACT_SIDE = 8


class SynthesisLayer(nn.Module):
    """One convolution (or the input) and its epilogue; ``index`` counts from 0 at 4×4."""

    noise_const: Tensor

    def __init__(self, config: StyleGAN1Config, index: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.config = config
        self.upsamples = index >= 2 and index % 2 == 0
        self.resolution = 2 ** (index // 2 + 2)
        self.fused = self.resolution >= 128 if config.fused_scale == "auto" else config.fused_scale
        self.const: nn.Parameter | None = None
        self.dense: EqualLinear | None = None
        self.conv: EqualConv2d | None = None
        if index > 0:
            self.conv = EqualConv2d(
                fan_in, fan_out, 3, gain=SQRT2 * config.feature_scale, bias=False
            )
        elif config.const_input:
            self.const = nn.Parameter(torch.ones(1, fan_out, *config.grid))
        else:
            # Gain √2/4 balances the sixteen-fold reshape (Progressive GAN).
            pixels = config.size_at(4).pixels
            gain = SQRT2 / math.sqrt(pixels) * config.feature_scale
            self.dense = EqualLinear(config.w_out_dim, fan_out * pixels, gain=gain, bias=False)
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.noise_strength: nn.Parameter | None = None
        if config.use_noise:
            self.noise_strength = nn.Parameter(torch.zeros(fan_out))
            self.register_buffer("noise_const", torch.randn(1, 1, *config.layer_size(index)))
        self.style: EqualLinear | None = None
        if config.use_styles:
            self.style = EqualLinear(config.w_out_dim, 2 * fan_out, gain=1.0)

    def _transform(self, x: Tensor | None, w: Tensor) -> Tensor:
        if x is None:
            return in_quick_layout(self._input(w))
        assert self.conv is not None
        if not self.upsamples:
            return self.conv(x)  # type: ignore[no-any-return]
        x = upsample_conv2d(x, self.conv.scaled_weight, fused=self.fused)
        if self.early_bias:
            x = x + self.scaled(self.bias).to(x.dtype).view(1, -1, 1, 1)
        return blur2d(x) if self.config.blur else x

    @property
    def early_bias(self) -> bool:
        """Whether the bias is added before the blur."""
        return self.upsamples and self.config.bias_before_blur

    def scaled(self, parameter: Tensor) -> Tensor:
        """Return what is added to features, at the scale that features have here."""
        scale = self.config.feature_scale
        return parameter if scale == 1 else parameter * scale

    def _input(self, w: Tensor) -> Tensor:
        """Return the input [N, C, *grid], usually 4×4: learned constant, or a dense layer of w."""
        if self.const is not None:
            return self.scaled(self.const).expand(w.shape[0], -1, -1, -1)
        assert self.dense is not None
        return self.dense(w).view(w.shape[0], -1, *self.config.grid)  # type: ignore[no-any-return]

    def forward(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, I, h, w] or None at the input, w [N, w_dim] -> [N, O, res, res]."""
        if self.resolution > EXACT_SIDE:
            return self._draw(x, w, noise)
        with torch.autocast(w.device.type, enabled=False):
            return self._draw(x, w, noise)

    def _draw(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        strength = self.noise_strength
        return style_epilogue(
            self._transform(x, w),
            torch.zeros_like(self.bias) if self.early_bias else self.scaled(self.bias),
            noise=noise,
            noise_strength=None if strength is None else self.scaled(strength),
            style=None if self.style is None else self.style(w),
            use_pixel_norm=self.config.pixel_norm,
            use_instance_norm=self.config.instance_norm,
        )


class SynthesisNetwork(model.SynthesisNetwork):
    """g: one latent per layer -> image, growing by ``lod``; every resolution has its own toRGB."""

    config: StyleGAN1Config

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList()
        for index in range(config.num_layers):
            stage = index // 2 + 1  # block 2^r uses nf(r - 1)
            fan_in = config.fmaps(stage - 1 if index >= 2 and index % 2 == 0 else stage)
            self.layers.append(SynthesisLayer(config, index, fan_in, config.fmaps(stage)))
        self.to_rgb = nn.ModuleList(
            ToRGB(config.fmaps(r - 1), config.channels)
            for r in range(2, config.resolution_log2 + 1)
        )  # to_rgb[i] belongs to resolution 2^(i + 2)

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        lod: float | None = None,
        generator: torch.Generator | None = None,
        native: bool = False,
    ) -> Tensor:
        """Draw images [N, C, H, W], about -1 to 1, from ws [N, num_ws, w_dim].

        ``noise_mode``: const (stored maps), random (from ``generator``), none. ``noise`` overrides
        it with a list of one [N or 1, 1, h, w] map (None: no noise) per layer; ``noise_scale``
        multiplies it, a number or one per layer. ``lod=None`` is the stored one. ``native`` leaves
        out the final upscaling: the image has 1/2^floor(lod) of its sides. Raises UsageError for
        bad arguments.
        """
        self.check_inputs(ws, noise_mode, noise)
        scales = self.layer_scales(noise_scale)
        level, fade = split_lod(self.config, self.lod if lod is None else lod)
        depth = self.config.resolution_log2 - 1 - level  # blocks to run, 1 = 4×4 only
        x: Tensor | None = None
        before: Tensor | None = None  # features entering the last block
        for index in range(2 * depth):
            if index == 2 * depth - 2:
                before = x
            layer = self.layers[index]
            layer_noise = self.layer_noise(index, ws, noise_mode, noise, scales[index], generator)
            x = layer(x, ws[:, min(index, ws.shape[1] - 1)], layer_noise)
        with torch.autocast(ws.device.type, enabled=False):  # colours need all their bits
            image: Tensor = self.to_rgb[depth - 1](x)
            if fade is not None and before is not None:
                image = lerp(image, upscale_nearest(self.to_rgb[depth - 2](before), 2), fade)
        return image if native else upscale_nearest(image, 2**level)

    def stored_noise(self, layer: int) -> Tensor:
        """Return a layer's constant noise map [1, 1, h, w]."""
        return cast(Tensor, self.layers[layer].noise_const)

    def style_maps(self) -> list[model.StyleMap]:
        """Return the layers' scales and shifts of w; without styles the first layer, of z."""
        layers = [cast(SynthesisLayer, layer) for layer in self.layers]
        if self.config.use_styles:
            return [
                model.StyleMap(index, layer.style, layer)
                for index, layer in enumerate(layers)
                if layer.style is not None
            ]
        first = layers[0].dense
        return [] if first is None else [model.StyleMap(0, first, layers[0])]


class Generator(model.Generator):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    halves = MappingNetwork, SynthesisNetwork


class DiscriminatorBlock(nn.Module):
    """Features at 2^r -> features at 2^(r-1): convolve, blur, convolve and halve."""

    def __init__(self, fan_in: int, fan_out: int, *, blur: bool) -> None:
        super().__init__()
        self.blur = blur
        self.conv0 = EqualConv2d(fan_in, fan_in, 3, gain=SQRT2)
        self.conv1_down = EqualConv2d(fan_in, fan_out, 3, gain=SQRT2)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I, 2h, 2w] -> [N, O, h, w]."""
        x = self.conv0.activated(x, blur=self.blur)
        x = conv2d_downsample(x, self.conv1_down.scaled_weight)
        return leaky_relu(x, self.conv1_down.bias)


class DiscriminatorHead(nn.Module):
    """Features at 4×4 -> outputs: minibatch stddev, convolution, two dense layers."""

    def __init__(self, config: StyleGAN1Config, outputs: int) -> None:
        super().__init__()
        self.group_size = config.mbstd_group_size
        self.deviates = self.group_size > 1
        self.conv = EqualConv2d(config.fmaps(1) + self.deviates, config.fmaps(1), 3, gain=SQRT2)
        inputs = config.size_at(4).pixels * config.fmaps(1)
        self.dense0 = EqualLinear(inputs, config.fmaps(0), gain=SQRT2)
        self.dense1 = EqualLinear(config.fmaps(0), outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, *base] -> [N, outputs]."""
        if self.deviates:
            x = minibatch_stddev(x, self.group_size)
        x = self.conv.activated(x)
        x = leaky_relu(self.dense0(x.flatten(1)))
        return self.dense1(x)  # type: ignore[no-any-return]


class Discriminator(model.Discriminator):
    """D: image -> logit; positive means real.

    Labels, by ``config.D_label_mode``: ``select`` has one output per class and takes the labelled
    one (StyleGAN); ``ignore`` does not look at them (Progressive GAN as shipped with StyleGAN);
    ``auxiliary`` has the score first and class logits behind it (the original Progressive GAN).
    """

    config: StyleGAN1Config

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__(config)
        r_max = config.resolution_log2
        outputs = {
            "select": max(config.label_dim, 1),
            "ignore": 1,
            "auxiliary": 1 + config.label_dim,
        }[config.D_label_mode]
        self.from_rgb = nn.ModuleList(
            EqualConv2d(config.channels, config.fmaps(r - 1), 1, gain=SQRT2)
            for r in range(2, r_max + 1)
        )  # from_rgb[i] belongs to resolution 2^(i + 2)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(config.fmaps(r - 1), config.fmaps(r - 2), blur=config.blur)
            for r in range(3, r_max + 1)
        )  # blocks[i] takes resolution 2^(i + 3)
        self.head = DiscriminatorHead(config, outputs)

    def forward(
        self, images: Tensor, c: Tensor | None = None, *, lod: float | None = None
    ) -> Tensor:
        """Score images [N, C, H, W] (or already at 1/2^floor(lod) of their size): logits [N, 1].

        ``c`` is one-hot [N, label_dim]; ``lod=None`` is the stored one. Raises UsageError for
        wrong shapes, labels or batch sizes that do not divide into stddev groups.
        """
        selects = self.config.D_label_mode == "select"
        if selects or c is not None:
            check_labels(c, self.config.label_dim, images.shape[0])
        logits = self.outputs(images, lod=lod)  # [N, outputs]
        if self.config.label_dim and selects:
            assert c is not None
            return (logits * c.to(logits.dtype)).sum(dim=1, keepdim=True)
        return logits[:, :1]

    def outputs(self, images: Tensor, *, lod: float | None = None) -> Tensor:
        """Return all outputs [N, outputs] of the last layer, before labels are looked at."""
        level, fade = split_lod(self.config, self.lod if lod is None else lod)
        images = self._at_level(images, level)
        images = in_quick_layout(images)
        depth = self.config.resolution_log2 - 2 - level  # blocks to run
        x = self._features(images, depth)
        for index in range(depth - 1, -1, -1):
            x = self.blocks[index](x)
            if fade is not None and index == depth - 1:
                coarse = self._features(F.avg_pool2d(images, 2), depth - 1)
                x = lerp(x, coarse, fade)
        with torch.autocast(x.device.type, enabled=False):  # deviations and logits need all bits
            return self.head(whole_precision(x))  # type: ignore[no-any-return]

    def _features(self, images: Tensor, depth: int) -> Tensor:
        layer = self.from_rgb[depth]
        assert isinstance(layer, EqualConv2d)
        if not self.config.from_rgb_activation:
            return layer(images)  # type: ignore[no-any-return]
        return layer.activated(images)

    def _at_level(self, images: Tensor, level: int) -> Tensor:
        """Box-average full-size images to the level's size; take those of that size as they are."""
        size = self.config.size_at(self.config.resolution >> level)
        if tuple(images.shape[1:]) == (self.config.channels, *size):
            return images
        return box_average(self.check_shape(images), 2**level)
