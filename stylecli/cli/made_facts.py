"""What `stylecli info` says of things made here: pictures, videos and styles, and how.

What is found out here and what a file says of itself are kept apart: a record comes from whoever
made the file, so it stands under ``record`` and decides about nothing on this machine.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli import shipped, weights
from stylecli.errors import DataError, NetworkError
from stylecli.provenance import remake_command
from stylecli.workspace import SNAPSHOT_PATTERN, list_runs

Facts = dict[str, Any]
_UNKNOWN = "unknown: the file carries no record of stylecli"
_STYLES = (".npz", ".npy")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LEAST_BYTES, _MOST_BYTES = 256, 8 << 30  # a network file, at the extremes
_MOST_HASHED = 10  # files of which nothing is remembered
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
    file, digest, size = (network.get(name) for name in ("file", "sha256", "bytes"))
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return "not told: the record has no SHA-256 of a network"
    named = _named(file)
    if named is not None:
        if weights.remember_digest(named) == digest:
            return "here, unchanged"
        return "another one now: the file has changed since"
    here = [path for run in [*list_runs(), Path("demo") / "run"]
            for path in run.glob(SNAPSHOT_PATTERN) if _is_plain_file(path)]  # fmt: skip
    remembered = weights.remembered_digests(here)
    likely = [path for path, known in remembered.items() if known == digest]
    unknown = [path for path, known in remembered.items() if known is None]
    if isinstance(size, int):
        unknown = [path for path in unknown if path.stat().st_size == size]
    name = Path(file).name if isinstance(file, str) else ""
    unknown.sort(key=lambda path: (path.name != name, -path.stat().st_mtime))
    for path in [*likely, *unknown[:_MOST_HASHED]]:
        if weights.remember_digest(path) == digest:
            return f"here, as {path}: give that to --network"
    if unknown[_MOST_HASHED:]:
        return (
            f"not found yet: the same command looks at the next of {len(unknown) - _MOST_HASHED} "
            "networks"
        )
    return "not here: give the file with this sha256 to --network"


def _named(file: Any) -> Path | None:
    """Return the file that a record names, where it is a plain one of this folder."""
    if not isinstance(file, str) or not file.isprintable():
        return None
    path = Path(file)
    if file == shipped.NAME and not path.exists():
        return shipped.shipped_network()
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
