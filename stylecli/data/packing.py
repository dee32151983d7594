"""Pack a source of pictures into a dataset: choose the size, convert, write, report."""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from stylecli.data.format import DATA_FILE, count_levels
from stylecli.data.lmdb_files import check_room, picture_bytes
from stylecli.data.pack_settings import (
    PackSettings,
    choose_recipe,
    face_finder,
    propose_for,
    settings_of,
)
from stylecli.data.preparation import (
    Prepared,
    Recipe,
    Skipped,
    prepare_all,
)
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.base import (
    Item,
    Label,
    Source,
    pictures_fingerprint,
    spread,
)
from stylecli.data.unfinished import differences, real_path, sweep_locks
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, Interrupted, plural
from stylecli.files import parse_json
from stylecli.progress import Progress, silent

# Causes of leaving out pictures that are in the dataset already; the first one's name follows.
DUPLICATE = "has the same pixels as an earlier picture"
AMBIGUOUS = "has the same pixels as an earlier picture but another label"
PRESENT = "is already in the dataset"


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
    shape: str  # which would keep more than squares, if one would


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
            shape = "" if append else propose_for(source, job.indices, job.settings)
            size = str(recipe.size)
            announce(Plan(out, count, position, size, recipe.channels, needed, free, shape))
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
