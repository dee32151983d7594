"""How ``stylecli metrics`` shows its results, and where it keeps those of a run."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stylecli.cli.output import Output
from stylecli.errors import StyleCLIError
from stylecli.files import append_row

if TYPE_CHECKING:
    from stylecli.metrics.results import MetricResult


def result_lines(output: Output, results: "Sequence[MetricResult]") -> list[str]:
    """Return a table: name, value with its spread, counts, what it says.

    On a terminal that is too narrow for it, what a number says stands below the number.
    """
    rows = []
    for result in results:
        value = "-" if result.value is None else f"{result.value:.4f}"
        if result.value is not None and result.std is not None:
            value += f" ± {result.std:.4f}"
        definition = result.definition
        count = definition.get("fakes") or definition.get("pairs")
        samples = str(count or "-")
        if count and definition.get("reals"):
            samples += f" / {definition['reals']}"
        rows.append((result.name, value, samples, result.meaning))
    header = ("metric", "value", "samples", "meaning")
    lines = output.table(header, rows)
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(len, lines)) <= width:
        return lines
    first, *others = output.table(header[:3], [row[:3] for row in rows])
    wrap = textwrap.TextWrapper(
        width, initial_indent="  ", subsequent_indent="  ",
        break_on_hyphens=False, break_long_words=False,  # commands and file names stay whole
    )  # fmt: skip
    below = [wrap.wrap(row[3]) for row in rows]
    return [
        first,
        *(text for line, more in zip(others, below, strict=True) for text in (line, *more)),
    ]


def append_results(
    run: Path, network: Path, results: "Sequence[MetricResult]", seconds: float, output: Output
) -> None:
    """Append results to the run's ``metric-<name>.jsonl``; one without a number is not kept.

    One that cannot be written, on a full disk, is warned of: what was measured is printed anyway.
    """
    try:
        for result in results:
            if result.value is not None:
                _append(run, network, result, seconds)
    except (OSError, StyleCLIError) as error:
        why = getattr(error, "strerror", None) or error
        output.warn(f"the numbers are not added to {run}: {why}")


def _append(run: Path, network: Path, result: "MetricResult", seconds: float) -> None:
    from stylecli.training.measuring import metric_path

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
    append_row(metric_path(run, result.name), line)
