"""Pack a source of pictures into a dataset: choose the size, convert, write, report."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stylecli.data.layout import CODECS, MIN_RESOLUTION, Codec
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources import Item, Source, spread
from stylecli.data.transforms import FILTERS, GREY_MODES, Filter, square_pixels
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, UsageError
from stylecli.progress import Progress, silent

MAX_PACKED_RESOLUTION = 1024  # what networks go up to
PROBED = 1000  # pictures whose headers are read to choose size and channels


@dataclass(frozen=True)
class PackSettings:
    """How pictures become a dataset."""

    resolution: int | None = None  # px; None: the largest power of two within the median side
    channels: int | None = None  # 1, 3, 4; None: 1 when all pictures are grey, else 3
    filter: Filter = "lanczos"
    codec: Codec = "raw"
    pyramid: bool = False  # store lower resolutions too: a third more bytes, quicker reads
    labels: bool = True
    max_images: int | None = None  # take so many, spread evenly over the source

    def __post_init__(self) -> None:
        """Check every field; raise UsageError naming the one at fault."""
        r = self.resolution
        if r is not None and (not MIN_RESOLUTION <= r <= MAX_PACKED_RESOLUTION or r & (r - 1)):
            raise UsageError(
                f"resolution {r} is not a power of two from {MIN_RESOLUTION} to "
                f"{MAX_PACKED_RESOLUTION}"
            )
        if self.channels not in (None, 1, 3, 4):
            raise UsageError(f"channels {self.channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
        if self.filter not in FILTERS:
            raise UsageError(f"filter {self.filter!r} is not one of {', '.join(FILTERS)}")
        if self.codec not in CODECS:
            raise UsageError(f"codec {self.codec!r} is not one of {', '.join(CODECS)}")
        if self.max_images is not None and self.max_images < 1:
            raise UsageError(
                f"max images {self.max_images} is no number of pictures: give 1 or more"
            )


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why."""

    name: str
    cause: str


@dataclass(frozen=True)
class PackReport:
    """What ``pack`` did. ``skipped`` is empty for a dataset that was there already."""

    path: Path
    count: int
    resolution: int
    channels: int
    classes: dict[str, int]  # name -> pictures
    digest: str
    skipped: list[Skipped]
    enlarged: int  # pictures smaller than the resolution
    was_there: bool


def pack(
    source: Source,
    out: Path | str,
    settings: PackSettings | None = None,
    *,
    strict: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> PackReport:
    """Write the pictures of ``source`` into a dataset at ``out`` and report.

    A dataset of the same pictures and settings is left as it is. Pictures that cannot be used are
    skipped and listed; with ``strict`` the first one raises DataError. DataError also when other
    data stands at ``out`` (unless ``force``), or when no picture is usable.
    """
    out, settings = Path(out), settings or PackSettings()
    indices = spread(source, settings.max_images)
    resolution, channels = choose_size(source, indices, settings)
    recorded = {
        "kind": "pack",
        "source": source.name,
        "fingerprint": source.fingerprint(),
        "resolution": resolution,
        "channels": channels,
        "filter": settings.filter,
        "codec": settings.codec,
        "pyramid": settings.pyramid,
        "labels": settings.labels,
        "max_images": settings.max_images,
    }
    if out.exists() and not force:
        return _report(_existing(out, recorded, strict=strict), was_there=True)
    class_names = source.class_names if settings.labels else None
    skipped: list[Skipped] = []
    enlarged = 0
    with DatasetWriter(
        out,
        resolution=resolution,
        channels=channels,
        codec=settings.codec,
        pyramid=settings.pyramid,
        class_names=class_names,
        info={"settings": recorded, "source": source.name, "transform": "centre crop, resize"},
        force=force,
    ) as writer:
        for done, item in enumerate((source[index] for index in indices), 1):
            try:
                pixels, side = _prepare(item, resolution, channels, settings.filter)
            except DataError as error:
                if strict:
                    raise DataError(
                        f"{item.name} {error}: mend or remove it, or pack without --strict"
                    ) from None
                skipped.append(Skipped(item.name, str(error)))
            else:
                enlarged += side < resolution
                writer.add(pixels, item.label if class_names else None, item.metadata)
            progress(done, len(indices), f"{len(skipped)} skipped" if skipped else "")
        writer.info["skipped"] = len(skipped)
        if writer.count == 0:
            first = skipped[0]
            raise DataError(f"no picture of {source.name} can be used: {first.name} {first.cause}")
    return _report(open_dataset(out), skipped=skipped, enlarged=enlarged)


def choose_size(source: Source, indices: Sequence[int], settings: PackSettings) -> tuple[int, int]:
    """Return (resolution, channels): the settings' own, else what most pictures suggest."""
    if settings.resolution is not None and settings.channels is not None:
        return settings.resolution, settings.channels
    step = max(1, len(indices) // PROBED)
    sides, grey = [], True
    for item in (source[index] for index in indices[::step]):
        try:
            with item.open() as picture:
                sides.append(min(picture.size))
                grey = grey and picture.mode in GREY_MODES
        except DataError:
            continue  # it is counted and listed when its turn comes
    # Without a single readable header nothing will be packed, and that is said then.
    median = int(statistics.median(sides)) if sides else MIN_RESOLUTION
    fitting = 1 << (max(median, MIN_RESOLUTION).bit_length() - 1)
    resolution = settings.resolution or min(fitting, MAX_PACKED_RESOLUTION)
    return resolution, settings.channels or (1 if grey else 3)


def _prepare(
    item: Item, resolution: int, channels: int, resample: Filter
) -> tuple[npt.NDArray[np.uint8], int]:
    """Return (pixels uint8 [C, R, R], the picture's shorter side before)."""
    with item.open() as picture:
        side = min(picture.size)
        try:
            return square_pixels(picture, resolution, channels, resample), side
        except DataError:
            raise
        except Exception as error:  # decoding happens here; plugins raise anything when damaged
            raise DataError(f"cannot be decoded: {error}") from None


def _existing(out: Path, recorded: dict[str, Any], *, strict: bool) -> Dataset:
    """Return the dataset at ``out`` if packing again would make the same one."""
    dataset = open_dataset(out)
    before = dataset.info.get("settings")
    if not isinstance(before, dict):
        before = {}
    if before != recorded:
        differing = [key for key in recorded if before.get(key) != recorded[key]]
        raise DataError(
            f"{out} exists and was made with another {', '.join(differing)}: "
            "give another --out, or --force to replace it"
        )
    if strict and (left_out := dataset.info.get("skipped")):
        raise DataError(f"{out} lacks {left_out} unusable pictures: add --force to see the first")
    return dataset


def _report(
    dataset: Dataset,
    *,
    skipped: list[Skipped] | None = None,
    enlarged: int = 0,
    was_there: bool = False,
) -> PackReport:
    names, labels = dataset.class_names, dataset.labels
    counts = Counter(labels.tolist()) if names and labels is not None else Counter()
    return PackReport(
        path=dataset.path,
        count=len(dataset),
        resolution=dataset.resolution,
        channels=dataset.channels,
        classes={name: counts[label] for label, name in enumerate(names or [])},
        digest=dataset.digest,
        skipped=skipped or [],
        enlarged=enlarged,
        was_there=was_there,
    )
