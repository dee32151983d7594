"""How long work shows itself: a bar on a terminal, a line now and then in a log."""

import contextlib
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stylecli.errors import printable
from stylecli.progress import Progress

SecondsLeft = Callable[[float], float | None]  # from what is done

_WINDOW_SECONDS = 60.0  # that the rate is of: work gets slower and quicker as it goes
_SAMPLE_SECONDS = 1.0
_LEAST_BAR, _MOST_BAR = 6, 40  # columns
_SPARE = 3  # columns: the terminal writes ^C there, and a full line would break
_LONGEST_TITLE = 24
_live: list[str] = []  # titles of the bars that are drawn now
_PATIENCE_SECONDS = 0.3  # before a spinner turns


def format_seconds(seconds: float) -> str:
    """Write a duration the short way: ``42s``, ``3m05s``, ``2h10m``, ``4d02h``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_rate(per_second: float, unit: str) -> str:
    """Write a rate so that it says something: ``12.3 pictures/s``, or ``410 s/kimg`` when slow."""
    if unit == "kimg" and per_second >= 0.001:  # a picture per second
        return f"{_short(1000 * per_second)} pictures/s"
    if per_second >= 1 or unit == "MB":
        return f"{_short(per_second)} {unit}".rstrip() + "/s"
    return f"{_short(1 / per_second)} s/{unit.removesuffix('s') or 'step'}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _amount(done: float, total: float, unit: str) -> str:
    """Write ``107/286 pictures`` or ``12.5/24 kimg``: no more digits than say something."""
    digits = 0 if float(done).is_integer() and float(total).is_integer() else 2 - (total >= 10)
    texts = (f"{value:,.{digits}f}" for value in (done, total))
    short = (text.rstrip("0").rstrip(".") if digits else text for text in texts)
    return f"{'/'.join(short)} {unit}".rstrip()


class _Pace:
    """What was reported last, how fast it goes, and how long it takes still."""

    def __init__(self, unit: str, seconds_left: SecondsLeft | None) -> None:
        self.unit, self.estimate = unit, seconds_left
        self.done = self.total = 0.0
        self.note = ""
        self.started = time.monotonic()
        self._left: float | None = None
        self._seen: deque[tuple[float, float]] = deque()  # time, done

    def report(self, done: float, total: float, note: str = "") -> None:
        """Take down what was reported."""
        now = time.monotonic()
        if self._seen and done < self._seen[-1][1]:  # other work under the same title
            self._seen.clear()
        if not self._seen:
            self._first = done
        self.done, self.total, self.note = done, total, note
        if not self._seen or now - self._seen[-1][0] >= _SAMPLE_SECONDS:
            self._seen.append((now, done))
            while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW_SECONDS:
                self._seen.popleft()
        self._latest = now
        self._left = self.estimate(done) if self.estimate else None

    @property
    def complete(self) -> bool:
        """Whether all is done; nothing is, before the first report."""
        return bool(self._seen) and self.done >= self.total

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return self._latest - self.started

    def _per_second(self) -> float:
        if not self._seen:
            return 0.0
        then, before = self._seen[0]
        if self.complete or self._latest <= then:
            then, before = self.started, self._first
        return (self.done - before) / max(self._latest - then, 1e-9)

    def rate(self) -> str:
        """Return the rate in words; empty where none is known."""
        per_second = self._per_second()
        return format_rate(per_second, self.unit) if per_second > 0 else ""

    def left(self) -> str:
        """Return the time left, or taken, in words; empty where nothing is known."""
        if self.complete:
            return f"took {format_seconds(self.seconds)}"
        if self.estimate:
            return "" if self._left is None else f"about {format_seconds(self._left)} left"
        per_second = self._per_second()
        if per_second <= 0:
            return ""
        return f"{format_seconds((self.total - self.done) / per_second)} left"

    def amount(self) -> str:
        """Return how much is done, of how much."""
        return _amount(self.done, self.total, self.unit)


class PlainProgress:
    """Progress for logs and pipes: a line at most every ten seconds, and one at the end."""

    def __init__(
        self,
        title: str,
        unit: str,
        seconds_left: SecondsLeft | None = None,
        every_seconds: float = 10.0,
    ) -> None:
        self.title, self.every_seconds = title, every_seconds
        self.pace = _Pace(unit, seconds_left)
        self.last = self.pace.started
        self.finished = False

    def __call__(self, done: float, total: float, note: str = "") -> None:
        self.pace.report(done, total, note)
        now, complete = time.monotonic(), self.pace.complete
        if self.finished or (not complete and now - self.last < self.every_seconds):
            return
        self.last, self.finished = now, complete
        parts = [f"{self.title}: {self.pace.amount()}", self.pace.rate(), self.pace.left(), note]
        if not complete and not parts[1]:
            parts[2] = ""
        print(printable(", ".join(filter(None, parts))), file=sys.stderr, flush=True)


def lay_out_bar(
    width: int, title: str, share: float, parts: Sequence[tuple[str, int]], blocks: str = "━╌"
) -> list[str]:
    """Return a bar as lines of at most ``width`` columns: one, or two where not all fits in one.

    ``parts`` are texts in their order with their importance, 0 the most important one. What does
    not fit goes to the second line. ``blocks`` are the letters of what is done and what is not.
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(title) > _LONGEST_TITLE:
        title = set_cell_size(title, _LONGEST_TITLE - 1).rstrip() + "…"
    head = f"{title}  {int(100 * share):3d}%"
    room = width - cell_len(head) - 2 - _LEAST_BAR
    placed: set[int] = set()
    rest: list[str] = []
    for text, importance in sorted(parts, key=lambda part: part[1]):
        if text and not rest and cell_len(text) + 2 <= room:
            placed.add(importance)
            room -= cell_len(text) + 2
        elif text:
            rest.append(text)
    length = min(_MOST_BAR, _LEAST_BAR + room)
    shown = [text for text, importance in parts if importance in placed]
    bar = blocks[0] * int(length * share)
    if length >= _LEAST_BAR:
        shown.insert(0, bar + blocks[1] * (length - len(bar)))
    lines = ["  ".join([head, *shown])]
    second = ""
    for text in rest:
        longer = f"{second}, {text}" if second else f"  {text}"
        if cell_len(longer) > width:
            break
        second = longer
    return [*lines, second] if second else lines


def _bar_parts(pace: _Pace) -> list[tuple[str, int]]:
    """Return what a bar says beside its title, each with its importance."""
    note, *more = printable(pace.note).split(", ")
    left = pace.left().removeprefix("about ")
    return [
        (pace.amount(), -1 if pace.complete else 3), (pace.rate(), 1), (left, 0), (note, 2),
        *((text, place) for place, text in enumerate(more, start=4)),
    ]  # fmt: skip


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn a spinner on the terminal of stderr while a module loads that takes its seconds."""
    if _live:  # the bar has the line
        yield
        return
    ended = threading.Event()

    def turn() -> None:
        if ended.wait(_PATIENCE_SECONDS):
            return
        for sign in itertools.cycle("|/-\\"):
            sys.stderr.write(f"\r{sign} loading {name}")
            sys.stderr.flush()
            if ended.wait(0.1):
                break
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def live_bar(title: str, unit: str, seconds_left: SecondsLeft | None = None) -> Iterator[Progress]:
    """Yield a progress callback that draws a bar on the terminal of stderr.

    The finished bar stays, with the time taken; one that is interrupted is wiped away.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_dumb_terminal:  # it cannot move its cursor
        yield PlainProgress(title, unit, seconds_left)
        return
    pace = _Pace(unit, seconds_left)
    blocks = "━╌" if console.encoding.lower().startswith("utf") else "#-"

    def draw() -> Any:
        if not pace.total:
            return Text(printable(title), no_wrap=True, overflow="crop")
        width = max(20, console.width - _SPARE)
        share = min(1.0, pace.done / pace.total)
        first, *second = lay_out_bar(width, printable(title), share, _bar_parts(pace), blocks)
        text = Text(first, no_wrap=True, overflow="crop")
        text.highlight_regex(f"[{blocks[0]}]{{3,}}", "green")
        for line in [] if pace.complete else second:
            text.append(f"\n{line}", "dim")
        return text

    with Live(
        get_renderable=draw, console=console, refresh_per_second=5, redirect_stdout=False
    ) as live:
        _live.append(title)
        try:
            yield pace.report
        except BaseException:
            live.transient = True
            raise
        finally:
            _live.remove(title)
            live.transient |= not pace.total  # there was nothing to do
