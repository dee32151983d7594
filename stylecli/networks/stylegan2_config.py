"""StyleGAN2 (Karras et al. 2019) with its adaptive augmentation (2020): configuration and presets.

Apart from the networks (``stylegan2``), which need torch: standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig, Preset

Architecture = Literal["skip", "resnet", "orig"]
ARCHITECTURES = ("skip", "resnet", "orig")
_MAX_TAPS = 32

# One row per published configuration: what differs from config f of Table 1.
PRESETS: dict[str, Preset] = {
    "stylegan2": Preset({}, "config F of the StyleGAN2 paper: large networks"),
    "stylegan2-e": Preset({"fmap_base": 16_384}, "config E: half the feature maps from 64 px on"),
    "stylegan2-cifar": Preset(
        {"resolution": 32, "mapping_layers": 2, "D_architecture": "orig", "mbstd_group_size": 32,
         "style_mixing_prob": 0.0},
        "the networks for CIFAR-10 of the paper on adaptive augmentation",
    ),
}  # fmt: skip
_PREVIEW = 2  # halvings


@dataclass(frozen=True)
class ModulatedConfig(NetworkConfig):
    """What StyleGAN2 and StyleGAN3 have in common: the mapping network and the discriminator."""

    mapping_layers: int = 8  # dense layers between z and w
    mapping_fmaps: int | None = None  # width of the mapping layers but the last, None = w_dim
    mapping_lrmul: float = 0.01  # learning-rate multiplier of the mapping network
    embed_dim: int | None = None  # width of the label embedding in G, None = w_dim
    label_mode: Literal["embed", "joint"] = "embed"  # normalised apart from z, or with it (TF)
    fmap_base: int = 32_768  # feature maps at R px: min(fmap_base / R, fmap_max)
    fmap_max: int = 512
    resample_filter: tuple[float, ...] = (1, 3, 3, 1)  # taps of the low-pass, along each axis
    conv_clamp: float | None = 256  # limit of what layers return, None = none
    num_fp16_res: int = 4  # resolutions from the highest on that a GPU computes in float16
    D_architecture: Architecture = "resnet"
    D_fmap_base: int | None = None  # of the discriminator, None = fmap_base
    D_fmap_max: int | None = None
    D_label_mode: Literal["project", "select"] = "project"  # see Discriminator
    D_mapping_layers: int = 8  # of the labels' mapping network
    cmap_dim: int | None = None  # width of a mapped label, None = feature maps at 4 px
    mbstd_group_size: int = 4  # minibatch standard deviation group, 0 = off
    mbstd_features: int = 1  # channels that it appends
    truncation_psi: float = 0.7  # what pictures use when nothing is asked for
    truncation_cutoff: int | None = None  # layers it acts on, None = all
    w_avg_beta: float = 0.995  # decay of the moving average of w

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        self.check_whole_numbers({
            "mapping_layers": (1, 64), "fmap_base": (1, 1 << 20), "fmap_max": (1, 16_384),
            "num_fp16_res": (0, 16), "D_mapping_layers": (0, 64), "mbstd_group_size": (0, 1024),
            "mbstd_features": (1, 512),
        })  # fmt: skip
        limits = {"mapping_fmaps": 16_384, "embed_dim": 16_384, "cmap_dim": 16_384,
                  "D_fmap_base": 1 << 20, "D_fmap_max": 16_384}  # fmt: skip
        for name, most in limits.items():
            if getattr(self, name) is not None:
                self.check_whole_numbers({name: (1, most)})
        choices = {"label_mode": ("embed", "joint"), "D_label_mode": ("project", "select"),
                   "D_architecture": ARCHITECTURES}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {allowed}")
        # Files hold the taps as a list.
        object.__setattr__(self, "resample_filter", _checked_taps(self.resample_filter))
        if self.conv_clamp is not None and not 0 < self.conv_clamp <= 1e6:
            raise UsageError(f"conv_clamp {self.conv_clamp!r} is not above 0 and at most 1e6")
        for name in ("w_avg_beta", "truncation_psi"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} {getattr(self, name)!r} is not a number")
        if not 0 < self.mapping_lrmul <= 100:
            raise UsageError(f"mapping_lrmul {self.mapping_lrmul!r} is not within 0 to 100")

    @property
    def embedded_width(self) -> int:
        """Width of what stands beside z in the mapping network: 0 without labels."""
        if not self.label_dim:
            return 0
        if self.label_mode == "joint":
            return self.z_dim
        return self.w_dim if self.embed_dim is None else self.embed_dim

    @property
    def mapping_widths(self) -> list[int]:
        """Widths from the input of the mapping network to w."""
        hidden = self.w_dim if self.mapping_fmaps is None else self.mapping_fmaps
        first = self.z_dim + self.embedded_width
        return [first, *[hidden] * (self.mapping_layers - 1), self.w_dim]

    @property
    def lowest_fp16_side(self) -> int:
        """Resolution in pixels from which on a GPU computes in float16, never under 8."""
        if not self.num_fp16_res:
            return 2 * self.resolution
        return max(2 * self.resolution >> self.num_fp16_res, 8)

    def D_fmaps(self, side: int) -> int:
        """Feature maps of the discriminator at a resolution in pixels."""
        base = self.fmap_base if self.D_fmap_base is None else self.D_fmap_base
        most = self.fmap_max if self.D_fmap_max is None else self.D_fmap_max
        return max(1, min(base // side, most))

    def maps_at(self, side: int) -> int:
        return self.D_fmaps(side)

    @property
    def D_outputs(self) -> int:
        """Numbers that the discriminator's last layer returns."""
        if not self.label_dim:
            return 1
        return self.label_dim if self.D_label_mode == "select" else self.cmap_width

    @property
    def cmap_width(self) -> int:
        """Width of a label as the discriminator maps it."""
        return self.D_fmaps(4) if self.cmap_dim is None else self.cmap_dim

    @property
    def sides(self) -> list[int]:
        """Resolutions in pixels, from 4 on."""
        return [1 << r for r in range(2, self.resolution_log2 + 1)]

    def mapping_weights(self) -> int:
        """Numbers in the matrices of the mapping network."""
        dense = sum(a * b for a, b in pairwise(self.mapping_widths))
        return dense + self.label_dim * self.embedded_width

    def discriminator_weights(self) -> int:
        """Numbers in the kernels of the discriminator, colours and labels left out."""
        f = self.D_fmaps
        total = f(4) * ((9 + self.size_at(4).pixels) * f(4) + self.D_outputs)
        for side in self.sides[1:]:
            total += 9 * f(side) * (f(side) + f(side // 2))
        return total

    def discriminator_layers(self, side: int) -> list[str]:
        """Return the names of D's layers for pictures of ``side`` px, but for the last one.

        In each block, from the picture on: its colours, both convolutions and the skip.
        """
        layers: list[str] = []
        while side > 4:
            if side == self.resolution or self.D_architecture == "skip":
                layers.append(f"b{side}.fromrgb")
            layers += [f"b{side}.conv0", f"b{side}.conv1"]
            if self.D_architecture == "resnet":
                layers.append(f"b{side}.skip")
            side //= 2
        return [*layers, "b4.conv", "b4.fc"]


@dataclass(frozen=True)
class StyleGAN2Config(ModulatedConfig):
    """Every switch of the StyleGAN2 generator, of the official PyTorch and TensorFlow programs."""

    family: ClassVar[str] = "stylegan2"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS

    preset: str = "stylegan2"  # the name this configuration was made from
    G_architecture: Architecture = "skip"
    use_noise: bool = True  # noise in every layer, scaled by one number per layer
    style_mixing_prob: float = 0.9  # training: chance that a batch mixes two latents

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        if self.G_architecture not in ARCHITECTURES:
            raise UsageError(
                f"G_architecture {self.G_architecture!r} is not one of {ARCHITECTURES}"
            )
        if not 0 <= self.style_mixing_prob <= 1:
            raise UsageError(f"style_mixing_prob {self.style_mixing_prob!r} is not within 0 to 1")

    @property
    def preview_halvings(self) -> int:
        """The skip sum of lower resolutions is the picture without its details (Figure 7b)."""
        return _PREVIEW if self.G_architecture == "skip" and self.resolution >= 64 else 0

    @property
    def num_layers(self) -> int:
        """Convolutions of synthesis: one at 4×4, two per further resolution; 17 at 1024 px."""
        return 2 * self.resolution_log2 - 3

    @property
    def num_ws(self) -> int:
        """Latents that synthesis takes: one per convolution, and one for the last colours."""
        return self.num_layers + 1

    @property
    def has_noise(self) -> bool:
        """Whether layers take noise."""
        return self.use_noise

    def layer_side(self, layer: int) -> int:
        """Level of a layer's features: of square ones, their side in pixels."""
        return 4 << (layer + 1) // 2

    @property
    def style_sides(self) -> list[int]:
        """Sides of the convolutions, and of the last colours, which have a latent to themselves."""
        return [*self.layer_sides, self.resolution]

    def fmaps(self, side: int) -> int:
        """Feature maps at a resolution in pixels."""
        return max(1, min(self.fmap_base // side, self.fmap_max))

    def count_weights(self, network: str) -> int:
        """Return the size of the matrices and kernels of D, or of the generator: a lower bound."""
        if network == "D":
            return self.discriminator_weights()
        f = self.fmaps
        total = self.mapping_weights() + f(4) * (9 * f(4) + self.size_at(4).pixels + self.w_dim)
        for side in self.sides[1:]:
            total += (9 * f(side) + self.w_dim) * (f(side) + f(side // 2))
        return total

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        return max(self.fmaps(side) * self.size_at(side).pixels for side in self.sides)

    def drawing_flops(self) -> float:
        """Multiplications and additions of one picture's convolutions, as done here."""
        f = self.fmaps
        total = 2.0 * 9 * f(4) ** 2 * self.size_at(4).pixels
        for side in self.sides[1:]:
            # Doubling by a transposed convolution: 9 taps for each of a quarter of the pixels.
            total += 2.0 * self.size_at(side).pixels * f(side) * 9 * (f(side // 2) / 4 + f(side))
        return total

    def training_work(self, side: int) -> float:
        """Work of one picture in a step: values computed, each as much as 512 multiplications."""
        work = 0.0
        for each in self.sides:
            maps = self.fmaps(each)
            work += self.size_at(each).pixels * maps * (1 + 9 * maps / 512)
        return work


def _checked_taps(taps: object) -> tuple[float, ...]:
    """Return the taps of a filter as numbers; raise UsageError for anything else."""
    fine = isinstance(taps, list | tuple) and 1 <= len(taps) <= _MAX_TAPS
    numbers = tuple(taps) if fine and isinstance(taps, list | tuple) else ()
    if not all(type(tap) in (int, float) and math.isfinite(tap) for tap in numbers) or not sum(
        numbers
    ):
        raise UsageError(
            f"resample_filter {taps!r} is not 1 to {_MAX_TAPS} numbers whose sum is not 0"
        )
    return numbers
