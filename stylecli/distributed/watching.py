"""Watch over the ranks of a run, and say which one is lost, whatever the main thread waits for.

Once a second every rank writes its state to the store at which they met, and reads the others':
a counter that shows that it lives, and how many exchanges it has entered. A rank whose state stands
still has ended or is stopped; one that lives but does not come to an exchange is stuck. The first
to find out, or the one that fails, writes it to the key ``lost``. Nobody waits for a time limit of
gloo or NCCL, which would have to be longer than the longest evaluation.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from stylecli.errors import ExitCode, StyleCLIError, explain, printable
from stylecli.files import parse_json, to_json
from stylecli.progress import describe_seconds

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

BEAT_SECONDS = 1.0
SILENT_SECONDS = 40.0  # a rank whose state stands still for so long is lost
BROKEN_SECONDS = 8.0  # the same, once an exchange broke: then one has ended
STUCK_SECONDS = 600.0  # all others wait for a rank that lives for so long
# Time the main thread has to end by itself once a rank is lost, and once it knows. gloo fails at
# once where a process ends; NCCL, and both where one is only stopped, would wait on.
GRACE_SECONDS, LEAVING_SECONDS = 5.0, 30.0
_ASLEEP_SECONDS = 5.0  # between two rounds: this process itself was stopped
AGAIN = "run the same command to continue"
LAUNCHER = -1  # in place of a rank: what started the ranks, where that keeps the store


def _seconds_to_know() -> float:
    """Return after how long it is surely known which rank broke an exchange."""
    return BROKEN_SECONDS + 4 * BEAT_SECONDS


@dataclass(frozen=True)
class Loss:
    """The rank that ended the run, and why."""

    rank: int
    text: str
    exit_code: int = int(ExitCode.FAILED)
    reported: bool = False  # by that rank itself

    def error(self) -> StyleCLIError:
        """Return what to raise."""
        who = "the launching process" if self.rank == LAUNCHER else f"process {self.rank}"
        error = StyleCLIError(f"{who}{', the main one,' * (self.rank == 0)} {self.text}")
        error.exit_code = ExitCode(self.exit_code)
        return error


@dataclass
class _State:
    """What a rank says of itself, and when this one saw it change."""

    beat: int = 0
    entered: int = 0  # exchanges begun
    inside: bool = False  # the last of them is not over
    alone: bool = False  # the others may wait without limit
    gone: bool = False  # it has left in good order
    device: str = ""  # the GPU that it took, or cpu
    changed: float = field(default=0.0, compare=False)


class Watch:
    """The watch of one rank over all others."""

    def __init__(
        self, rank: int, count: int, connect: Callable[[], "Store"], keeper: int = LAUNCHER
    ) -> None:
        """``connect`` returns a connection to the store, which the rank ``keeper`` keeps."""
        self.rank, self.count, self._keeper = rank, count, keeper
        self.loss: Loss | None = None
        self._own, self._states = _State(), {}  # type: _State, dict[int, _State]
        self._store = connect()  # its own: on a shared one it would wait for the main thread
        self._answered = self._moved = self._looked = time.monotonic()
        self._standing = (0, False)
        self._broken = self._known = False
        self._lost, self._closing = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=[look, seconds], daemon=True)
            for look, seconds in ((self._talk, BEAT_SECONDS), (self._judge, 0.25))
        ]
        for thread in self._threads:
            thread.start()

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Note that this rank exchanges something; raise StyleCLIError if a rank is lost."""
        self._own.entered += 1
        self._own.inside = True
        try:
            yield
        except RuntimeError as error:
            self.explain(error)
            raise
        finally:
            self._own.inside = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let the others wait without limit while this rank does something by itself."""
        self._own.alone = True
        try:
            yield
        finally:
            self._own.alone = False

    def explain(self, error: BaseException) -> None:
        """Raise StyleCLIError naming the lost rank if an exchange failed because one is lost."""
        self._broken = True
        with contextlib.suppress(KeyboardInterrupt):  # launchers end those that are left
            self._lost.wait(_seconds_to_know())
        self.raise_loss(error)

    def raise_loss(self, cause: BaseException | None = None) -> None:
        """Raise StyleCLIError if a rank is lost."""
        if self.loss is not None:
            self._known = True
            raise self.loss.error() from cause

    def tell_device(self, name: str) -> None:
        """Tell the others that this rank has come, and what it computes on."""
        self._own.device = name

    def devices(self) -> dict[int, str]:
        """Return the devices of the other ranks that have come this far."""
        return {rank: one.device for rank, one in dict(self._states).items() if one.device}

    def tell_interrupt(self, seconds: float) -> None:
        """Wait until all others have shown that they live, or a rank is lost.

        Launchers also interrupt the ranks that a lost one leaves behind.
        """
        self._broken = True
        known = {rank: one.beat + 1 for rank, one in dict(self._states).items()}  # on its way
        self._wait(seconds, lambda rank, one: one.gone or one.beat > known.get(rank, 0))

    def wait_for_main(self, seconds: float) -> None:
        """Wait until the main rank has left, or a rank is lost."""
        self._wait(seconds, lambda rank, one: one.gone or rank != 0)

    def report_failure(self, text: str, exit_code: int) -> None:
        """Tell the others why this rank ends, unless it is for the loss of another."""
        if self.loss is None:
            with contextlib.suppress(RuntimeError):
                self._publish(Loss(self.rank, f"failed: {text}", exit_code, reported=True))

    def may_speak(self) -> bool:
        """Whether this process is the first of all to say how the run ended."""
        if self.loss is not None and self.loss.reported:
            return False
        if self.loss is None or self.loss.rank != self._keeper:
            with contextlib.suppress(RuntimeError):  # the store is gone
                mine = str(self.rank)
                return bool(self._store.compare_set("said", "", mine).decode() == mine)
        return self.rank == self._keeper + 1

    def close(self) -> None:
        """Leave; the rank that keeps the store waits until the others have."""
        self._own.gone = True
        with contextlib.suppress(RuntimeError):
            self._beat()
        if self.rank == self._keeper:
            lost = self.loss.rank if self.loss else self.rank
            self._wait(
                _seconds_to_know(), lambda rank, one: one.gone or rank == lost, until_lost=False
            )
        self._closing.set()
        for thread in self._threads:  # or Python ends under one that is in the store
            thread.join(timeout=3.0)

    # -- the threads ------------------------------------------------------------------------

    def _wait(
        self, seconds: float, enough: Callable[[int, _State], bool], *, until_lost: bool = True
    ) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (until_lost and self.loss):
            if all(enough(rank, one) for rank, one in dict(self._states).items()):
                break
            time.sleep(0.1)

    def _repeat(self, look: Callable[[], None], seconds: float) -> None:
        """Run a thread, so that its own failure, too, ends the run with a sentence."""
        try:
            while self.loss is None and not self._closing.is_set():
                look()
                self._closing.wait(seconds)
        except RuntimeError:  # torch's errors of the network are of this kind
            text = f"ended without a message, killed or out of memory; {AGAIN}"
            self._lose(Loss(self._keeper, text))
        except Exception as error:
            self._lose(Loss(self.rank, f"cannot watch the others: {explain(error)[0]}"))
        if self.loss is None or look == self._talk or self._closing.wait(GRACE_SECONDS):
            return
        if not (self._known and self._closing.wait(LEAVING_SECONDS)):
            # The main thread hangs in an exchange that nothing can end.
            if self.may_speak():
                print(f"stylecli: {printable(self.loss.error())}", file=sys.stderr, flush=True)
            os._exit(self.loss.exit_code)

    def _beat(self) -> None:
        self._own.beat += 1
        self._store.set(f"rank{self.rank}", to_json(asdict(self._own)).decode())

    def _talk(self) -> None:
        self._beat()
        for rank in set(range(self.count)) - {self.rank}:
            if rank in self._states or self._store.check([f"rank{rank}"]):
                values = parse_json(self._store.get(f"rank{rank}"), f"the state of process {rank}")
                state = _State(**{**values, "changed": time.monotonic()})
                if state != self._states.get(rank):
                    self._states[rank] = state
        if self._store.check(["lost"]):
            self._lose(Loss(**parse_json(self._store.get("lost"), "the lost process")))
        self._answered = time.monotonic()

    def _judge(self) -> None:
        now, last = time.monotonic(), self._looked
        self._looked = now
        if now - last > _ASLEEP_SECONDS:
            self._answered = self._moved = now
            for state in dict(self._states).values():
                state.changed = now
        if now - self._answered > SILENT_SECONDS:
            text = f"did not answer for {SILENT_SECONDS:.0f} s: it stopped, or its machine is gone"
            self._lose(Loss(self._keeper, f"{text}; {AGAIN}"))
        elif found := self._silent() or self._stuck(now):
            self._publish(found)

    def _silent(self) -> Loss | None:
        limit = BROKEN_SECONDS if self._broken else SILENT_SECONDS
        for rank, state in dict(self._states).items():
            if not state.gone and self._answered - state.changed > limit:
                text = "ended without a message, killed or out of memory"
                if not self._broken:
                    text = f"has been silent for {limit:.0f} s: it stopped, or its machine is gone"
                return Loss(rank, f"{text}; {AGAIN}")
        return None

    def _stuck(self, now: float) -> Loss | None:
        states = {self.rank: self._own, **self._states}
        standing = {rank: (state.entered, state.inside) for rank, state in states.items()}
        last = min(standing, key=standing.__getitem__)
        busy = len(states) < self.count or any(one.alone or one.gone for one in states.values())
        if busy or standing[last] != self._standing:
            self._moved, self._standing = now, standing[last]
        elif now - self._moved > STUCK_SECONDS and (
            standing[last][1] or standing[last] < max(standing.values())
        ):
            waited = describe_seconds(STUCK_SECONDS)
            text = f"is stuck: the others have waited {waited} for it"
            if standing[last][1]:
                text = f"and all others have waited for each other for {waited}: check the network"
            return Loss(last, f"{text}; {AGAIN}")
        return None

    def _publish(self, loss: Loss) -> None:
        """Tell all ranks of a loss; the first that is found counts."""
        text = self._store.compare_set("lost", "", to_json(asdict(loss)).decode())
        self._lose(Loss(**parse_json(text, "the lost process")))

    def _lose(self, loss: Loss) -> None:
        own = loss.rank == self.rank and loss.reported  # on its way out, with its own sentence
        if self.loss is None and not own and not self._closing.is_set():
            self.loss = loss
            self._lost.set()
