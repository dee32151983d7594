"""Atomic files: whole or not there."""

import json
import os
import stat
from pathlib import Path

import pytest

from stylecli.atomic import replacing, write_bytes, write_json


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"

    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()

    assert path.read_bytes() == b"half"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    with pytest.raises(RuntimeError, match="broke"), replacing(path) as temporary:
        temporary.write_bytes(b"new")
        raise RuntimeError("broke")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file.bin", b"")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == 0o640


def test_json_keeps_letters_of_all_languages_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"name": "Fréchet"})

    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert "Fréchet" in text
    assert json.loads(text) == {"name": "Fréchet"}
