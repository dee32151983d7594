"""Where the ranks of a run find each other before they watch over each other."""

import contextlib
import os
import socket
import time
from collections.abc import Callable

from stylecli.errors import ExitCode, StyleCLIError
from stylecli.files import parse_row, row_line
from stylecli.training.peers import failure_line


class Hub:
    """Where the other ranks report to rank 0 before the watch begins."""

    def __init__(self, host: str) -> None:
        """Listen on a free port of ``host``; empty: on all interfaces."""
        self._server = socket.create_server((host, 0), backlog=1024)
        self.port = int(self._server.getsockname()[1])
        self.token = os.urandom(16).hex()

    def gather(
        self, count: int, seconds: float, ended: Callable[[], str | None] = lambda: None
    ) -> dict[int, socket.socket]:
        """Return a connection to each of the ranks 1 to ``count - 1``.

        Raises StyleCLIError when they have not come after so many seconds, or ``ended`` says why
        one of them never will.
        """
        links: dict[int, socket.socket] = {}
        deadline = time.monotonic() + seconds
        self._server.settimeout(0.2)
        with self._server:
            while len(links) < count - 1:
                why = ended()
                if why is None and time.monotonic() > deadline:
                    missing = sorted(set(range(1, count)) - set(links))
                    why = (
                        f"of {count} training processes, {_listed(missing)} did not come within "
                        f"{seconds:.0f} s: start all of them, and look at what they say"
                    )
                if why is not None:
                    for link in links.values():
                        link.sendall(failure_line(why, int(ExitCode.FAILED)))
                    raise StyleCLIError(why)
                with contextlib.suppress(TimeoutError):
                    link, _ = self._server.accept()
                    rank = self._rank_behind(link)
                    if rank is None:
                        link.close()
                    else:
                        links[rank] = link
        return links

    def _rank_behind(self, link: socket.socket) -> int | None:
        """Return the rank that reports on a new connection; None for anything else."""
        link.settimeout(5.0)
        try:
            hello = parse_row(_first_line(link)) or {}
            return int(hello["rank"]) if hello["token"] == self.token else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def reach_hub(rank: int, host: str, port: int, token: str, seconds: float) -> socket.socket:
    """Return a connection of ``rank`` to rank 0; raise StyleCLIError when there is no way."""
    try:
        link = socket.create_connection((host, port), timeout=seconds)
        link.sendall(row_line({"rank": rank, "token": token}))
    except OSError as error:
        raise StyleCLIError(
            f"training process {rank} does not reach the main one at {host}:{port}: {error}"
        ) from None
    return link


def _first_line(link: socket.socket) -> bytes:
    """Read the one line a peer begins with, and no byte more."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        if not (letter := link.recv(1)):
            break
        line += letter
    return line


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    return f"number {shown}{', ...' if len(numbers) > 8 else ''}"
