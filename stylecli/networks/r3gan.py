"""R3GAN (Huang et al. 2024): networks without styles, noise, normalisation or mapping network.

"The GAN is dead; long live the GAN! A Modern Baseline GAN". Weights are used as they are stored:
no equalised learning rate, no bias of a convolution, no gain behind an activation.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.networks import model
from stylecli.networks.layers import check_labels, leaky_relu, whole_precision
from stylecli.networks.r3gan_config import R3GANConfig
from stylecli.networks.stylegan2 import enlarged, halved, low_pass
from stylecli.ops.convolution import in_quick_layout
from stylecli.ops.modulation import resampled_conv2d
from stylecli.ops.reference import LEAKY_SLOPE

_TAPS = (1, 3, 3, 1)  # of the low-pass beside every resampling: [1 2 1] * [1 1]


class Matrix(nn.Module):
    """A dense layer without bias: [N, in] -> [N, out]; weight [out, in] ~ N(0, gain²/in)."""

    def __init__(self, fan_in: int, fan_out: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) * (gain / math.sqrt(fan_in)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Convolution(nn.Module):
    """A convolution without bias that keeps the size; weight [O, I/groups, k, k] as of Matrix."""

    def __init__(
        self, fan_in: int, fan_out: int, kernel: int, *, gain: float = 1.0, groups: int = 1
    ) -> None:
        super().__init__()
        shape = (fan_out, fan_in // groups, kernel, kernel)
        self.weight = nn.Parameter(torch.randn(shape) * (gain / math.sqrt(math.prod(shape[1:]))))
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I, H, W] -> [N, O, H, W] in x's dtype."""
        return resampled_conv2d(x, self.weight.to(x.dtype), groups=self.groups)


class ResidualBlock(nn.Module):
    """x + W3·φ(b2 + W2·φ(b1 + W1·x)): an inverted bottleneck around a grouped convolution.

    Fixed-up initialisation (Zhang et al. 2019): with L blocks in the network, W1 and W2 begin
    L^(-1/4) times as large as leaky ReLUs would have them, W3 at zero, so that every block
    begins as the identity.
    """

    def __init__(self, config: R3GANConfig, side: int) -> None:
        super().__init__()
        maps, groups = config.fmaps(side), config.groups_at(side)
        middle = config.expansion * maps
        gain = math.sqrt(2 / (1 + LEAKY_SLOPE**2)) * config.num_layers**-0.25
        self.conv0 = Convolution(maps, middle, 1, gain=gain)
        self.bias0 = nn.Parameter(torch.zeros(middle))
        self.conv1 = Convolution(middle, middle, 3, gain=gain, groups=groups)
        self.bias1 = nn.Parameter(torch.zeros(middle))
        self.conv2 = Convolution(middle, maps, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> [N, C, H, W]."""
        y = leaky_relu(self.conv0(x), self.bias0)
        y = leaky_relu(self.conv1(y), self.bias1)
        return x + self.conv2(y)  # type: ignore[no-any-return]


class ResolutionBlocks(nn.Module):
    """The blocks of one resolution, and the change between its width and that of the one below."""

    f: Tensor

    def __init__(self, config: R3GANConfig, side: int, *, up: bool) -> None:
        super().__init__()
        self.config, self.side, self.up = config, side, up
        self.blocks = nn.ModuleList(ResidualBlock(config, side) for _ in range(config.blocks))
        self.change: Convolution | None = None
        if side > 4:
            below, here = config.fmaps(side // 2), config.fmaps(side)
            if below != here:
                self.change = Convolution(below, here, 1) if up else Convolution(here, below, 1)
            self.register_buffer("f", low_pass(_TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [N, C, H, W] when growing, else [N, C', H/2, W/2].

        x is of the resolution before, halved or doubled here; at 4×4 neither takes place.
        """
        x = x.to(compute_dtype(x, self.config, self.side))
        if self.up and self.side > 4:
            x = x if self.change is None else self.change(x)
            x = enlarged(x, self.f)
        for block in self.blocks:
            x = block(x)
        if not self.up and self.side > 4:
            x = halved(x, self.f)
            x = x if self.change is None else self.change(x)
        return x


def compute_dtype(x: Tensor, config: R3GANConfig, side: int) -> torch.dtype:
    """Return what a stage computes in: bfloat16 at the highest resolutions, on a GPU alone."""
    if x.dtype not in (torch.float32, torch.bfloat16) or not x.is_cuda:
        return x.dtype
    return torch.bfloat16 if side >= config.lowest_bf16_side else torch.float32


# ---- generator


class MappingNetwork(model.MappingNetwork):
    """Not a mapping: z, not normalised, and beside it the embedding of the label."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__(config)
        self.label: Matrix | None = None
        if config.label_dim:
            self.label = Matrix(config.label_dim, config.embed_dim)

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return z [N, z_dim] with the label's embedding: [N, w_out_dim]."""
        self.check_latents(z, c)
        if self.label is None or c is None:
            return z
        return torch.cat([z, self.label(c.to(z.dtype))], dim=1)

    def centre(self, ws: Tensor) -> Tensor:
        """Return 0 for z [N, 1, z_dim], and the label's embedding beside it as it is."""
        size = self.config.z_dim
        return torch.cat([torch.zeros_like(ws[..., :size]), ws[..., size:]], dim=-1)


class Start(nn.Module):
    """Latents [N, w_out_dim] -> features [N, C, *base]: a learned picture per map, scaled."""

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(config.fmaps(4), *config.grid))
        self.dense = Matrix(config.w_out_dim, config.fmaps(4))

    def forward(self, w: Tensor) -> Tensor:
        return self.basis * self.dense(w)[:, :, None, None]  # type: ignore[no-any-return]


class SynthesisNetwork(model.SynthesisNetwork):
    """One latent -> image."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__(config)
        self.start = Start(config)
        for side in config.sides:
            self.add_module(f"b{side}", ResolutionBlocks(config, side, up=True))
        self.torgb = Convolution(config.fmaps(config.resolution), config.channels, 1)

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images [N, C, H, W], about -1 to 1, from ws [N, 1, w_out_dim].

        There is no noise: its arguments are checked and change nothing. Raises UsageError for bad
        arguments.
        """
        self.check_inputs(ws, noise_mode, noise)
        self.layer_scales(noise_scale)
        x = in_quick_layout(self.start(ws[:, 0]))
        for side in self.config.sides:
            x = getattr(self, f"b{side}")(x)
        with torch.autocast(x.device.type, enabled=False):  # colours need all their bits
            return cast(Tensor, self.torgb(whole_precision(x)))

    def style_maps(self) -> list[model.StyleMap]:
        """Return the first layer, which scales the learned pictures by the latent."""
        return [model.StyleMap(0, self.start.dense, self.start)]


class Generator(model.Generator):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    halves = MappingNetwork, SynthesisNetwork


# ---- discriminator


class Head(nn.Module):
    """Features [N, C, *base] -> outputs [N, D_outputs]: a weighted sum of each map."""

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__()
        maps = config.fmaps(4)
        pixels = config.size_at(4).pixels
        self.basis = nn.Parameter(torch.randn(maps, *config.grid) / math.sqrt(pixels))
        self.dense = Matrix(maps, config.D_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense((x * self.basis).sum(dim=(2, 3)))  # type: ignore[no-any-return]


class Discriminator(model.Discriminator):
    """D: image -> logit; with labels, the product of the outputs with the label's embedding."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__(config)
        self.fromrgb = Convolution(config.channels, config.fmaps(config.resolution), 1)
        for side in reversed(config.sides):
            self.add_module(f"b{side}", ResolutionBlocks(config, side, up=False))
        self.head = Head(config)
        self.label: Matrix | None = None
        if config.label_dim:
            width = config.D_outputs
            self.label = Matrix(config.label_dim, width, gain=1 / math.sqrt(width))

    def forward(
        self, images: Tensor, c: Tensor | None = None, *, lod: float | None = None
    ) -> Tensor:
        """Score images [N, C, H, W]: logits [N, 1].

        ``c`` is one-hot [N, label_dim]; ``lod`` is None or 0, since nothing grows. Raises
        UsageError for wrong shapes or labels.
        """
        self.config.check_lod(lod or 0.0)
        check_labels(c, self.config.label_dim, images.shape[0])
        logits = self.outputs(images)  # [N, outputs]
        if self.label is None or c is None:
            return logits
        with torch.autocast(logits.device.type, enabled=False):
            label: Tensor = self.label(c.to(logits.dtype))
        return (logits * label).sum(dim=1, keepdim=True)

    def outputs(self, images: Tensor) -> Tensor:
        """Return all outputs [N, outputs] of the last layer, before labels are looked at."""
        images = self.checked(images)
        x = self.fromrgb(images)
        for side in reversed(self.config.sides):
            x = getattr(self, f"b{side}")(x)
        with torch.autocast(x.device.type, enabled=False):  # logits need all bits
            return cast(Tensor, self.head(whole_precision(x)))
