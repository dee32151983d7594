"""A browser and packages of npm, for the tests of pages: never part of the package."""

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]


def install_from_npm(package: str, folder: Path) -> Path | None:
    """Return the folder of NAME@VERSION, installed below ``folder``; None if it cannot be had."""
    if (npm := shutil.which("npm")) is None:
        return None
    words = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
    try:
        done = subprocess.run([*words, package], cwd=folder, capture_output=True, timeout=300)
    except subprocess.TimeoutExpired:
        return None
    name, _, _ = package.rpartition("@")
    return None if done.returncode else folder / "node_modules" / name
