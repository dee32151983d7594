"""The one sink: results go to stdout, everything else to stderr, bars only to a terminal."""

import contextlib
import itertools
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from stylecli.cli.bars import PlainProgress, SecondsLeft, live_bar, loading
from stylecli.errors import printable, printable_json
from stylecli.files import to_json
from stylecli.lazy import show_while_loading
from stylecli.progress import Progress, silent

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
        print(printable_json(to_json(row, default=str, ascii=True).decode()), flush=True)

    def note(self, text: str) -> None:
        """Tell something useful on stderr; silenced by --quiet."""
        if not self.quiet:
            _say("", printable(text), "", sys.stderr)

    def warn(self, text: str) -> None:
        """Warn on stderr, always."""
        _say("warning: ", printable(text), _YELLOW, sys.stderr)

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
