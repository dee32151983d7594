"""Atomic files, a full disk, JSON of strangers, rows that a crash has torn."""

import errno
import json
import math
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from stylecli import files
from stylecli.errors import DataError, ExitCode, NetworkError, StyleCLIError
from stylecli.files import (
    append_row,
    check_room,
    parse_json,
    read_json,
    read_rows,
    replacing,
    room_for,
    row_number,
    to_json,
    write_bytes,
    write_json,
    write_rows,
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SENTENCE = (
    r"the disk is full: .*file\.bin needs 1,152,921,504,606,846,976 bytes \(1,152,922 TB\), "
    r"[\d,]+ bytes \([\d,.]+ \w+\) are free; nothing was replaced: make room and run the "
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


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    """It, and not the scratch folder that could not be made in it."""

    def refuse(prefix: str, suffix: str, dir: Path) -> str:
        raise OSError(errno.EROFS, "Read-only file system", f"{dir}/{prefix}{suffix}")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match="Read-only") as found, replacing(tmp_path / "x.png"):
        pytest.fail("it is written all the same")
    assert found.value.filename == str(tmp_path) and found.value.errno == errno.EROFS


def test_a_disk_that_tells_nothing_is_tried(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(path: Path) -> None:
        raise OSError

    monkeypatch.setattr(files.shutil, "disk_usage", refuse)
    check_room(tmp_path / "file.bin", 1 << 60)


NESTED = "[" * 5000 + "]" * 5000
SPOILT = {
    "empty": b"",
    "no JSON": b"{'a': 1}",
    "cut off": b'{"a": [1, 2',
    "nested": NESTED.encode(),
    "nested a little": b'{"a":' * 70 + b"1" + b"}" * 70,
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a huge float": b'{"a": 1e999}',
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "another encoding": '{"a": "é"}'.encode("latin-1"),
    "another type": b"[1, 2]",
    "one number": b"3.5",
    "null": b"null",
}


@pytest.mark.parametrize("content", SPOILT.values(), ids=SPOILT)
def test_json_that_is_spoilt_is_one_sentence_with_the_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)

    with pytest.raises(NetworkError) as caught:
        read_json(path, error=NetworkError)

    assert str(caught.value).startswith(f"{path} is not readable: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("pipe.json", ".", "a\0b"):
        with pytest.raises(DataError, match="is not readable"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_of_other_editors_is_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"é": [1, 2.5, null]}'.encode(encoding))

    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    assert parse_json("[" * 60 + "]" * 60, "it", of=list)
    assert parse_json('"' + "[" * 100 + '"', "it", of=object) == "[" * 100


def test_json_that_is_written_can_be_read_by_everybody(tmp_path: Path) -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5], "c": "\udc80é"}
    write_json(tmp_path / "a.json", value)

    text = (tmp_path / "a.json").read_text("utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5], "c": "\udc80é"}
    assert to_json({"c": "é\u2028"}, ascii=True) == rb'{"c":"\u00e9\u2028"}'


@pytest.mark.parametrize(
    ("tail", "kept"),
    [(b"", 1), (b'{"b": 2', 1), (b'{"b": 2}', 2), (b"\0\0\0", 1), (b'"text"', 1)],
    ids=["whole", "torn", "no newline", "zeros", "no object"],
)
def test_a_torn_row_swallows_nothing(tail: bytes, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "metric-fid.jsonl"
    path.write_bytes(b'{"a": NaN}\n' + tail)

    append_row(path, {"value": float("inf"), "name": "fid"})

    rows = read_rows(path)
    assert rows[0] == {"a": None}
    assert rows[-1] == {"value": None, "name": "fid"}
    assert len(rows) == kept + 1
    assert path.read_bytes().count(b"\n") == kept + 1


def test_lines_that_are_no_rows_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n' + NESTED.encode() + b'\n\xff\n\n{"a": 2}\r\n{"a": 1e999}\n')

    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    assert read_rows(tmp_path / "none.jsonl") == []
    write_rows(path, read_rows(path))
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_a_number_of_a_row_is_a_number() -> None:
    row = {"a": 1, "b": "1", "c": None, "d": [1], "e": True}

    assert row_number(row, "a") == 1.0
    assert all(math.isnan(row_number(row, name)) for name in "bcdef")


def leave_scratch(folder: Path) -> Path:
    """Begin to write a file in a process that is then killed; return what it leaves."""
    child = os.fork()
    if child == 0:
        with replacing(folder / "file.bin") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = folder.glob(".*.part")
    return left


@needs_fork
def test_what_a_killed_process_left_is_swept_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left = leave_scratch(tmp_path)
    (tmp_path / ".file-abcd1234.part.txt").touch()
    (tmp_path / "notes.part").mkdir()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "other.bin") as temporary:
            temporary.write_bytes(b"half")
            os.read(reader, 1)
        os._exit(0)
    while not (alive := list(tmp_path.glob(".other-*.part/other.bin"))):
        pass
    files.sweep(tmp_path)
    assert not left.exists() and alive[0].exists()
    os.write(writer, b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".file-abcd1234.part.txt", "notes.part", "other.bin",
    ]  # fmt: skip


@needs_fork
def test_writing_sweeps_and_children_hold_nothing(tmp_path: Path) -> None:
    left = leave_scratch(tmp_path)
    files._swept.clear()
    write_bytes(tmp_path / "file.bin", b"whole")
    assert not left.exists() and [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    with replacing(tmp_path / "file.bin"):
        child = os.fork()
        if child == 0:
            os._exit(len(files._held))
        assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_written_where_a_sweep_came_first(tmp_path: Path, monkeypatch: Any) -> None:
    """It may be a sweep by another thread, which began before the writer made its folder."""
    fcntl = pytest.importorskip("fcntl")
    make, made, held = tempfile.mkdtemp, [], []

    def made_and_held(**options: Any) -> str:
        made.append(make(**options))
        if not held:
            held.append(os.open(made[0], os.O_RDONLY))
            fcntl.flock(held[0], fcntl.LOCK_EX)
        return str(made[-1])

    monkeypatch.setattr("tempfile.mkdtemp", made_and_held)
    with replacing(tmp_path / "file.bin") as temporary:
        shutil.rmtree(made[0])
        temporary.write_bytes(b"whole")
    os.close(held[0])
    assert (tmp_path / "file.bin").read_bytes() == b"whole" and len(made) == 2


def test_a_folder_without_locks_is_swept_after_a_day(tmp_path: Path, monkeypatch: Any) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    left = tmp_path / ".file-abcd1234.part"
    left.mkdir()
    monkeypatch.setattr("fcntl.flock", no_locks)
    write_bytes(tmp_path / "file.bin", b"x")
    files.sweep(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_modes_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "disk" / "file.bin", tmp_path / "file.bin"
    write_bytes(path, b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_bytes(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "é" * 120 + ".png", ".hidden", "a" * 255])
def test_long_and_odd_names_can_be_written(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_names_the_file_and_the_need(tmp_path: Path, monkeypatch: Any) -> None:
    def full(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StyleCLIError, match=r"disk is full: .*file\.bin needs 3,000 bytes"):
        write_bytes(tmp_path / "file.bin", bytes(3000))
    needs = r"disk is full: .*file\.bin needs 9,000 bytes"
    with pytest.raises(StyleCLIError, match=needs), room_for(tmp_path / "file.bin", 9000):
        write_bytes(tmp_path / "file.bin", bytes(3000))
    with (
        pytest.raises(StyleCLIError, match=r"file\.bin needs more than 500 bytes"),
        replacing(tmp_path / "file.bin") as temporary,
    ):
        os.truncate(temporary, 500)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert not list(tmp_path.iterdir())


def test_whoever_can_do_without_a_file_goes_on_when_the_disk_is_full(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is full") as caught, replacing(tmp_path / "a.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert isinstance(caught.value, StyleCLIError)
    assert caught.value.strerror == "No space left on device"
    assert str(caught.value).startswith("the disk is full: ")
