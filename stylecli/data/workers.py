"""Spread a function over processes and get the results back in order.

Every worker is a fresh interpreter that talks through its own pipes, so it shares neither threads
nor locks with this process, runs nobody's main script again, and imports only what the function
needs (for pictures: numpy and Pillow, no torch). One thread here waits for each worker; that is how
the item is known on which a worker died.
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
from queue import SimpleQueue
from typing import IO, Any, Generic, TypeVar

from stylecli.errors import DataError, UsageError

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
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is for the parent
    "import sys; sys.path[:] = {path!r}; "
    "from stylecli.data.workers import serve; serve()"
)


def count_workers(items: int | None = None) -> int:
    """Return how many processes a job deserves: one for few items, else one per CPU, at most 8."""
    if (items is not None and items < SMALL_JOB) or not sys.executable:
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
    needed, ``chunk`` at a time, at most three chunks a worker ahead of what was yielded. Function,
    items and results must be picklable, and importable from a module. What the function raises is
    raised here. A worker that dies (killed, out of memory, a crash in a decoder) is a DataError
    naming the item; with ``on_death``, its result is ``on_death(item, cause)`` instead and the
    worker is replaced. Ending the iteration early, by Ctrl-C too, ends the workers.
    """
    if workers is None:
        workers = count_workers(len(items) if isinstance(items, Sized) else None)
    if workers < 1 or chunk < 1:
        raise UsageError(f"{workers} workers, {chunk} items at a time: give 1 or more of each")
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
        try:
            succeeded, value = pickle.loads(answer)
        except Exception as error:  # classes may do anything when they are read back
            raise DataError(f"a worker's result cannot be read: {error}") from None
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
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=[os.path.abspath(p) for p in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**_ENVIRONMENT, **os.environ},
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
                answer = (True, [function(item) for item in pickle.loads(message)])
                content = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                content = _pack_error(error)
            _write(back, content)
    os._exit(0)  # nothing to tidy up, and the pipes may be broken


def _pack_error(error: Exception) -> bytes:
    try:
        content = pickle.dumps((False, error))
        pickle.loads(content)  # some can be written and not read back
    except Exception:
        content = pickle.dumps((False, DataError(f"{type(error).__name__}: {error}")))
    return content


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
    content = pipe.read(length)
    return content if len(content) == length else None
