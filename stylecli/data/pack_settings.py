"""How pictures are to become a dataset: what is asked for, what they suggest, what one was."""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from stylecli.data.alignment.detectors import boxes_of_faces, choose_detector, installed_detector
from stylecli.data.format import MIN_RESOLUTION, Codec
from stylecli.data.pictures import PictureHeader, quiet, read_header
from stylecli.data.preparation import FaceFinder, Filter, Recipe, Transform, choose_resolution
from stylecli.data.reader import Dataset
from stylecli.data.sources.base import Source, keeps_as_stored
from stylecli.data.unfinished import option_name
from stylecli.errors import DataError, UsageError
from stylecli.shapes import SQUARE, Grid, checked_grid, propose_shape

MAX_PACKED_RESOLUTION = 1024  # what networks go up to

_FREE = ("labels", "max_images", "keep_duplicates")  # may differ from one addition to the next

CONTRAST = "contrast"  # finds a subject where no face detector is installed

PROBED = 1000  # pictures whose headers are read to choose size and channels
PROBED_FOR_SHAPE = 100
CUTS = ("center-crop", "subject")  # what a square loses of other pictures


@dataclass(frozen=True)
class PackSettings:
    """How pictures become a dataset; the middle part is explained at ``Recipe``."""

    resolution: int | None = None  # px, or level; None: what 95 % of the pictures reach
    channels: int | None = None  # 1, 3, 4; None: 1 when all pictures are grey, else 3

    filter: Filter = "lanczos"
    transform: Transform = "center-crop"
    width: int | None = None
    height: int | None = None
    exif: bool | None = None  # None: as the source has it, which is upright but for NVIDIA's
    icc: Literal["convert", "ignore"] = "convert"
    background: tuple[int, int, int] = (255, 255, 255)
    enlarge: bool = False
    subject: str = ""  # "": the face detector that is installed, else "contrast"
    codec: Codec = "raw"

    pyramid: bool = False  # store lower resolutions too: a third more bytes, quicker reads
    labels: bool = True
    max_images: int | None = None  # take so many, spread evenly over the source
    keep_duplicates: bool = False  # else pictures of equal pixels are stored once
    base: Grid = SQUARE  # of another shape: height and width that are doubled

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        object.__setattr__(self, "base", checked_grid(self.base))
        r = self.resolution
        if r is not None and (not MIN_RESOLUTION <= r <= MAX_PACKED_RESOLUTION or r & (r - 1)):
            raise UsageError(
                f"resolution {r} is not a power of two from {MIN_RESOLUTION} to "
                f"{MAX_PACKED_RESOLUTION}"
            )
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(f"--max-images {self.max_images} is out of range: give 1 or more")
        is_free = r is None and (self.width or self.height)
        self.recipe(max(self.width or 0, self.height or 0) if is_free else r or 256, 3)

    def recipe(self, resolution: int, channels: int) -> Recipe:
        """Return how one picture is prepared; the settings' own size and channels come first."""
        own: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(Recipe)
            if field.name not in ("resolution", "channels")
        }
        own["exif"] = self.exif is not False
        return Recipe(self.resolution or resolution, self.channels or channels, **own)

    def completed(self, source: Source) -> "PackSettings":
        """Return the settings with what they leave to the source and to this machine."""
        found = self
        if self.exif is None:
            found = replace(found, exif=not keeps_as_stored(source))
        if self.transform == "subject" and not self.subject:
            found = replace(found, subject=installed_detector() or CONTRAST)
        return found

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


def face_finder(settings: PackSettings | Recipe) -> FaceFinder | None:
    """Return what finds the faces to crop towards; None where the settings name no detector."""
    if settings.transform != "subject" or settings.subject in ("", CONTRAST):
        return None
    return functools.partial(boxes_of_faces, detector=choose_detector(settings.subject))


def choose_recipe(source: Source, indices: Sequence[int], settings: PackSettings) -> Recipe:
    """Return how pictures are prepared: the settings' own size, else what most pictures suggest."""
    if settings.resolution is not None and settings.channels is not None:
        return settings.recipe(settings.resolution, settings.channels)
    sizes, grey = [], True
    for header in _probed(source, indices, settings, PROBED):
        sizes.append(header.upright_size)
        grey = grey and header.is_grey
        if settings.resolution and not grey:
            return settings.recipe(settings.resolution, 3)  # nothing is left to find out
    transform = settings.recipe(256, 3).transform
    resolution = choose_resolution(sizes, transform, MAX_PACKED_RESOLUTION, settings.base)
    return settings.recipe(resolution, 1 if grey else 3)


def propose_for(source: Source, indices: Sequence[int], settings: PackSettings) -> str:
    """Say which shape keeps more of the pictures than the squares they are cut to, else ""."""
    if not settings.base.is_usual or settings.recipe(256, 3).transform not in CUTS:
        return ""
    probed = _probed(source, indices, settings, PROBED_FOR_SHAPE)
    return propose_shape(Counter(header.upright_size[::-1] for header in probed))


def _probed(
    source: Source, indices: Sequence[int], settings: PackSettings, count: int
) -> Iterator[PictureHeader]:
    """Yield the headers of about ``count`` pictures, spread evenly."""
    for index in indices[:: max(1, len(indices) // count)]:
        # What is wrong with a picture is counted and listed when its turn comes.
        with contextlib.suppress(Exception), quiet(), source[index].open() as picture:
            # Looking for a PNG's orientation would decode it, a thousand times for a guess.
            upright = bool(settings.exif) and picture.format != "PNG"
            yield read_header(picture, upright=upright)


def options_of(settings: Any) -> list[str]:
    """Return the options that a dataset was packed with, where they differ from the defaults."""
    settings = settings if isinstance(settings, dict) else {}
    default, found = PackSettings(), []
    if base := settings.get("base"):
        found.append(f"--shape {checked_grid(base).ratio}")
    for name in ("channels", "filter", "transform", "exif", "icc", "background", "enlarge",
                 "labels", "max_images", "keep_duplicates"):  # fmt: skip
        value, usual = settings.get(name), getattr(default, name)
        if name == "exif":
            found += ["--as-stored"] if value is False else []
            continue
        if value is None or value == usual or (name == "channels" and value == 3):
            continue
        if name == "background" and tuple(value) == usual:
            continue
        option = option_name(name)
        found.append(option if isinstance(value, bool) else f"{option} {value}")
    return found


def settings_of(dataset: Dataset, settings: PackSettings) -> PackSettings:
    """Return ``settings`` with what they leave open taken from the dataset.

    Raises DataError when they ask for something other than the dataset was packed with.
    """
    packed = dataset.info.get("settings")
    packed = packed if isinstance(packed, dict) and packed.get("kind") == "pack" else {}
    own: dict[str, Any] = {
        **packed,
        "resolution": dataset.resolution,
        "channels": dataset.channels,
        "base": dataset.grid,
        "codec": dataset.info["codec"],
        "pyramid": dataset.info["levels"] > 1,
    }
    default = PackSettings()
    taken: dict[str, Any] = {}
    for each in fields(PackSettings):
        name = each.name
        if name in _FREE or name not in own:
            continue
        value = tuple(own[name]) if isinstance(own[name], list) else own[name]
        asked = getattr(settings, name)
        if asked not in (getattr(default, name), value):
            raise DataError(
                f"{dataset.path} was packed with {option_name(name)} {_shown(value)}, not "
                f"{_shown(asked)}: "
                "leave that option out, or pack into another --out"
            )
        taken[name] = value
    if packed.get("labels") is False:
        taken["labels"] = False
    return replace(settings, **taken)


def _shown(value: Any) -> str:
    shown = value.ratio if isinstance(value, Grid) else str(value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else shown
