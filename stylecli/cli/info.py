"""``stylecli info``: what any file the toolkit makes or reads is, and how it was made."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli.cli.options import JsonOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_dataset
from stylecli.descriptions import Facts, describe_runs, info
from stylecli.errors import UsageError
from stylecli.workspace import check_there

_LONG = 100  # characters of a value that are printed


def command(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="Picture, video, styles, network of any program, exported graph, weights, run, "
            "folder of runs, demo or dataset. Default: list the runs here."
        ),
    ] = None,
    signs: Annotated[
        bool,
        typer.Option(
            "--signs",
            help="Look for signs that a picture was generated: hints, no proof.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="With --signs: dataset to compare with, and to find near pictures in."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Describe a file, and print the command that recreates it.

    Example: stylecli info out/demo-000400/seed0003.png

    Pictures and videos of stylecli name their network by its SHA-256; info reports whether it is
    still here. The printed command writes the same bytes on the same kind of device. For networks
    of other programs, info shows family, sizes, settings and licence, and runs no code in them.
    """
    output = Output(json=json)
    if signs or data is not None:
        if path is None or not signs:
            wrong = "--signs needs a picture" if path is None else f"--data {data} needs --signs"
            raise UsageError(f"{wrong}: stylecli info picture.png --signs")
        found = _signs(path, data, output)
        output.result(found, _lines(found))
        return
    if path is None and (runs := describe_runs()):
        facts: Facts = {"what": "runs", "folder": ".", "runs": runs}
    else:
        facts = info(path)
    if facts["what"] == "runs":
        output.result(facts, _table_of_runs(facts["runs"], output))
        whole = [run["run"] for run in facts["runs"] if run["state"] != "damaged"]
        if whole:
            newest = shlex.quote(whole[0])
            output.note(f"more about a run: stylecli info {newest}, or stylecli report {newest}")
        return
    output.result(facts, _lines(facts))


def _signs(path: Path, data: Path | None, output: Output) -> Facts:
    """Return the signs in a picture."""
    check_there(path, "a picture")
    if data is None:
        from stylecli.signs import read_signs

        return {"what": "picture", "file": str(path), "signs": read_signs(path)}
    check_dataset(data)
    from stylecli.data.reader import open_dataset
    from stylecli.signs import read_signs

    dataset = open_dataset(data)
    with output.progress("compare", "pictures") as progress:
        found = read_signs(path, dataset, progress=progress)
    dataset.close()
    return {"what": "picture", "file": str(path), "dataset": str(data), "signs": found}


def _lines(facts: Facts) -> list[str]:
    """Return a line for each fact."""
    flat = _flat(facts)
    width = max(len(name) for name in flat)
    return [f"{_printable(name.ljust(width))}  {_printable(_shown(value))}"
            for name, value in flat.items()]  # fmt: skip


def _table_of_runs(runs: list[Facts], output: Output) -> list[str]:
    """Lay the runs out, the newest first: name, state, progress, size, best number."""
    rows = []
    for facts in runs:
        if facts["state"] == "damaged":
            rows.append((facts["run"], "damaged", "-", "-", "-"))
            continue
        total = facts["total_kimg"]
        done = "-" if facts["kimg"] is None else f"{facts['kimg']:,.4g}"
        best = "-"
        if facts["metric"]:
            best = f"{facts['metric']} {facts['value']:.4g} at {facts['best_kimg']:,.4g} kimg"
        side = f"{facts['size']} px" if facts["size"] else "-"
        rows.append((facts["run"], facts["state"], f"{done}/{total:,.4g}" if total else done,
                     side, best))  # fmt: skip
    return output.table(("run", "state", "kimg", "size", "best"), rows)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Facts:
    """Spread nested settings over lines of their own, named by their path."""
    flat: Facts = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _printable(text: str) -> str:
    """Escape what would move the cursor or start a line: files from strangers hold any text."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def _shown(value: Any) -> str:
    """Write a fact on one line: - for none."""
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        text = ", ".join(_shown(item) for item in value)
        return text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(value)})"
    if isinstance(value, float):
        return f"{value:.10g}"  # 1.8, stored as 1.7999999999999998; --json has every digit
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
