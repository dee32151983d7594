"""Sheets that people look at: grids, style mixing, truncation sweeps."""

from collections.abc import Sequence

from stylecli.errors import UsageError, unknown_name

# By name, the number in the paper.
FIGURE_NUMBERS: dict[str, int | None] = {
    "uncurated": 2, "mixing": 3, "noise-detail": 4, "noise-layers": 5, "truncation": 8,
    "bedrooms": 10, "cars": 11, "cats": 12, "layers": None,
}  # fmt: skip


def name_figures(words: Sequence[str]) -> list[str]:
    """Return the names of the figures that words name, by number or name, in the paper's order.

    No words name all. Raises UsageError for a word that names none.
    """
    chosen = set()
    for word in words:
        found = [name for name, number in FIGURE_NUMBERS.items()
                 if word.lower() in (name, str(number))]  # fmt: skip
        if not found:
            known = [word for name, number in FIGURE_NUMBERS.items() for word in (number, name)]
            raise UsageError(unknown_name("figure", word, [str(one) for one in known if one]))
        chosen.update(found)
    return [name for name in FIGURE_NUMBERS if not words or name in chosen]
