"""Spread a function over processes and get the results back in order.

Every worker is a fresh interpreter that talks through its own pipes, so it shares neither threads
nor locks with this process, runs nobody's main script again, and imports only what the function
needs (for pictures: numpy and Pillow, no torch). One thread here waits for each worker; that is how
the item is known on which a worker died.

Function and items go to a worker as pickles of this process. What comes back was made by a process
that decodes files of strangers, so it is never unpickled. It is read as what it may be: numbers,
text, bytes, collections of them, arrays, paths and dataclasses of ``stylecli.data``. Reading makes
values and runs nothing, whatever the bytes are.
"""

import contextlib
import itertools
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Generic, TypeVar

from stylecli import errors
from stylecli.distributed import processes
from stylecli.errors import DataError, StyleCLIError, UsageError

if sys.platform == "linux":
    import fcntl

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 8
SMALL_JOB = 200  # items; fewer are done here before other interpreters have even started
_KILLED = -9  # there is no signal.SIGKILL on Windows
MAX_DEATHS = 20  # a worker lost to a picture is replaced so often; then the machine is at fault

# One thread each. The padding keeps glibc from handing a picture's memory back after every one:
# a tenth of the time of packing photographs went into getting it again.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TOP_PAD_": str(64 << 20),
}
_PIPE_BYTES = 1 << 20  # a picture goes through at once
_LENGTH = struct.Struct("<Q")
_MOST_BYTES = 1 << 34  # of a message; a longer one is none of ours
_MODULE = "stylecli.data.workers"

# A value is a letter and what follows it; N is a length or a count of 8 bytes.
#   N none  T true  F false  i 8 bytes  I N digits  f 8 bytes  s N UTF-8  b N bytes  p N UTF-8, path
#   l t S N values: list, tuple, set   d N keys and values   c class, N values of its fields
#   a dtype, shape, N bytes: a numpy array   n the same for one numpy number
_COUNT, _INTEGER, _FLOAT = struct.Struct("<Q"), struct.Struct("<q"), struct.Struct("<d")
_COLLECTIONS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"S"}
_MAKERS: dict[bytes, Callable[[Iterator[Any]], Any]] = {b"l": list, b"t": tuple, b"S": set}
_HOME = "stylecli.data."
_ARRAY_KINDS = "biufSU"  # of numpy: never O, whose items would be objects


def count_workers(items: int | None = None) -> int:
    """Return how many processes a job deserves: one for few items, else one per CPU, at most 8."""
    if (items is not None and items < SMALL_JOB) or not processes.can_start_python():
        return 1
    usable = getattr(os, "sched_getaffinity", None)
    return max(1, min(len(usable(0)) if usable else os.cpu_count() or 1, MAX_WORKERS))


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int | None = None,
    chunk: int = 1,
    on_death: Callable[[T, str], R] | None = None,
) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in order, computed by ``workers`` processes.

    None takes ``count_workers``; with 1 all is done in this process. Items are taken as they are
    needed, ``chunk`` at a time, at most three chunks a worker ahead of what was yielded. Function
    and items must be picklable, and importable from a module; results are plain values as
    ``to_bytes`` has them. What the function raises is raised here, as a DataError unless it is
    one of this program's own errors. A worker that dies (killed, out of memory, a crash in a
    decoder) is a DataError naming the item; with ``on_death``, its result is
    ``on_death(item, cause)`` instead and the worker is replaced. Ending the iteration early, by
    Ctrl-C too, ends the workers.
    """
    if workers is None:
        workers = count_workers(len(items) if isinstance(items, Sized) else None)
    if workers < 1 or chunk < 1:
        raise UsageError(
            f"cannot use {workers} workers with {chunk} items at a time: give 1 or more of each"
        )
    if workers == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    chunks = iter(lambda: list(itertools.islice(remaining, chunk)), [])
    crew = _Crew(function, workers, on_death)
    try:
        waiting: deque[Future[list[R]]] = deque()
        for batch in chunks:
            waiting.append(crew.submit(batch))
            if len(waiting) >= 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        crew.close()


class _Death(Exception):  # noqa: N818  # an event, not an error of this process
    """A worker is gone; the message says how."""


class _Crew(Generic[T, R]):
    """A thread for each worker, which sends it a chunk of items and waits for the results."""

    def __init__(
        self,
        function: Callable[[T], R],
        workers: int,
        on_death: Callable[[T, str], R] | None,
    ) -> None:
        self._function = _to_bytes(function)
        self._on_death = on_death
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="stylecli-worker")
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: set[_Worker] = set()
        self._deaths = 0
        self._closed = False

    def submit(self, batch: list[T]) -> Future[list[R]]:
        return self._threads.submit(self._run, batch)

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in tuple(self._all):
            worker.kill()  # a thread that waits for it wakes up by that
        self._threads.shutdown(wait=True)

    def _run(self, batch: list[T]) -> list[R]:
        message = _to_bytes(batch)
        worker = self._take()
        try:
            answer = worker.ask(message)
        except _Death as death:
            self._all.discard(worker)
            return self._bury(batch, str(death))
        self._idle.put(worker)
        succeeded, value = _unpack(answer)
        if succeeded:
            results: list[R] = value
            return results
        raise value

    def _take(self) -> "_Worker":
        if not self._idle.empty():
            with contextlib.suppress(Exception):
                return self._idle.get_nowait()
        worker = _Worker(self._function)
        self._all.add(worker)
        if self._closed:  # close() may have missed it
            worker.kill()
        return worker

    def _bury(self, batch: list[T], cause: str) -> list[R]:
        self._deaths += 1
        if self._closed:
            raise DataError("the work was ended")
        if len(batch) > 1:  # which of them was it?
            return [result for item in batch for result in self._run([item])]
        item = batch[0]
        if self._on_death is not None and self._deaths <= MAX_DEATHS:
            return [self._on_death(item, cause)]
        name = getattr(item, "name", None) or f"{item!r:.80}"
        raise DataError(
            f"{name} ended the process that worked on it ({cause}): leave it out, or give it "
            "more memory with fewer --workers"
        )


class _Worker:
    """One other interpreter, and the pipes to it."""

    def __init__(self, function: bytes) -> None:
        self._errors = tempfile.TemporaryFile()  # lives as long as the worker
        self._process = processes.start_python(
            _MODULE,
            environment={**_ENVIRONMENT, **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        _widen(self._process.stdout)
        self._function: bytes | None = function
        self._started = False
        self._ending = threading.Lock()
        self._last_words = ""

    def ask(self, message: bytes) -> bytes:
        """Send one message and return the answer. Raises _Death when there will be none."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None
        try:
            if self._function is not None:
                _write(to, self._function)
                self._started = _read(back) is not None
                self._function = None
            _write(to, message)
            answer = _read(back)
        except (OSError, ValueError):  # ValueError: a pipe that kill() has closed
            answer = None
        if answer is None:
            self.kill()
            if not self._started:
                raise DataError(f"no worker process can be started: {self._epitaph()}")
            raise _Death(self._epitaph())
        return answer

    def kill(self) -> None:
        """End the process and wait until it is gone; again does nothing."""
        with self._ending:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was to be written has no reader
                        pipe.close()
            if not self._errors.closed:
                self._errors.seek(0)
                written = self._errors.read().decode(errors="replace")
                self._last_words = written.strip().rpartition("\n")[2]
                self._errors.close()

    def _epitaph(self) -> str:
        code = self._process.returncode
        if code == _KILLED:
            return self._last_words or "killed: perhaps out of memory"
        if code < 0:
            return f"signal {-code}, {signal.strsignal(-code) or 'unknown'}"
        return self._last_words or f"exit code {code}"


def serve() -> None:
    """Be a worker: read the function, then lists of items, answer with lists of results.

    What is written to stdout or stderr on the way (libraries in C do) goes to stderr, which the
    parent keeps to itself. Ends when the parent is gone.
    """
    back = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    start = _read(sys.stdin.buffer)
    if start is None:
        return
    _write(back, b"")  # the interpreter runs: what ends it from here on is an item
    function: Callable[[Any], Any] | None = None
    with contextlib.suppress(OSError):  # the parent has gone
        while (message := _read(sys.stdin.buffer)) is not None:
            try:
                function = function or pickle.loads(start)
                results = [function(item) for item in pickle.loads(message)]
                content = to_bytes((True, results))
            except Exception as error:
                content = to_bytes((False, _describe(error)))
            _write(back, content)
    os._exit(0)  # nothing to tidy up, and the pipes may be broken


def _describe(error: Exception) -> tuple[str, str]:
    """Return an error as (class, text); one that is not this program's own as a DataError."""
    if isinstance(error, StyleCLIError):
        return type(error).__name__, str(error)
    return DataError.__name__, f"{type(error).__name__}: {error}"


def _unpack(answer: bytes) -> tuple[bool, Any]:
    """Return (True, results) or (False, the error to raise); DataError for any other bytes."""
    value = from_bytes(answer)
    match value:
        case (True, list()):
            return value[0], value[1]
        case (False, (str(name), str(text))):
            kind = getattr(errors, name, None)
            if not (isinstance(kind, type) and issubclass(kind, StyleCLIError)):
                kind = DataError
            return False, kind(text)
    raise DataError(f"a worker's answer is neither results nor an error: {value!r:.80}")


def _to_bytes(value: object) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise DataError(
            f"{value!r:.80} cannot be sent to a worker: {error}; "
            "define it in a module, or work with --workers 1"
        ) from None


def _write(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _widen(pipe: IO[bytes] | None) -> None:
    """Enlarge a pipe where the system lets us (Linux)."""
    if sys.platform == "linux" and pipe is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _read(pipe: IO[bytes]) -> bytes | None:
    """Return the next message, or None when the other end is gone."""
    start = pipe.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    length: int = _LENGTH.unpack(start)[0]
    content = pipe.read(length) if length <= _MOST_BYTES else b""
    return content if len(content) == length else None


def to_bytes(value: object) -> bytes:
    """Return a value as bytes; raise DataError for one that is none of those above."""
    parts: list[bytes] = []
    _put(value, parts)
    return b"".join(parts)


def from_bytes(content: bytes) -> Any:
    """Return the value that ``to_bytes`` wrote; raise DataError for any other bytes."""
    reader = _Reader(content)
    try:
        value = reader.take()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, struct.error) as error:
        raise DataError(f"a worker's answer is damaged: {error}") from None
    if reader.at != len(content):
        raise DataError("a worker's answer is damaged: it is longer than its value")
    return value


def _put(value: Any, parts: list[bytes]) -> None:
    kind = type(value)
    if value is None:
        parts.append(b"N")
    elif kind is bool:
        parts.append(b"T" if value else b"F")
    elif kind is int:
        if -(1 << 63) <= value < 1 << 63:
            parts.append(b"i" + _INTEGER.pack(value))
        else:
            _put_sized(b"I", str(value).encode(), parts)
    elif kind is float:
        parts.append(b"f" + _FLOAT.pack(value))
    elif kind is str:
        _put_sized(b"s", value.encode("utf-8", "surrogatepass"), parts)
    elif kind in (bytes, bytearray, memoryview):
        _put_sized(b"b", bytes(value), parts)
    elif isinstance(value, Path):
        _put_sized(b"p", str(value).encode("utf-8", "surrogatepass"), parts)
    elif kind in _COLLECTIONS:
        parts.append(_COLLECTIONS[kind] + _COUNT.pack(len(value)))
        for item in value:
            _put(item, parts)
    elif kind is dict:
        parts.append(b"d" + _COUNT.pack(len(value)))
        for pair in value.items():
            _put(pair[0], parts)
            _put(pair[1], parts)
    elif is_dataclass(value) and kind.__module__.startswith(_HOME):
        names = [field.name for field in fields(value)]
        parts.append(b"c")
        _put_sized(b"s", f"{kind.__module__}:{kind.__qualname__}".encode(), parts)
        parts.append(_COUNT.pack(len(names)))
        for name in names:
            _put(getattr(value, name), parts)
    else:
        _put_array(value, parts)


def _put_array(value: Any, parts: list[bytes]) -> None:
    dtype = getattr(value, "dtype", None)
    if type(value).__module__ != "numpy" or getattr(dtype, "kind", "O") not in _ARRAY_KINDS:
        raise DataError(f"{value!r:.80} cannot be sent by a worker: it is not a plain value")
    parts.append(b"a" if hasattr(value, "__array_interface__") and value.shape else b"n")
    _put(dtype.str, parts)  # type: ignore[union-attr]
    _put(tuple(value.shape), parts)
    _put_sized(b"b", value.tobytes(), parts)


def _put_sized(letter: bytes, content: bytes, parts: list[bytes]) -> None:
    parts += [letter, _COUNT.pack(len(content)), content]


class _Reader:
    """Reads values from bytes, one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = memoryview(content), 0

    def take(self) -> Any:
        letter = bytes(self._next(1))
        if letter in b"NTF":
            return {b"N": None, b"T": True, b"F": False}[letter]
        if letter == b"i":
            return _INTEGER.unpack(self._next(8))[0]
        if letter == b"f":
            return _FLOAT.unpack(self._next(8))[0]
        if letter == b"c":
            return self._dataclass()
        if letter in b"an":
            return self._array(single=letter == b"n")
        count = self._count()
        if letter in _MAKERS:
            return _MAKERS[letter](self.take() for _ in range(count))
        if letter == b"d":
            return {self.take(): self.take() for _ in range(count)}
        content = bytes(self._next(count))
        if letter == b"b":
            return content
        text = content.decode("utf-8", "surrogatepass")
        return {b"s": str, b"I": int, b"p": Path}[letter](text)

    def _dataclass(self) -> Any:
        """Make a value of a known class, field by field; no code of the class runs."""
        module, _, name = str(self.take()).partition(":")
        known = sys.modules.get(module) if module.startswith(_HOME) else None
        kind = getattr(known, name, None)
        if not (isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module):
            raise ValueError(f"{module}:{name} is not a dataclass of {_HOME}")
        names = [field.name for field in fields(kind)]
        if self._count() != len(names):
            raise ValueError(f"{name} has {len(names)} fields")
        value = object.__new__(kind)
        for field in names:
            object.__setattr__(value, field, self.take())
        return value

    def _array(self, *, single: bool) -> Any:
        import numpy as np

        dtype, shape, content = np.dtype(str(self.take())), self.take(), self.take()
        if dtype.kind not in _ARRAY_KINDS:
            raise ValueError(f"an array of {dtype}")
        array = np.frombuffer(content, dtype).reshape(shape)
        return array[()] if single else array.copy()

    def _count(self) -> int:
        count: int = _COUNT.unpack(self._next(8))[0]
        if count > len(self.content):
            raise ValueError(f"{count} values in {len(self.content)} bytes")
        return count

    def _next(self, length: int) -> memoryview:
        self.at += length
        if self.at > len(self.content):
            raise ValueError("it is cut off")
        return self.content[self.at - length : self.at]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    # By its name: what travels refers to the classes of that module, not to those of __main__.
    from stylecli.data.workers import serve as _serve

    _serve()
