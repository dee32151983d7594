"""Fill the help blocks of the documentation from the commands: ``python tests/update_help.py``.

A page ``docs/<command>.md`` shows the command's help, and that of its sub-commands, between the
lines ``<!-- help -->`` and ``<!-- /help -->``.
"""

import re
import sys
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS = 100
BLOCK = re.compile(r"(?<=<!-- help -->\n).*?(?=<!-- /help -->)", re.DOTALL)


def commands() -> dict[str, Any]:
    """Return the commands by name, in the order of the help."""
    from stylecli.cli.app import app

    group: Any = get_command(app)
    return dict(group.commands)


def help_text(*words: str) -> str:
    """Return what ``stylecli <words> --help`` prints on a terminal 100 columns wide."""
    from stylecli.cli.app import app

    result = CliRunner().invoke(
        app,
        [*words, "--help"],
        prog_name="stylecli",
        terminal_width=COLUMNS - 2,  # on a terminal two columns are left free
    )
    if result.exit_code:
        raise RuntimeError(f"stylecli {' '.join(words)} --help ended with {result.output}")
    return result.stdout


def help_block(name: str) -> str:
    """Return the text between the marks of a command's page."""
    calls = [(name,), *((name, child) for child in getattr(commands()[name], "commands", {}))]
    return "\n".join(f"```text\n{help_text(*words)}```\n" for words in calls)


def update_pages() -> list[Path]:
    """Write the blocks again; return the pages that changed."""
    changed = []
    for name in commands():
        page = DOCS / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        block = help_block(name)
        parts = BLOCK.split(text)
        if len(parts) != 2:
            raise SystemExit(f"{page} has {len(parts) - 1} help blocks, expected 1")
        updated = block.join(parts)
        if updated != text:
            page.write_text(updated, encoding="utf-8")
            changed.append(page)
    return changed


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))
    for changed_page in update_pages():
        print(changed_page)
