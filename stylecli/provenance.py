"""How a picture, sheet or video says what made it, and the command that makes it again."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli import __version__


def make_provenance(
    command: str, network: Path, digest: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what goes into a file: the tool, the network by name and SHA-256, every setting.

    ``settings`` are the command's options, spelled as its parameters: ``psi_cutoff`` is
    ``--psi-cutoff``. None stands for what was not set.
    """
    return {
        "tool": f"stylecli {__version__}",
        "command": command,
        "network": {"file": shown_path(network), "sha256": digest},
        "settings": {name: value for name, value in settings.items() if value is not None},
    }


def remake_command(provenance: Mapping[str, Any]) -> str | None:
    """Return the command line that makes the file again, None when it does not say."""
    command, network = provenance.get("command"), provenance.get("network")
    if not isinstance(command, str) or not isinstance(network, Mapping):
        return None
    words = ["stylecli", command, "--network", str(network.get("file"))]
    for name, value in dict(provenance.get("settings", {})).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name.replace('_', '-')}")
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory; outside it only the name.

    Pictures travel: they must not carry the folders of the machine they were made on.
    """
    relative = Path(os.path.relpath(path))
    return path.name if relative.parts[:1] == ("..",) else relative.as_posix()
