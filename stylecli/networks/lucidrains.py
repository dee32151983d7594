"""The networks of lucidrains/stylegan2-pytorch: StyleGAN2's idea in layers of its own.

They follow from the names and shapes in its files, and were compared with its program. Equations
are those of "Analyzing and Improving the Image Quality of StyleGAN" (Karras et al. 2019).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylecli.networks import model
from stylecli.networks.layers import check_labels, whole_precision
from stylecli.networks.lucidrains_config import HEAD_WIDTH, HEADS, LucidrainsConfig
from stylecli.ops.modulation import modulated_conv2d

_SLOPE = 0.2
_LEAST_NORM = 1e-12
_EPSILON = 1e-5  # of the attention's normalisation


class MappingNetwork(model.MappingNetwork):
    """f: Z -> W: z of length 1 through dense layers, whose learning rate is scaled."""

    config: LucidrainsConfig

    def __init__(self, config: LucidrainsConfig) -> None:
        super().__init__(config)
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        for index in range(config.mapping_layers):
            self.add_module(f"fc{index}", nn.Linear(widths[index], widths[index + 1]))
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map latents [N, z_dim] to w [N, w_dim]."""
        self.check_latents(z, c)
        x: Tensor = z / torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(_LEAST_NORM)
        for index in range(self.config.mapping_layers):
            layer = cast(nn.Linear, getattr(self, f"fc{index}"))
            x = F.leaky_relu(layer(x) * self.config.mapping_lrmul, _SLOPE)
        return x


class Modulated(nn.Module):
    """A convolution whose style is 1 plus an affine map of w (Eq. 1 and 3)."""

    def __init__(self, w_dim: int, fan_in: int, fan_out: int, kernel: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, fan_in)
        self.weight = nn.Parameter(torch.empty(fan_out, fan_in, kernel, kernel))
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="leaky_relu")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, I, H, W], w [N, w_dim] -> [N, O, H, W]; colours (1×1) are not demodulated."""
        styles = self.affine(w) + 1
        return modulated_conv2d(x, self.weight, styles, demodulate=self.weight.shape[-1] > 1)


class SynthesisLayer(Modulated):
    """A modulated 3×3 convolution, noise with a gain and an offset for each map, leaky ReLU."""

    def __init__(self, w_dim: int, fan_in: int, fan_out: int) -> None:
        super().__init__(w_dim, fan_in, fan_out, 3)
        self.noise = nn.Linear(1, fan_out)
        nn.init.zeros_(self.noise.weight)
        nn.init.zeros_(self.noise.bias)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [N, I, H, W], w [N, w_dim], noise [N or 1, 1, H, W] normal -> [N, O, H, W]."""
        x = super().forward(x, w)
        # The program draws its noise evenly from 0 to 1; its mean where there is none.
        even = x.new_full((1, 1, 1, 1), 0.5) if noise is None else 0.5 + 0.5 * (
            noise.to(x.dtype) / math.sqrt(2)
        ).erf()  # fmt: skip
        gains = self.noise.weight.to(x.dtype).view(1, -1, 1, 1)
        x = x + even * gains + self.noise.bias.to(x.dtype).view(1, -1, 1, 1)
        return F.leaky_relu(x, _SLOPE)


class Attention(nn.Module):
    """Linear attention, then a dense layer for each pixel; both normalised and added (Pre-Norm)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.norm0, self.norm1 = ChannelNorm(maps), ChannelNorm(maps)
        self.query = nn.Conv2d(maps, inner, 1, bias=False)
        self.around = nn.Conv2d(maps, maps, 3, padding=1, groups=maps, bias=False)
        self.key_value = nn.Conv2d(maps, 2 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, maps, 1)
        self.wide = nn.Conv2d(maps, 2 * maps, 1)
        self.narrow = nn.Conv2d(2 * maps, maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> the same shape."""
        x = x + self._attend(self.norm0(x))
        dense: Tensor = self.narrow(F.leaky_relu(self.wide(self.norm1(x)), _SLOPE))
        return x + dense

    def _attend(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        query = self.query(x).view(count, HEADS, HEAD_WIDTH, -1)
        key, value = self.key_value(self.around(x)).chunk(2, dim=1)
        key = key.reshape(count, HEADS, HEAD_WIDTH, -1).softmax(dim=3)  # over pixels
        value = value.reshape(count, HEADS, HEAD_WIDTH, -1)
        query = query.softmax(dim=2) / math.sqrt(HEAD_WIDTH)  # over the head
        context = value @ key.transpose(2, 3)  # [N, heads, value, key]
        seen = F.gelu(context @ query).view(count, -1, height, width)
        return self.out(seen)  # type: ignore[no-any-return]


class ChannelNorm(nn.Module):
    """Each pixel's maps with mean 0 and deviation 1, then a gain and an offset for each map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, maps, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> the same shape."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) / (variance + _EPSILON).sqrt() * self.gain + self.offset


def doubled(x: Tensor) -> Tensor:
    """Double the side of x [N, C, H, W] by bilinear interpolation."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def blurred(x: Tensor) -> Tensor:
    """Filter x [N, C, H, W] by [1 2 1] both ways, mirrored at its borders."""
    twos = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 2, stride=1)
    return F.avg_pool2d(twos, 2, stride=1)


class SynthesisBlock(nn.Module):
    """The layers of one resolution: two convolutions and the colours, all styled by one w."""

    def __init__(self, config: LucidrainsConfig, block: int) -> None:
        super().__init__()
        before, maps = config.widths[max(block - 1, 0)], config.widths[block]
        self.first, self.last = block == 0, block == config.blocks - 1
        self.attention = Attention(before) if block in config.attending_blocks else None
        self.conv0 = SynthesisLayer(config.w_dim, before, maps)
        self.conv1 = SynthesisLayer(config.w_dim, maps, maps)
        self.torgb = Modulated(config.w_dim, maps, config.channels, 1)

    def forward(
        self, x: Tensor, image: Tensor | None, w: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return this resolution's features, and the picture at the next one (the last: here)."""
        if self.attention is not None:
            x = self.attention(x)
        if not self.first:
            x = doubled(x)
        x = self.conv0(x, w, noise[0])
        x = self.conv1(x, w, noise[1])
        colours = self.torgb(x, w)
        image = colours if image is None else image + colours
        return x, image if self.last else blurred(doubled(image))


class SynthesisNetwork(model.SynthesisNetwork):
    """g: one latent for each resolution -> image."""

    config: LucidrainsConfig
    noise_const: Tensor

    def __init__(self, config: LucidrainsConfig) -> None:
        super().__init__(config)
        maps = config.widths[0]
        self.const = nn.Parameter(torch.randn(1, maps, 4, 4))
        self.conv = nn.Conv2d(maps, maps, 3, padding=1)
        for block in range(config.blocks):
            self.add_module(f"b{4 << block}", SynthesisBlock(config, block))
        # All layers look at the corner of one map.
        self.register_buffer("noise_const", torch.randn(config.resolution, config.resolution))

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images [N, C, H, W], about -1 to 1, from ws [N, num_ws, w_dim].

        Noise is as in every family, normal and one map per convolution; this one's own is even,
        from 0 to 1, which it is turned into. Raises UsageError for bad arguments.
        """
        self.check_inputs(ws, noise_mode, noise)
        scales = self.layer_scales(noise_scale)
        ws = whole_precision(ws)
        x: Tensor = self.conv(self.const.to(ws.dtype)).expand(ws.shape[0], -1, -1, -1)
        image: Tensor | None = None
        for block in range(self.config.blocks):
            maps = [
                self.layer_noise(layer, ws, noise_mode, noise, scales[layer], generator)
                for layer in (2 * block, 2 * block + 1)
            ]
            step = cast(SynthesisBlock, getattr(self, f"b{4 << block}"))
            x, image = step(x, image, ws[:, block], maps)
        assert image is not None
        return 2 * whole_precision(image) - 1  # its pictures have values from 0 to 1

    def stored_noise(self, layer: int) -> Tensor:
        """Return a layer's constant noise map [1, 1, h, w]."""
        side = self.config.layer_side(layer)
        return self.noise_const[:side, :side].view(1, 1, side, side)

    def style_maps(self) -> list[model.StyleMap]:
        """Return the styles of both convolutions of every block, and of the last colours."""
        blocks = [
            cast(SynthesisBlock, getattr(self, f"b{4 << block}"))
            for block in range(self.config.blocks)
        ]
        maps = [
            model.StyleMap(at, layer.affine, layer)
            for at, block in enumerate(blocks)
            for layer in (block.conv0, block.conv1)
        ]
        colours = blocks[-1].torgb
        return [*maps, model.StyleMap(len(blocks) - 1, colours.affine, colours)]


class Generator(model.Generator):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    halves = MappingNetwork, SynthesisNetwork


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a 1×1 one; all but the last block halve the resolution."""

    def __init__(self, config: LucidrainsConfig, block: int) -> None:
        super().__init__()
        widths = [config.channels, *config.D_widths]
        before, maps = widths[block], widths[block + 1]
        self.halves = block < len(config.D_widths) - 1
        self.skip = nn.Conv2d(before, maps, 1, stride=2 if self.halves else 1)
        self.conv0 = nn.Conv2d(before, maps, 3, padding=1)
        self.conv1 = nn.Conv2d(maps, maps, 3, padding=1)
        self.down = nn.Conv2d(maps, maps, 3, padding=1, stride=2) if self.halves else None
        attends = block in config.D_attending_blocks
        self.attention = Attention(maps) if attends else None

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I, H, W] -> [N, O, H/2, W/2]."""
        shortcut = self.skip(x)
        x = F.leaky_relu(self.conv0(x), _SLOPE)
        x = F.leaky_relu(self.conv1(x), _SLOPE)
        if self.down is not None:
            x = self.down(blurred(x))
        x = (x + shortcut) / math.sqrt(2)
        return x if self.attention is None else self.attention(x)


class Discriminator(model.Discriminator):
    """D: picture -> logit; without normalisation or minibatch statistics."""

    config: LucidrainsConfig

    def __init__(self, config: LucidrainsConfig) -> None:
        super().__init__(config)
        last = config.D_widths[-1]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(config, block) for block in range(len(config.D_widths))
        )
        self.conv = nn.Conv2d(last, last, 3, padding=1)
        self.out = nn.Linear(4 * last, 1)

    def outputs(self, images: Tensor) -> Tensor:
        """Return logits [N, 1]."""
        x = (self.checked(images) + 1) / 2
        for block in self.blocks:
            x = block(x)
        return self.out(self.conv(x).flatten(1))  # type: ignore[no-any-return]

    def forward(
        self, images: Tensor, c: Tensor | None = None, *, lod: float | None = None
    ) -> Tensor:
        """Score images [N, C, H, W]: logits [N, 1].

        There are no labels, and ``lod`` is None or 0, since nothing grows. Raises UsageError for
        wrong shapes or labels.
        """
        self.config.check_lod(lod or 0.0)
        check_labels(c, self.config.label_dim, images.shape[0])
        return self.outputs(images)
