"""Plain words in the source and on the pages, and numbers that agree with their nouns."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylecli.errors import plural

from .source import FILES, ROOT, nodes_of
from .update_help import BLOCK, DOCS

# What to avoid anywhere, comments included, and what to write instead.
WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b": "again",
    r"\bnought\b": "zero",
    r"\bwhereof\b": "of which",
    r"\bamong else\b": "among other things",
    r"\b(goes|going|went|gone) on\b": "continues, in progress",
    r"\b(begins|began|begun|beginning) with\b": "starts with, starts from",
    r"\belse than\b": "other than",
    r"\bby heart\b": "memorises",
}
# What to avoid in what programs print.
PRINTED = {
    r"\bwants\b": "needs",
    r"\b(tells?|told)\b": "reports, shows",
    r"\b(mine|ours)\b": "stylecli's own",
    r"\bgo on\b": "continue",
    r"\bat all\b": "leave it out",
    r"^[^:]*\b(is|are) unknown\b": "unknown ...",
    r"\b(is|are) not (readable|understood) at\b": "cannot read ...",
    r"\b(is|are) already there\b|\bthere already\b": "already exists",
}
# What to avoid on pages besides.
WRITTEN = {
    r"\bafresh\b": "from the start",
    r"\bunless (told|said)\b": "by default",
    r"\bbegan\b": "started",
    r"\bhence\b": "so",
    r"\bsays (its|their) \w+ tag\b": "according to ...",
}
# The few that say what they should.
FITTING = (
    "goes on the square",  # a place
    "goes on record",
    "black not at all",  # how dark
)
# A count of 1 must not meet a plural, unless it never is 1.
NOUN = re.compile(
    r"^ (pictures|files|faces|photographs|folders|classes|entries|records|labels|ticks|snapshots|"
    r"networks|datasets|runs)\b"
)
NEVER_ONE = {
    "_short(1000 * per_second)", "classes[0] if classes else 'no'", "kind", "theirs",
    "mode", "which", "length or 0", "kimg * 1000", "record['kimg'] * 1000",
    "len(block.labels)", "len(runs)", "len(here)", "part.strip()", "task.reals",
    "first",
}  # fmt: skip


def find(words: dict[str, str], text: str) -> Iterator[str]:
    """Yield each line with a word to avoid, and what to write instead."""
    any_of_them = re.compile("|".join(words), re.IGNORECASE)
    for line in text.splitlines():
        if not any_of_them.search(line):
            continue
        for word, instead in words.items():
            if re.search(word, line, re.IGNORECASE) and not any(fit in line for fit in FITTING):
                yield f"{line.strip()}  ->  {instead}"


def printed(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every text in a file of source that has words and is no docstring."""
    for node in nodes_of(path):
        if isinstance(node, ast.JoinedStr):
            pieces = (
                part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
            yield node.lineno, "".join(map(str, pieces))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            around = node.around  # type: ignore[attr-defined]
            if not isinstance(around, ast.Expr | ast.JoinedStr) and " " in node.value:
                yield node.lineno, node.value


def test_source_uses_plain_words() -> None:
    found = {str(path.relative_to(ROOT)): [*find(WORDS, path.read_text("utf-8"))] for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_what_is_printed_uses_plain_words() -> None:
    assert [
        f"{path.relative_to(ROOT)}:{line}: {found}"
        for path in FILES
        for line, text in printed(path)
        for found in find(PRINTED, text)
    ] == []


def prose_of(page: Path) -> str:
    """Return a page without its help, its code and what commands print."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$|`[^`\n]*`|\"[^\"\n]*\"", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.stem
)
def test_pages_use_plain_words(page: Path) -> None:
    assert [*find({**WORDS, **PRINTED, **WRITTEN}, prose_of(page))] == []


def test_numbers_agree_with_their_nouns() -> None:
    """``plural`` writes a number with its noun: "1 pictures were skipped" is found here."""
    wrong = []
    for path in FILES:
        for node in nodes_of(path):
            if not isinstance(node, ast.JoinedStr):
                continue
            for part, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(part, ast.FormattedValue) and isinstance(after, ast.Constant):
                    value = ast.unparse(part.value)
                    if NOUN.match(str(after.value)) and value not in NEVER_ONE:
                        wrong.append(
                            f"{path.relative_to(ROOT)}:{node.lineno}: {{{value}}}{after.value}"
                        )
    assert [line for line in wrong if not re.search(r"\{[A-Z_\d]+\}", line)] == []


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("picture",), "0 pictures"),
        (1, ("picture",), "1 picture"),
        (2000, ("class", "classes"), "2,000 classes"),
        (1, ("file is", "files are"), "1 file is"),
    ],
)
def test_a_number_and_its_noun(count: int, words: tuple[str, ...], text: str) -> None:
    assert plural(count, *words) == text
