"""Pack a source of pictures into a dataset: choose the size, convert, write, report."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylecli.data.adding import merge_classes, settings_of
from stylecli.data.estimating import check_room, picture_bytes
from stylecli.data.format import DATA_FILE, count_levels
from stylecli.data.journal import differences
from stylecli.data.pack_report import PackReport, make_report
from stylecli.data.pack_settings import MAX_PACKED_RESOLUTION, PackSettings
from stylecli.data.pictures import quiet, read_header
from stylecli.data.preparation import Prepared, Recipe, Skipped, choose_resolution, prepare_all
from stylecli.data.publishing import real_path, sweep_locks
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import Item, Label, Source, spread
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, Interrupted
from stylecli.files import parse_json
from stylecli.progress import Progress, silent

PROBED = 1000  # pictures whose headers are read to choose size and channels

# Causes of leaving out pictures that are in the dataset already; the first one's name follows.
DUPLICATE = "has the same pixels as an earlier one"
AMBIGUOUS = "has the same pixels and another label than an earlier one"
PRESENT = "is in the dataset already"


@dataclass(frozen=True)
class Plan:
    """What is about to be done, told before the work starts."""

    path: Path
    count: int  # pictures of the source that are looked at
    position: int  # of these, dealt with by an earlier run
    resolution: int
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
    identity: dict[str, Any]  # what the work is known by when it goes on
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

    A dataset of the same pictures and settings is left as it is, an unfinished one is gone on with.
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
        job = _plan_dataset(source, settings)
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
            announce(Plan(out, count, position, recipe.resolution, recipe.channels, needed, free))
            _store_all(job, writer, strict=strict, workers=workers, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped at picture {writer.position:,} of {count:,}, all of which are kept: "
            "the same command goes on"
        ) from None
    return make_report(open_dataset(out), base_count=base_count, base_skipped=base_skipped)


def identify(source: Source, settings: PackSettings) -> dict[str, Any]:
    """Return what packing ``source`` is known by: the pictures and all that is done to them."""
    return _plan_dataset(source, settings).identity


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
            upright = settings.exif and picture.format != "PNG"
            header = read_header(picture, upright=upright)
            sizes.append(header.upright_size)
            grey = grey and header.is_grey
        if settings.resolution and not grey:
            return settings.recipe(settings.resolution, 3)  # nothing is left to find out
    transform = settings.recipe(256, 3).transform
    resolution = choose_resolution(sizes, transform, MAX_PACKED_RESOLUTION)
    return settings.recipe(resolution, 1 if grey else 3)


def _plan_dataset(source: Source, settings: PackSettings) -> _Job:
    indices = spread(source, settings.max_images)
    recipe = choose_recipe(source, indices, settings)
    identity = _identity(source, settings, recipe)
    names = source.class_names if settings.labels else None
    info = {"settings": identity, "source": source.name, "transform": recipe.transform}
    return _Job(source, indices, settings, recipe, identity, names, info)


def _plan_addition(source: Source, base: Dataset, settings: PackSettings) -> _Job:
    settings = settings_of(base, settings)
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
            f"{out} exists and was made with another {differences(before, job.identity)}: give "
            f"another --out,{adding} or --force to replace it"
        )
    later = dataset.info.get("additions", [])
    last = later[0]["skipped"] if later else None
    report = make_report(dataset, last_skipped=last, was_there=True)
    if strict and any(map(_is_fault, report.skipped)):
        raise DataError(
            f"{out} lacks {sum(map(_is_fault, report.skipped))} unusable pictures: "
            "add --force to see the first"
        )
    return report


def _check_room(job: _Job, out: Path) -> tuple[int, int]:
    """Return (bytes the pictures need, bytes free). Raises DataError when they cannot fit."""
    recipe, codec = job.recipe, job.settings.codec
    levels = count_levels(recipe.resolution) if job.settings.pyramid else 1
    needed = len(job.indices) * picture_bytes(recipe.channels, recipe.resolution, codec, levels)
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
    )


def _store_all(
    job: _Job, writer: DatasetWriter, *, strict: bool, workers: int | None, progress: Progress
) -> None:
    """Prepare and store what an earlier run has not."""
    total, done = len(job.indices), writer.position
    rest = job.indices[done:]
    progress(done, total)
    first_fault: Skipped | None = None
    prepared = prepare_all(job.source, rest, job.recipe, workers=workers)
    with contextlib.closing(prepared):  # type: ignore[type-var]  # a generator
        for index, result in zip(rest, prepared, strict=True):
            item = job.source[index]
            if isinstance(result, Skipped):
                if strict:
                    writer.forget()
                    raise DataError(
                        f"{item.name} {result.cause}: mend or remove it, or pack without --strict"
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
        raise DataError(f"no picture of {job.source.name} can be used{told}")


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
