"""``stylecli metrics``: numbers about a network, each with its name and its meaning."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import (
    BatchOption,
    DataOption,
    DeviceOption,
    JsonOption,
    NetworkOption,
    QuietOption,
    SeedOption,
)
from stylecli.cli.output import Output, format_seconds
from stylecli.errors import DataError
from stylecli.workspace import RUN_FILE, Found, find_dataset, find_network

if TYPE_CHECKING:
    from stylecli.metrics.results import MetricResult
    from stylecli.networks.bundle import Bundle

DEFAULT_NAMES = ("fid", "ppl")


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="fid, fid50k, fid50k_full, kid, diversity, ppl (= ppl_wfull) or "
            "ppl_{z,w}{full,end}[-crop]. Default: fid ppl.",
            metavar="NAME",
        ),
    ] = None,
    network: NetworkOption = None,
    data: DataOption = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=2, help="Generated pictures (pairs for ppl). Default: by device."
        ),
    ] = None,
    seed: SeedOption = 0,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a network: how near to the dataset, how smooth, how varied.

    Example: stylecli metrics fid ppl

    What needs weights that are not on this machine is named as skipped, with the step that gets
    them. Numbers of a run are appended to metric-NAME.jsonl in its folder.
    """
    output = Output(json=json, quiet=quiet)
    wanted = list(names or DEFAULT_NAMES)
    found = find_network(network)
    run = found.path.parent if (found.path.parent / RUN_FILE).is_file() else None
    if found.why:
        output.note(f"network: {found.path} ({found.why})")

    from stylecli.checkpoint import load_network, network_digest
    from stylecli.devices import resolve_device
    from stylecli.metrics.evaluation import evaluate

    bundle = load_network(found.path)
    chosen = _find_data(wanted, bundle, data, run)
    if chosen is not None and chosen.why:
        output.note(f"dataset: {chosen.path} ({chosen.why})")
    target = resolve_device(device)
    if samples is None and target.type == "cpu":
        output.note("counts suit a CPU; --samples sets others, published ones are 50000")
    started = time.monotonic()
    with output.progress("metrics") as progress:
        results = evaluate(
            wanted,
            bundle,
            _open(chosen),
            samples=samples,
            seed=seed,
            batch=batch,
            device=target,
            network_digest=network_digest(found.path),
            progress=progress,
        )
    seconds = time.monotonic() - started
    for note in dict.fromkeys(result.note for result in results if result.note):
        output.note(f"note: {note}")
    if run is not None:
        for result in results:
            _append(run, found.path, result, seconds)
    document = {
        "network": str(found.path),
        "dataset": str(chosen.path) if chosen else None,
        "seconds": round(seconds, 3),
        "results": [result.to_dict() for result in results],
    }
    output.result(document, _lines(output, results))
    output.note(f"took {format_seconds(seconds)}")


def _find_data(
    names: list[str], bundle: "Bundle", data: Path | None, run: Path | None
) -> Found | None:
    """Return the dataset, or None where only path lengths of an unlabelled network are asked."""
    needed = bundle.config.label_dim > 0 or not all(name.startswith("ppl") for name in names)
    try:
        return find_dataset(data, run=run)
    except DataError:
        if needed or data is not None:
            raise
        return None


def _open(found: Found | None) -> Any:
    from stylecli.data.reader import open_dataset

    return open_dataset(found.path) if found else None


def _lines(output: Output, results: "list[MetricResult]") -> list[str]:
    rows = []
    for result in results:
        value = "-" if result.value is None else f"{result.value:.4f}"
        if result.std is not None:
            value += f" ± {result.std:.4f}"
        count = result.definition.get("fakes") or result.definition.get("pairs")
        rows.append((result.name, value, str(count or "-"), result.meaning))
    return output.table(("metric", "value", "samples", "meaning"), rows)


def _append(run: Path, network: Path, result: "MetricResult", seconds: float) -> None:
    """Append a result to the run's ``metric-<name>.jsonl``; a skipped one has no number to keep."""
    if result.value is None:
        return
    numbers = {result.name: result.value}
    if result.std is not None:
        numbers[f"{result.name}_std"] = result.std
    line = {
        "metric": result.name,
        "results": numbers,
        "snapshot": network.name,
        "timestamp": time.time(),
        "total_time": seconds,
        "definition": dict(result.definition),
    }
    with open(run / f"metric-{result.name}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
