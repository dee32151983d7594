"""Pack a source of pictures into a dataset: choose the size, convert, write, report."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from stylecli.data.alignment.detectors import boxes_of_faces, choose_detector, installed_detector
from stylecli.data.format import DATA_FILE, MIN_RESOLUTION, Codec, count_levels
from stylecli.data.lmdb_files import check_room, picture_bytes
from stylecli.data.pictures import quiet, read_header
from stylecli.data.preparation import (
    FaceFinder,
    Filter,
    Prepared,
    Recipe,
    Skipped,
    Transform,
    choose_resolution,
    prepare_all,
)
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import (
    Item,
    Label,
    Source,
    keeps_as_stored,
    pictures_fingerprint,
    spread,
)
from stylecli.data.unfinished import differences, option_name, real_path, sweep_locks
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, Interrupted, UsageError, plural
from stylecli.files import parse_json
from stylecli.progress import Progress, silent
from stylecli.shapes import SQUARE, Grid, checked_grid

MAX_PACKED_RESOLUTION = 1024  # what networks go up to

_FREE = ("labels", "max_images", "keep_duplicates")  # may differ from one addition to the next

CONTRAST = "contrast"  # finds a subject where no face detector is installed

PROBED = 1000  # pictures whose headers are read to choose size and channels

# Causes of leaving out pictures that are in the dataset already; the first one's name follows.
DUPLICATE = "has the same pixels as an earlier picture"
AMBIGUOUS = "has the same pixels as an earlier picture but another label"
PRESENT = "is already in the dataset"


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


@dataclass(frozen=True)
class PackReport:
    """What ``pack`` did, in all the runs that it took."""

    path: Path
    count: int  # pictures in the dataset
    added: int  # of these, from this source
    resolution: int  # px, or level
    size: str  # as people write it: 256, 256x192
    channels: int
    classes: dict[str, int]  # name -> pictures
    digest: str
    skipped: list[Skipped]  # of this source, in its order
    causes: dict[str, int]  # kind of cause -> pictures skipped
    enlarged: int  # pictures smaller than the resolution
    bytes: int  # on the disk
    was_there: bool  # nothing had to be done


def make_report(
    dataset: Dataset,
    *,
    base_count: int = 0,
    base_skipped: int = 0,
    last_skipped: int | None = None,
    was_there: bool = False,
) -> PackReport:
    """Report on a dataset; what lies before the bases, and after the last, is not of this work."""
    names, labels = dataset.class_names, dataset.labels
    counts = Counter(labels.tolist()) if names and labels is not None else Counter()
    skipped = [Skipped(name, cause) for name, cause in dataset.skipped()[base_skipped:last_skipped]]
    return PackReport(
        path=dataset.path,
        count=len(dataset),
        added=len(dataset) - base_count,
        resolution=dataset.resolution,
        size=str(dataset.size),
        channels=dataset.channels,
        classes={name: counts[label] for label, name in enumerate(names or [])},
        digest=dataset.digest,
        skipped=skipped,
        causes=dict(Counter(kind_of(left_out.cause) for left_out in skipped).most_common()),
        enlarged=dataset.info.get("tally", {}).get("enlarged", 0),
        bytes=(dataset.path / DATA_FILE).stat().st_size,
        was_there=was_there,
    )


def kind_of(cause: str) -> str:
    """Return a cause without what is particular to one picture: what stands before a colon."""
    return cause.partition(":")[0]


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


def merge_classes(
    dataset: Dataset, source: Source, settings: PackSettings, first: Label | None
) -> tuple[list[str] | None, list[int] | None]:
    """Return (names of all classes, the source's label -> the dataset's).

    Classes are the same where their names are; new ones come after the old. None where there are
    no names. ``first`` is the label of one of the source's pictures. Raises DataError when one has
    labels and the other has none, or has them of another kind.
    """
    kind = dataset.info["label_kind"]
    if not settings.labels or first is None:
        if kind is not None:
            raise DataError(
                f"{dataset.path} has labels and the pictures of {source.name} would have none: "
                "give them labels (sub-folders, or --labels FILE), or pack them into another --out"
            )
        return None, None
    theirs = "class" if isinstance(first, int) else "vector"
    if kind is None:
        raise DataError(f"{dataset.path} has no labels and {source.name} has: add --no-labels")
    if kind != theirs or (not isinstance(first, int) and len(first) != dataset.label_dim):
        width = "" if isinstance(first, int) else f" of {len(first)}"
        raise DataError(
            f"{dataset.path} has {kind} labels of {dataset.label_dim} and {source.name} has "
            f"{theirs} labels{width}: pack it into another --out"
        )
    old, new = dataset.class_names, source.class_names
    if kind == "vector" or (old is None and new is None):
        return old, None
    if old is None or new is None:
        nameless = dataset.path if old is None else source.name
        raise DataError(
            f"the classes of {nameless} have no names to merge by: pack into another --out"
        )
    names = [*old, *(name for name in new if name not in old)]
    return names, [names.index(name) for name in new]


def _shown(value: Any) -> str:
    shown = value.ratio if isinstance(value, Grid) else str(value)
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else shown


@dataclass(frozen=True)
class Plan:
    """What is about to be done, told before the work starts."""

    path: Path
    count: int  # pictures of the source that are looked at
    position: int  # of these, dealt with by an earlier run
    size: str
    channels: int
    needed_bytes: int  # for all of them; exact for raw pixels if none is skipped
    free_bytes: int


@dataclass(frozen=True)
class _Job:
    """A source, how its pictures are prepared, and where they go."""

    source: Source
    indices: Sequence[int]
    settings: PackSettings
    recipe: Recipe
    identity: dict[str, Any]  # what the work is known by when it continues
    class_names: list[str] | None
    info: dict[str, Any]  # for the header
    base: Dataset | None = None  # what the pictures are added to
    labels: list[int] = field(default_factory=list)  # the source's classes -> the dataset's

    @property
    def bases(self) -> tuple[int, int]:
        """How many pictures, and how many left out, were there before."""
        return (len(self.base), self.base.info.get("skipped", 0)) if self.base else (0, 0)

    def label(self, item: Item) -> Label | None:
        """Return the label under which an item is stored."""
        if not self.settings.labels or item.label is None:
            return None
        if self.labels and isinstance(item.label, int):
            return self.labels[item.label]
        return item.label


def pack(
    source: Source,
    out: Path | str,
    settings: PackSettings | None = None,
    *,
    strict: bool = False,
    force: bool = False,
    append: bool = False,
    offers_append: bool = True,
    workers: int | None = None,
    progress: Progress = silent,
    announce: Callable[[Plan], None] = lambda plan: None,
) -> PackReport:
    """Write the pictures of ``source`` into a dataset at ``out`` and report.

    A dataset of the same pictures and settings is left as it is, an unfinished one is continued.
    Pictures that cannot be used, and those of equal pixels, are skipped and listed; with ``strict``
    the first that cannot be used raises DataError. With ``append`` they are added to the complete
    dataset at ``out``; ``offers_append`` says whether the caller's user can ask for that.
    ``announce`` is called once the work is known. Raises DataError when other
    data stands at ``out`` (unless ``force``), no picture is usable, or the disk is too small;
    Interrupted on Ctrl-C, with everything kept.
    """
    out, settings = Path(out), settings or PackSettings()
    if append:
        job = _plan_addition(source, open_dataset(out), settings)
    else:
        job = _plan_dataset(source, settings if force else _as_before(settings, source, out))
    if (report := _done_before(job, out, offers_append, strict=strict, force=force)) is not None:
        return report
    count, (base_count, base_skipped) = len(job.indices), job.bases
    needed, free = _check_room(job, out)
    if job.base is not None:
        # A picture that has changed would otherwise pass for one of a dataset just written.
        job.base.verify(lambda done, total, note="": progress(done, total, "checking the dataset"))
        job.base.close()  # LMDB opens a file once per process
    position = 0
    try:
        with _open_writer(job, out, force=force) as writer:
            position = writer.position
            recipe = job.recipe
            announce(Plan(out, count, position, str(recipe.size), recipe.channels, needed, free))
            _store_all(job, writer, strict=strict, workers=workers, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped at picture {writer.position:,} of {count:,}: run the same command to continue"
        ) from None
    return make_report(open_dataset(out), base_count=base_count, base_skipped=base_skipped)


def _as_before(settings: PackSettings, source: Source, out: Path) -> PackSettings:
    """Return the settings with what they leave open as a dataset of these pictures has it.

    So the command that made a dataset finds it made, though pictures were not turned upright then,
    or another face detector is installed now.
    """
    try:
        before = open_dataset(out).info.get("settings")
    except DataError:
        return settings
    if not isinstance(before, dict) or before.get("fingerprint") != source.fingerprint():
        return settings
    if settings.exif is None and before.get("exif") is False:
        settings = replace(settings, exif=False)
    if settings.transform == "subject" and not settings.subject and before.get("subject"):
        settings = replace(settings, subject=str(before["subject"]))
    return settings


def face_finder(settings: PackSettings | Recipe) -> FaceFinder | None:
    """Return what finds the faces to crop towards; None where the settings name no detector."""
    if settings.transform != "subject" or settings.subject in ("", CONTRAST):
        return None
    return functools.partial(boxes_of_faces, detector=choose_detector(settings.subject))


def identify(source: Source, settings: PackSettings) -> dict[str, Any]:
    """Return what packing ``source`` is known by: the pictures and all that is done to them."""
    return _plan_dataset(source, settings).identity


def find_packed(source: Source, folder: Path = Path("datasets")) -> list[Dataset]:
    """Return the datasets in ``folder`` that hold the pictures of ``source``, the newest first.

    Whatever they were packed with. Damaged and unfinished ones are passed over.
    """
    wanted = {source.fingerprint(), pictures_fingerprint(source)}
    found = []
    for path in sorted(folder.glob("*.lmdb")):
        with contextlib.suppress(DataError):
            dataset = open_dataset(path)
            settings = dataset.info.get("settings")
            settings = settings if isinstance(settings, dict) else {}
            if {dataset.info.get("pictures"), settings.get("fingerprint")} & wanted:
                found.append(dataset)
    return sorted(found, key=lambda dataset: str(dataset.info["created"]), reverse=True)


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


def choose_recipe(source: Source, indices: Sequence[int], settings: PackSettings) -> Recipe:
    """Return how pictures are prepared: the settings' own size, else what most pictures suggest."""
    if settings.resolution is not None and settings.channels is not None:
        return settings.recipe(settings.resolution, settings.channels)
    step = max(1, len(indices) // PROBED)
    sizes, grey = [], True
    for item in (source[index] for index in indices[::step]):
        # What is wrong with a picture is counted and listed when its turn comes.
        with contextlib.suppress(Exception), quiet(), item.open() as picture:
            # Looking for a PNG's orientation would decode it, a thousand times for a guess.
            upright = bool(settings.exif) and picture.format != "PNG"
            header = read_header(picture, upright=upright)
            sizes.append(header.upright_size)
            grey = grey and header.is_grey
        if settings.resolution and not grey:
            return settings.recipe(settings.resolution, 3)  # nothing is left to find out
    transform = settings.recipe(256, 3).transform
    resolution = choose_resolution(sizes, transform, MAX_PACKED_RESOLUTION, settings.base)
    return settings.recipe(resolution, 1 if grey else 3)


def _plan_dataset(source: Source, settings: PackSettings) -> _Job:
    settings = settings.completed(source)
    indices = spread(source, settings.max_images)
    recipe = choose_recipe(source, indices, settings)
    identity = _identity(source, settings, recipe)
    names = source.class_names if settings.labels else None
    info = {
        "settings": identity,
        "source": source.name,
        "pictures": pictures_fingerprint(source),
        "transform": recipe.transform,
    }
    return _Job(source, indices, settings, recipe, identity, names, info)


def _plan_addition(source: Source, base: Dataset, settings: PackSettings) -> _Job:
    settings = settings_of(base, settings).completed(source)
    indices = spread(source, settings.max_images)
    recipe = choose_recipe(source, indices, settings)
    identity = _identity(source, settings, recipe)
    names, labels = merge_classes(base, source, settings, source[indices[0]].label)
    entry = {"first": len(base), "skipped": base.info.get("skipped", 0), "settings": identity}
    info = {"additions": [*base.info.get("additions", []), entry]}
    return _Job(source, indices, settings, recipe, identity, names, info, base, labels or [])


def _identity(source: Source, settings: PackSettings, recipe: Recipe) -> dict[str, Any]:
    """Return what the work is known by: the pictures and all that decides what becomes of them."""
    return {
        "kind": "pack",
        "source": source.name,
        "fingerprint": source.fingerprint(),
        **settings.recorded(recipe),
    }


def _done_before(
    job: _Job, out: Path, offers_append: bool, *, strict: bool, force: bool
) -> PackReport | None:
    """Return the report of what is there if the same work was done before, else None.

    Raises DataError when a dataset of other work stands there.
    """
    if job.base is not None:
        sweep_locks(out)
        info = job.base.info
        for entry in info.get("additions", []):
            if entry["settings"] == job.identity:
                return make_report(
                    job.base,
                    base_count=entry["first"],
                    base_skipped=entry["skipped"],
                    was_there=True,
                )
        is_same = info.get("settings") == job.identity
        return make_report(job.base, was_there=True) if is_same else None
    if not out.exists() or force:
        return None
    sweep_locks(out)
    dataset = open_dataset(out)
    before = dataset.info.get("settings")
    if before != job.identity:
        adding = " --append to add to it," if offers_append else ""
        raise DataError(
            f"{out} exists and was made with other {differences(before, job.identity)}: give "
            f"another --out,{adding} or --force to replace it"
        )
    later = dataset.info.get("additions", [])
    last = later[0]["skipped"] if later else None
    report = make_report(dataset, last_skipped=last, was_there=True)
    if strict and any(map(_is_fault, report.skipped)):
        raise DataError(
            f"{out} lacks {plural(sum(map(_is_fault, report.skipped)), 'unusable picture')}: "
            "add --force to see the first"
        )
    return report


def _check_room(job: _Job, out: Path) -> tuple[int, int]:
    """Return (bytes the pictures need, bytes free). Raises DataError when they cannot fit."""
    recipe, codec = job.recipe, job.settings.codec
    levels = count_levels(recipe.resolution) if job.settings.pyramid else 1
    needed = len(job.indices) * picture_bytes(recipe.channels, prod(recipe.canvas), codec, levels)
    target = real_path(out)
    unfinished = target.with_name(target.name + ".part") / DATA_FILE
    have = unfinished.stat().st_size if unfinished.exists() else 0
    return needed, check_room(target.parent, needed - have, is_exact=codec == "raw")


def _open_writer(job: _Job, out: Path, *, force: bool) -> DatasetWriter:
    return DatasetWriter(
        out,
        resolution=job.recipe.resolution,
        channels=job.recipe.channels,
        codec=job.settings.codec,
        pyramid=job.settings.pyramid,
        class_names=job.class_names,
        info=job.info,
        force=force,
        identity=job.identity,
        append=job.base is not None,
        expected=len(job.indices),
        grid=job.recipe.base,
    )


def _store_all(
    job: _Job, writer: DatasetWriter, *, strict: bool, workers: int | None, progress: Progress
) -> None:
    """Prepare and store what an earlier run has not."""
    total, done = len(job.indices), writer.position
    rest = job.indices[done:]
    progress(done, total)
    first_fault: Skipped | None = None
    faces = face_finder(job.recipe)
    prepared = prepare_all(job.source, rest, job.recipe, faces=faces, workers=workers)
    with contextlib.closing(prepared):  # type: ignore[type-var]  # a generator
        for index, result in zip(rest, prepared, strict=True):
            item = job.source[index]
            if isinstance(result, Skipped):
                if strict:
                    writer.forget()
                    raise DataError(
                        f"{item.name} {result.cause}; fix or remove it, or pack without --strict"
                    )
                first_fault = first_fault or result
                writer.skip(item.name, result.cause)
            else:
                _store(job, writer, item, result)
            done += 1
            progress(done, total, f"{writer.left_out:,} skipped" if writer.left_out else "")
    if writer.count == 0:
        writer.forget()
        told = f": {first_fault.name} {first_fault.cause}" if first_fault else ""
        raise DataError(f"no usable picture in {job.source.name}{told}")


def _store(job: _Job, writer: DatasetWriter, item: Item, picture: Prepared) -> None:
    """Store one picture, unless one of equal pixels is there."""
    label = job.label(item)
    first = None if job.settings.keep_duplicates else writer.find(picture.digest)
    if first is not None:
        known = parse_json(writer.metadata(first) or b"{}", f"what is known of picture {first}")
        name = known.get("source", f"picture {first}")
        kind = PRESENT if first < job.bases[0] else DUPLICATE
        if not writer.has_label(first, label):
            kind = AMBIGUOUS
        writer.skip(item.name, f"{kind}: {name}")
        return
    writer.add(
        picture.pixels,
        label,
        {"source": item.name, **item.metadata},
        digest=picture.digest,
        stored=picture.stored,
        counted=("enlarged",) if picture.enlarged else (),
    )


def _is_fault(skipped: Skipped) -> bool:
    """Tell pictures that cannot be used from those that are there already."""
    return not skipped.cause.startswith((DUPLICATE, AMBIGUOUS, PRESENT))
