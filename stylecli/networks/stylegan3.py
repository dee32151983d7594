"""StyleGAN3 (Karras et al. 2021), T and R: a generator without aliasing. Its D is StyleGAN2's.

Sections and equations are of "Alias-Free Generative Adversarial Networks". Parameters bear the
names of NVIDIA's program; its filters follow from the configuration (``stylegan3_filters``).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stylecli.networks import model
from stylecli.networks.layers import EqualLinear, move_average, whole_precision
from stylecli.networks.stylegan2 import MappingNetwork
from stylecli.networks.stylegan3_config import LayerPlan, StyleGAN3Config
from stylecli.networks.stylegan3_filters import layer_filters
from stylecli.ops.convolution import convolve
from stylecli.ops.filtered_lrelu import filtered_lrelu
from stylecli.ops.modulation import demodulation
from stylecli.ops.reference import SQRT2


class SynthesisInput(nn.Module):
    """Fourier features of the plane, turned and shifted by w and by ``transform`` (§3.2, F.1).

    ``transform`` [3, 3] is the inverse of what shall happen to the picture, in widths of it.
    """

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.channels, self.size, self.rate, self.bandwidth = config.input_size()
        self.weight = nn.Parameter(torch.randn(self.channels, self.channels))
        self.affine = EqualLinear(config.w_dim, 4, gain=1.0)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            cast(nn.Parameter, self.affine.bias).copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        # Uniform on the disc within the band.
        freqs = torch.randn(self.channels, 2)
        radii = freqs.square().sum(dim=1, keepdim=True).sqrt()
        freqs = freqs / (radii * radii.square().exp().pow(0.25)) * self.bandwidth
        self.register_buffer("freqs", freqs)
        self.register_buffer("phases", torch.rand(self.channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor) -> Tensor:
        """w [N, w_dim] -> features [N, C, H, W]."""
        moved = self._moves(w) @ self.transform  # [N, 3, 3]
        freqs = self.freqs @ moved[:, :2, :2]  # [N, C, 2]
        phases = self.phases + (self.freqs @ moved[:, :2, 2:]).squeeze(2)  # [N, C]
        # What a zoom takes out of the band fades, to nothing at the highest frequency there is.
        beyond = freqs.square().sum(dim=2).sqrt() - self.bandwidth
        amplitudes = (1 - beyond / (self.rate / 2 - self.bandwidth)).clamp(0, 1)  # [N, C]
        across = freqs[:, :, 0, None, None] * self._places(self.size.width, w)  # [N, C, 1, W]
        along = freqs[:, :, 1, None, None] * self._places(self.size.height, w)[:, None]
        waves = (2 * math.pi * (across + along + phases[:, :, None, None])).sin()
        waves = waves * amplitudes[:, :, None, None]
        mixing = self.weight / math.sqrt(self.channels)
        return (mixing @ waves.flatten(2)).view(*waves.shape)

    def _places(self, pixels: int, like: Tensor) -> Tensor:
        """Return where pixel centres are from the middle, in widths of a square picture."""
        place = torch.arange(pixels, dtype=like.dtype, device=like.device)
        return (place + 0.5 - pixels / 2) / self.rate

    def _moves(self, w: Tensor) -> Tensor:
        """Return the rotation and translation that w asks for, [N, 3, 3]."""
        values = self.affine(w)  # [N, 4]: cosine, sine, x, y
        values = values / values[:, :2].square().sum(dim=1, keepdim=True).sqrt()
        cosine, sine, x, y = values.unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], 1)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], 1)
        return turn.view(-1, 3, 3) @ shift.view(-1, 3, 3)


class SynthesisLayer(nn.Module):
    """A modulated convolution and a filtered activation, or the colours (§3.2, Figure 4b)."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, config: StyleGAN3Config, plan: LayerPlan) -> None:
        super().__init__()
        self.plan, self.clamp, self.beta = plan, config.conv_clamp, config.magnitude_beta
        self.affine = EqualLinear(config.w_dim, plan.in_channels, gain=1.0)
        nn.init.ones_(cast(nn.Parameter, self.affine.bias))
        self.weight = nn.Parameter(
            torch.randn(plan.out_channels, plan.in_channels, plan.kernel, plan.kernel)
        )
        self.bias = nn.Parameter(torch.zeros(plan.out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        filters = layer_filters(plan)
        for name, f in zip(("up_filter", "down_filter"), filters, strict=True):
            taps = None if f is None else torch.tensor(f, dtype=torch.float32)
            self.register_buffer(name, taps, persistent=False)

    def forward(self, x: Tensor, w: Tensor, *, update_emas: bool = False) -> Tensor:
        """x [N, I, in, in], w [N, w_dim] -> [N, O, out, out].

        ``update_emas`` moves the average magnitude of the layer's input towards that of x.
        """
        plan = self.plan
        if update_emas:
            with torch.no_grad():
                magnitude = x.detach().float().square().mean()
                move_average(self.magnitude_ema, magnitude.lerp(self.magnitude_ema, self.beta))
        styles = self.affine(w)  # [N, I]
        weight: Tensor = self.weight
        scale: Tensor | None = None
        if plan.is_to_rgb:
            styles = styles / math.sqrt(plan.in_channels)
        else:
            # As in the official program, but for its styles, which it divides by their size in the
            # whole batch: demodulation takes any such factor out, and pictures stay independent.
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            styles = styles * styles.square().mean(dim=1, keepdim=True).rsqrt()
            scale = demodulation(weight, styles)
        styles = styles * self.magnitude_ema.rsqrt()
        x = convolve(x * styles[:, :, None, None], weight, padding=plan.kernel - 1)
        bias: Tensor | None = self.bias
        if scale is not None:
            x = torch.addcmul(self.bias[:, None, None], x, scale[:, :, None, None])
            bias = None
        return filtered_lrelu(
            x, self.up_filter, self.down_filter, bias, up=plan.up, down=plan.down,
            padding=plan.padding, clamp=self.clamp,
            gain=1.0 if plan.is_to_rgb else SQRT2, slope=1.0 if plan.is_to_rgb else 0.2,
        )  # fmt: skip


class SynthesisNetwork(model.SynthesisNetwork):
    """g: one latent for the input, for every layer and for the colours -> image."""

    config: StyleGAN3Config

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__(config)
        self.input = SynthesisInput(config)
        self.names = [plan.name for plan in config.layers()]
        for plan in config.layers():
            self.add_module(plan.name, SynthesisLayer(config, plan))

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        update_emas: bool = False,
    ) -> Tensor:
        """Draw images [N, C, H, W], about -1 to 1, from ws [N, num_ws, w_dim].

        This network takes no noise: what is said of it is checked and changes nothing.
        ``update_emas`` moves the averages of the features' magnitudes, as D's training step does.
        Raises UsageError for bad arguments.
        """
        self.check_inputs(ws, noise_mode, noise)
        self.layer_scales(noise_scale)
        ws = whole_precision(ws)
        with torch.autocast(ws.device.type, enabled=False):
            x: Tensor = self.input(ws[:, 0])
        for index, name in enumerate(self.names):
            layer = cast(SynthesisLayer, getattr(self, name))
            x = layer(x, ws[:, index + 1], update_emas=update_emas)
        return whole_precision(x) * self.config.output_scale

    def style_maps(self) -> list[model.StyleMap]:
        """Return how w turns and shifts the input, the styles of the layers and of the colours."""
        layers = [cast(SynthesisLayer, getattr(self, name)) for name in self.names]
        return [
            model.StyleMap(0, self.input.affine, self.input),
            *(model.StyleMap(at, layer.affine, layer) for at, layer in enumerate(layers, 1)),
        ]


class Generator(model.Generator):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    halves = MappingNetwork, SynthesisNetwork

    def move_pictures(
        self, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0
    ) -> None:
        """Turn and then shift all pictures, by the inverse of that in the input (§3.2, F.1)."""
        cosine, sine = math.cos(math.radians(rotate)), math.sin(math.radians(rotate))
        x, y = translate[0] * self.config.width, translate[1] * self.config.height  # px
        x, y = x / self.config.resolution, y / self.config.resolution  # sides of a square picture
        matrix = torch.tensor(
            [[cosine, sine, x], [-sine, cosine, y], [0.0, 0.0, 1.0]], dtype=torch.float64
        )
        synthesis = cast(SynthesisNetwork, self.synthesis)
        with torch.no_grad():
            synthesis.input.transform.copy_(matrix.inverse())
