"""Seed lists: what people type, and back."""

import pytest

from stylecli.errors import UsageError
from stylecli.seeds import format_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", [0]),
        ("1,4-7", [1, 4, 5, 6, 7]),
        (" 3 , 1 ", [3, 1]),
        ("5,5", [5, 5]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds_are_read_in_the_order_they_are_written(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-3", "1-", "1.5", "²"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"give numbers and ranges such as 1,4-7"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7-4", "runs backwards: give 4-7"),
        ("4294967296", "seeds go up to 4294967295"),
        ("0-999999999", "more than 1,000,000"),
        ("0-999999,5", "more than 1,000,000"),
    ],
)
def test_impossible_seeds_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_seeds(text)


def test_runs_of_seeds_are_written_as_ranges() -> None:
    assert format_seeds([1, 4, 5, 6, 7]) == "1,4-7"


@pytest.mark.parametrize("seeds", [[], [3, 2, 1], [5, 5, 6], [0, 1, 9, 10]])
def test_what_is_written_reads_back_the_same(seeds: list[int]) -> None:
    text = format_seeds(seeds)

    assert (parse_seeds(text) if text else []) == seeds
