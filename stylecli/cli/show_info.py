"""`stylecli info`: what a picture, video, network, run or dataset is, and how it was made."""

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli.cli.options import JsonOption
from stylecli.cli.output import Output
from stylecli.errors import DataError
from stylecli.networks.config import PRESET_TEXTS
from stylecli.provenance import remake_command
from stylecli.workspace import (
    CHECKPOINT_FILE,
    RUN_FILE,
    SNAPSHOT_PATTERN,
    STATS_FILE,
    find_run,
    list_runs,
    newest_snapshot,
    read_run,
    run_dataset,
)

Facts = dict[str, Any]  # what --json prints; the lines are drawn from it
_LONG = 100  # characters of a value that are printed


def command(
    path: Annotated[
        Path | None,
        typer.Argument(help="Picture, video, network, run or dataset. Default: the newest run."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell what a file is and the command that makes it again.

    Example: stylecli info out/demo-000400/seed0003.png

    Pictures and videos made here name their network by its SHA-256; info says whether that network
    is still there. The printed command makes the same bytes again on the same kind of device.
    """
    output = Output(json=json)
    target = path if path is not None else find_run()
    facts = _describe(target)
    flat = _flat(facts)
    width = max(len(name) for name in flat)
    lines = [f"{name.ljust(width)}  {_shown(value)}" for name, value in flat.items()]
    output.result(facts, lines)


def _describe(path: Path) -> Facts:
    if not path.exists():
        raise DataError(f"{path} does not exist: give a picture, network, run or dataset")
    if path.is_dir():
        if (path / RUN_FILE).is_file():
            return _describe_run(path)
        if (path / "data.mdb").is_file():
            return _describe_dataset(path)
        raise DataError(
            f"{path} is neither a run (it has no {RUN_FILE}) nor a dataset (no data.mdb): "
            "give a file or one of these"
        )
    suffix = path.suffix.lower()
    if suffix in (".safetensors", ".pkl", ".pt"):
        return _describe_network(path)
    if suffix == ".mdb":
        return _describe_dataset(path.parent)
    return _describe_picture(path, video=suffix in (".mp4", ".webm", ".mov"))


def _describe_picture(path: Path, *, video: bool) -> Facts:
    facts: Facts = {"what": "video" if video else "picture", "file": str(path)}
    if video:
        from stylecli.video import read_video_provenance

        provenance = read_video_provenance(path)
    else:
        from PIL import Image

        from stylecli.images import read_provenance

        provenance = read_provenance(path)
        with Image.open(path) as image:
            facts["size"] = f"{image.width} x {image.height} {image.mode}"
    if provenance is None:
        return {**facts, "made by": "unknown: the file carries no record of stylecli"}
    tool = provenance.get("tool") or f"stylecli {provenance.get('stylecli', '')}".strip()
    facts["made by"] = f"{tool}, a generated {facts['what']}"
    network = provenance.get("network")
    if isinstance(network, str):  # the demo's pictures name their network by its hash alone
        network = {"file": None, "sha256": network}
    if isinstance(network, Mapping):
        facts["network"], facts["sha256"] = network.get("file"), network.get("sha256")
        facts["network is"] = _whereabouts(network.get("file"), network.get("sha256"))
    told = {"tool", "stylecli", "command", "network", "settings"}
    facts |= {name: value for name, value in provenance.items() if name not in told}
    facts |= dict(provenance.get("settings", {}))
    if (again := remake_command(provenance)) is not None:
        facts["again"] = again
    return facts


def _whereabouts(file: str | None, digest: str | None) -> str:
    """Say whether the network that made a picture is here, by its hash."""
    from stylecli.checkpoint import network_digest

    if file and Path(file).is_file():
        if network_digest(file) == digest:
            return "here, unchanged"
        return "another one now: the file has changed since"
    for run in [*list_runs(), Path("demo") / "run"]:
        for snapshot in run.glob(SNAPSHOT_PATTERN):
            if network_digest(snapshot) == digest:
                return f"here, as {snapshot}: give that to --network"
    return "not here: give the file with this sha256 to --network"


def _describe_network(path: Path) -> Facts:
    from stylecli.checkpoint import load_network, network_digest

    bundle = load_network(path)
    config = bundle.config
    facts: Facts = {
        "what": "network", "file": str(path), "bytes": path.stat().st_size,
        "sha256": network_digest(path),
        "configuration": f"{config.preset}: {PRESET_TEXTS.get(config.preset, 'its own')}",
        "resolution": config.resolution, "channels": config.channels,
        "classes": config.label_dim, "z_dim": config.z_dim,
        "w_dim": config.w_dim if config.has_w else None,
        "mapping_layers": config.mapping_layers, "layers": config.num_layers,
    }  # fmt: skip
    for name in ("G_ema", "G", "D"):
        module = getattr(bundle, name)
        if module is not None:
            facts[f"{name} parameters"] = sum(p.numel() for p in module.parameters())
    if bundle.G_ema is not None or bundle.G is not None:
        facts["lod"] = bundle.generator.lod
        facts["psi"] = config.truncation_psi if config.has_w else None
        facts["psi_cutoff"] = config.truncation_cutoff
    return facts | {name: value for name, value in bundle.info.items() if name not in facts}


def _describe_run(run: Path) -> Facts:
    newest = newest_snapshot(run)
    dataset = run_dataset(run)
    settings = read_run(run)
    facts: Facts = {
        "what": "run", "folder": str(run),
        "networks": len(list(run.glob(SNAPSHOT_PATTERN))),
        "newest network": str(newest) if newest else None,
        "can go on": (run / CHECKPOINT_FILE).is_file() and not settings.get("finished"),
        "dataset": str(dataset) if dataset else None,
    }  # fmt: skip
    return facts | {"settings": settings, "last tick": _last_line(run / STATS_FILE)}


def _describe_dataset(path: Path) -> Facts:
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(path)
    facts: Facts = {
        "what": "dataset", "folder": str(path), "pictures": len(dataset),
        "resolution": dataset.resolution, "channels": dataset.channels,
        "classes": dataset.label_dim, "digest": dataset.digest,
    }  # fmt: skip
    facts |= {name: value for name, value in dataset.info.items() if name not in facts}
    dataset.close()
    return facts


def _last_line(path: Path) -> Any:
    try:
        lines = path.read_text().splitlines()
        return json_module.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return None


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Facts:
    """Spread nested settings over lines of their own, named by their path."""
    flat: Facts = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: Any) -> str:
    """Write a fact on one line: - for none."""
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = ", ".join(map(str, value))
        return text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(value)})"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
