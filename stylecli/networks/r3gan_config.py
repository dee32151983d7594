"""R3GAN (Huang et al. 2024): configuration and presets.

Apart from the networks (``r3gan``), which need torch: standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig, Preset

# One row per published configuration: what differs from the networks for FFHQ at 256 px.
PRESETS: dict[str, Preset] = {
    "r3gan": Preset(
        {"resolution": 256}, "the networks for FFHQ; at 32 px, with labels, those for CIFAR-10"
    ),
    "r3gan-imagenet32": Preset(
        {"resolution": 32, "fmap_base": 49_152, "fmap_max": 1536, "group_fmaps": 16},
        "twice the feature maps, for ImageNet at 32 px",
    ),
    "r3gan-imagenet64": Preset(
        {"resolution": 64, "fmap_base": 98_304, "fmap_max": 1536, "group_fmaps": 16},
        "twice the feature maps, for ImageNet at 64 px",
    ),
}


@dataclass(frozen=True)
class R3GANConfig(NetworkConfig):
    """Every switch of both networks; the discriminator mirrors the generator."""

    family: ClassVar[str] = "r3gan"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS

    preset: str = "r3gan"  # the name this configuration was made from
    z_dim: int = 64
    embed_dim: int = 64  # width of the label's embedding, which stands beside z
    fmap_base: int = 24_576  # feature maps at R px: min(fmap_base / R, fmap_max)
    fmap_max: int = 768
    group_fmaps: int = 8  # feature maps of a block for each group of its middle convolution
    blocks: int = 2  # residual blocks at each resolution
    expansion: int = 2  # how many times wider the middle of a block is
    widths: tuple[int, ...] = ()  # feature maps from 4 px on instead; none = as above
    groups: tuple[int, ...] = ()  # groups of the middle convolution likewise
    D_embed_dim: int | None = None  # width of a label in D, None = feature maps at 4 px
    num_bf16_res: int = 4  # resolutions from the highest on that a GPU computes in bfloat16

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        self.check_whole_numbers({
            "embed_dim": (1, 16_384), "fmap_base": (1, 1 << 20), "fmap_max": (1, 16_384),
            "group_fmaps": (1, 16_384), "blocks": (1, 64), "expansion": (1, 64),
            "num_bf16_res": (0, 16),
        })  # fmt: skip
        if self.D_embed_dim is not None:
            self.check_whole_numbers({"D_embed_dim": (1, 16_384)})
        for name in ("widths", "groups"):  # files hold them as lists
            object.__setattr__(self, name, self._checked_row(name, getattr(self, name)))
        for side in self.sides:
            middle, groups = self.expansion * self.fmaps(side), self.groups_at(side)
            if middle % groups:
                raise UsageError(
                    f"groups {groups} at {side} px do not divide the {middle} feature maps in the "
                    "middle of its blocks"
                )

    def _checked_row(self, name: str, values: object) -> tuple[int, ...]:
        row = tuple(values) if isinstance(values, list | tuple) else (0,)
        if any(type(value) is not int or not 1 <= value <= 16_384 for value in row):
            raise UsageError(f"{name} {values!r} are not whole numbers from 1 to 16384")
        if len(row) not in (0, len(self.sides)):
            raise UsageError(
                f"{name} {list(row)} are {len(row)}: {self.resolution} px need {len(self.sides)}, "
                "one for each resolution from 4 px on"
            )
        return row

    # -- latents ----------------------------------------------------------------------------

    @property
    def has_w(self) -> bool:
        """There is no intermediate latent space: z itself goes into synthesis."""
        return False

    @property
    def truncates(self) -> bool:
        """Latents are not normalised, so that psi can shrink them towards 0."""
        return True

    @property
    def w_out_dim(self) -> int:
        """Width of ws: z, and beside it the label's embedding."""
        return self.z_dim + (self.embed_dim if self.label_dim else 0)

    # -- layers -----------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        """Residual blocks of synthesis."""
        return self.blocks * len(self.sides)

    def layer_side(self, layer: int) -> int:
        """Level of a block's features: of square ones, their side in pixels."""
        return 4 << layer // self.blocks

    @property
    def sides(self) -> list[int]:
        """Resolutions in pixels, from 4 on."""
        return [1 << r for r in range(2, self.resolution_log2 + 1)]

    def fmaps(self, side: int) -> int:
        """Feature maps at a resolution in pixels."""
        if self.widths:
            return self.widths[side.bit_length() - 3]
        return max(1, min(self.fmap_base // side, self.fmap_max))

    def maps_at(self, side: int) -> int:
        return self.fmaps(side)

    def groups_at(self, side: int) -> int:
        """Groups of the middle convolution of a block (the paper's cardinality)."""
        if self.groups:
            return self.groups[side.bit_length() - 3]
        return max(1, self.fmaps(side) // self.group_fmaps)

    @property
    def D_outputs(self) -> int:
        """Numbers that the discriminator's last layer returns."""
        if not self.label_dim:
            return 1
        return self.fmaps(4) if self.D_embed_dim is None else self.D_embed_dim

    @property
    def lowest_bf16_side(self) -> int:
        """Resolution in pixels from which on a GPU computes in bfloat16, never under 8."""
        if not self.num_bf16_res:
            return 2 * self.resolution
        return max(2 * self.resolution >> self.num_bf16_res, 8)

    def discriminator_layers(self, side: int) -> list[str]:
        """Return the names of D's layers for pictures of ``side`` px, but for the last one."""
        layers = ["fromrgb"]
        for here in reversed(self.sides):
            layers += [f"b{here}.blocks.{index}" for index in range(self.blocks)]
            if here > 4 and self.fmaps(here) != self.fmaps(here // 2):
                layers.append(f"b{here}.change")
        return [*layers, "head.basis"]

    # -- size -------------------------------------------------------------------------------

    def block_weights(self, side: int) -> int:
        """Numbers in the kernels of a residual block."""
        maps = self.fmaps(side)
        middle = self.expansion * maps
        return 2 * maps * middle + 9 * middle * (middle // self.groups_at(side))

    def count_weights(self, network: str) -> int:
        """Return the size of the matrices and kernels of D, or of the generator: a lower bound."""
        f, last = self.fmaps, self.resolution
        total = f(last) * self.channels + self.size_at(4).pixels * f(4)
        if network == "D":
            total += self.D_outputs * (f(4) + self.label_dim)
        else:
            total += f(4) * self.w_out_dim
            total += self.label_dim * self.embed_dim
        for side in self.sides:
            total += self.blocks * self.block_weights(side)
            if side > 4 and f(side) != f(side // 2):
                total += f(side) * f(side // 2)
        return total

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        return max(
            self.expansion * self.fmaps(side) * self.size_at(side).pixels for side in self.sides
        )

    def drawing_flops(self) -> float:
        """Multiplications and additions of one picture's convolutions, as done here."""
        total = 2.0 * self.size.pixels * self.fmaps(self.resolution) * self.channels
        for side in self.sides:
            total += 2.0 * self.size_at(side).pixels * self.blocks * self.block_weights(side)
            if side > 4 and self.fmaps(side) != self.fmaps(side // 2):  # before doubling
                below = self.size_at(side // 2).pixels
                total += 2.0 * below * self.fmaps(side) * self.fmaps(side // 2)
        return total

    def training_work(self, side: int) -> float:
        """Work of one picture in a step: values computed, each as much as 512 multiplications."""
        work = 0.0
        for each in self.sides:
            values = (2 * self.expansion + 1) * self.fmaps(each)
            work += (
                self.size_at(each).pixels * self.blocks * (values + self.block_weights(each) / 512)
            )
        return work
