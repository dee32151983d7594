"""`stylecli project`: photographs → the latents, and noise, that a network draws them from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import ClassOption, OpenedNetwork, open_source
from stylecli.cli.faces import list_named, project_record, read_usable, warn_of_stand_in
from stylecli.cli.options import (
    BatchOption,
    DeviceOption,
    FolderOption,
    ForceOption,
    JsonOption,
    NetworkOption,
    QuietOption,
    SeedOption,
    own_command,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files, check_words
from stylecli.cli.targets import check_only_folder
from stylecli.data.alignment import DETECTORS
from stylecli.distributed.ranks import Ranks, sharing_ranks
from stylecli.errors import DataError, Interrupted, UsageError, plural, unknown_name
from stylecli.features import DISTANCES
from stylecli.latents import SEARCH_PRESETS, SEARCH_SPACES

if TYPE_CHECKING:
    from stylecli.data.alignment.portrait import Portrait
    from stylecli.latents.projected_files import Job
    from stylecli.latents.projector import Projector

SEARCH, PHOTOGRAPH = "Search", "Photograph"  # headings of the help

PhotosArgument = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them.")
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="w: one style, best for mixing and editing; w+: one for each layer, nearer. "
        "Default w, or z where the network has no w.",
        metavar="SPACE",
        rich_help_panel=SEARCH,
    ),
]
TuneOption = Annotated[
    bool,
    typer.Option(
        "--tune",
        help="Then tune a copy of the network to the photograph: nearest.",
        rich_help_panel=SEARCH,
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="fast, or official: the published schedule.",
        metavar="PRESET",
        rich_help_panel=SEARCH,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Steps of each search. Default: the preset's.",
        rich_help_panel=SEARCH,
    ),
]  # fmt: skip
TuneStepsOption = Annotated[
    int | None,
    typer.Option(
        "--tune-steps", min=1, help="Steps of tuning, at most. Default 350.", rich_help_panel=SEARCH
    ),
]
NoiseOption = Annotated[
    bool,
    typer.Option(
        "--noise/--no-noise",
        help="Search for noise maps too, or keep the network's.",
        rich_help_panel=SEARCH,
    ),
]
DistanceOption = Annotated[
    str | None,
    typer.Option(
        "--distance",
        help="lpips, or pyramid, a stand-in that needs no weights. Default: lpips where its "
        "weights are here.",
        metavar="NAME",
        rich_help_panel=SEARCH,
    ),
]
AlignOption = Annotated[
    bool,
    typer.Option(
        "--align/--no-align",
        help="Cut the largest face out as prepare-ffhq does, or take the central square.",
        rich_help_panel=PHOTOGRAPH,
    ),
]
DetectorOption = Annotated[
    str,
    typer.Option("--detector", help="auto, dlib or mtcnn.", rich_help_panel=PHOTOGRAPH),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        help="Picture as large as the photograph: only what is white counts. Default: what is not "
        "transparent.",
        rich_help_panel=PHOTOGRAPH,
    ),
]


def command(
    photos: PhotosArgument,
    network: NetworkOption = None,
    space: SpaceOption = None,
    tune: TuneOption = False,
    preset: PresetOption = "fast",
    steps: StepsOption = None,
    tune_steps: TuneStepsOption = None,
    noise: NoiseOption = True,
    distance: DistanceOption = None,
    align: AlignOption = True,
    detector: DetectorOption = "auto",
    mask: MaskOption = None,
    label: ClassOption = None,
    video: Annotated[
        bool, typer.Option("--video", help="Also write the search: NAME.mp4.")
    ] = False,
    seed: SeedOption = 0,
    out: FolderOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", min=1, help="Processes that share the photographs (CPU)."),
    ] = None,
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the styles from which a network draws photographs.

    Example: stylecli project photo.jpg

    Writes NAME.npz (styles and noise maps, for generate --ws, mix and interpolate), NAME.png and
    NAME-sheet.png: photograph, result and difference. Tells how near the result is and how far
    from the average face. Ctrl-C saves; run the same command to continue.
    """
    output = Output(json=json, quiet=quiet)
    _check(space, preset, distance, mask, photos, detector)
    check_only_folder(out)
    check_words(device=device)
    if tune_steps is not None and not tune:
        raise UsageError(f"--tune-steps {tune_steps} is for tuning: add --tune")
    named = list_named(photos)
    with sharing_ranks(ranks, device, own_command()) as place:
        if not place.is_main:
            output = Output(quiet=True)
        warn = output.warn if place.is_main else (lambda text: None)  # once for all ranks
        source = open_source(network, device, output)
        from stylecli.latents.projector import Projecting, Projector

        how = Projecting(
            space, tune, preset, steps, tune_steps, seed, label, noise, distance, video
        )
        projector = Projector(source.bundle, how, batch=batch)
        config = source.config
        if label is None and config.label_dim and not config.has_w:
            output.note(
                f"z is searched in class 0 of {config.label_dim}: for another one add --class"
            )
        warn_of_stand_in(projector, warn)
        options = {"align": align, "detector": detector}
        jobs = _jobs(
            source, projector, named, options, mask, out or source.folder / "projected", warn
        )
        rows = _project(projector, jobs, place, force, output)
    if not place.is_main:
        return
    document = {"network": str(source.path), **jobs[0].record["settings"], "photographs": rows}
    output.result(document, _lines(rows, output))


def _check(
    space: str | None, preset: str, distance: str | None, mask: Path | None, photos: list[Path],
    detector: str,
) -> None:  # fmt: skip
    """Refuse what is wrong before torch loads."""
    for kind, word, known in (
        ("--space", space, SEARCH_SPACES), ("--preset", preset, SEARCH_PRESETS),
        ("--distance", distance, DISTANCES), ("--detector", detector, DETECTORS),
    ):  # fmt: skip
        if word is not None and word not in known:
            raise UsageError(unknown_name(kind, word, known))
    check_files(DataError, mask=mask)
    if mask is not None and (len(photos) > 1 or photos[0].is_dir()):
        raise UsageError(f"--mask {mask} belongs to one photograph: give one")


def _jobs(
    source: OpenedNetwork, projector: "Projector", named: dict[str, Path],
    options: dict[str, Any], mask: Path | None, folder: Path, warn: Callable[[str], None],
) -> "list[Job]":  # fmt: skip
    """Read and align the photographs; leave out, with a warning, what cannot be used of several."""
    from stylecli.latents.projected_files import Job
    from stylecli.latents.searched_files import check_apart

    def read(path: Path) -> "Portrait":
        return source.read_portrait(path, mask=mask, **options)

    jobs = []
    for name, portrait in read_usable(named, read, warn).items():
        inputs = {"photo": named[name]} | ({} if mask is None else {"mask": mask})
        record = project_record(source, projector, inputs, **options)
        how = projector.how
        jobs.append(Job(folder, name, record, portrait, video=how.keep_path, tune=how.tune))
    masks = [] if mask is None else [mask]
    check_apart(jobs, [*named.values(), *masks, source.path])  # --force is for what was made
    return jobs


def _project(
    projector: "Projector", jobs: "Sequence[Job]", place: Ranks, force: bool, output: Output
) -> list[dict[str, Any]]:
    """Project the photographs, this rank's share of them; return the row of each."""
    from stylecli.latents.projected_files import project_jobs

    for job in jobs:
        if not force:
            job.check_free()
    size = projector.batch
    groups = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    mine = [job for group in groups[place.rank :: place.count] for job in group]
    try:
        with output.progress("project", "steps") as progress:
            for _ in project_jobs(projector, mine, progress=progress):
                pass
    except KeyboardInterrupt:
        done = sum(job.results is not None for job in jobs)
        raise Interrupted(
            f"interrupted: {done} of {plural(len(jobs), 'photograph')} projected; run the same "
            f"command to continue"
        ) from None
    place.any(False)  # until all have written theirs
    return [
        {"photo": job.record["inputs"]["photo"]["file"], **(job.results or {}),
         "files": [str(path) for path in job.files]}
        for job in jobs
    ]  # fmt: skip


def _lines(rows: Sequence[dict[str, Any]], output: Output) -> list[str]:
    """Return the paths, and a table of how near the results are."""
    paths = [path for row in rows for path in row["files"]]
    distance = "lpips" if "lpips" in rows[0] else "pyramid"
    header = ["photograph", distance, "PSNR", "from the mean", "steps"]
    table = []
    for row in rows:
        away = "-" if row["from_mean"] is None else f"{row['from_mean']:.2f} spreads"
        table.append(
            [row["photo"], f"{row[distance]:.4f}", f"{row['psnr_db']:.1f} dB", away,
             str(row["steps"])]
        )  # fmt: skip
    return [*paths, *output.table(header, table)]
