"""How a picture, sheet or video says what made it, and the command that makes it again."""

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from stylecli import __version__, shipped


def make_provenance(
    command: str,
    network: Path,
    digest: str,
    settings: Mapping[str, Any],
    *,
    arguments: Sequence[str] = (),
    inputs: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Return what goes into a file: the tool, the network by name and SHA-256, every setting.

    ``settings`` are the command's options, spelled as its parameters: ``psi_cutoff`` is
    ``--psi-cutoff``. None stands for what was not set. ``arguments`` are the words that follow the
    command, such as the figure's name. ``inputs`` are files that options name, by option: their
    contents decide the result too, so their SHA-256 are kept. Raises OSError where one is missing.
    """
    made: dict[str, Any] = {
        "tool": f"stylecli {__version__}",
        "command": command,
        "network": {"file": shown_path(network), "sha256": digest},
        "settings": {name: value for name, value in settings.items() if value is not None},
    }
    if arguments:
        made["arguments"] = list(arguments)
    if inputs:
        made["inputs"] = {
            name: {"file": shown_path(path), "sha256": _digest(path)}
            for name, path in inputs.items()
        }
    return made


# What draws; a stranger's record must not name what deletes, downloads or trains.
_DRAWING = ("generate", "mix", "interpolate", "figures")
# Where to write, and over what, is for whoever types the command.
_NOT_REPEATED = ("out", "force", "save_ws")


def remake_command(provenance: Mapping[str, Any]) -> str | None:
    """Return the command line that makes the file again, None when it does not say."""
    command, network = provenance.get("command"), provenance.get("network")
    if command not in _DRAWING or not isinstance(network, Mapping):
        return None
    arguments, settings = provenance.get("arguments", ()), provenance.get("settings", {})
    if not isinstance(arguments, list | tuple) or not isinstance(settings, Mapping):
        return None
    words = ["stylecli", command, *map(str, arguments)]
    words += ["--network", str(network.get("file"))]
    for name, value in settings.items():
        if name.replace("-", "_") in _NOT_REPEATED:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif str(value).startswith("-"):  # a negative number is no option
            words.append(f"{flag}={value}")
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory; outside it only the name.

    The network that comes with the package is called as ``--network`` calls it.
    Pictures travel: they must not carry the folders of the machine they were made on.
    """
    if path == shipped.shipped_network():
        return shipped.NAME
    try:
        relative = Path(os.path.relpath(path))
    except ValueError:  # on another drive
        return path.name
    return path.name if relative.parts[:1] == ("..",) else relative.as_posix()


def _digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)  # the same file for every picture of a command
def _digest_of(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
