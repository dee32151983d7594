"""StyleGAN3 (Karras et al. 2021): configuration, presets and the layers that follow from them.

Apart from the networks (``stylegan3``), which need torch: standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stylecli.errors import UsageError
from stylecli.networks.config import Preset
from stylecli.networks.stylegan2_config import ModulatedConfig
from stylecli.shapes import Size

_MAX_TAPS = 64  # the published networks have 12 and 24
_LEAST_RESOLUTION = 16  # the first layers have 16 samples across the picture

PRESETS: dict[str, Preset] = {
    "stylegan3-t": Preset({}, "the alias-free generator that translates with its content"),
    "stylegan3-r": Preset(
        {"conv_kernel": 1, "radial_filters": True, "fmap_base": 65_536, "fmap_max": 1024,
         "D_fmap_base": 32_768, "D_fmap_max": 512},
        "the alias-free generator that translates and rotates with its content",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LayerPlan:
    """What one synthesis layer does (Appendix F); rates and frequencies per width of the picture.

    ``padding`` is that of the upsampled features (left, right, top, bottom); sizes count pixels,
    with the margin around the picture. The width is that of a square picture.
    """

    name: str
    kernel: int
    in_channels: int
    out_channels: int
    in_size: Size
    out_size: Size
    in_rate: int
    out_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float  # of the transition band
    out_half_width: float
    is_to_rgb: bool
    rate: int  # at which the activation is applied
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool  # whether the filter behind the activation is radially symmetric
    padding: tuple[int, int, int, int]


@dataclass(frozen=True)
class StyleGAN3Config(ModulatedConfig):
    """Every switch of the StyleGAN3 generator, T and R."""

    family: ClassVar[str] = "stylegan3"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS

    preset: str = "stylegan3-t"  # the name this configuration was made from
    mapping_layers: int = 2  # dense layers between z and w
    w_avg_beta: float = 0.998  # decay of the moving average of w
    num_layers: int = 14  # synthesis layers, the input and the colours left out
    num_critical: int = 2  # of these, the last ones, which are critically sampled
    first_cutoff: float = 2.0  # of the first layer, per width of the picture
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3  # of the last layers, as a multiple of their cutoff
    margin: int = 10  # pixels around the picture
    output_scale: float = 0.25  # of the colours
    conv_kernel: int = 3  # side of a kernel: 3 (T), 1 (R)
    filter_size: int = 6  # taps for every pixel at the lower rate
    lrelu_upsampling: int = 2  # of the rate at which activations are applied
    radial_filters: bool = False  # radially symmetric where not critically sampled (R)
    magnitude_beta: float = 0.999  # decay of the moving average of features' magnitude

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        if self.resolution < _LEAST_RESOLUTION:
            raise UsageError(
                f"resolution {self.resolution} is too small: StyleGAN3 begins at "
                f"{_LEAST_RESOLUTION}"
            )
        if self.radial_filters and not self.grid.is_usual:
            raise UsageError(
                f"stylegan3-r turns its pictures and draws only square ones, not "
                f"{self.grid.ratio}: use stylegan3-t"
            )
        self.check_whole_numbers({"num_layers": (1, 64)})
        self.check_whole_numbers({
            "num_critical": (0, self.num_layers - 1), "margin": (0, 256),
            "conv_kernel": (1, 7), "filter_size": (1, 16), "lrelu_upsampling": (1, 8),
        })  # fmt: skip
        half = self.resolution / 2
        limits = {"first_cutoff": (0.1, half), "first_stopband": (1.0, half),
                  "last_stopband_rel": (0.5, 8.0), "output_scale": (1e-6, 1e3)}  # fmt: skip
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(
                    f"{name} {getattr(self, name)!r} is not within {least:g} to {most:g}"
                )
        if not 0 <= self.magnitude_beta <= 1:
            raise UsageError(f"magnitude_beta {self.magnitude_beta!r} is not within 0 to 1")
        if min(width for *_, width in self._rows()) <= 0:
            raise UsageError(
                f"first_cutoff {self.first_cutoff:g} leaves no transition band below the "
                f"stopband {self.first_stopband:g}"
            )
        if not self.grid.is_usual and min(rate for _, rate, _ in self._rows()) % 4:
            raise UsageError(
                f"first_stopband {self.first_stopband:g} is too low for pictures of "
                f"{self.grid.ratio}: their first layer needs 4 samples across the square"
            )
        # A file of a few bytes could ask for filters of any size, and a radial one is a square.
        if (taps := max(max(plan.up_taps, plan.down_taps) for plan in self.layers())) > _MAX_TAPS:
            raise UsageError(
                f"num_layers {self.num_layers} and filter_size {self.filter_size} make filters of "
                f"{taps} taps: the most are {_MAX_TAPS}"
            )

    @property
    def moves_pictures(self) -> bool:
        """Always: the input is a plane that can be shifted and turned."""
        return True

    @property
    def num_ws(self) -> int:
        """Latents that synthesis takes: the input, every layer and the colours have one."""
        return self.num_layers + 2

    def _rows(self) -> list[tuple[float, int, float]]:
        """Return cutoff, sampling rate and half transition width of each entry (Eq. 12, 13)."""
        rows = []
        last = self.resolution / 2
        for index in range(self.num_layers + 1):
            exponent = min(index / (self.num_layers - self.num_critical), 1.0)
            cutoff = self.first_cutoff * (last / self.first_cutoff) ** exponent
            ratio = last * self.last_stopband_rel / self.first_stopband
            stopband = self.first_stopband * ratio**exponent
            rate = 1 << math.ceil(math.log2(min(2 * stopband, self.resolution)))
            rows.append((cutoff, rate, max(stopband, rate / 2) - cutoff))
        return rows

    def _padded(self, rate: int) -> Size:
        """Return height and width at a sampling rate, with the margin around the picture."""
        height, width = self.size_at(rate)
        return Size(height + 2 * self.margin, width + 2 * self.margin)

    def _sizes(self) -> list[tuple[int, int]]:
        """Return side in pixels, of square pictures, and feature maps of each entry."""
        sizes = []
        rows = self._rows()
        for index, (cutoff, rate, _) in enumerate(rows):
            bare = index >= self.num_layers - 1  # the last two have no margin
            side = self.resolution if bare else rate + 2 * self.margin
            maps = max(1, round(min(self.fmap_base / 2 / cutoff, self.fmap_max)))
            sizes.append((side, self.channels if index == self.num_layers else maps))
        return sizes

    def input_size(self) -> tuple[int, Size, int, float]:
        """Return of the Fourier features: their number, size, sampling rate and bandwidth."""
        cutoff, rate, _ = self._rows()[0]
        return self._sizes()[0][1], self.layer_size(0), rate, cutoff

    def layers(self) -> list[LayerPlan]:
        """Return the synthesis layers in order, the one that makes the colours last."""
        rows, sizes = self._rows(), self._sizes()
        plans = []
        for index, ((cutoff, rate, width), (side, maps)) in enumerate(
            zip(rows, sizes, strict=True)
        ):
            before = max(index - 1, 0)
            in_cutoff, in_rate, in_width = rows[before]
            in_side, in_maps = sizes[before]
            colours = index == self.num_layers
            critical = index >= self.num_layers - self.num_critical
            kernel = 1 if colours else self.conv_kernel
            inner = max(in_rate, rate) * (1 if colours else self.lrelu_upsampling)
            up, down = inner // in_rate, inner // rate
            up_taps, down_taps = (
                self.filter_size * factor if factor > 1 and not colours else 1
                for factor in (up, down)
            )
            # So that the output has its side, and the picture stays in the middle: the lower side
            # gets what is over, and what upsampling shifts.
            total = (side - 1) * down + 1 - (in_side + kernel - 1) * up + up_taps + down_taps - 2
            low = (total + up) // 2
            plans.append(LayerPlan(
                f"L{index}_{side}_{maps}", kernel, in_maps, maps, self.layer_size(before),
                self.layer_size(index), in_rate, rate,
                in_cutoff, cutoff, in_width, width, colours, inner, up, down, up_taps,
                down_taps, self.radial_filters and not critical,
                (low, total - low, low, total - low),
            ))  # fmt: skip
        return plans

    def layer_side(self, layer: int) -> int:
        """Side in pixels of a layer's features of a square picture, with the margin around it."""
        return self._sizes()[layer][0]

    def layer_size(self, layer: int) -> Size:
        """Height and width of a layer's features, with the margin around the picture."""
        bare = layer >= self.num_layers - 1
        return self.size if bare else self._padded(self._rows()[layer][1])

    @property
    def style_sides(self) -> list[int]:
        """Sides that a picture needs to hold what each latent styles, whatever the layer's own.

        That is twice the cutoff frequency: 4 px for the input and the first layer.
        """
        sides = [round(2 * cutoff) for cutoff, _, _ in self._rows()]
        return [sides[0], *sides]

    def count_weights(self, network: str) -> int:
        """Return the size of the matrices and kernels of D, or of the generator: a lower bound."""
        if network == "D":
            return self.discriminator_weights()
        total = self.mapping_weights() + self.input_size()[0] ** 2 + 4 * self.w_dim
        for plan in self.layers():
            total += plan.in_channels * (plan.out_channels * plan.kernel**2 + self.w_dim)
        return total

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        return max(
            max(plan.in_channels, plan.out_channels)
            * max(plan.in_size.pixels, plan.out_size.pixels)
            for plan in self.layers()
        )

    def drawing_flops(self) -> float:
        """Multiplications and additions of one picture's convolutions; the filters left out."""
        return sum(
            2.0 * (plan.in_size.height + plan.kernel - 1) * (plan.in_size.width + plan.kernel - 1)
            * plan.kernel**2
            * plan.in_channels * plan.out_channels
            for plan in self.layers()
        )  # fmt: skip

    def training_work(self, side: int) -> float:
        """Work of one picture in a step: values computed, each as much as 512 multiplications."""
        return sum(
            plan.out_size.pixels * plan.out_channels
            * (1 + plan.kernel**2 * plan.in_channels / 512)
            for plan in self.layers()
        )  # fmt: skip
