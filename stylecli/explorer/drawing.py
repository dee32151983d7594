"""The server's side of the processes that draw: one for pictures, one for each long job.

Of each place on a page one picture is drawn and one waits; a newer request takes the place of the
one that waits. A process that crashes answers its request with a sentence, and the next request
starts another.
"""

import asyncio
import contextlib
import itertools
import secrets
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from stylecli.errors import ExitCode, StyleCLIError, UsageError
from stylecli.explorer.worker import Message, read_message, write_message

Start = Callable[[], "subprocess.Popen[bytes]"]  # starts a process that answers requests
Gone = Callable[[], Awaitable[bool]]  # whether whoever asked has left

_MOST_WAITING = 256
_MOST_JOBS = 50  # that are remembered
_MOST_NOTES = 20
_PATIENCE_SECONDS = 2.0  # until a process that was asked to end is killed


class SupersededError(Exception):
    """A newer request for the same place came before this one was drawn."""


class TooBusyError(StyleCLIError):
    """More requests wait than can be useful."""


class AnswerError(StyleCLIError):
    """The process answered with a sentence, and the exit code that belongs to it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = ExitCode(code)


class Process:
    """A process that answers requests, started at the first one and after each crash."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._lock = threading.Lock()

    def ask(
        self, request: Mapping[str, Any], listen: Callable[[Mapping[str, Any], bytes], None]
    ) -> Message:
        """Send a request and wait for its answer; ``listen`` hears what comes before it.

        Raises AnswerError for what the process could not do, and when it crashed.
        """
        child = self._running()
        sink, source = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
        with contextlib.suppress(OSError, ValueError):  # it crashed, or ``end`` closed its streams
            write_message(sink, request)
            while (message := read_message(source)) is not None:
                facts, content = message
                if facts.pop("event") != "answer":
                    listen(facts, content)
                elif "error" in facts:
                    raise AnswerError(str(facts["error"]), int(facts["code"]))
                else:
                    return facts, content
        code = self._wait(child)
        if self._ended:
            raise AnswerError("the server is ending", ExitCode.NO_DEVICE)
        raise AnswerError(
            f"the process that draws ended unexpectedly ({_describe_end(code)}): the next picture "
            f"starts another",
            ExitCode.FAILED,
        )

    def _running(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._ended:
                raise AnswerError("the server is ending", ExitCode.NO_DEVICE)
            if self._child is None or self._child.poll() is not None:
                self._child = self._start()
            return self._child

    def _wait(self, child: "subprocess.Popen[bytes]") -> int:
        """Return the exit code of a process that ends, or is made to; nothing of it stays open."""
        try:
            code = child.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        return code

    def end(self) -> None:
        """Kill the process, whatever it does; no other is started."""
        with self._lock:
            self._ended = True
            child = self._child
        if child is not None:
            child.kill()  # nothing happens where it has ended
            self._wait(child)


def _describe_end(code: int) -> str:
    if code == -9:
        return "killed, or out of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


@dataclass
class _Waiting:
    request: Mapping[str, Any]
    answer: "asyncio.Future[Message]"
    gone: Gone | None


class Drawer:
    """Draws one picture at a time, the newest state of every place on a page."""

    def __init__(self, start: Start) -> None:
        self._process = Process(start)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stylecli-drawer")
        self._waiting: dict[str, _Waiting] = {}
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self.drawn = 0  # requests that reached the process

    async def ask(
        self, request: Mapping[str, Any], place: str = "", gone: Gone | None = None
    ) -> Message:
        """Return the answer to a request, in turn.

        Raises SupersededError where a newer one for the same place came, or whoever asked has
        ``gone``; TooBusyError where too many wait; AnswerError for what went wrong.
        """
        mine = _Waiting(request, asyncio.get_running_loop().create_future(), gone)
        key = place or f"\0{next(self._numbers)}"
        older = self._waiting.get(key)
        if older is None and len(self._waiting) >= _MOST_WAITING:
            raise TooBusyError(f"{_MOST_WAITING} pictures are waiting already: ask again later")
        self._waiting[key] = mine  # in the older one's turn
        if older is not None and not older.answer.done():
            older.answer.set_exception(SupersededError())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await mine.answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            mine = self._waiting.pop(next(iter(self._waiting)))
            if mine.answer.done() or (mine.gone is not None and await mine.gone()):
                if not mine.answer.done():
                    mine.answer.set_exception(SupersededError())
                continue
            self.drawn += 1
            try:
                message = await loop.run_in_executor(
                    self._thread, self._process.ask, mine.request, _hear_nothing
                )
            except BaseException as error:
                if not mine.answer.done():
                    mine.answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                if not mine.answer.done():
                    mine.answer.set_result(message)

    def end(self) -> None:
        """Kill the process; whoever waits is answered."""
        self._process.end()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _hear_nothing(facts: Mapping[str, Any], content: bytes) -> None:
    return None


@dataclass
class Job:
    """Long work in a process of its own, and how far it is."""

    kind: str  # walk or photograph
    title: str
    request: Mapping[str, Any]
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "waiting"
    done: float = 0.0
    total: float = 0.0
    note: str = ""
    error: str = ""
    notes: list[str] = field(default_factory=list)
    pictures: int = 0
    picture: bytes = b""
    result: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def hear(self, facts: Mapping[str, Any], content: bytes) -> None:
        """Take down what the process tells before it ends."""
        if content:
            self.picture = content
            self.pictures += 1
        if "done" in facts:
            self.done, self.total = float(facts["done"]), float(facts["total"])
            self.note = str(facts["note"])
        if "warning" in facts and len(self.notes) < _MOST_NOTES:
            self.notes.append(str(facts["warning"]))

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Jobs:
    """Long work, one piece after the other."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._jobs: dict[str, Job] = {}
        self._processes: dict[str, Process] = {}
        self._turn = threading.Lock()

    def __iter__(self) -> Any:
        return iter(list(self._jobs.values()))

    def find(self, identity: str) -> Job | None:
        """Return a job by its identity."""
        return self._jobs.get(identity)

    def begin(self, job: Job) -> Job:
        """Do a job when those before it have ended."""
        if sum(not other.ended for other in self) >= _MOST_JOBS:
            raise TooBusyError(f"{_MOST_JOBS} jobs are waiting already: cancel some")
        for old in [other.id for other in self if other.ended][: -_MOST_JOBS or None]:
            del self._jobs[old]
        self._jobs[job.id] = job
        self._processes[job.id] = Process(self._start)
        threading.Thread(target=self._work, args=(job,), daemon=True).start()
        return job

    def _work(self, job: Job) -> None:
        process = self._processes[job.id]
        with self._turn:
            try:
                if job.state != "waiting":
                    return
                job.state = "running"
                facts, _ = process.ask(job.request, job.hear)
                job.files = [str(path) for path in facts.pop("files", [])]
                job.result = facts
                job.state = "done"
            except Exception as error:
                if job.state != "cancelled":
                    job.state, job.error = "failed", str(error)
            finally:
                process.end()
                self._processes.pop(job.id, None)

    def cancel(self, job: Job) -> None:
        """End a job; raise UsageError where it has ended."""
        if job.ended:
            raise UsageError(f"job {job.id} has ended: there is nothing to cancel")
        job.state = "cancelled"
        if (process := self._processes.get(job.id)) is not None:
            process.end()

    def end(self) -> None:
        """End all jobs."""
        for job in self:
            if not job.ended:
                self.cancel(job)
