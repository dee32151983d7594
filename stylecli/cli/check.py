"""``stylecli check``: look through pictures or a dataset before training on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stylecli.cli.options import JsonOption, OutOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files, check_pictures
from stylecli.errors import DataError, ExitCode, Interrupted, plural
from stylecli.workspace import find_dataset

if TYPE_CHECKING:
    from stylecli.data.checking.findings import CheckReport, Problem

NAMES_SHOWN = 3  # of the pictures a problem is about; --json lists more


def command(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SRC",
            help="Pictures of any kind that pack reads, or a dataset. Default: the only one in "
            "datasets/.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="File of labels for the pictures.")
    ] = None,
    out: OutOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check 500 pictures and skip near duplicates.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes. Default: one per CPU.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check pictures or a dataset before training on them.

    Example: stylecli check photos/

    Decodes every picture and verifies every digest of a dataset. Lists the problems and what fixes
    them, and ends with one command that does it all. Exits with 3 if something is damaged or would
    stop training. Writes mean.png, samples.png, near-duplicates.png and check.json to
    check/<name>/.
    """
    output = Output(json=json, quiet=quiet)
    path = source
    if path is None:
        found = find_dataset()
        path = found.path
        output.note(f"using {path}, {found.why}")
    check_pictures(path)
    check_files(DataError, labels=labels)
    from stylecli.data.checking.inspection import Inspection

    with Inspection(path, labels=labels, quick=quick) as inspection:
        folder = out or Path("check") / inspection.subject.name
        stopped = False
        try:
            with output.progress("checking", "pictures") as progress:
                inspection.scan(workers=workers, progress=progress)
            with output.progress("comparing") as progress:
                inspection.compare(progress=progress)
        except KeyboardInterrupt:
            stopped = True
        report = inspection.report(None if stopped else folder)
        _show(report, output)
        if stopped:
            raise Interrupted(
                f"stopped after {inspection.tally.looked_at:,} of "
                f"{plural(inspection.tally.count, 'picture')}; the findings so far are above. Run "
                f"the same command to check all of "
                f"them"
            )
    if not report.usable:
        raise typer.Exit(ExitCode.UNUSABLE)


def _show(report: "CheckReport", output: Output) -> None:
    lines = output.table(("what", "value"), report.rows)
    lines.append("")
    for problem in report.problems:
        lines += _problem_lines(problem)
    if not report.problems:
        lines.append("no problems found" if report.complete else "nothing found so far")
    if report.next:
        lines += ["", f"next: {report.next}"]
    output.result(report.to_dict(), lines)
    for file in report.files:
        output.note(file)


def _problem_lines(problem: "Problem") -> list[str]:
    lines = [str(problem)]
    if problem.names and problem.severity != "note":
        lines += [f"    {name}" for name in problem.names[:NAMES_SHOWN]]
        if (more := max(problem.count, len(problem.names)) - NAMES_SHOWN) > 0:
            lines.append(f"    and {more:,} more")
    return lines
