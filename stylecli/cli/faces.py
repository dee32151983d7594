"""Anything that names a face: a seed, a file of styles, a photograph, which is projected once.

Seeds are truncated as options say; saved styles and photographs stay as they are. A photograph is
remembered by its content: by its SHA-256, the network's and the settings, among the files that
``stylecli project`` writes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.errors import DataError, Interrupted, UsageError, plural
from stylecli.provenance import shown_path
from stylecli.styles import holds_styles
from stylecli.workspace import missing

if TYPE_CHECKING:
    from stylecli.cli.drawing import OpenedNetwork
    from stylecli.data.alignment.portrait import Portrait
    from stylecli.images import Pictures
    from stylecli.latents.projected_files import Remembered
    from stylecli.latents.projector import Projector
    from stylecli.rendering import Drawing
    from stylecli.sheets.mixing import Sources

_DIGEST_LETTERS = 8


def is_seed(word: str) -> bool:
    """Tell whether a word names a face by its seed."""
    return word.strip().isdecimal()


def is_photograph(word: str) -> bool:
    """Tell whether a word names a file that is no file of styles."""
    return not is_seed(word) and not holds_styles(word)


def check_faces(
    option: str, words: Sequence[str], known: str = "a seed, styles or a photograph"
) -> None:
    """Raise DataError, before torch loads, for a word that is no seed and no file."""
    for word in words:
        if not is_seed(word) and not Path(word).is_file():
            raise DataError(missing(Path(word), f"give {known}", option))


def shown_words(words: Sequence[str]) -> list[str]:
    """Return the words as a record has them: files by their path in this folder."""
    return [word if is_seed(word) else shown_path(Path(word)) for word in words]


def list_named(given: Sequence[Path]) -> dict[str, Path]:
    """Return photographs, also those of folders, by the names of their results."""
    from stylecli.data.alignment.photographs import list_photographs
    from stylecli.workspace import check_there

    found: dict[Path, Path] = {}
    for path in given:
        check_there(path, "a photograph, or a folder of them")
        for photo in list_photographs(path):
            found.setdefault(photo.path.resolve(), photo.path)
    alike: dict[str, list[Path]] = {}
    for photograph in found.values():
        alike.setdefault(photograph.stem, []).append(photograph)
    named: dict[str, Path] = {}
    for stem, paths in alike.items():
        names = _names_apart(paths) if len(paths) > 1 else [stem]
        for name, photograph in zip(names, paths, strict=True):
            if (other := named.setdefault(name, photograph)) is not photograph:
                raise UsageError(
                    f"{other} and {photograph} would share the name {name}: give them one after "
                    f"the other, each with its own --out"
                )
    return named


def _names_apart(photographs: Sequence[Path]) -> list[str]:
    """Return names of photographs that share a stem: a.jpg, a.png; or one/a.jpg, two/a.jpg."""
    names = [f"{path.stem}-{path.suffix[1:].lower()}" for path in photographs]
    if len(set(names)) < len(names):
        folders = [path.resolve().parent.name for path in photographs]
        names = [f"{folder}-{name}" for folder, name in zip(folders, names, strict=True)]
    return names


def read_usable(
    named: Mapping[str, Path], read: Callable[[Path], "Portrait"], warn: Callable[[str], None]
) -> "dict[str, Portrait]":
    """Read photographs by their names, and pass on what is to be said of them.

    Of several, those that cannot be used are left out, with a warning. Raises DataError where none
    is left.
    """
    portraits, refused = {}, []
    for name, path in named.items():
        try:
            portraits[name] = portrait = read(path)
        except DataError as error:
            refused.append(error)
            if len(named) > 1:
                warn(str(error))
            continue
        for note in portrait.notes:
            warn(note)
    if not portraits:
        raise (
            refused[0]
            if len(refused) == 1
            else DataError(f"none of {plural(len(named), 'photograph')} can be used: {refused[0]}")
        )
    return portraits


def find_faces(
    source: "OpenedNetwork", option: str, words: Sequence[str], drawing: "Drawing"
) -> "tuple[Sources, dict[str, Path]]":
    """Return the faces, and the files that they come from, by names for a record.

    Photographs that were not projected before are now. The styles that stand for one are among the
    files: what is drawn is a picture of them, and others may stand for it another day. Raises
    UsageError, before any is, for a network without styles.
    """
    config = source.config
    if not config.has_w:
        raise UsageError(
            f"faces such as {words[0]} need an intermediate latent space, and configuration "
            f"{config.preset!r} has none: give --seeds"
        )
    from stylecli.sheets.mixing import join_sources, name_faces, open_sources

    parts: list[Sources] = []
    files: dict[str, Path] = {}
    places = count(1)
    for word in words:
        if is_seed(word):
            faces = name_faces(source.bundle.generator, [int(word)], drawing)
            parts.append(replace(faces, names=(word,)))
            continue
        path = known = Path(word)
        name = f"{option}_{next(places)}"
        files[name] = path
        if is_photograph(word):
            files[f"{name}_ws"] = known = project_once(source, path).path
        faces = open_sources(source.bundle, known, path.stem, tell=source.note)
        parts.append(replace(faces, words=(word,) * len(faces)))
    return join_sources(parts), files


def project_once(
    source: "OpenedNetwork", path: Path, *, align: bool = True,
    watch: "Callable[[Pictures], None] | None" = None,
) -> "Remembered":  # fmt: skip
    """Return the styles of a photograph: those that are remembered, else project it now.

    Raises Interrupted where Ctrl-C comes; the same command then continues.
    """
    from stylecli.data.alignment.portrait import NoFaceError
    from stylecli.latents.projected_files import (
        Job,
        find_projection,
        project_jobs,
    )
    from stylecli.latents.projector import Projecting, Projector

    projector = Projector(source.bundle, Projecting(), watch=watch)
    options: dict[str, Any] = {"align": align, "detector": "auto"}
    record = project_record(source, projector, {"photo": path}, **options)
    folder, G = source.folder / "projected", source.bundle.generator
    known = find_projection(folder, record, G)
    if known is None:
        try:
            portrait = source.read_portrait(path, **options)
        except NoFaceError:
            raise NoFaceError(
                path,
                f"run stylecli project {path} --no-align, which takes its central square, then "
                f"give the .npz that it writes",
            ) from None
        warn_of_stand_in(projector, source.output.warn)
        for note in portrait.notes:
            source.output.warn(note)
        digest = record["inputs"]["photo"]["sha256"][:_DIGEST_LETTERS]
        own = f"{path.stem}-{digest}"
        names = chain([path.stem, own], (f"{own}-{number}" for number in count(2)))
        jobs = (Job(folder, name, record, portrait) for name in names)
        job = next(job for job in jobs if job.taken is None)  # nothing else is written over
        try:
            with source.output.progress(f"project {path.name}", "steps") as progress:
                list(project_jobs(projector, [job], progress=progress))
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted while {path} was projected; run the same command to continue"
            ) from None
        known = find_projection(folder, record, G)
        assert known is not None
    source.output.note(f"{path}: {known.path}")
    return known


def project_record(
    source: "OpenedNetwork", projector: "Projector", inputs: Mapping[str, Path], *,
    align: bool, detector: str,
) -> dict[str, Any]:  # fmt: skip
    """Return the record of a projection, without results: all that decides them."""
    from stylecli.latents.projected_files import project_settings
    from stylecli.latents.searched_files import WEIGHTS

    settings = project_settings(projector, source.device, align=align, detector=detector)
    record = source.provenance("project", settings, inputs=inputs)
    distance = projector.distance
    return record | ({} if distance.sha256 is None else {WEIGHTS: {distance.name: distance.sha256}})


def warn_of_stand_in(projector: "Projector", warn: Callable[[str], None]) -> None:
    """Say where nothing but the stand-in measures how near pictures are, though nobody asked."""
    from stylecli.features.vgg16 import MIN_SIDE

    if projector.how.distance is None and projector.distance.name != "lpips":
        small = min(projector.net.config.size) < MIN_SIDE
        why = f"LPIPS needs pictures of {MIN_SIDE} px" if small else "LPIPS has no weights here"
        remedy = "" if small else ": run stylecli weights for how to add them"
        warn(
            f"{why}, so the stand-in 'pyramid' measures, which knows nothing of what people see"
            f"{remedy}"
        )
