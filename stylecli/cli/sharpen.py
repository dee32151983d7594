"""`stylecli sharpen`: a small picture → large faces that fit it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import ClassOption, OpenedNetwork, open_source
from stylecli.cli.faces import list_named, read_usable
from stylecli.cli.options import (
    BatchOption,
    DeviceOption,
    FolderOption,
    ForceOption,
    JsonOption,
    NetworkOption,
    QuietOption,
    SeedOption,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_words
from stylecli.cli.targets import check_only_folder
from stylecli.errors import Interrupted, UsageError, plural
from stylecli.latents import BOUND, CANDIDATES, SHARPENING_STEPS, STARTS

if TYPE_CHECKING:
    from stylecli.data.alignment.portrait import Portrait
    from stylecli.latents.sharpened_files import SharpeningJob
    from stylecli.latents.sharpening import Sharpener


def command(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="SMALL...",
            help="Small pictures, or folders of them. The network's size is a multiple of theirs.",
        ),
    ],
    network: NetworkOption = None,
    candidates: Annotated[
        int, typer.Option("--candidates", min=1, max=100, help="Faces for each picture.")
    ] = CANDIDATES,
    starts: Annotated[
        int,
        typer.Option(
            "--starts",
            min=1,
            max=20,
            help="Searches for each of the faces; those that differ most are kept.",
        ),
    ] = STARTS,
    bound: Annotated[
        float,
        typer.Option(
            "--bound",
            help="Mean squared difference, colours 0 to 1, up to which a face counts as fitting "
            "once it is shrunk. 0.002 is 11 of 255 levels.",
        ),
    ] = BOUND,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of each search.")
    ] = SHARPENING_STEPS,
    label: ClassOption = None,
    seed: SeedOption = 0,
    out: FolderOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw large faces that a small picture may show.

    Example: stylecli sharpen small.png

    Each face, shrunk, looks like the small picture. It is plausible, not the person: the network
    makes its details up. Writes NAME-plausible-not-the-person-1.png and so on, a sheet that shows
    each face shrunk again beside the input, and their styles. Ctrl-C saves; run the same command to
    continue.
    """
    output = Output(json=json, quiet=quiet)
    check_words(device=device)
    check_only_folder(out)
    if not 0 < bound < 1:
        raise UsageError(f"--bound {bound:g} is no mean squared difference: expected 0 to 1")
    named = list_named(pictures)
    from stylecli.latents.sharpening import Sharpener, Sharpening

    how = Sharpening(candidates, starts, steps, bound=bound, seed=seed, label=label)
    source = open_source(network, device, output)
    sharpener = Sharpener(source.bundle, how, batch=batch)
    jobs = _jobs(source, sharpener, named, batch, out or source.folder / "sharpened", output)
    rows = _sharpen(sharpener, jobs, force, output)
    for row in rows:
        if not row["within"]:
            output.warn(
                f"no face fits {row['picture']} within {bound:g}: this network may draw no such "
                f"pictures, or need more --steps"
            )
    output.note("these faces are plausible, not the person")
    document = {"network": str(source.path), **jobs[0].record["settings"], "pictures": rows}
    output.result(document, _lines(rows, output))


def _jobs(
    source: OpenedNetwork, sharpener: "Sharpener", named: dict[str, Path], batch: int | None,
    folder: Path, output: Output,
) -> "list[SharpeningJob]":  # fmt: skip
    """Read the pictures; leave out, with a warning, what cannot be used of several."""
    from stylecli.data.alignment.portrait import read_small
    from stylecli.latents.searched_files import WEIGHTS, check_apart
    from stylecli.latents.sharpened_files import SharpeningJob
    from stylecli.latents.sharpening import PLAUSIBLE

    how, config = sharpener.how, source.config
    settings = {
        "candidates": how.candidates, "starts": how.starts, "bound": how.bound,
        "steps": how.steps, "seed": how.seed,
        "label": how.label, "batch": batch, "device": source.device,
    }  # fmt: skip

    def read(path: Path) -> "Portrait":
        return read_small(path, config.size, config.channels)

    distance = sharpener.distance
    weights = {} if distance.sha256 is None else {WEIGHTS: {distance.name: distance.sha256}}
    jobs = []
    for name, small in read_usable(named, read, output.warn).items():
        record = source.provenance("sharpen", settings, inputs={"small": named[name]})
        record |= {"claim": PLAUSIBLE} | weights
        jobs.append(SharpeningJob(folder, name, record, small.picture, how.candidates))
    check_apart(jobs, [*named.values(), source.path])  # --force is for what was made
    return jobs


def _sharpen(
    sharpener: "Sharpener", jobs: "list[SharpeningJob]", force: bool, output: Output
) -> list[dict[str, Any]]:
    """Sharpen the pictures; return the row of each."""
    from stylecli.latents.sharpened_files import sharpen_jobs
    from stylecli.sheets.candidates import lay_out_candidates

    for job in jobs:
        if not force:
            job.check_free()
    try:
        with output.progress("sharpen", "steps") as progress:
            found = sharpen_jobs(
                sharpener, jobs, lambda small, some: lay_out_candidates(
                    small, some, sharpener.how.bound
                ), progress=progress,
            )  # fmt: skip
            return [
                {"picture": job.record["inputs"]["small"]["file"], **results,
                 "files": [str(path) for path in job.files]}
                for job, results in found
            ]  # fmt: skip
    except KeyboardInterrupt:
        done = sum(job.results is not None for job in jobs)
        raise Interrupted(
            f"interrupted: {done} of {plural(len(jobs), 'picture')} sharpened; run the same "
            f"command to continue"
        ) from None


def _lines(rows: list[dict[str, Any]], output: Output) -> list[str]:
    """Return the paths, and a table of how well the faces fit."""
    paths = [path for row in rows for path in row["files"]]
    table = [
        [row["picture"], f"{min(row['errors']):.4f}", f"{max(row['errors']):.4f}",
         f"{row['within']} of {len(row['errors'])}"]
        for row in rows
    ]  # fmt: skip
    return [*paths, *output.table(["picture", "least error", "most", "within the bound"], table)]
