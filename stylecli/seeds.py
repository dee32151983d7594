"""Seed lists as people type them: ``1,4-7`` is [1, 4, 5, 6, 7]."""

import operator
from collections.abc import Iterable

from stylecli.errors import UsageError

MAX_SEED = 2**32 - 1  # numpy.random.RandomState accepts no more
MAX_COUNT = 1_000_000


def check_seed(seed: int) -> int:
    """Return the seed as an int; raise UsageError when RandomState cannot take it."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed} is out of range: seeds go from 0 to {MAX_SEED}")
    return int(seed)


def parse_seeds(text: str) -> list[int]:
    """Turn ``"0,3,5-9"`` into a list; ranges are inclusive, order and repeats are kept.

    Raises UsageError for anything else, for seeds above 2**32 - 1 and for over a million seeds.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"cannot read seeds {text!r}: give numbers and ranges such as 1,4-7")
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise UsageError(f"seed range {part.strip()!r} runs backwards: give {high}-{low}")
        if high > MAX_SEED:
            raise UsageError(f"seed {high} is too large: seeds go up to {MAX_SEED}")
        if len(seeds) + high - low + 1 > MAX_COUNT:
            raise UsageError(f"seeds {text!r} are more than {MAX_COUNT:,}: give a smaller range")
        seeds.extend(range(low, high + 1))
    return seeds


def format_seeds(seeds: Iterable[int]) -> str:
    """Write seeds the short way, the inverse of parse_seeds: [1, 4, 5, 6, 7] is ``1,4-7``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def list_seeds(seeds: int | str | Iterable[int]) -> list[int]:
    """Return seeds however they are given: one, several, or text such as ``"0,3,5-9"``.

    Raises UsageError for what is no seed.
    """
    if isinstance(seeds, str):
        return parse_seeds(seeds)
    try:
        return [check_seed(operator.index(seeds))]  # type: ignore[arg-type]
    except TypeError:
        return [check_seed(seed) for seed in seeds]  # type: ignore[union-attr]
