"""The cache: where it is. That it is this user's own is tested with what is kept in it."""

import os
import tempfile
from pathlib import Path
from typing import Any

from stylecli.cache_folder import CACHE_VARIABLE, cache_folder


def test_the_folder_follows_the_variable(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().parts[-2:] == (".cache", "stylecli")


def test_without_a_home_the_cache_is_among_the_temporary_files(monkeypatch: Any) -> None:
    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    folder = cache_folder()
    assert folder.parent == Path(tempfile.gettempdir()) and str(os.getuid()) in folder.name
