"""A terminal for tests: runs a command in one and reads its screen back."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte


class Terminal:
    """A command in a terminal of some columns, and what its screen shows."""

    def __init__(
        self, words: Sequence[str], *, columns: int = 80, rows: int = 60,
        folder: Path | None = None, settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        import fcntl
        import struct
        import termios

        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        left_out = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"}
        environment = {name: text for name, text in os.environ.items() if name not in left_out}
        self.process = subprocess.Popen(
            words, stdin=side, stdout=side, stderr=side, cwd=folder, start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(settings or {})},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)

    def type(self, text: str) -> None:
        """Press keys: Ctrl-C is ``\\x03``."""
        os.write(self._main, text.encode())

    def lines(self) -> list[str]:
        """Return the screen's lines down to the last that is not empty."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def read(self, until: Callable[[list[str]], bool] | None = None, seconds: float = 60) -> bool:
        """Read until the screen is as wanted; return False when the command ended before."""
        ends = time.monotonic() + seconds
        while until is None or not until(self.lines()):
            if not select.select([self._main], [], [], max(0.0, ends - time.monotonic()))[0]:
                self.process.kill()
                raise TimeoutError("\n".join(self.lines()))
            try:
                data = os.read(self._main, 65536)
            except OSError:  # the other side is closed
                data = b""
            if not data:
                self.process.wait()
                os.close(self._main)
                return False
            self._stream.feed(data)
        return True


def screen_of(words: Sequence[str], *, columns: int = 80, **where: object) -> list[str]:
    """Return what the screen shows once a command has ended."""
    terminal = Terminal(words, columns=columns, **where)  # type: ignore[arg-type]
    terminal.read()
    return terminal.lines()


def python(code: str) -> list[str]:
    """Return the words that run Python code."""
    return [sys.executable, "-c", code]


def stylecli(*words: str) -> list[str]:
    """Return the words that run a command of ours."""
    return [sys.executable, "-m", "stylecli", *words]
