"""What can be chosen about packing, checked field by field."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from stylecli.data.format import MIN_RESOLUTION, Codec
from stylecli.data.preparation import Filter, Recipe, Transform
from stylecli.errors import UsageError

MAX_PACKED_RESOLUTION = 1024  # what networks go up to


@dataclass(frozen=True)
class PackSettings:
    """How pictures become a dataset; the middle part is explained at ``Recipe``."""

    resolution: int | None = None  # px; None: what 95 % of the pictures reach
    channels: int | None = None  # 1, 3, 4; None: 1 when all pictures are grey, else 3

    filter: Filter = "lanczos"
    transform: Transform = "center-crop"
    width: int | None = None
    height: int | None = None
    exif: bool = False
    icc: Literal["convert", "ignore"] = "convert"
    background: tuple[int, int, int] = (255, 255, 255)
    enlarge: bool = False
    codec: Codec = "raw"

    pyramid: bool = False  # store lower resolutions too: a third more bytes, quicker reads
    labels: bool = True
    max_images: int | None = None  # take so many, spread evenly over the source
    keep_duplicates: bool = False  # else pictures of equal pixels are stored once

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        r = self.resolution
        if r is not None and (not MIN_RESOLUTION <= r <= MAX_PACKED_RESOLUTION or r & (r - 1)):
            raise UsageError(
                f"resolution {r} is not a power of two from {MIN_RESOLUTION} to "
                f"{MAX_PACKED_RESOLUTION}"
            )
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(
                f"max images {self.max_images} is no number of pictures: give 1 or more"
            )
        is_free = r is None and (self.width or self.height)
        self.recipe(max(self.width or 0, self.height or 0) if is_free else r or 256, 3)

    def recipe(self, resolution: int, channels: int) -> Recipe:
        """Return how one picture is prepared; the settings' own size and channels come first."""
        own: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(Recipe)
            if field.name not in ("resolution", "channels")
        }
        return Recipe(self.resolution or resolution, self.channels or channels, **own)

    def recorded(self, recipe: Recipe) -> dict[str, Any]:
        """Return all that decides about the dataset, as JSON has it."""
        return {
            **recipe.recorded(),
            "codec": self.codec,
            "pyramid": self.pyramid,
            "labels": self.labels,
            "max_images": self.max_images,
            "keep_duplicates": self.keep_duplicates,
        }
