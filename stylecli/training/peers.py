"""Hear of a rank's end at once, with its number and cause, whatever the main thread waits for.

Every rank keeps a connection to rank 0 and says on it every two seconds that it lives and how many
exchanges it has entered. A rank whose connection breaks has ended; one that says nothing is stopped
or its machine is gone; one that lives but does not come to an exchange is stuck. Rank 0 passes on
what it hears. Nobody waits for a time limit of gloo or NCCL, which would have to be longer than the
longest evaluation.
"""

import contextlib
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from stylecli.errors import ExitCode, StyleCLIError, printable
from stylecli.files import parse_json, row_line

BEAT_SECONDS = 2.0
SILENT_SECONDS = 40.0  # a rank not heard for so long is lost
STUCK_SECONDS = 600.0  # all others wait for a rank that lives for so long
# Time the main thread has to end by itself once a rank is lost. gloo fails at once where a
# process ends; NCCL, and both where one is only stopped, would wait on.
GRACE_SECONDS = 10.0
_ASLEEP_SECONDS = 5.0  # between two rounds of the watch: this process itself was stopped
_AGAIN = "run the same command to continue from the last save"


@dataclass(frozen=True)
class Loss:
    """The rank that ended the run, and why."""

    rank: int
    text: str
    exit_code: int = int(ExitCode.FAILED)
    told: bool = False  # it said itself why it failed

    def error(self) -> StyleCLIError:
        """Return what to raise."""
        main = ", the main one," if self.rank == 0 else ""
        error = StyleCLIError(f"process {self.rank}{main} {self.text}")
        error.exit_code = ExitCode(self.exit_code)
        return error


@dataclass
class _Peer:
    """What is known of another rank."""

    connection: socket.socket
    heard: float
    entered: int = 0  # exchanges begun
    inside: bool = False  # the last of them is not over
    alone: bool = False
    gone: bool = False  # it said goodbye
    pending: bytes = b""


class Peers:
    """The watch of one rank: rank 0 over all others, the others over rank 0."""

    def __init__(
        self,
        rank: int,
        connections: dict[int, socket.socket],
        *,
        exit_code: Callable[[int], int | None] | None = None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """``exit_code`` tells how a process ended where this one knows it; ``on_loss`` ends all."""
        self.rank, self.loss = rank, None  # type: int, Loss | None
        self._exit_code, self._on_loss = exit_code, on_loss
        now = time.monotonic()
        self._peers = {other: _Peer(link, now) for other, link in connections.items()}
        self._entered, self._inside, self._alone = 0, False, False
        self._moved = now  # when the slowest rank last came to an exchange or from one
        self._standing: tuple[int, bool] = (0, False)
        self._lost, self._closing = threading.Event(), threading.Event()
        self._ended = threading.Event()  # a loss, or the end of the main rank
        self._sending = threading.Lock()
        self._selector = selectors.DefaultSelector()
        for other, link in connections.items():
            link.setblocking(True)
            link.settimeout(1.0)
            self._selector.register(link, selectors.EVENT_READ, other)
        self._thread = threading.Thread(target=self._watch, name="stylecli-peers", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Note that this rank exchanges something; raise StyleCLIError if a rank is lost."""
        self._entered += 1
        self._inside = True
        try:
            yield
        except RuntimeError as error:
            self.explain(error)
            raise
        finally:
            self._inside = False

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let the others wait without limit while this rank does something by itself."""
        self._alone = True
        self._beat()
        try:
            yield
        finally:
            self._alone = False

    def explain(self, error: BaseException) -> None:
        """Raise StyleCLIError naming the lost rank if an exchange failed because one is lost."""
        if self._lost.wait(timeout=5.0):  # the broken exchange is noticed before its cause
            assert self.loss is not None
            self._closing.set()  # the main thread is on its way out
            raise self.loss.error() from error

    def tell_failure(self, text: str, exit_code: int) -> None:
        """Tell the others why this rank ends, unless it is for the loss of another."""
        if self.loss is None:
            self._send_line(failure_line(text, exit_code))

    def wait_for_main(self, seconds: float) -> None:
        """Wait until the main rank says goodbye or that it failed, which ``loss`` then tells."""
        self._ended.wait(timeout=seconds)

    def close(self) -> None:
        """Say goodbye and end the watch."""
        self._send({"bye": True})
        self._closing.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)
        for peer in self._peers.values():
            peer.connection.close()
        self._selector.close()

    # -- the thread -------------------------------------------------------------------------

    def _watch(self) -> None:
        last_beat = last_round = time.monotonic()
        while not self._closing.is_set() and self.loss is None:
            for key, _ in self._selector.select(timeout=0.25):
                self._read(key.data)
            now = time.monotonic()
            if now - last_round > _ASLEEP_SECONDS:
                for peer in self._peers.values():
                    peer.heard = now
                self._moved = now
            last_round = now
            if now - last_beat >= BEAT_SECONDS:
                self._beat()
                last_beat = now
            self._judge(now)
        if self.loss is not None:
            self._on_loss()
            if not self._closing.wait(timeout=GRACE_SECONDS):
                self._end_process()

    def _read(self, other: int) -> None:
        peer = self._peers[other]
        try:
            received = peer.connection.recv(65536)
        except TimeoutError:
            return
        except OSError:
            received = b""
        if not received:
            self._selector.unregister(peer.connection)
            if not peer.gone:
                self._lose(Loss(other, self._how_it_ended(other)))
            return
        peer.heard = time.monotonic()
        *lines, peer.pending = (peer.pending + received).split(b"\n")
        for line in lines:
            self._take(
                other, peer, parse_json(line, f"what process {other} sent", error=StyleCLIError)
            )

    def _take(self, other: int, peer: _Peer, message: dict[str, Any]) -> None:
        if "entered" in message:
            peer.entered, peer.inside = message["entered"], message["inside"]
            peer.alone = message["alone"]
        elif "failed" in message:
            text = f"failed: {message['failed']}"
            self._lose(Loss(other, text, message["exit_code"], told=True))
        elif "lost" in message:
            self._lose(Loss(message["lost"], message["text"], message["exit_code"]))
        elif "bye" in message:
            peer.gone = True
            if other == 0:
                self._ended.set()

    def _judge(self, now: float) -> None:
        for other, peer in self._peers.items():
            if not peer.gone and now - peer.heard > SILENT_SECONDS:
                text = f"was not heard of for {SILENT_SECONDS:.0f} s: stopped, or its machine gone"
                self._lose(Loss(other, f"{text}; {_AGAIN}"))
        if self.rank:
            return
        standing = {0: (self._entered, self._inside)}
        standing |= {other: (peer.entered, peer.inside) for other, peer in self._peers.items()}
        last = min(standing, key=standing.__getitem__)
        busy = self._alone or any(peer.alone or peer.gone for peer in self._peers.values())
        if busy or standing[last] != self._standing:
            self._moved, self._standing = now, standing[last]
        elif now - self._moved > STUCK_SECONDS and self._waits(standing, last):
            minutes = f"{STUCK_SECONDS / 60:.0f} minutes"
            text = f"is stuck: the others have waited {minutes} for it"
            if standing[last][1]:
                text = f"and all others wait for each other since {minutes}: is the network there?"
            self._lose(Loss(last, f"{text}; {_AGAIN}"))

    def _waits(self, standing: dict[int, tuple[int, bool]], last: int) -> bool:
        """Whether others wait for the last rank, or all for the same exchange."""
        return standing[last] < max(standing.values()) or standing[last][1]

    def _how_it_ended(self, other: int) -> str:
        code = None
        deadline = time.monotonic() + 2.0  # the connection breaks before the process is gone
        while self._exit_code and code is None and time.monotonic() < deadline:
            time.sleep(0.05)
            code = self._exit_code(other)
        if code is None:
            return f"ended without a word, killed or out of memory; {_AGAIN}"
        cause = " (killed, or out of memory)" if code == -9 else ""
        return f"ended with exit code {code}{cause}; {_AGAIN}"

    def _lose(self, loss: Loss) -> None:
        if self.loss is not None or self._closing.is_set():
            return
        self.loss = loss
        if self.rank == 0:
            self._send({"lost": loss.rank, "text": loss.text, "exit_code": loss.exit_code})
        self._lost.set()
        self._ended.set()

    def _beat(self) -> None:
        self._send({"entered": self._entered, "inside": self._inside, "alone": self._alone})

    def _send(self, message: dict[str, Any]) -> None:
        self._send_line(_line(message))

    def _send_line(self, data: bytes) -> None:
        with self._sending:
            for peer in self._peers.values():
                with contextlib.suppress(OSError):  # reading finds out that it is gone
                    peer.connection.sendall(data)

    def _end_process(self) -> NoReturn:
        """End at once: the main thread hangs in an exchange that nothing can end."""
        assert self.loss is not None
        if speaks_for(self.rank, self.loss):
            print(f"stylecli: {printable(self.loss.error())}", file=sys.stderr, flush=True)
        os._exit(self.loss.exit_code)


def speaks_for(rank: int, loss: Loss) -> bool:
    """Whether this rank is the one to say that the run ended: the main one, or the next."""
    return rank == 0 or (rank == 1 and loss.rank == 0 and not loss.told)


def failure_line(text: str, exit_code: int) -> bytes:
    """Return what tells another rank that this one ends, and why."""
    return _line({"failed": text, "exit_code": exit_code})


def _line(message: dict[str, Any]) -> bytes:
    return row_line(message)
