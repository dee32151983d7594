"""Start other Python processes of this program: the one place that does. Stdlib only.

They run ``sys.executable -P -m MODULE``: without ``-P`` Python would put the working folder first
on its path and import a ``signal.py`` or a ``torch.py`` that lies there. ``-I`` would be safe as
well, but lose PYTHONPATH and what the user installed for himself.
"""

import os
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli.errors import StyleCLIError

_ROOT = str(Path(__file__).resolve().parents[2])  # the folder that this program is loaded from


def can_start_python() -> bool:
    """Whether the interpreter knows its own program; one embedded in another does not."""
    return bool(sys.executable)


def start_python(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start ``python -m module arguments``; it imports nothing from the working folder.

    ``environment`` is added to this process's own. ``options`` go to ``subprocess.Popen``. Raises
    StyleCLIError when no process can be started.
    """
    if not can_start_python():
        raise StyleCLIError(
            "this Python does not know its own program, so it cannot start further processes: "
            "give --workers 1 or --ranks 1"
        )
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env={**os.environ, **(environment or {}), "PYTHONPATH": _python_path()},
        **options,
    )


def _python_path() -> str:
    """Return PYTHONPATH without empty entries, which mean the working folder.

    A program that is not installed (run from its source folder) is found through it too.
    """
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    installed = {os.path.realpath(path) for path in _site_folders()}
    if _ROOT not in installed | {os.path.realpath(entry) for entry in entries}:
        entries.append(_ROOT)
    return os.pathsep.join(entries)


def _site_folders() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]
