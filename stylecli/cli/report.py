"""``stylecli report``: one HTML page about a run, or about several side by side."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.cli.options import ForceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.errors import NetworkError, UsageError
from stylecli.workspace import missing, newest_run, read_run

_OURS = 'content="stylecli'  # in the head of every page that stylecli wrote
_HEAD_BYTES = 4096


def command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folders. Default: the newest run here."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file. Default: RUN/report.html, or runs.html for several."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one self-contained HTML page about a run: curves, pictures, numbers, settings.

    Example: stylecli report

    Works while the run is training; run it again to update the page. Compares several runs on one
    page.
    """
    output = Output(json=json, quiet=quiet)
    chosen = list(runs or [])
    if not chosen:
        chosen = [newest_run()]
        output.note(f"using {chosen[0]}, the newest run")
    for run in chosen:
        if not run.is_dir():
            give = "give the folder that holds its run.json"
            raise NetworkError(
                f"run {run} is a file: {give}" if run.exists() else missing(run, give, "run")
            )
        read_run(run)
    path = out or (chosen[0] / "report.html" if len(chosen) == 1 else Path("runs.html"))
    _check_target(path, force=force)

    from stylecli.report.run_facts import read_all
    from stylecli.report.run_page import write_comparison, write_run_report

    facts = read_all(chosen)
    with output.progress("sample sheets") as progress:
        if len(facts) == 1:
            write_run_report(path, facts[0], progress=progress)
        else:
            write_comparison(path, facts, progress=progress)
    size = path.stat().st_size
    document = {
        "report": str(path),
        "bytes": size,
        "runs": [item.to_dict() for item in facts],
    }
    output.result(document, [str(path)])
    for item in facts:
        output.note(f"{item.path}: {item.state}, {item.kimg:,.6g} kimg")
    if show:
        import webbrowser

        if not webbrowser.open(path.resolve().as_uri()):
            output.warn(f"could not open a browser: open {path} yourself")


def _check_target(path: Path, *, force: bool) -> None:
    """Refuse to write over a file that no report is; raise UsageError."""
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder: give a file, such as {path / 'report.html'}")
    if force or not path.exists():
        return
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    if _OURS not in head:
        raise UsageError(f"{path} exists and is not a report: give another --out, or --force")
