"""Make the network that ships with the package, and its record, from a run on the demo's faces.

    python tests/benchmarks/ship_network.py RUN [--snapshot FILE] [--data DATASET] \
        --command "stylecli train faces.lmdb --preset small --kimg 4000"

Writes ``stylecli/shipped/demo.safetensors``, the averaged generator of the snapshot (the newest
unless given), with the discriminator where the file stays within 12 MB, and ``demo.json``, what the
run was: its command, length, dataset, numbers, versions, and whose drawings it learned from. The
numbers are measured here, on the dataset, unless ``--no-metrics``.

    python tests/benchmarks/ship_network.py --redraw [docs/images]

draws every picture of the documentation again whose record names the shipped network, by the
command in that record. Faces keep their size on the page: ``--scale`` shrinks as they grow.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli import __version__, files, shipped
from stylecli.checkpoint import load_network, save_network
from stylecli.data.demo_faces import ARTWORK, AUTHOR, LICENCE, LICENCE_URL, SOURCE_URL
from stylecli.data.reader import Dataset, open_dataset
from stylecli.images import read_provenance
from stylecli.metrics.evaluation import evaluate
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.provenance import remake_command
from stylecli.training.run_folder import load_settings, read_statistics
from stylecli.workspace import newest_snapshot, read_run

LIMIT_BYTES = 12_000_000
KID_PICTURES = 5000
PPL_PAIRS = 1000
METRICS = {
    "kid@efficientnet-lite0": KID_PICTURES,
    "diversity": KID_PICTURES,
    "ppl_wfull": PPL_PAIRS,
}
FOLDER = Path(shipped.__file__).parent
PICTURES = Path(__file__).parents[2] / "docs" / "images"


def main() -> None:
    """Write both files and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="run folder")
    parser.add_argument(
        "--redraw", type=Path, nargs="?", const=PICTURES, help="draw the pictures there again"
    )
    parser.add_argument("--snapshot", type=Path, help="network of the run; default: the newest")
    parser.add_argument("--data", type=Path, help="dataset, where it has moved")
    parser.add_argument("--command", help="the command that trained it")
    parser.add_argument("--remark", action="append", default=[], help="more about how; repeatable")
    parser.add_argument("--no-metrics", action="store_true", help="leave the numbers out")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    arguments = parser.parse_args()
    if arguments.redraw:
        redraw(arguments.redraw)
        return
    if arguments.run is None or arguments.command is None:
        parser.error("give a run folder and --command, or --redraw")
    snapshot = arguments.snapshot or newest_snapshot(arguments.run)
    if snapshot is None:
        parser.error(f"{arguments.run} holds no network")
    dataset = open_dataset(arguments.data or load_settings(arguments.run).dataset)
    source = load_network(snapshot)
    record = describe_run(arguments.run, source, dataset, arguments.command)
    record["remarks"] = arguments.remark
    if not arguments.no_metrics:
        record["metrics"] = measure(source, dataset, network_digest(snapshot))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "demo.safetensors"
    write_network(path, source, record)
    files.write_json(arguments.out / "demo.json", {**record, "sha256": network_digest(path)})
    print(f"{path}: {path.stat().st_size:,} bytes")
    print(json.dumps(record, indent=2))


def describe_run(run: Path, source: Bundle, dataset: Dataset, command: str) -> dict[str, Any]:
    """Return the record of a run up to a snapshot: plain JSON."""
    settings, rows = load_settings(run), read_statistics(run)
    kimg = float(source.info["kimg"])
    row = min(rows, key=lambda row: abs(row["kimg"] - kimg))
    parameters = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name in ("G_ema", "D")
        if (network := getattr(source, name)) is not None
    }
    return {
        "command": command,
        "kimg": round(kimg, 3),
        "seconds": round(row["seconds"] * kimg / row["kimg"]),
        "processes": settings.ranks,
        "device": settings.device,
        "precision": settings.training.precision,
        "resolution": source.config.resolution,
        "configuration": source.config.preset,
        "parameters": parameters,
        "dataset": {
            "pictures": len(dataset), "digest": dataset.digest,
            "source": str(dataset.info.get("source", "")),
        },
        "metrics": [],
        "environment": {**read_run(run)["environment"], "stylecli": __version__},
        "licence": "Apache-2.0, the network; its training pictures are under their own",
        "credit": {
            "pictures": ARTWORK, "author": AUTHOR, "licence": LICENCE,
            "licence_url": LICENCE_URL, "source_url": SOURCE_URL,
        },
    }  # fmt: skip


def measure(source: Bundle, dataset: Dataset, digest: str) -> list[dict[str, Any]]:
    """Return the numbers of a network on its dataset, one row per metric."""
    samples = {name: min(count, len(dataset)) for name, count in METRICS.items()}
    results = evaluate(
        list(METRICS), source, dataset, samples=samples, device="cpu", network_digest=digest
    )
    asked = {"kid": KID_PICTURES, "diversity": KID_PICTURES, "ppl_wfull": PPL_PAIRS}
    return [
        {"name": result.name, "value": result.value, "std": result.std,
         "samples": min(asked[result.name.partition("@")[0]], len(dataset)),
         "skipped": result.skipped}
        for result in results
    ]  # fmt: skip


def write_network(path: Path, source: Bundle, record: dict[str, Any]) -> None:
    """Write G_ema, and D where both stay within the limit."""
    info = {
        "kimg": source.info.get("kimg"), "data_digest": source.info.get("data_digest"),
        "seed": source.info.get("seed"), "record": record,
    }  # fmt: skip
    for D in (source.D, None):
        bundle = Bundle(source.config, G_ema=source.generator, D=D, info=info)
        with tempfile.TemporaryDirectory() as scratch:
            trial = Path(scratch) / path.name
            save_network(trial, bundle)
            small = trial.stat().st_size <= LIMIT_BYTES
        if small:
            save_network(path, bundle)
            return
    raise SystemExit(f"the averaged generator alone takes more than {LIMIT_BYTES:,} bytes")


def redraw(folder: Path) -> None:
    """Draw the pictures and moving pictures of a folder again that the shipped network drew."""
    for path in sorted(folder.rglob("*")):
        record = read_provenance(path) if path.suffix in (".png", ".webp", ".jpg") else None
        command = remake_command(record or {})
        if record is None or command is None or record["network"].get("file") != shipped.NAME:
            continue
        words = shlex.split(command)
        with tempfile.TemporaryDirectory() as scratch:
            drawn = _draw(words, Path(scratch), path)
            grown = _width(drawn) / _width(path)
            if "--scale" in words and grown > 1:
                place = words.index("--scale") + 1
                words[place] = str(max(1, round(int(words[place]) / grown)))
                drawn = _draw(words, Path(scratch), path)
            drawn.replace(path)
        print(f"{path}: {shlex.join(words)}", flush=True)


def _draw(words: list[str], folder: Path, path: Path) -> Path:
    """Run a command of `stylecli`, and return what it wrote in place of a picture."""
    single = words[1] != "figures"
    out = folder / path.name if single else folder
    subprocess.run(
        [sys.executable, "-m", "stylecli", *words[1:], "--out", str(out), "--force", "--quiet"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return out if single else next(folder.glob("*.png"))


def _width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


if __name__ == "__main__":
    main()
