"""What any file the toolkit makes or reads is, and how it was made.

What is found out here and what a file says of itself are kept apart: a record comes from whoever
made the file, so it stands under ``record`` and decides about nothing on this machine.
"""

import contextlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli import hub, shipped
from stylecli.errors import DataError, NetworkError, StyleCLIError, WeightsError, plural
from stylecli.files import is_owned, read_json, read_rows, row_number
from stylecli.provenance import remake_command
from stylecli.shapes import SQUARE, checked_grid
from stylecli.workspace import (
    CHECKPOINT_FILE,
    DEMO_FILE,
    RUN_FILE,
    STATS_FILE,
    find_network,
    find_run,
    has_address,
    list_runs,
    list_snapshots,
    missing,
    newest_snapshot,
    read_best,
    read_run,
    run_dataset,
    runs_newest_first,
    saved_at,
)

Facts = dict[str, Any]
_WEIGHTS = (".safetensors", ".pkl", ".pt", ".pth", ".model", ".ckpt")
_UNKNOWN = "unknown: the file has no record from stylecli"
_STYLES = (".npz", ".npy")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEAST_BYTES, _MOST_BYTES = 256, 8 << 30  # a network file, at the extremes
_MOST_HASHED = 10  # files of which nothing is remembered
_VIDEOS = (".mp4", ".webm", ".mov", ".gif")


def info(path: Path | str | None = None) -> Facts:
    """Describe a picture, video, styles, network, weights, run, demo or dataset as plain values.

    None is the newest run here, else the network that comes with the package; a folder of runs
    gives ``runs``, the state of each (see describe_runs). ``record`` is what
    the file says of itself, ``again`` the command that makes it again. Nothing in the file is run.
    Raises DataError or NetworkError for what is not there or is none of these.
    """
    target = Path(path) if path is not None else _newest()
    if has_address(target):
        target = find_network(target).path
    return _describe(target)


def _newest() -> Path:
    """Return the newest run here, else the network that comes with the package."""
    try:
        return find_run()
    except NetworkError:
        return find_network().path


def describe_runs(root: Path = Path()) -> list[Facts]:
    """Return the state of every run here, the newest first: what people ask of a folder of runs.

    ``root`` is a working directory or a folder of runs.

    Keys: run, state (finished, in progress or stopped), kimg, total_kimg, resolution, size, metric,
    value and best_kimg of the best snapshot (None where none was measured). Damaged runs say so.
    """
    return [_summarise(run) for run in runs_newest_first(root)]


def _summarise(run: Path) -> Facts:
    facts: Facts = {"run": str(run)}
    try:
        settings, rows = read_run(run), read_rows(run / STATS_FILE)
    except (DataError, NetworkError) as error:
        return facts | {"state": "damaged", "why": str(error)}
    state = "in progress" if is_owned(run) else "stopped"
    best = read_best(run) or {}
    newest = newest_snapshot(run)
    shown = max(row_number(rows[-1], "nimg") if rows else 0.0,
                float((newest and saved_at(newest.name)) or 0))  # fmt: skip
    return facts | {
        "state": "finished" if settings.get("finished") else state,
        "kimg": shown / 1000 if shown == shown else None,
        "total_kimg": settings.get("training", {}).get("total_kimg"),
        "resolution": settings.get("network", {}).get("resolution"), "size": _size_of(settings),
        "metric": best.get("metric"), "value": best.get("value"), "best_kimg": best.get("kimg"),
    }  # fmt: skip


def _size_of(settings: Mapping[str, Any]) -> str | None:
    """Return the pictures' size of a run, as people write it; None where it is not told."""
    network = settings.get("network", {})
    level, base = network.get("resolution"), network.get("base", SQUARE)
    return str(checked_grid(base).at(level)) if isinstance(level, int) else None


def _describe(path: Path) -> Facts:
    if not path.exists():
        raise DataError(missing(path, "give a picture, network, run or dataset"))
    if path.is_dir():
        if (path / RUN_FILE).is_file():
            return _describe_run(path)
        if (path / "data.mdb").is_file():
            return _describe_dataset(path)
        if (path / DEMO_FILE).is_file():
            return _describe_demo(path)
        if runs := describe_runs(path):
            return {"what": "runs", "folder": str(path), "runs": runs}
        raise DataError(
            f"{path} is neither a run (it has no {RUN_FILE}) nor a dataset (no data.mdb), and "
            "holds no runs: give a file or one of these"
        )
    if path.name == RUN_FILE:
        return _describe_run(path.parent)
    if path.suffix.lower() == ".mdb":
        return _describe_dataset(path.parent)
    return _describe_file(path)


def _describe_file(path: Path) -> Facts:
    if not path.is_file():
        raise DataError(f"{path} is a pipe, a device or a socket: expected a file or a folder")
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} is not readable: {error.strerror}") from None
    # A .npz is a zip like torch's files, so the suffix decides between the two.
    zipped = start == b"PK\3\4" and path.suffix.lower() != ".npz"
    if (zipped or path.suffix.lower() == ".onnx") and (facts := _describe_graph(path)) is not None:
        return facts
    if zipped or start[:1] == b"\x80" or path.suffix.lower() in _WEIGHTS:
        try:
            return _describe_weights(path)
        except NetworkError:
            if (styles := _describe_styles(path)) is None:
                raise
            return styles
    return _describe_made(path)


def _describe_run(run: Path) -> Facts:
    newest = newest_snapshot(run)
    dataset = run_dataset(run)
    settings = read_run(run)
    facts: Facts = {
        "what": "run", "folder": str(run),
        "networks": len(list_snapshots(run)),
        "newest network": str(newest) if newest else None,
        "can continue": (run / CHECKPOINT_FILE).is_file() and not settings.get("finished"),
        "dataset": str(dataset) if dataset else None,
    }  # fmt: skip
    return facts | {"settings": settings, "last tick": _last_line(run / STATS_FILE)}


def _describe_demo(folder: Path) -> Facts:
    told = read_json(folder / DEMO_FILE)
    facts: Facts = {"what": "demo", "folder": str(folder)}
    facts |= {name: value for name, value in told.items() if name not in (*facts, "run")}
    if (folder / "run" / RUN_FILE).is_file():
        facts["run"] = _describe_run(folder / "run")
    return facts


def _describe_dataset(path: Path) -> Facts:
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(path)
    facts: Facts = {
        "what": "dataset", "folder": str(path), "pictures": len(dataset),
        **dataset.grid.facts(dataset.resolution), "channels": dataset.channels,
        "classes": dataset.label_dim, "digest": dataset.digest,
    }  # fmt: skip
    facts |= {name: value for name, value in dataset.info.items() if name not in facts}
    dataset.close()
    return facts


def _describe_weights(path: Path) -> Facts:
    """Describe any file of weights; raise NetworkError if it holds none that is known."""
    from stylecli.checkpoint import describe_network
    from stylecli.networks.headers import is_foreign, read_header

    if is_foreign(path):
        return _describe_foreign(path)
    try:
        header = read_header(path)
    except NetworkError as error:
        return _describe_features(path, error)
    if "attributes" in header:
        return _describe_classifiers(path)
    if "directions" in header:
        return _describe_directions(path)
    return describe_network(path)


def _describe_foreign(path: Path) -> Facts:
    from stylecli.checkpoint import describe_network
    from stylecli.interop.families import describe_foreign

    try:
        facts = describe_foreign(path)
    except NetworkError as error:
        return _describe_features(path, error)
    facts = {name: value for name, value in facts.items() if name in ("family", "settings")}
    return describe_network(path) | {"what": "network of another program"} | facts


def _describe_features(path: Path, error: NetworkError) -> Facts:
    """Describe the weights of a feature network; raise ``error`` if they are none either."""
    from stylecli import weights
    from stylecli.checkpoint import describe_file
    from stylecli.interop.feature_weights import read_feature_weights

    try:
        name, arrays = read_feature_weights(path)
    except WeightsError:
        raise error from None
    network = weights.find_feature_network(name)
    facts = {"what": "weights of a feature network", **describe_file(path), "network": name}
    return facts | {
        "which is": network.what, "used by": list(network.used_by), "licence": network.licence,
        "numbers": sum(array.size for array in arrays.values()),
        "published": weights.is_published(name, facts["sha256"]),
    }  # fmt: skip


def _describe_classifiers(path: Path) -> Facts:
    from stylecli.checkpoint import describe_file
    from stylecli.metrics.classifiers import load_classifiers

    loaded = load_classifiers(path)
    facts = {
        "what": "attribute classifiers",
        **describe_file(path),
        **loaded.grid.facts(loaded.resolution),
    }
    facts["attributes"] = {name: list(values) for name, values in loaded.values.items()}
    facts["accuracy"] = loaded.accuracy
    return facts | {name: value for name, value in loaded.info.items() if name not in facts}


def _describe_directions(path: Path) -> Facts:
    from stylecli.checkpoint import describe_file
    from stylecli.latents.directions import read_directions

    found = read_directions(path)
    network = {"file": found.space.network, "sha256": found.space.sha256}
    facts: Facts = {"what": "directions", **describe_file(path), "network": found.space.network}
    facts |= {"network is": _whereabouts(network), "w_dim": found.space.w_dim}
    return facts | {"directions": {row["name"]: row["method"] for row in found.describe()}}


def _describe_graph(path: Path) -> Facts | None:
    """Describe a graph by what it says of itself; None for a zip that holds none of ours."""
    from stylecli.checkpoint import describe_file
    from stylecli.interop.graph_files import read_graph_file

    if (graph := read_graph_file(path)) is None:
        return None
    facts: Facts = {"what": f"network as {graph.kind}", **describe_file(path)}
    if graph.opset is not None:
        facts["opset"] = graph.opset
    if graph.record is None:
        made = graph.producer or "unknown: the file names no program"
        return facts | {"made by": made, "record": graph.metadata}
    record = graph.record
    if "family" not in record:  # a feature network, which no --network takes
        return facts | {"record": record}
    source = {"file": record.get("source"), "sha256": record.get("source_sha256")}
    return facts | {"network is": _whereabouts(source), "record": record}


def _describe_made(path: Path) -> Facts:
    """Describe a picture, a video or saved styles; raise DataError for anything else."""
    suffix = path.suffix.lower()
    if suffix in _STYLES:
        facts, provenance = _read_styles(path)
    elif suffix in _VIDEOS:
        facts, provenance = _read_video(path)
    else:
        facts, provenance = _read_picture(path)
    if provenance is None:
        return {**facts, "made by": _UNKNOWN}
    return facts | _explain(provenance, facts["what"])


def _describe_styles(path: Path) -> Facts | None:
    """Describe a torch file of styles; None if it is none."""
    try:
        facts, _ = _read_styles(path)
    except NetworkError:
        return None
    return {**facts, "made by": _UNKNOWN}


def _read_styles(path: Path) -> tuple[Facts, Any]:
    from stylecli.saved_ws import load_ws, read_ws_provenance

    count, layers, width = load_ws(path).shape
    facts = {"what": "styles", "file": str(path), "faces": count, "layers": layers, "w_dim": width}
    return facts, read_ws_provenance(path)


def _read_video(path: Path) -> tuple[Facts, Any]:
    from stylecli.video import read_video_provenance

    return {"what": "video", "file": str(path)}, read_video_provenance(path)


def _read_picture(path: Path) -> tuple[Facts, Any]:
    from stylecli.data.pictures import name_cause, open_picture, quiet
    from stylecli.images import provenance_of

    facts: Facts = {"what": "picture", "file": str(path)}
    try:
        with quiet(), open_picture(path) as image:
            facts["size"] = f"{image.width} x {image.height} {image.mode}"
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                facts |= {"what": "video", "frames": frames}
            return facts, provenance_of(image)
    except Exception as error:  # counting frames decodes; Pillow's plugins raise anything
        raise DataError(
            f"{path} is not a readable picture ({name_cause(error)}), nor any other file that "
            f"info knows: give a picture, video, network, run, dataset or saved styles"
        ) from None


def _explain(provenance: Mapping[str, Any], what: str) -> Facts:
    """Return whether the network is here and the command that makes the file again; the record."""
    record: Facts = {}
    tool = provenance.get("tool") or f"stylecli {provenance.get('stylecli', '')}".strip()
    record["made by"] = f"{tool}, {'' if what == 'styles' else 'a generated '}{what}"
    network = provenance.get("network")
    if isinstance(network, str):  # the demo's pictures name their network by its hash alone
        network = {"file": None, "sha256": network}
    facts: Facts = {}
    if isinstance(network, Mapping):
        record["network"], record["sha256"] = network.get("file"), network.get("sha256")
        facts["network is"] = _whereabouts(network)
    settings = provenance.get("settings")
    told = {"tool", "stylecli", "command", "network", "settings"}
    others = [provenance, settings if isinstance(settings, Mapping) else {}]
    for name, value in (item for claims in others for item in claims.items()):
        if name not in told:
            record.setdefault(name, value)
    if (again := remake_command(provenance)) is not None:
        facts["again"] = again
    return facts | {"record": record}


def _whereabouts(network: Mapping[str, Any]) -> str:
    """Say whether the network that made a picture is here, by its hash.

    Files are hashed where they are known to be the one, or are likely to: a record that names no
    file of networks, or one of another size, has nothing hashed, and what was hashed is remembered.
    """
    from stylecli import weights

    file, digest, size = (network.get(name) for name in ("file", "sha256", "bytes"))
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return "unknown: the record has no SHA-256 of a network"
    named = _named(file)
    if named is not None:
        if weights.remember_digest(named) == digest:
            return "here, unchanged"
        return "another one: the file has changed since"
    here = [path for run in [*list_runs(), Path("demo") / "run"]
            for path in list_snapshots(run) if _is_plain_file(path)]  # fmt: skip
    remembered = weights.remembered_digests(here)
    likely = [path for path, known in remembered.items() if known == digest]
    unknown = [path for path, known in remembered.items() if known is None]
    if isinstance(size, int):
        unknown = [path for path in unknown if path.stat().st_size == size]
    name = Path(file).name if isinstance(file, str) else ""
    unknown.sort(key=lambda path: (path.name != name, -path.stat().st_mtime))
    for path in [*likely, *unknown[:_MOST_HASHED]]:
        if weights.remember_digest(path) == digest:
            return f"here, as {path}: give --network {path}"
    if unknown[_MOST_HASHED:]:
        return (
            f"not found yet: run the same command to look at the other "
            f"{plural(len(unknown) - _MOST_HASHED, 'network')}"
        )
    return "not here: give the file with this sha256 to --network"


def _named(file: Any) -> Path | None:
    """Return the file that a record names, where it is a plain one of this folder."""
    if not isinstance(file, str) or not file.isprintable():
        return None
    path = Path(file)
    if file == shipped.NAME and not path.exists():
        return shipped.shipped_network()
    if hub.is_address(path):  # a stranger's record fetches nothing
        with contextlib.suppress(StyleCLIError):
            known = hub.find_cached(hub.parse_address(path))
            return Path(known.path) if known is not None else None
        return None
    if path.is_absolute() or path.drive or ".." in path.parts:
        return None
    return path if _is_plain_file(path) else None


def _is_plain_file(path: Path) -> bool:
    """Tell whether a path is an ordinary file of a network's size: no pipe, no device, no /proc."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # also names that no system takes
        return False
    return stat.S_ISREG(state.st_mode) and _LEAST_BYTES <= state.st_size <= _MOST_BYTES


def _last_line(path: Path) -> Any:
    rows = read_rows(path)
    return rows[-1] if rows else None
