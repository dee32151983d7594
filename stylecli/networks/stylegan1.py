"""The generator of StyleGAN (Karras, Laine, Aila 2018) and, by switches, of Progressive GAN."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from stylecli.errors import UsageError
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.layers import (
    SQRT2,
    EqualConv2d,
    EqualLinear,
    lerp,
    split_lod,
    upscale_nearest,
)
from stylecli.networks.mapping import MappingNetwork
from stylecli.ops.blurring import blur2d
from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.resampled_conv import upsample_conv2d

NOISE_MODES = ("const", "random", "none")


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
            self.const = nn.Parameter(torch.ones(1, fan_out, 4, 4))
        else:
            # Gain √2/4 balances the sixteen-fold reshape (Progressive GAN).
            gain = SQRT2 / 4 * config.feature_scale
            self.dense = EqualLinear(config.w_out_dim, fan_out * 16, gain=gain, bias=False)
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.noise_strength: nn.Parameter | None = None
        if config.use_noise:
            self.noise_strength = nn.Parameter(torch.zeros(fan_out))
            self.register_buffer("noise_const", torch.randn(1, 1, self.resolution, self.resolution))
        self.style: EqualLinear | None = None
        if config.use_styles:
            self.style = EqualLinear(config.w_out_dim, 2 * fan_out, gain=1.0)

    def _transform(self, x: Tensor | None, w: Tensor) -> Tensor:
        if x is None:
            x = self._input(w)
            # Everything downstream keeps the layout: channels-last blurs ten times faster on CPUs.
            return x.contiguous(memory_format=torch.channels_last) if x.is_cpu else x
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
        """Return the 4×4 input [N, C, 4, 4]: learned constant, or a dense layer of w."""
        if self.const is not None:
            return self.scaled(self.const).expand(len(w), -1, -1, -1)
        assert self.dense is not None
        return self.dense(w).view(len(w), -1, 4, 4)  # type: ignore[no-any-return]

    def forward(self, x: Tensor | None, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, I, h, w] or None at the input, w [N, w_dim] -> [N, O, res, res]."""
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


class SynthesisNetwork(nn.Module):
    """g: one latent per layer -> image, growing by ``lod``; every resolution has its own toRGB."""

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        self.lod = 0.0  # the stored level of detail; 0 once fully grown
        self.layers = nn.ModuleList()
        for index in range(config.num_layers):
            stage = index // 2 + 1  # block 2^r uses nf(r - 1)
            fan_in = config.fmaps(stage - 1 if index >= 2 and index % 2 == 0 else stage)
            self.layers.append(SynthesisLayer(config, index, fan_in, config.fmaps(stage)))
        self.to_rgb = nn.ModuleList(
            EqualConv2d(config.fmaps(r - 1), config.channels, 1, gain=1.0)
            for r in range(2, config.resolution_log2 + 1)
        )  # to_rgb[i] belongs to resolution 2^(i + 2)

    def noise_shapes(self) -> list[tuple[int, int, int, int]]:
        """Return the shape [1, 1, h, w] of every layer's noise map."""
        sides = (2 ** (index // 2 + 2) for index in range(self.config.num_layers))
        return [(1, 1, side, side) for side in sides]

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
        """Draw images [N, C, R, R], about -1 to 1, from ws [N, num_ws, w_dim].

        ``noise_mode``: const (stored maps), random (from ``generator``), none. ``noise`` overrides
        it with a list of one [N or 1, 1, h, w] map (None: no noise) per layer; ``noise_scale``
        multiplies it, a number or one per layer. ``lod=None`` is the stored one. ``native`` leaves
        out the final upscaling: the image has side R / 2^floor(lod). Raises UsageError for bad
        arguments.
        """
        self._check(ws, noise_mode, noise)
        scales = self._noise_scales(noise_scale)
        level, fade = split_lod(self.lod if lod is None else lod, self.config.resolution_log2)
        depth = self.config.resolution_log2 - 1 - level  # blocks to run, 1 = 4×4 only
        x: Tensor | None = None
        before: Tensor | None = None  # features entering the last block
        for index in range(2 * depth):
            if index == 2 * depth - 2:
                before = x
            layer = self.layers[index]
            layer_noise = self._noise(index, len(ws), noise_mode, noise, scales, generator, ws)
            x = layer(x, ws[:, min(index, ws.shape[1] - 1)], layer_noise)
        with torch.autocast(ws.device.type, enabled=False):  # colours need all their bits
            image: Tensor = self.to_rgb[depth - 1](x)
            if fade and before is not None:
                image = lerp(image, upscale_nearest(self.to_rgb[depth - 2](before), 2), fade)
        return image if native else upscale_nearest(image, 2**level)

    def _check(self, ws: Tensor, noise_mode: str, noise: Sequence[Tensor | None] | None) -> None:
        wanted = (self.config.num_ws, self.config.w_out_dim)
        if ws.ndim != 3 or tuple(ws.shape[1:]) != wanted:
            raise UsageError(
                f"ws have shape {list(ws.shape)}: this network needs [N, {wanted[0]}, {wanted[1]}]"
            )
        if noise_mode not in NOISE_MODES:
            raise UsageError(f"noise mode {noise_mode!r} is not one of {', '.join(NOISE_MODES)}")
        if noise is None or not self.config.use_noise:
            return
        if len(noise) != self.config.num_layers or any(
            plane is not None and tuple(plane.shape) not in (shape, (len(ws), *shape[1:]))
            for plane, shape in zip(noise, self.noise_shapes(), strict=True)
        ):
            raise UsageError(
                f"noise does not fit: this network takes {self.config.num_layers} maps of shapes "
                f"{[list(shape) for shape in self.noise_shapes()]}"
            )

    def _noise_scales(self, scale: float | Sequence[float]) -> list[float]:
        count = self.config.num_layers
        if isinstance(scale, int | float):
            return [float(scale)] * count
        if len(scale) != count:
            raise UsageError(f"noise scales are {len(scale)}: this network has {count} layers")
        return [float(value) for value in scale]

    def _noise(
        self,
        index: int,
        count: int,
        mode: str,
        noise: Sequence[Tensor | None] | None,
        scales: list[float],
        generator: torch.Generator | None,
        like: Tensor,
    ) -> Tensor | None:
        """Return the scaled noise map of a layer, or None where there is none to add."""
        scale = scales[index]
        if not self.config.use_noise or scale == 0 or (noise is None and mode == "none"):
            return None
        if noise is not None:
            given = noise[index]
            if given is None:
                return None
            plane = given.to(like)
        elif mode == "const":
            plane = cast(Tensor, self.layers[index].noise_const)
        else:
            side = 2 ** (index // 2 + 2)
            plane = torch.randn(
                (count, 1, side, side), generator=generator, dtype=like.dtype, device=like.device
            )
        return plane if scale == 1 else plane * scale


class Generator(nn.Module):
    """z -> image in two halves, ``mapping`` and ``synthesis``, that can be called apart."""

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    @property
    def lod(self) -> float:
        """The stored level of detail, 0 once fully grown."""
        return self.synthesis.lod

    @lod.setter
    def lod(self, value: float) -> None:
        split_lod(value, self.config.resolution_log2)
        self.synthesis.lod = float(value)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
        lod: float | None = None,
    ) -> Tensor:
        """Draw images [N, C, R, R] from z [N, z_dim]: synthesis of mapping, arguments of both."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(  # type: ignore[no-any-return]
            ws, noise_mode=noise_mode, noise=noise, noise_scale=noise_scale, lod=lod
        )
