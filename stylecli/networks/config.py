"""What every network is asked: one frozen dataclass that the families' configurations derive from.

Standard library only, so that the command line reads defaults without loading torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

from stylecli.errors import UsageError, unknown_name
from stylecli.settings import NETWORK, setting
from stylecli.shapes import SQUARE, Grid, Size, checked_grid

MAX_RESOLUTION = 1024
NETWORK_NAMES = ("G_ema", "G", "D")  # of a bundle, in the order in which they are told
NoiseMode = Literal["const", "random", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = get_args(NoiseMode)
_MAX_VALUE = 1e9  # no size, weight or rate comes near


def check_noise_mode(noise_mode: str) -> None:
    """Raise UsageError unless it is one of const, random, none."""
    if noise_mode not in NOISE_MODES:
        raise UsageError(unknown_name("noise mode", noise_mode, NOISE_MODES))


class Preset(NamedTuple):
    """A published configuration of a family."""

    fields: Mapping[str, Any]  # what differs from the family's defaults
    text: str  # what makes it, for people


@dataclass(frozen=True)
class NetworkConfig:
    """What is known of a network of any family without building it.

    Whoever uses a network asks these properties, never which family it is of. A family derives its
    own configuration, overrides what differs, and adds its switches as further fields.
    """

    family: ClassVar[str]  # its row in the registry, and what files say
    presets: ClassVar[Mapping[str, Preset]]  # the words of --config and new_network
    trainable: ClassVar[bool] = True  # False: drawn and measured only

    preset: str = ""  # the name this configuration was made from
    # Of square pictures the pixels on a side, a power of two from 4 to 1024; of others the level
    # (``shapes``) that tells how often the base is doubled.
    resolution: int = setting(1024, from_dataset=True, reason="the dataset's")
    channels: int = setting(3, from_dataset=True, reason="the dataset's")  # 1 grey, 3 RGB, 4 RGBA
    label_dim: int = setting(  # 0 = unconditional
        0, from_dataset=True, reason="the dataset's classes"
    )
    z_dim: int = setting(
        512, flag="--z-dim", heading=NETWORK, after="config", costs=True,
        help="Size of the latent z.",
    )  # fmt: skip
    w_dim: int = setting(
        512, flag="--w-dim", heading=NETWORK, costs=True, help="Size of the latent w."
    )
    # Height and width of the first layer, which every level doubles.
    base: tuple[int, ...] = setting(SQUARE, from_dataset=True, reason="the dataset's")

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        object.__setattr__(self, "base", checked_grid(self.base))  # files hold it as a list
        r = self.resolution
        if type(r) is not int or not 4 <= r <= MAX_RESOLUTION or r & (r - 1):
            raise UsageError(f"resolution {r!r} is not a power of two from 4 to {MAX_RESOLUTION}")
        if self.channels not in (1, 3, 4):
            raise UsageError(f"channels {self.channels!r} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
        self.check_whole_numbers(
            {"label_dim": (0, 100_000), "z_dim": (1, 16_384), "w_dim": (1, 16_384)}
        )

    def check_whole_numbers(self, limits: Mapping[str, tuple[int, int]]) -> None:
        """Raise UsageError unless each named field is a whole number within its (least, most)."""
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{name} {value!r} is not a whole number from {low} to {high}")

    # -- latents and styles -----------------------------------------------------------------

    @property
    def has_w(self) -> bool:
        """Whether there is an intermediate latent space to mix and truncate in."""
        return True

    @property
    def num_ws(self) -> int:
        """Latents that synthesis takes: ws is [N, num_ws, w_out_dim]; 1 without a w."""
        return self.num_layers if self.has_w else 1

    @property
    def w_out_dim(self) -> int:
        """Width of ws. The field ``w_dim`` is what was asked for, which not every network heeds."""
        return self.w_dim if self.has_w else self.z_dim

    @property
    def truncates(self) -> bool:
        """Whether latents can be pulled towards an average: of w, or where z itself is drawn, 0."""
        return self.has_w

    @property
    def truncation_psi(self) -> float:
        """What pictures use when nothing is asked for."""
        return 0.7 if self.has_w else 1.0

    @property
    def truncation_cutoff(self) -> int | None:
        """Layers that truncation acts on when nothing is asked for, None = all."""
        return None

    @property
    def moves_pictures(self) -> bool:
        """Whether pictures can be shifted and turned where they are drawn."""
        return False

    @property
    def preview_halvings(self) -> int:
        """How often the sides of a picture that is drawn on the way, and true, are halved; 0: none.

        Synthesis then takes ``halvings`` and ends with it.
        """
        return 0

    @property
    def mapping_layers(self) -> int:
        """Dense layers between z and w."""
        return 0

    # -- sizes ------------------------------------------------------------------------------

    @property
    def grid(self) -> Grid:
        """Pixels of the first layer."""
        return Grid(*self.base)

    def size_at(self, side: int) -> Size:
        """Return height and width of the level that square networks have at ``side`` px."""
        return self.grid.at(side)

    @property
    def size(self) -> Size:
        """Height and width of pictures."""
        return self.size_at(self.resolution)

    @property
    def height(self) -> int:
        """Height of pictures."""
        return self.size.height

    @property
    def width(self) -> int:
        """Width of pictures."""
        return self.size.width

    @property
    def level_sizes(self) -> list[Size]:
        """Height and width of every level, from the first layer's on."""
        return [self.size_at(1 << r) for r in range(2, self.resolution_log2 + 1)]

    # -- layers -----------------------------------------------------------------------------

    @property
    def resolution_log2(self) -> int:
        """r_max of the paper: 10 at 1024 px."""
        return self.resolution.bit_length() - 1

    @property
    def num_layers(self) -> int:
        """Layers of synthesis."""
        raise NotImplementedError

    @property
    def has_noise(self) -> bool:
        """Whether layers take noise."""
        return False

    def layer_side(self, layer: int) -> int:
        """Level of a layer's features: of square ones, their side in pixels."""
        raise NotImplementedError

    def layer_size(self, layer: int) -> Size:
        """Height and width of a layer's features."""
        return self.size_at(self.layer_side(layer))

    @property
    def layer_sides(self) -> list[int]:
        """Sides in pixels of all layers, from the first."""
        return [self.layer_side(layer) for layer in range(self.num_layers)]

    @property
    def style_sides(self) -> list[int]:
        """Sides in pixels of what each latent of ws styles: what makes it coarse or fine."""
        return self.layer_sides

    def noise_shapes(self) -> list[tuple[int, int, int, int]]:
        """Return the shape [1, 1, h, w] of every layer's noise map; none without noise."""
        sizes = map(self.layer_size, range(self.num_layers if self.has_noise else 0))
        return [(1, 1, *size) for size in sizes]

    # -- training ---------------------------------------------------------------------------

    @property
    def grows(self) -> bool:
        """Whether training begins at a low resolution and fades in the others (``lod``)."""
        return False

    @property
    def deepest_lod(self) -> int:
        """The largest level of detail: halvings down to the base; 0 for what does not grow."""
        return self.resolution_log2 - 2 if self.grows else 0

    def check_lod(self, lod: float) -> None:
        """Raise UsageError for a level of detail that this network does not have."""
        if not self.grows and lod:
            raise UsageError(
                f"lod {lod:g} is for networks that grow, which configuration {self.preset!r} "
                "does not: leave it out"
            )
        if not 0 <= lod <= self.deepest_lod:
            raise UsageError(
                f"lod {lod:g} is out of range: this network has 0 to {self.deepest_lod}"
            )

    def layers_at(self, level: int) -> int:
        """Synthesis layers that run at resolution / 2^level."""
        return self.num_layers

    def discriminator_layers(self, side: int) -> list[str]:
        """Return the names of D's layers for pictures of ``side`` px, from the picture on.

        The last one is left out: it is never frozen.
        """
        return []

    @property
    def mbstd_group_size(self) -> int:
        """Samples of a minibatch standard deviation in D, which batches divide into; 0 = none."""
        return 0

    @property
    def w_avg_beta(self) -> float:
        """Decay of the moving average of w in training, per step."""
        return 0.995

    @property
    def style_mixing_prob(self) -> float:
        """Chance that a batch of training mixes two latents."""
        return 0.0

    # -- size -------------------------------------------------------------------------------

    def count_weights(self, network: str) -> int:
        """Return a lower bound of the numbers in D, or in the generator, without building it."""
        raise NotImplementedError

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        raise NotImplementedError

    def maps_at(self, side: int) -> int:
        """Feature maps of D's convolutions at a resolution in pixels."""
        raise NotImplementedError

    def drawing_flops(self) -> float:
        """Multiplications and additions of drawing one picture; 0 where they are not counted."""
        return 0.0

    def training_work(self, side: int) -> float:
        """Work of one picture in a step at ``side`` px, in units that only ratios matter of."""
        return float(self.size_at(side).pixels)

    # -- names ------------------------------------------------------------------------------

    @classmethod
    def named(cls, name: str, **overrides: Any) -> Self:
        """Return a named configuration with fields replaced; raise UsageError for unknown names."""
        name = name.lower()
        if name not in cls.presets:
            raise UsageError(unknown_name("configuration", name, cls.presets))
        known = {field.name for field in fields(cls)}
        for key in overrides:
            if key not in known or key == "preset":
                raise UsageError(f"{key!r} is not a field of configuration {name!r}")
        return replace(cls(preset=name, **cls.presets[name].fields), **overrides)

    @property
    def preset_fields(self) -> Mapping[str, Any]:
        """What the preset that this was made from sets; nothing where it has a name of its own."""
        preset = self.presets.get(self.preset)
        return {} if preset is None else preset.fields

    @property
    def preset_text(self) -> str:
        """What makes this configuration, for people; empty where it has a name of its own."""
        preset = self.presets.get(self.preset)
        return "" if preset is None else preset.text

    # -- files ------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, readable by from_dict."""
        values = {"family": self.family, **asdict(self)}
        if self.grid.is_usual:  # so that files of square networks stay as they were
            del values["base"]
        return values

    @classmethod
    def check_types(cls, values: Mapping[str, Any]) -> None:
        """Raise UsageError for a field that a file should not have, or of another type."""
        known = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise UsageError(f"network configuration has unknown fields: {', '.join(unknown)}")
        for name, value in values.items():
            kinds = get_args(known[name]) or (known[name],)
            if not all(isinstance(kind, type) for kind in kinds):
                continue  # one of a few values, which __post_init__ knows
            kinds = (*kinds, int) if float in kinds else kinds
            too_large = isinstance(value, int | float) and not -_MAX_VALUE < value < _MAX_VALUE
            truth = isinstance(value, bool) and bool not in kinds  # which Python counts as a number
            if not isinstance(value, kinds) or too_large or truth:
                raise UsageError(f"network configuration has {name} {str(value)[:40]!r}")
