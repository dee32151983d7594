"""The one sink: results go to stdout, everything else to stderr, bars only to a terminal.

Long work shows itself as a bar on a terminal, as a line now and then in a log.
"""

import contextlib
import itertools
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from stylecli.errors import printable, printable_json
from stylecli.files import to_json
from stylecli.lazy import show_while_loading
from stylecli.progress import Progress, format_seconds, silent

if TYPE_CHECKING:
    from stylecli.images import Pictures

SecondsLeft = Callable[[float], float | None]  # from what is done

_WINDOW_SECONDS = 60.0  # that the rate is of: work gets slower and quicker as it goes
_SAMPLE_SECONDS = 1.0
_LEAST_BAR, _MOST_BAR = 6, 40  # columns
_SPARE = 3  # columns: the terminal writes ^C there, and a full line would break
_LONGEST_TITLE = 24
_live: list[Any] = []  # consoles that draw a bar now
_PATIENCE_SECONDS = 0.3  # before a spinner turns


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
        _live.append(console)
        try:
            yield pace.report
        except BaseException:
            live.transient = True
            raise
        finally:
            _live.remove(console)
            live.transient |= not pace.complete  # there was nothing to do, or it was left


_RED, _YELLOW, _CYAN, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"
_INDENT = "  "  # of what continues a line
_LEAST_COLUMN = 12  # columns that a cell with several words is narrowed to
_GLUE = "\xa0"
# A command that people copy stays on one line where it fits on one: its name, then options with
# their values, and words that look like files or numbers.
_COMMAND = re.compile(
    r"stylecli [a-z][a-z-]*(?: (?:-[\w-]+(?:[= ][^\s,;:()]+)?|[^\s,;:()]*[/.*_A-Z0-9][^\s,;:()]*))*"
)
_PATH = re.compile(r"[^\s,;()'\x1b]*[/.][^\s,;:()'\x1b]*")


def show_picture(picture: "Pictures") -> None:
    """Print a uint8 picture [H, W, 3] to stderr as wide as the terminal, up to 78 columns.

    A character is two pixels, the upper half in one colour and the lower in another.
    """
    from rich.color import Color
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    from stylecli.images import resize

    width = min(78, shutil.get_terminal_size().columns - 2, picture.shape[1])
    height = round(width * picture.shape[0] / picture.shape[1] / 2) * 2
    pixels = resize(picture, height, width)
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for over, under in zip(upper.tolist(), lower.tolist(), strict=True):
            colours = Color.from_rgb(*over), Color.from_rgb(*under)
            text.append("▀", Style(color=colours[0], bgcolor=colours[1]))
        text.append("\n")
    text.rstrip()
    Console(file=sys.stderr, highlight=False).print(text)


def print_error(text: str) -> None:
    """Print the one line that a command ends with."""
    _say("stylecli: ", text, _RED, sys.stderr)


def _say(mark: str, text: str, colour: str, stream: TextIO) -> None:
    """Print a message: on a terminal wrapped at words, its mark in colour, its paths too."""
    if not stream.isatty():
        print(f"{mark}{text}", file=stream, flush=True)
        return
    lines = [
        piece
        for line in f"{mark}{text}".split("\n")
        for piece in wrap_words(line, shutil.get_terminal_size().columns)
    ]
    if _takes_colour(stream):
        first = lines[0].removeprefix(mark)
        lines = [_with_paths(line) for line in (first, *lines[1:])]
        lines[0] = f"{colour}{mark}{_PLAIN if mark else ''}{lines[0]}"
    print("\n".join(lines), file=stream, flush=True)


def wrap_words(line: str, width: int) -> list[str]:
    """Return a line as several of at most ``width`` columns, broken between words only.

    Commands to copy are kept together where they fit, paths and all other words always.
    """
    if len(line) <= width:
        return [line]
    whole = _COMMAND.sub(
        lambda found: found[0].replace(" ", _GLUE if len(found[0]) < width - 2 else " "), line
    )
    start = line[: len(line) - len(line.lstrip())]
    pieces = textwrap.wrap(
        whole, width, initial_indent="", subsequent_indent=start + _INDENT,
        break_long_words=False, break_on_hyphens=False, drop_whitespace=True,
    )  # fmt: skip
    return [piece.replace(_GLUE, " ") for piece in pieces] or [line]


def _wrapped_result(line: str) -> list[str]:
    """Return a line of a result as a terminal shows it; one with a long command stays to copy."""
    width = shutil.get_terminal_size().columns
    command = _COMMAND.search(line)
    if not sys.stdout.isatty() or (command and len(command[0]) > width - len(_INDENT)):
        return [line]
    return wrap_words(line, width) if "\x1b" not in line else [line]


def _takes_colour(stream: TextIO) -> bool:
    """Tell whether colour is wanted and understood: https://no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    plain_windows = sys.platform == "win32" and "WT_SESSION" not in os.environ
    return stream.isatty() and not plain_windows


def _with_paths(line: str) -> str:
    """Return a line with what is there on disk in colour."""
    return _PATH.sub(
        lambda found: f"{_CYAN}{found[0]}{_PLAIN}" if _is_there(found[0]) else found[0], line
    )


def _is_there(word: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return len(word) > 1 and os.path.exists(word)
    return False


def _json_text(document: Mapping[str, Any]) -> str:
    """Return JSON that the encoding of stdout can hold."""
    text = printable_json(to_json(document, indent=2, default=str).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # replacing letters there would break the document
        return to_json(document, indent=2, default=str, ascii=True).decode()
    return text


def lay_out_table(rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return rows as lines of aligned columns, of at most ``width`` where words allow it.

    Where they do not, the last column stands below the others.
    """
    widths = _column_widths(rows, width)
    if width is None or len(widths) < 2 or _total(widths) <= width:
        return [line for row in rows for line in _row_lines(row, widths)]
    widths = _column_widths([row[:-1] for row in rows], width)
    return [
        line
        for row in rows
        for line in (
            *_row_lines(row[:-1], widths),
            *wrap_words(f"{_INDENT}{_INDENT}{row[-1]}", width),
        )
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _column_widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the columns' widths; cells of several words are narrowed to fit into ``width``."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for place in sorted(range(len(widths)), key=lambda place: -widths[place]):
        over = 0 if width is None else _total(widths) - width
        if over <= 0:
            break
        longest = max(len(word) for row in rows for word in [*row[place].split(), ""])
        narrow = max(longest, _LEAST_COLUMN, widths[place] - over)
        widths[place] = min(widths[place], narrow)
    return widths


def _row_lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [
        textwrap.wrap(cell, size, break_long_words=False, break_on_hyphens=False)
        if len(cell) > size
        else [cell]
        for cell, size in zip(row, widths, strict=True)
    ]
    return [
        "  ".join(piece.ljust(size) for piece, size in zip(line, widths, strict=True)).rstrip()
        for line in itertools.zip_longest(*cells, fillvalue="")
    ]


class Output:
    """What a command says. Make one per command from its ``--json`` and ``--quiet``.

    Whatever the text holds, a terminal gets letters only: see ``errors.printable``.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        seen = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        show_while_loading(loading if seen else None)

    def result(self, document: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Print the command's result: ``document`` under --json, else the lines, to stdout."""
        if self.json:
            print(_json_text(document))
        else:
            colour = _takes_colour(sys.stdout)
            for line in lines:
                text = printable(line)
                text = _with_paths(text) if colour and _is_there(text) else text
                print("\n".join(_wrapped_result(text)))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        """Lay rows out in aligned columns; return the lines, to be handed to ``result``.

        On a terminal the cells of several words are wrapped where a row is too long for it.
        """
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        return lay_out_table([header, *rows], width)

    def line(self, row: Mapping[str, Any]) -> None:
        """Print a line of JSON to stdout at once, for programs that follow along."""
        text = printable_json(to_json(row, default=str, ascii=True).decode())
        if _live and sys.stdout.isatty():  # above the bar, which is drawn again below
            _live[-1].print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)
        else:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Tell something useful on stderr; silenced by --quiet."""
        if not self.quiet:
            _say("", printable(text), "", sys.stderr)

    def warn(self, text: str) -> None:
        """Warn on stderr, always."""
        _say("warning: ", printable(text), _YELLOW, sys.stderr)

    def picture(self, picture: "Pictures") -> None:
        """Show a uint8 picture [H, W, 3] on a terminal that has colours, in half blocks."""
        if not self.quiet and _takes_colour(sys.stderr):
            show_picture(picture)

    @contextlib.contextmanager
    def progress(
        self, title: str, unit: str = "", seconds_left: SecondsLeft | None = None
    ) -> Iterator[Progress]:
        """Yield a progress callback: a live bar on a terminal, a line now and then elsewhere.

        ``seconds_left`` estimates the time left where the rate so far does not tell it.
        """
        if self.quiet:
            yield silent
        elif sys.stderr.isatty():
            with live_bar(title, unit, seconds_left) as report:
                yield report
        else:
            yield PlainProgress(title, unit, seconds_left)
