"""What a StyleGAN is made of: one frozen dataclass, and the paper's configurations as presets.

Stdlib only, so that the command line reads defaults without loading torch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

from stylecli.errors import UsageError

MAX_RESOLUTION = 1024


@dataclass(frozen=True)
class StyleGAN1Config:
    """Every switch of Tables 1, 2 and 4 of the StyleGAN paper (Karras et al. 2018)."""

    preset: str = "f"  # the name this configuration was made from
    resolution: int = 1024  # pixels on a side, a power of two from 4 to 1024
    channels: int = 3  # 1 grey, 3 RGB, 4 RGBA
    label_dim: int = 0  # classes, 0 = unconditional
    z_dim: int = 512  # size of the input latent
    w_dim: int = 512  # size of the intermediate latent
    mapping_layers: int = 8  # 0 hands the normalised z on as w
    mapping_fmaps: int = 512  # width of the mapping layers but the last
    mapping_lrmul: float = 0.01  # learning-rate multiplier of the mapping network
    fmap_base: int = 8192  # feature maps at stage s: min(fmap_base / 2^s, fmap_max)
    fmap_max: int = 512
    use_styles: bool = True  # AdaIN in every layer (config c on)
    const_input: bool = True  # learned constant instead of a dense input layer (d on)
    use_noise: bool = True  # per-channel scaled noise (e on)
    pixel_norm: bool = False  # the ProGAN normalisation (a, b)
    instance_norm: bool = True  # the normalisation half of AdaIN (c on)
    blur: bool = True  # [1 2 1] low-pass beside every resampling (b on)
    fused_scale: Literal["auto"] | bool = "auto"  # transposed up-convolutions; auto: from 128 px
    label_mode: Literal["embed", "concat"] = "embed"  # learned embedding, or raw one-hot (ProGAN)
    D_label_mode: Literal["select", "ignore", "auxiliary"] = "select"  # see Discriminator
    mbstd_group_size: int = 4  # minibatch standard deviation group, 0 = off
    style_mixing_prob: float = 0.9  # training: chance that a batch mixes two latents (f)
    truncation_psi: float = 0.7  # what pictures use when nothing is asked for
    truncation_cutoff: int | None = 8  # layers it acts on, None = all
    w_avg_beta: float = 0.995  # decay of the moving average of w
    # Deviations of reimplementations, so that their networks draw here what they draw there.
    norm_epsilon: float = 1e-8  # added to the variance in instance norm
    bias_before_blur: bool = False  # in up-convolutions; zero padding makes it differ at edges
    from_rgb_activation: bool = True  # leaky ReLU behind the discriminator's colour layers

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        r = self.resolution
        if type(r) is not int or not 4 <= r <= MAX_RESOLUTION or r & (r - 1):
            raise UsageError(f"resolution {r!r} is not a power of two from 4 to {MAX_RESOLUTION}")
        if self.channels not in (1, 3, 4):
            raise UsageError(f"channels {self.channels!r} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
        limits = {
            "label_dim": (0, 100_000), "z_dim": (1, 16_384), "w_dim": (1, 16_384),
            "mapping_layers": (0, 64), "mapping_fmaps": (1, 16_384),
            "fmap_base": (1, 1 << 20), "fmap_max": (1, 16_384), "mbstd_group_size": (0, 1024),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}")
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
    def resolution_log2(self) -> int:
        """r_max of the paper: 10 at 1024 px."""
        return self.resolution.bit_length() - 1

    @property
    def num_layers(self) -> int:
        """Synthesis layers, two per resolution: 18 at 1024 px."""
        return 2 * self.resolution_log2 - 2

    @property
    def num_ws(self) -> int:
        """Latents that synthesis takes: one per layer with styles, else one."""
        return self.num_layers if self.use_styles else 1

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
        """Whether there is an intermediate latent space to mix and truncate in."""
        return self.use_styles

    def fmaps(self, stage: int) -> int:
        """Feature maps nf(stage); the block at resolution 2^r uses nf(r - 1)."""
        return max(1, min(int(self.fmap_base / 2**stage), self.fmap_max))

    def count_weights(self, network: str) -> int:
        """Return the size of the weight matrices and kernels of D, or of the generator.

        Biases, noise and colour layers are left out: a lower bound without building the network.
        """
        f = self.fmaps
        blocks = range(3, self.resolution_log2 + 1)
        kernels = 9 * f(1) ** 2 + sum(9 * f(r - 1) * (f(r - 1) + f(r - 2)) for r in blocks)
        if network == "D":
            outputs = self.label_dim if self.D_label_mode != "ignore" else 0
            return kernels + f(0) * (16 * f(1) + outputs)
        widths = [self.z_dim, *[self.mapping_fmaps] * (self.mapping_layers - 1), self.w_dim]
        mapping = sum(a * b for a, b in pairwise(widths)) if self.mapping_layers else 0
        if self.label_dim and self.label_mode == "embed":
            mapping += self.label_dim * self.z_dim
        styles = sum(f(index // 2 + 1) for index in range(self.num_layers)) * self.use_styles
        dense = 0 if self.const_input else 16 * f(1)
        return kernels + mapping + self.w_out_dim * (2 * styles + dense)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, readable by from_dict."""
        return {"family": "stylegan1", **asdict(self)}


_TRADITIONAL = {
    "use_styles": False, "const_input": False, "use_noise": False, "pixel_norm": True,
    "instance_norm": False, "style_mixing_prob": 0.0, "truncation_cutoff": None,
    "truncation_psi": 1.0,
}  # fmt: skip

# One row per published configuration: what differs from config f, the complete StyleGAN.
PRESETS: dict[str, dict[str, Any]] = {
    "a": {**_TRADITIONAL, "mapping_layers": 0, "blur": False, "fused_scale": True,
          "label_mode": "concat", "D_label_mode": "ignore"},
    "b": {**_TRADITIONAL, "mapping_layers": 0},
    "traditional-8": {**_TRADITIONAL, "mapping_layers": 8},
    "c": {"const_input": False, "use_noise": False, "style_mixing_prob": 0.0},
    "d": {"use_noise": False, "style_mixing_prob": 0.0},
    "e": {"style_mixing_prob": 0.0},
    "f": {},
    "mapping-0": {"mapping_layers": 0},
    "mapping-1": {"mapping_layers": 1},
    "mapping-2": {"mapping_layers": 2},
    "mix50": {"style_mixing_prob": 0.5},
    "mix100": {"style_mixing_prob": 1.0},
}  # fmt: skip

PRESET_TEXTS = {
    "a": "baseline Progressive GAN",
    "b": "tuned baseline: bilinear (blurred) resampling, traditional generator",
    "traditional-8": "b with an 8-layer mapping network in front",
    "c": "+ mapping network and styles",
    "d": "+ constant input instead of a traditional one",
    "e": "+ noise inputs",
    "f": "+ style mixing: the complete StyleGAN",
    "mapping-0": "f without mapping layers",
    "mapping-1": "f with one mapping layer",
    "mapping-2": "f with two mapping layers",
    "mix50": "f mixing half of the batches",
    "mix100": "f mixing every batch",
}


def make_config(preset: str = "f", **overrides: Any) -> StyleGAN1Config:
    """Return the named configuration with fields replaced; raise UsageError for unknown names."""
    name = preset.lower()
    if name not in PRESETS:
        raise UsageError(f"configuration {preset!r} is unknown: expected one of {list(PRESETS)}")
    known = {field.name for field in fields(StyleGAN1Config)}
    for key in overrides:
        if key not in known or key == "preset":
            raise UsageError(f"{key!r} is not a field of a StyleGAN configuration")
    return replace(StyleGAN1Config(preset=name, **PRESETS[name]), **overrides)


_MAX_VALUE = 1e9  # no size, weight or rate comes near


def config_from_dict(values: Mapping[str, Any]) -> StyleGAN1Config:
    """Rebuild a configuration written by ``to_dict``; raise UsageError when it is not one."""
    values = dict(values)
    family = values.pop("family", None)
    if family != "stylegan1":
        raise UsageError(f"network family {family!r} is unknown: this version knows stylegan1")
    known = {field.name for field in fields(StyleGAN1Config)}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"network configuration has unknown fields: {', '.join(unknown)}")
    for field in fields(StyleGAN1Config):
        kinds = (int, float) if type(field.default) is float else type(field.default)
        value: Any = values.get(field.name, field.default)
        if field.name == "fused_scale":
            continue  # its values are checked
        if field.name == "truncation_cutoff" and value is None:
            continue
        too_large = isinstance(value, int | float) and not -_MAX_VALUE < value < _MAX_VALUE
        if not isinstance(value, kinds) or too_large:
            raise UsageError(f"network configuration has {field.name} {str(value)[:40]!r}")
    return StyleGAN1Config(**values)
