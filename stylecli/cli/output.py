"""The one sink: results go to stdout, everything else to stderr, bars only to a terminal."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stylecli.cli.bars import PlainProgress, SecondsLeft, live_bar, loading
from stylecli.errors import printable, printable_json
from stylecli.files import to_json
from stylecli.lazy import show_while_loading
from stylecli.progress import Progress, silent


def print_error(text: str) -> None:
    """Print the one line that a command ends with."""
    print(f"stylecli: {text}", file=sys.stderr, flush=True)


def _json_text(document: Mapping[str, Any]) -> str:
    """Return JSON that the encoding of stdout can hold."""
    text = printable_json(to_json(document, indent=2, default=str).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # replacing letters there would break the document
        return to_json(document, indent=2, default=str, ascii=True).decode()
    return text


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
            for line in lines:
                print(printable(line))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        """Lay rows out in aligned columns; return the lines, to be handed to ``result``."""
        columns = list(zip(header, *rows, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [header, *rows]
        ]

    def note(self, text: str) -> None:
        """Tell something useful on stderr; silenced by --quiet."""
        if not self.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Warn on stderr, always."""
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)

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
