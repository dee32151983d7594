"""A full disk: one sentence, before writing and while writing."""

import errno
from pathlib import Path
from typing import Any

import pytest

from stylecli import disk_space
from stylecli.disk_space import check_room, room_for
from stylecli.errors import ExitCode, StyleCLIError

SENTENCE = (
    r"the disk is full: .*file\.bin needs 1,152,921,504,606,846,976 bytes \(1,099,511,627,776\.0 "
    r"MiB\), [\d,]+ bytes \([\d,.]+ MiB\) are free; nothing was replaced: make room and run the "
    r"same command again"
)


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

    monkeypatch.setattr(disk_space.shutil, "disk_usage", refuse)
    check_room(tmp_path / "file.bin", 1 << 60)
