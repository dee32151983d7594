"""Measure the paper's configurations as trained here, and print them as the paper's Tables 1 to 4.

    python tests/benchmarks/configurations.py RUNS DATASET --results results.json \
        --docs docs/configurations.md

RUNS holds one run folder per configuration, named a, b, ..., mapping-0, mix50. Each is measured by
the KID of EfficientNet features, by path lengths and by separability, whose classifiers are trained
on the dataset's own attributes once (about ten minutes at 32 px) and kept in the cache. What is
measured is kept in ``--results``, so that the same command continues; runs without a network yet
are left out of the tables. With ``--docs`` the tables go between the marks of that page, else
they are printed.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_block
from torch import Tensor

from stylecli import files
from stylecli.checkpoint import load_network
from stylecli.data.reader import Dataset, open_dataset
from stylecli.metrics.classifier_training import (
    cached_path,
    default_recipe,
    read_attributes,
    train_classifiers,
)
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.evaluation import evaluate
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.training.run_folder import load_settings
from stylecli.workspace import newest_snapshot

KID = "kid@efficientnet-lite0"
SAMPLES = {"kid": 2000, "ppl": 1000, "ls": 10_000}
BATCH = 50  # divides all counts, so that every picture has others to mix with
Results = dict[str, dict[str, Any]]

TABLE_1 = ("a", "b", "c", "d", "e", "f")
TABLE_2 = {"e": "0 %", "mix50": "50 %", "f": "90 %", "mix100": "100 %"}
TABLE_3 = (("b", "z"), ("d", "w"), ("e", "w"), ("mix50", "w"), ("f", "w"), ("f", "z"))
TABLE_4 = {
    "b": ("traditional, 0", "z"), "traditional-8": ("traditional, 8", "z"),
    "mapping-0": ("style-based, 0", "z"), "mapping-1": ("style-based, 1", "w"),
    "mapping-2": ("style-based, 2", "w"), "f": ("style-based, 4", "w"),
}  # fmt: skip


def main() -> None:
    """Measure every run that has a network, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, help="folder of runs named by configuration")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--results", type=Path, required=True, help="JSON file to keep numbers in")
    parser.add_argument("--docs", type=Path, help="page to write the tables into")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual sample counts")
    parser.add_argument("--only", nargs="*", help="configurations to measure")
    parser.add_argument("--attributes", nargs="*", help="of the dataset to judge by; default: all")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    results: Results = (
        json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    )
    if not arguments.tables_only:
        samples = {
            name: max(BATCH, round(count * arguments.share / BATCH) * BATCH)
            for name, count in SAMPLES.items()
        }
        measure_all(arguments, samples, results)
    text = write_tables(results)
    if arguments.docs:
        write_block(arguments.docs, "tables", text)
    else:
        print(text)


def measure_all(
    arguments: argparse.Namespace, samples: Mapping[str, int], results: Results
) -> None:
    """Measure what is not in ``results`` yet, saving after each run."""
    dataset = open_dataset(arguments.dataset)
    classifiers = own_classifiers(dataset, arguments.attributes)
    for name in arguments.only or PRESETS:
        run = arguments.runs / name
        snapshot = newest_snapshot(run) if run.is_dir() else None
        if snapshot is None:
            print(f"{name}: no network")
            continue
        key = {"network": network_digest(snapshot), "samples": dict(samples)}
        if results.get(name, {}).get("of") == key:
            continue
        print(f"{name}: measuring {snapshot}", flush=True)
        results[name] = {"of": key, **measure_run(run, snapshot, dataset, classifiers, samples)}
        files.write_json(arguments.results, results)


def own_classifiers(dataset: Dataset, names: Sequence[str] | None) -> AttributeClassifiers:
    """Return classifiers of the dataset's attributes, trained now or found in the cache."""
    attributes = {
        name: column
        for name, column in read_attributes(dataset).items()
        if not names or name in names
    }
    path = cached_path(dataset, attributes, default_recipe(dataset.resolution))
    path.parent.mkdir(parents=True, exist_ok=True)

    def tell(done: float, total: float, note: str = "") -> None:
        if done == int(done):
            print(f"classifiers: {done:g}/{total:g} {note}", flush=True)

    return train_classifiers(dataset, attributes, path=path, device="cpu", progress=tell)


def measure_run(
    run: Path,
    snapshot: Path,
    dataset: Dataset,
    classifiers: AttributeClassifiers,
    samples: Mapping[str, int],
) -> dict[str, Any]:
    """Return all numbers of one network as plain JSON, KID with test-time mixing among them."""
    net = load_network(snapshot)
    has_w = net.config.has_w
    spaces = ("z", "w") if has_w else ("z",)
    names = [KID, *(f"ppl_{s}{kind}" for s in spaces for kind in ("full", "end")),
             *(f"ls_{s}" for s in spaces)]  # fmt: skip
    found = evaluate(
        names, net, dataset, samples=samples, batch=BATCH, device="cpu", classifiers=classifiers
    )
    values = {asked: _plain(result) for asked, result in zip(names, found, strict=True)}
    settings = load_settings(run)
    if run.name in TABLE_2:
        for latents in (2, 3, 4):
            with mixing(net, latents):
                (result,) = evaluate(
                    [KID], net, dataset, samples=samples, batch=BATCH, device="cpu"
                )
            values[f"{KID} of {latents} latents"] = _plain(result)
    return {
        "kimg": net.info.get("kimg"),
        "resolution": net.config.resolution,
        "seed": settings.training.seed,
        "loss": settings.training.loss,
        "classifiers": dict(classifiers.accuracy),
        "pictures": len(dataset),
        "values": values,
    }


@contextmanager
def mixing(net: Bundle, latents: int) -> Iterator[None]:
    """Make a generator's styles those of several latents each, between random crossovers.

    The further latents of a picture are those of its neighbours in the batch.
    """
    mapping = net.generator.mapping
    random = np.random.default_rng(latents)
    plain = type(mapping).broadcast

    def broadcast(w: Tensor) -> Tensor:
        ws = plain(mapping, w).clone()  # [N, layers, w_dim]
        for i in range(len(w)):
            cuts = np.sort(random.choice(np.arange(1, ws.shape[1]), latents - 1, replace=False))
            for k, cut in enumerate(cuts, start=1):
                ws[i, cut:] = w[(i + k) % len(w)]
        return ws

    mapping.broadcast = broadcast  # type: ignore[method-assign]
    try:
        yield
    finally:
        del mapping.broadcast


def _plain(result: Any) -> dict[str, Any]:
    return {"value": result.value, "std": result.std, "skipped": result.skipped}


def write_tables(results: Results) -> str:
    """Return the tables as Markdown, with what they are measured on."""
    if not results:
        return "Not measured yet.\n"
    some = next(iter(results.values()))
    counts = some["of"]["samples"]
    accuracy = ", ".join(
        f"{name} {value:.0%}" for name, value in some["classifiers"].items() if value is not None
    )
    kimg = sorted({round(row["kimg"]) for row in results.values()})
    head = (
        f"{some['resolution']} px, {some['pictures']:,} pictures, {_span(kimg)} kimg each, seed "
        f"{some['seed']}. KID on {counts['kid']:,} fakes, path lengths on {counts['ppl']:,} pairs, "
        f"separability on {counts['ls']:,} fakes, of which half count. Accuracy of the attribute "
        f"classifiers on pictures kept aside: {accuracy}.\n"
    )
    parts = [head, *_table_1(results), *_table_2(results), *_table_3(results), *_table_4(results)]
    return "\n".join(parts).rstrip() + "\n"


def _table_1(results: Results) -> list[str]:
    rows = [
        (name, PRESETS[name].text, results[name]["loss"], _kid(results, name))
        for name in TABLE_1 if name in results
    ]  # fmt: skip
    return _table("As Table 1: quality", ("config", "what", "loss", "KID × 1000"), rows)


def _table_2(results: Results) -> list[str]:
    rows = [
        (share, _kid(results, name), *(_kid(results, name, f" of {n} latents") for n in (2, 3, 4)))
        for name, share in TABLE_2.items() if name in results
    ]  # fmt: skip
    header = ("mixing in training", "1 latent", "2", "3", "4")
    return _table("As Table 2: KID × 1000 when latents are mixed at test time", header, rows)


def _table_3(results: Results) -> list[str]:
    rows = [
        (name, space.upper(), *_path_and_separability(results, name, space))
        for name, space in TABLE_3 if name in results
    ]  # fmt: skip
    header = ("config", "space", "path full", "path end", "separability")
    return _table("As Table 3: path length and separability", header, rows)


def _table_4(results: Results) -> list[str]:
    rows = [
        (text, space.upper(), _kid(results, name), *_path_and_separability(results, name, space))
        for name, (text, space) in TABLE_4.items() if name in results
    ]  # fmt: skip
    header = ("generator, mapping layers", "space", "KID × 1000", "path full", "path end",
              "separability")  # fmt: skip
    return _table("As Table 4: depth of the mapping network", header, rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
    return [f"### {title}\n", *(f"| {line} |" for line in lines), ""]


def _path_and_separability(results: Results, name: str, space: str) -> tuple[str, ...]:
    return (
        _number(results, name, f"ppl_{space}full", ".1f"),
        _number(results, name, f"ppl_{space}end", ".1f"),
        _number(results, name, f"ls_{space}", ",.2f"),
    )


def _kid(results: Results, name: str, suffix: str = "") -> str:
    found = results[name]["values"].get(KID + suffix)
    if found is None or found["value"] is None:
        return "-"
    return f"{1000 * found['value']:.1f} ± {1000 * found['std']:.1f}"


def _number(results: Results, name: str, metric: str, form: str) -> str:
    found = results[name]["values"].get(metric)
    return "-" if found is None or found["value"] is None else format(found["value"], form)


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"


if __name__ == "__main__":
    main()
