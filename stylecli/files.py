"""Files that are either whole or not there, a full disk in one sentence, and all JSON.

A file is written in a scratch folder beside it, synced and renamed; what a killed process leaves of
that is swept by the next one. JSON comes from strangers, crashes and
other versions: ``parse_json`` and ``read_json`` are the only readers, ``to_json`` the only writer.
Rows of JSON, a line each, are appended and made durable one by one; ``append_row`` cuts off a row
torn by a crash, which would swallow the next one. ``OwnerLock`` lets one process at a time write
into a folder.
"""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from stylecli.errors import DISK_FULL, DataError, StyleCLIError
from stylecli.progress import format_bytes

MAX_JSON_BYTES = 256 << 20  # labels of millions of pictures, rows of years take less
MAX_JSON_DEPTH = 64  # ours nest 6 deep; Python gives up near 1,000
MAX_NUMBER_LETTERS = 80  # the state of a random generator has 40
LOCK_FILE = "writer.lock"
_ROW_BYTES = 4096  # a row of JSON is shorter

_SCRATCH = re.compile(r"\..*-[a-z0-9_]{8}\.part")
_SHOWN_BYTES = 40  # of a name in that of its scratch folder: names may take 255 in all
_LEFT_SECONDS = 86400.0
_NO_HANDLE = -1
_LOCKED_BYTE = 1 << 20  # beyond what is written, so that Windows lets others read who holds it
_swept: set[str] = set()  # folders
_held: set[int] = set()  # open scratch folders of this process


class _FullDiskError(StyleCLIError, OSError):
    """A disk was full while a file was written; ``room_for`` knows how much it needed.

    An OSError too: whoever can do without the file, a cache, continues as after any other.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno, self.strerror = errno.ENOSPC, os.strerror(errno.ENOSPC)

    def __str__(self) -> str:
        return str(self.args[0])


@contextlib.contextmanager
def replacing(path: Path | str, needed: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and takes its name.

    The name is kept, so that writers which look at it work; it lies in a scratch folder. On any
    error that is removed and ``path`` stays as it was. A file that is replaced keeps its mode, a
    link stays a link. ``needed`` bytes are only spoken of where the disk is full.
    """
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent, target.stem) as folder:
        temporary = folder / target.name
        try:
            temporary.touch()
            mode = (target if target.exists() else temporary).stat().st_mode
            yield temporary
            temporary.chmod(stat.S_IMODE(mode))  # some writers make files of their own
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        except Exception as error:
            if not _means_full(error):
                raise
            written = temporary.stat().st_size if temporary.exists() else 0
            free = _free_bytes(target)
            free = None if free is None else free + written  # which is given back now
            text = _sentence(Path(path), max(needed, written), free, is_least=needed <= written)
            raise _FullDiskError(text) from error
        sync_directory(target.parent)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new private folder in ``parent`` that is removed afterwards.

    If the process is killed first, the next command that writes into ``parent`` removes it.
    """
    sweep(parent, again=False)
    short = os.fsencode(name)[:_SHOWN_BYTES].decode(errors="ignore")
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{short}-", suffix=".part", dir=parent))
        except OSError as error:  # of a name that nobody gave
            raise OSError(error.errno, error.strerror, str(parent)) from error
        try:
            handle = _hold(folder)
        except BlockingIOError:  # a sweep found it before it was held, and removes it
            continue
        if folder.exists():
            break
        _let_go(handle)  # swept before it was held
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _let_go(handle)


def is_scratch(name: str) -> bool:
    """Tell by its name whether a folder is a scratch folder."""
    return _SCRATCH.fullmatch(name) is not None


def sweep(folder: Path, *, again: bool = True) -> None:
    """Remove the scratch folders in ``folder`` whose processes were killed.

    Without ``again`` it is done once per process.
    """
    place = os.path.abspath(folder)
    if place in _swept and not again:
        return
    _swept.add(place)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if is_scratch(entry.name)]
        for scratch in found:
            with contextlib.suppress(BlockingIOError):
                if (handle := _hold(scratch)) is not None:
                    shutil.rmtree(scratch, ignore_errors=True)
                    _let_go(handle)


def _hold(folder: Path) -> int | None:
    """Lock a scratch folder, which ends with the process; raise BlockingIOError where it is locked.

    Returns None where folders cannot be locked, but for one that nothing was put into for a day,
    which counts as left behind.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return _no_lock(folder)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return _no_lock(folder)
    _held.add(handle)
    return handle


def _no_lock(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime > _LEFT_SECONDS:
            return _NO_HANDLE
    return None


def _let_go(handle: int | None) -> None:
    if handle is not None and handle in _held:
        _held.discard(handle)
        os.close(handle)


def _forget_held() -> None:
    """In a forked process: else it would keep what its parent left alive."""
    for handle in list(_held):
        _let_go(handle)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_held)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write UTF-8 text to ``path`` atomically; half characters, as of file names, as escapes."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path`` atomically."""
    write_bytes(path, to_json(value, indent=2) + b"\n")


def name_failed_download(start: bytes) -> str:
    """Say in words that follow a file's name what came instead of it, by its first kilobyte.

    Empty for anything that may be what was wanted.
    """
    if not start:
        return "is empty: get it again"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself: run git lfs pull"
    if text.startswith(b"<svg") or (text.startswith(b"<") and b"<svg" in text):
        return "is an SVG drawing, which has no pixels: export it as PNG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        text.startswith(b"<") and b"<html" in text
    ):
        return (
            "is a web page, not the file itself: the download failed or needs a confirmation; "
            "open the address in a browser"
        )
    if text.startswith((b"<?xml", b"<error", b"<!--")):
        return "is an XML document, such as a server's error message: get the file again"
    return ""


def sync_directory(folder: Path) -> None:
    """Make a rename in ``folder`` durable; systems that cannot open folders do without."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_room(path: Path, needed: int) -> None:
    """Raise StyleCLIError when the disk of ``path`` has fewer than ``needed`` bytes free."""
    free = _free_bytes(path)
    if free is not None and free < needed:
        raise StyleCLIError(_sentence(path, needed, free))


@contextlib.contextmanager
def room_for(path: Path, needed: int) -> Iterator[None]:
    """Check for ``needed`` bytes, then turn a disk that fills up all the same into one sentence.

    Free space is a guess: quotas and other programs are not in it. Other errors pass unchanged.
    """
    check_room(path, needed)
    try:
        yield
    except Exception as error:
        if not isinstance(error, _FullDiskError) and not _means_full(error):
            raise
        raise StyleCLIError(_sentence(path, needed, _free_bytes(path))) from error


def _means_full(error: Exception) -> bool:
    """Whether a write failed for lack of space; safetensors says so in words only."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    return "No space left on device" in str(error) or "StorageFull" in str(error)


def _free_bytes(path: Path) -> int | None:
    """Return the free bytes of the disk that ``path`` is or will be on; None if not known."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _sentence(path: Path, needed: int, free: int | None, *, is_least: bool = False) -> str:
    more = "more than " if is_least else ""
    left = "an unknown number is" if free is None else f"{_sized(free)} are"
    return (
        f"the disk is full: {path} needs {more}{_sized(needed)}, {left} free; nothing was "
        "replaced: make room and run the same command again"
    )


def _sized(count: int) -> str:
    return f"{count:,} bytes ({format_bytes(count)})"  # all digits: free may be little less


def to_json(
    value: Any,
    *,
    indent: int | None = None,
    ascii: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> bytes:
    """Return ``value`` as JSON in UTF-8 that every reader takes, compact where ``indent`` is None.

    NaN and infinity, which JSON does not have, become null. Half characters, which file names may
    hold, become escapes, under ``ascii`` all letters beyond ASCII. ``default`` turns what JSON does
    not know into what it does.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        _finite(value), indent=indent, ensure_ascii=ascii, allow_nan=False,
        separators=separators, default=default,
    )  # fmt: skip
    return text.encode("utf-8", "backslashreplace")  # \\udc80: the same letters in JSON


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path | str, *, of: type = dict, error: type[StyleCLIError] = DataError) -> Any:
    """Return the value that a file of JSON holds, of type ``of``: dict, list or object for any.

    Raises ``error``, naming the file, for everything that is wrong with it, but FileNotFoundError
    where there is none: that means something else everywhere.
    """
    content = _content(path, error)
    return parse_json(content, path, of=of, error=error)


def _content(path: Path | str, error: type[StyleCLIError]) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise error(f"{path} is not readable: it is not a file")
        with open(path, "rb") as file:
            return file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as cause:  # ValueError: a name with a null character
        why = getattr(cause, "strerror", None) or cause
        raise error(f"{path} is not readable: {why}") from None


def parse_json(
    text: str | bytes, name: object, *, of: type = dict, error: type[StyleCLIError] = DataError
) -> Any:
    """Return the value of JSON text, of type ``of``: dict, list or object for any.

    Raises ``error`` with one sentence that starts with ``name``, where the text comes from: for
    what is not JSON, NaN among it, for another encoding or type, and for text that is too long,
    nested too deeply or holds too large numbers.
    """
    try:
        return _parsed(text, of)
    except ValueError as cause:
        raise error(f"{name} is not readable: {cause}") from None


def _parsed(text: str | bytes, of: type) -> Any:
    """Parse, or raise ValueError with the reason."""
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it is longer than {MAX_JSON_BYTES >> 20} MiB")
    try:
        letters = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = JSON_DECODER.decode(letters.removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as cause:
        raise ValueError(
            f"it is not JSON ({cause})" if letters.strip() else "it is empty"
        ) from None
    if letters.count("[") + letters.count("{") > MAX_JSON_DEPTH and _is_deep(value):
        raise ValueError("it is nested too deeply")
    if not isinstance(value, of):
        kinds: dict[type, str] = {dict: "an object", list: "a list"}
        raise ValueError(f"it holds {kinds.get(type(value), 'one value')}, not {kinds[of]}")
    return value


def _is_deep(value: Any) -> bool:
    """Whether a value nests deeper than any reader of it expects, found without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_JSON_DEPTH):
        level = [
            item
            for each in level
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _whole_number(text: str) -> int:
    if len(text) > MAX_NUMBER_LETTERS:
        raise ValueError(f"the number {text[:12]}... has {len(text)} digits")
    return int(text)


def _finite_number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:24]} is too large")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


# For text that comes piece by piece; whoever has the whole text calls parse_json.
JSON_DECODER = json.JSONDecoder(
    parse_int=_whole_number, parse_float=_finite_number, parse_constant=_refuse
)
# Rows of earlier versions hold NaN, and so may those of other tools.
_ROW_DECODER = json.JSONDecoder(
    parse_int=_whole_number, parse_float=_finite_number, parse_constant=lambda name: None
)


def row_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line of JSON, with its newline."""
    return to_json(row) + b"\n"


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the row of a line; None for what is no row: torn, empty, damaged, no object.

    NaN and infinity, which earlier versions wrote, are None.
    """
    try:
        row = _ROW_DECODER.decode(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and not _is_deep(row) else None


def append_row(path: Path | str, row: Mapping[str, Any]) -> None:
    """Add one row to a file of rows, durably; raise StyleCLIError when the disk is full.

    Several processes may add to one file.
    """
    path = Path(path)
    line = row_line(row)
    with room_for(path, max(len(line), _ROW_BYTES)), open(path, "ab+") as file:
        _wait_for_turn(file)
        _mend_last_row(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a file, oldest first; none where there is no file.

    Lines that are no rows are left out. Raises DataError where the file cannot be read.
    """
    try:
        content = _content(path, DataError)
    except FileNotFoundError:
        return []
    return [row for line in content.split(b"\n") if (row := parse_row(line)) is not None]


def row_number(row: Mapping[str, Any], name: str) -> float:
    """Return a number of a row; NaN for none, and for what is no number."""
    value = row.get(name)
    return float(value) if is_number(value) else math.nan


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_rows(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of rows atomically."""
    write_bytes(path, b"".join(map(row_line, rows)))


def _wait_for_turn(file: BinaryIO) -> None:
    """Let no other process add a row until the file is closed; some disks have no locks."""
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)


def _mend_last_row(file: BinaryIO) -> None:
    """End the last row where only its newline is missing, else cut a torn one off."""
    end = file.seek(0, os.SEEK_END)
    if not end:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if parse_row(content[start:]) is None:
        file.truncate(start)
    else:
        file.write(b"\n")


def is_owned(folder: Path) -> bool:
    """Tell whether the process that locked a folder lives, without touching the lock."""
    try:
        owner = int((folder / LOCK_FILE).read_text("ascii").strip())
    except (OSError, ValueError):
        return False
    if sys.platform == "win32":  # where the signal 0 would end it
        return True
    try:
        os.kill(owner, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class OwnerLock:
    """Holds ``<folder>/writer.lock`` until ``release``; raises DataError when another has it.

    The system lets go of the lock when the process dies, by kill -9 too. On file systems without
    locks there is none.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0) -> None:
        """Own ``folder``; wait at most ``patience`` seconds for another owner to let go."""
        self.folder = folder  # set it again after renaming
        end = time.monotonic() + patience
        while True:
            try:
                self._file = open(folder / LOCK_FILE, "a+b")
            except OSError as error:
                raise DataError(f"{folder} cannot be written: {error}") from None
            try:
                _lock(self._file.fileno())
            except BlockingIOError:
                self._file.seek(0)
                owner = self._file.read(20).decode("ascii", "replace").strip()
                self._file.close()
                if time.monotonic() < end:
                    time.sleep(0.01)
                    continue
                raise DataError(
                    f"{folder} is being written by another command (process {owner or 'unknown'}): "
                    "let it end first"
                ) from None
            except OSError:
                pass  # no locks here: network drives, mostly
            if self._is_mine():
                break
            self._file.close()  # its owner finished and took it away meanwhile
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def release(self) -> None:
        """Let go, and remove the file."""
        if sys.platform == "win32":
            self._file.close()  # open files cannot be removed there
        if not self._file.closed or sys.platform == "win32":
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
        self._file.close()

    def _is_mine(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.folder / LOCK_FILE))
        except OSError:
            return False


def _lock(handle: int) -> None:
    """Lock or raise: BlockingIOError when another process has it, OSError when nobody can."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
