"""Atomic files: whole or not there; a full disk: one sentence, before writing and while writing."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from stylecli import files
from stylecli.errors import ExitCode, StyleCLIError
from stylecli.files import check_room, replacing, room_for, write_bytes, write_json

SENTENCE = (
    r"the disk is full: .*file\.bin needs 1,152,921,504,606,846,976 bytes \(1,099,511,627,776\.0 "
    r"MiB\), [\d,]+ bytes \([\d,.]+ MiB\) are free; nothing was replaced: make room and run the "
    r"same command again"
)


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


def test_room_is_checked_before_writing(tmp_path: Path) -> None:
    with pytest.raises(StyleCLIError, match=SENTENCE) as caught:
        check_room(tmp_path / "new" / "file.bin", 1 << 60)
    assert caught.value.exit_code == ExitCode.FAILED
    check_room(tmp_path / "file.bin", 1)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: No space left on device (os error 28)"),
    ],
    ids=["the system", "safetensors"],
)
def test_a_disk_that_fills_up_while_writing_is_named(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(StyleCLIError, match=r"file\.bin needs 5 bytes .* are free"),
        room_for(tmp_path / "file.bin", 5),
    ):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_for(tmp_path / "file.bin", 5):
        raise PermissionError(errno.EACCES, "no")


def test_a_disk_that_tells_nothing_is_tried(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(path: Path) -> None:
        raise OSError

    monkeypatch.setattr(files.shutil, "disk_usage", refuse)
    check_room(tmp_path / "file.bin", 1 << 60)
