"""The networks of lucidrains/stylegan2-pytorch: configuration and preset.

Apart from the networks (``lucidrains``), which need torch: standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig, Preset

HEADS, HEAD_WIDTH = 8, 64  # of its attention

PRESETS: dict[str, Preset] = {
    "lucidrains": Preset({}, "the networks of lucidrains/stylegan2-pytorch, at 128 px by default"),
}


@dataclass(frozen=True)
class LucidrainsConfig(NetworkConfig):
    """Every switch of both networks that its files tell."""

    family: ClassVar[str] = "lucidrains"
    presets: ClassVar[Mapping[str, Preset]] = PRESETS
    trainable: ClassVar[bool] = False

    preset: str = "lucidrains"
    resolution: int = 128
    mapping_layers: int = 8  # dense layers between z and w
    mapping_lrmul: float = 0.1  # learning-rate multiplier of the mapping network
    capacity: int = 16  # feature maps at R px are twice as many, doubled at each lower resolution
    fmap_max: int = 512
    # Resolutions with attention, counted from the highest (1), as in the option of its program.
    attention: tuple[int, ...] = ()
    truncation_psi: float = 0.75

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        super().__post_init__()
        self.check_whole_numbers(
            {"mapping_layers": (1, 64), "capacity": (1, 1024), "fmap_max": (1, 16_384)}
        )
        if not self.grid.is_usual:
            raise UsageError("networks of lucidrains' program draw square pictures: leave out base")
        if self.label_dim:
            raise UsageError("networks of lucidrains' program take no labels: leave them out")
        if self.z_dim != self.w_dim:
            raise UsageError(
                f"z_dim {self.z_dim} and w_dim {self.w_dim} differ: networks of lucidrains' "
                "program have one size for both"
            )
        for name in ("mapping_lrmul", "truncation_psi"):
            if not 0 < getattr(self, name) <= 100:
                raise UsageError(f"{name} {getattr(self, name)!r} is not within 0 to 100")
        row = self.attention
        row = tuple(row) if isinstance(row, list | tuple) else (0,)  # files hold it as a list
        if any(type(place) is not int or not 1 <= place <= self.blocks for place in row):
            raise UsageError(f"attention {self.attention!r} is not within 1 to {self.blocks}")
        object.__setattr__(self, "attention", tuple(sorted(set(row))))

    @property
    def blocks(self) -> int:
        """Resolutions, from 4 px on."""
        return self.resolution_log2 - 1

    @property
    def widths(self) -> list[int]:
        """Feature maps from 4 px on."""
        steps = range(self.blocks, 0, -1)
        return [min(self.capacity << step, self.fmap_max) for step in steps]

    @property
    def D_widths(self) -> list[int]:
        """Feature maps of the discriminator's blocks, from the picture on."""
        return [min(4 * self.capacity << step, self.fmap_max) for step in range(self.blocks + 1)]

    @property
    def attending_blocks(self) -> list[int]:
        """Blocks of synthesis that begin with attention."""
        return [self.blocks - place for place in self.attention]

    @property
    def D_attending_blocks(self) -> list[int]:
        """Blocks of the discriminator that end with attention."""
        return [place - 1 for place in self.attention]

    # -- layers -----------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        """Convolutions that take noise: two at each resolution."""
        return 2 * self.blocks

    @property
    def num_ws(self) -> int:
        """Latents that synthesis takes: one for each resolution."""
        return self.blocks

    @property
    def has_noise(self) -> bool:
        """Always."""
        return True

    def layer_side(self, layer: int) -> int:
        """Side in pixels of a layer's features."""
        return 4 << layer // 2

    @property
    def style_sides(self) -> list[int]:
        """Sides in pixels of what each latent of ws styles."""
        return [4 << block for block in range(self.blocks)]

    # -- size -------------------------------------------------------------------------------

    def attention_weights(self, maps: int) -> int:
        """Numbers in the kernels of attention beside so many feature maps."""
        return 4 * HEADS * HEAD_WIDTH * maps + 9 * maps + 4 * maps**2

    def block_weights(self, block: int) -> int:
        """Numbers in the kernels of a block of synthesis, its styles left out."""
        before, maps = self.widths[max(block - 1, 0)], self.widths[block]
        attention = self.attention_weights(before) if block in self.attending_blocks else 0
        return 9 * maps * (before + maps) + maps * self.channels + attention

    def count_weights(self, network: str) -> int:
        """Return the size of the matrices and kernels of D, or of the generator: a lower bound."""
        if network == "D":
            widths = [self.channels, *self.D_widths]
            total = 9 * widths[-1] ** 2 + 4 * widths[-1]
            for block, (before, maps) in enumerate(pairwise(widths)):
                halves = block < len(self.D_widths) - 1
                total += maps * (10 * before + (18 if halves else 9) * maps)
                total += self.attention_weights(maps) * (block in self.D_attending_blocks)
            return total
        widths = self.widths
        total = self.mapping_layers * self.w_dim**2 + widths[0] * (16 + 9 * widths[0])
        for block, maps in enumerate(widths):
            total += self.block_weights(block)
            total += self.w_dim * (widths[max(block - 1, 0)] + 2 * maps)
        return total

    def largest_features(self) -> int:
        """Numbers in the largest feature maps of one picture."""
        return max(
            max(self.widths[max(block - 1, 0)], maps) * (4 << block) ** 2
            for block, maps in enumerate(self.widths)
        )

    def drawing_flops(self) -> float:
        """Multiplications and additions of one picture's convolutions."""
        return sum(2.0 * (4 << block) ** 2 * self.block_weights(block)
                   for block in range(self.blocks))  # fmt: skip
