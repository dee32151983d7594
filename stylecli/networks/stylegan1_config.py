"""StyleGAN and, by switches, Progressive GAN: their configuration, and the paper's as presets.

Apart from the networks (``stylegan1``), which need torch: standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig, Preset
from stylecli.settings import LOSS, NETWORK, setting, spelled

_TRADITIONAL = {
    "use_styles": False, "const_input": False, "use_noise": False, "pixel_norm": True,
    "instance_norm": False, "style_mixing_prob": 0.0, "truncation_cutoff": None,
    "truncation_psi": 1.0,
}  # fmt: skip

# One row per published configuration: what differs from config f, the complete StyleGAN.
PRESETS: dict[str, Preset] = {
    "a": Preset({**_TRADITIONAL, "mapping_layers": 0, "blur": False, "fused_scale": True,
                 "label_mode": "concat", "D_label_mode": "ignore"}, "baseline Progressive GAN"),
    "b": Preset({**_TRADITIONAL, "mapping_layers": 0},
                "tuned baseline: bilinear (blurred) resampling, traditional generator"),
    "traditional-8": Preset({**_TRADITIONAL, "mapping_layers": 8},
                            "b with an 8-layer mapping network in front"),
    "c": Preset({"const_input": False, "use_noise": False, "style_mixing_prob": 0.0},
                "+ mapping network and styles"),
    "d": Preset({"use_noise": False, "style_mixing_prob": 0.0},
                "+ constant input instead of a traditional one"),
    "e": Preset({"style_mixing_prob": 0.0}, "+ noise inputs"),
    "f": Preset({}, "+ style mixing: the complete StyleGAN"),
    "mapping-0": Preset({"mapping_layers": 0}, "f without mapping layers"),
    "mapping-1": Preset({"mapping_layers": 1}, "f with one mapping layer"),
    "mapping-2": Preset({"mapping_layers": 2}, "f with two mapping layers"),
    "mix50": Preset({"style_mixing_prob": 0.5}, "f mixing half of the batches"),
    "mix100": Preset({"style_mixing_prob": 1.0}, "f mixing every batch"),
}  # fmt: skip


@dataclass(frozen=True)
class StyleGAN1Config(NetworkConfig):
    """Every switch of Tables 1, 2 and 4 of the StyleGAN paper (Karras et al. 2018)."""

    family: ClassVar[str] = "stylegan1"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS

    preset: str = "f"  # the name this configuration was made from
    mapping_layers: int = setting(  # 0 hands the normalised z on as w
        8, flag="--mapping-layers", heading=NETWORK, costs=True,
        help="Layers from z to w.",
    )  # fmt: skip
    mapping_fmaps: int = setting(  # of all but the last
        512, flag="--mapping-fmaps", heading=NETWORK, help="Width of the mapping layers."
    )
    mapping_lrmul: float = 0.01  # learning-rate multiplier of the mapping network
    fmap_base: int = setting(  # at stage s: min(fmap_base / 2^s, fmap_max)
        8192, flag="--fmap-base", heading=NETWORK, after="config", costs=True,
        help="Feature maps: base / 2^stage, up to max.",
    )  # fmt: skip
    fmap_max: int = setting(
        512, flag="--fmap-max", heading=NETWORK, costs=True, help="Most feature maps."
    )
    use_styles: bool = True  # AdaIN in every layer (config c on)
    const_input: bool = True  # learned constant instead of a dense input layer (d on)
    use_noise: bool = True  # per-channel scaled noise (e on)
    pixel_norm: bool = False  # the ProGAN normalisation (a, b)
    instance_norm: bool = True  # the normalisation half of AdaIN (c on)
    blur: bool = True  # [1 2 1] low-pass beside every resampling (b on)
    fused_scale: Literal["auto"] | bool = setting(  # by transposed convolutions
        "auto", flag="--fused-scale", heading=NETWORK, after="mapping_fmaps",
        help="Resampling inside convolutions: auto (from 128 px), on or off. Default auto.",
        **spelled({"auto": "auto", "on": True, "off": False}),
    )  # fmt: skip
    label_mode: Literal["embed", "concat"] = "embed"  # learned embedding, or raw one-hot (ProGAN)
    D_label_mode: Literal["select", "ignore", "auxiliary"] = "select"  # see Discriminator
    mbstd_group_size: int = setting(
        4, flag="--mbstd-group", heading=NETWORK, after="fused_scale", least=0,
        help="Pictures whose deviation D sees at once; 0 = none. Default 4.",
    )  # fmt: skip
    style_mixing_prob: float = setting(  # that a batch mixes two latents (f)
        0.9, flag="--mixing", heading=LOSS, help="Probability of style mixing."
    )
    truncation_psi: float = 0.7  # what pictures use when nothing is asked for
    truncation_cutoff: int | None = 8  # layers it acts on, None = all
    w_avg_beta: float = 0.995  # decay of the moving average of w
    # Deviations of reimplementations, so that their networks draw here what they draw there.
    norm_epsilon: float = 1e-8  # added to the variance in instance norm
    bias_before_blur: bool = False  # in up-convolutions; zero padding makes it differ at edges
    from_rgb_activation: bool = True  # leaky ReLU behind the discriminator's colour layers

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        self.check_whole_numbers({
            "mapping_layers": (0, 64), "mapping_fmaps": (1, 16_384),
            "fmap_base": (1, 1 << 20), "fmap_max": (1, 16_384), "mbstd_group_size": (0, 1024),
        })  # fmt: skip
        if not 0 <= self.style_mixing_prob <= 1:
            raise UsageError(f"style_mixing_prob {self.style_mixing_prob!r} is not within 0 to 1")
        if self.fused_scale not in ("auto", True, False):
            raise UsageError(f"fused_scale {self.fused_scale!r} is not 'auto', True or False")
        choices = {"label_mode": ("embed", "concat"),
                   "D_label_mode": ("select", "ignore", "auxiliary")}  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {allowed}")
        if not 1e-12 <= self.norm_epsilon <= 1e-2:
            raise UsageError(f"norm_epsilon {self.norm_epsilon!r} is not within 1e-12 to 1e-2")
        adaptive = self.use_styles and self.instance_norm and not self.pixel_norm
        if not adaptive and (self.norm_epsilon != 1e-8 or self.bias_before_blur):
            raise UsageError("norm_epsilon and bias_before_blur need styles and instance norm")
        if self.const_input and not self.use_styles:
            raise UsageError("a constant input needs use_styles: nothing else would carry z")

    @property
    def num_layers(self) -> int:
        """Synthesis layers, two per resolution: 18 at 1024 px."""
        return 2 * self.resolution_log2 - 2

    @property
    def w_out_dim(self) -> int:
        """Width of what the mapping network returns."""
        if self.mapping_layers:
            return self.w_dim
        labels = self.label_dim if self.label_mode == "concat" else self.z_dim
        return self.z_dim + (labels if self.label_dim else 0)

    @property
    def feature_scale(self) -> float:
        """What features are multiplied by before instance norm, whose operator adds 1e-8.

        (k·x - k·μ) / √(k²·σ² + 1e-8) = (x - μ) / √(σ² + 1e-8/k²), and leaky ReLU commutes with k.
        """
        return math.sqrt(1e-8 / self.norm_epsilon)

    @property
    def has_w(self) -> bool:
        """Whether there is an intermediate latent space to mix and truncate in: from config c."""
        return self.use_styles

    @property
    def has_noise(self) -> bool:
        """Whether layers take noise: from config e."""
        return self.use_noise

    @property
    def grows(self) -> bool:
        """Whether training begins small: always."""
        return True

    def layers_at(self, level: int) -> int:
        """Synthesis layers that run at resolution / 2^level."""
        return self.num_layers - 2 * level

    def layer_side(self, layer: int) -> int:
        """Level of a layer's features: of square ones, their side in pixels."""
        return 4 << layer // 2

    def fmaps(self, stage: int) -> int:
        """Feature maps nf(stage); the block at resolution 2^r uses nf(r - 1)."""
        return max(1, min(int(self.fmap_base / 2**stage), self.fmap_max))

    def maps_at(self, side: int) -> int:
        return self.fmaps(side.bit_length() - 2)

    def count_weights(self, network: str) -> int:
        """Return the size of the weight matrices and kernels of D, or of the generator.

        Biases, noise and colour layers are left out: a lower bound without building the network.
        """
        f = self.fmaps
        blocks = range(3, self.resolution_log2 + 1)
        kernels = 9 * f(1) ** 2 + sum(9 * f(r - 1) * (f(r - 1) + f(r - 2)) for r in blocks)
        if network == "D":
            outputs = self.label_dim if self.D_label_mode != "ignore" else 0
            return kernels + f(0) * (self.size_at(4).pixels * f(1) + outputs)
        widths = [self.z_dim, *[self.mapping_fmaps] * (self.mapping_layers - 1), self.w_dim]
        mapping = sum(a * b for a, b in pairwise(widths)) if self.mapping_layers else 0
        if self.label_dim and self.label_mode == "embed":
            mapping += self.label_dim * self.z_dim
        styles = sum(f(index // 2 + 1) for index in range(self.num_layers)) * self.use_styles
        dense = 0 if self.const_input else self.size_at(4).pixels * f(1)
        return kernels + mapping + self.w_out_dim * (2 * styles + dense)

    def discriminator_layers(self, side: int) -> list[str]:
        """Return the names of D's layers for pictures of ``side`` px, but for the last one.

        Layer 1 is FromRGB of that resolution, then come the two convolutions of its block, those of
        the next smaller block and so on, at last the head's convolution and first dense layer.
        """
        top = side.bit_length() - 1
        layers = [f"from_rgb.{top - 2}"]
        for r in range(top, 2, -1):
            layers += [f"blocks.{r - 3}.conv0", f"blocks.{r - 3}.conv1_down"]
        return [*layers, "head.conv", "head.dense0"]

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        return max(
            self.fmaps(r - 1) * self.size_at(1 << r).pixels
            for r in range(2, self.resolution_log2 + 1)
        )

    def drawing_flops(self) -> float:
        """Multiplications and additions of one picture's convolutions, as done here.

        Upsampling convolutions count four taps of an input pixel's sixteen per output pixel.
        """
        total = 2.0 * 9 * self.fmaps(1) ** 2 * self.size_at(4).pixels  # the one at 4×4
        for r in range(3, self.resolution_log2 + 1):
            before, maps, pixels = self.fmaps(r - 2), self.fmaps(r - 1), self.size_at(1 << r).pixels
            total += 2.0 * pixels * (4 * before * maps + 9 * maps**2)
        last = self.resolution_log2
        return total + 2.0 * self.size.pixels * self.fmaps(last - 1) * self.channels

    def training_work(self, side: int) -> float:
        """Work of one picture in a step at ``side`` px, in units that only ratios matter of.

        The sum over all layers of values computed, pixels times feature maps, each costing as much
        as 512 of its multiplications.
        """
        work = 0.0
        for r in range(2, side.bit_length()):
            maps = self.fmaps(r - 1)
            work += self.size_at(1 << r).pixels * maps * (1 + 9 * maps / 512)
        return work
