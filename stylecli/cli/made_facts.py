"""What `stylecli info` says of things made here: pictures, videos and styles, and how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli import shipped
from stylecli.errors import DataError, NetworkError
from stylecli.provenance import remake_command
from stylecli.workspace import SNAPSHOT_PATTERN, list_runs

Facts = dict[str, Any]
_UNKNOWN = "unknown: the file carries no record of stylecli"
_STYLES = (".npz", ".npy")
_VIDEOS = (".mp4", ".webm", ".mov", ".gif")


def describe_made(path: Path) -> Facts:
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


def describe_styles(path: Path) -> Facts | None:
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
    from stylecli.data.decoding import name_cause, open_picture, quiet
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
            f"{path} is not a readable picture ({name_cause(error)}), nor anything else that info "
            "knows: give a picture, video, network, run, dataset or saved styles"
        ) from None


def _explain(provenance: Mapping[str, Any], what: str) -> Facts:
    """Return who made it, with which network and settings, and the command that makes it again."""
    facts: Facts = {}
    tool = provenance.get("tool") or f"stylecli {provenance.get('stylecli', '')}".strip()
    facts["made by"] = f"{tool}, {'' if what == 'styles' else 'a generated '}{what}"
    network = provenance.get("network")
    if isinstance(network, str):  # the demo's pictures name their network by its hash alone
        network = {"file": None, "sha256": network}
    if isinstance(network, Mapping):
        facts["network"], facts["sha256"] = network.get("file"), network.get("sha256")
        facts["network is"] = _whereabouts(network.get("file"), network.get("sha256"))
    settings = provenance.get("settings")
    told = {"tool", "stylecli", "command", "network", "settings"}
    facts |= {name: value for name, value in provenance.items() if name not in told}
    facts |= settings if isinstance(settings, Mapping) else {}
    if (again := remake_command(provenance)) is not None:
        facts["again"] = again
    return facts


def _whereabouts(file: Any, digest: Any) -> str:
    """Say whether the network that made a picture is here, by its hash."""
    from stylecli.checkpoint import network_digest

    file = file if isinstance(file, str) else None  # a stranger's record may hold anything
    if file == shipped.NAME and not Path(file).exists():
        file = str(shipped.shipped_network() or file)
    if file and file.isprintable() and Path(file).is_file():
        if network_digest(file) == digest:
            return "here, unchanged"
        return "another one now: the file has changed since"
    for run in [*list_runs(), Path("demo") / "run"]:
        for snapshot in run.glob(SNAPSHOT_PATTERN):
            if network_digest(snapshot) == digest:
                return f"here, as {snapshot}: give that to --network"
    return "not here: give the file with this sha256 to --network"
