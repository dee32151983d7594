"""Numbers by resolution as typed."""

import pytest

from stylecli.errors import UsageError
from stylecli.training.by_resolution import ByResolution, parse_by_resolution


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16", ByResolution(16)),
        ("8:64, 16:32", ByResolution(None, {8: 64, 16: 32})),
        ("0.001,128:0.0015", ByResolution(0.001, {128: 0.0015})),
    ],
)
def test_text_is_read(text: str, expected: ByResolution) -> None:
    assert parse_by_resolution(text, "--lr") == expected


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "12:3", "8:1,8:2", "1,2", "inf", "8:", "nan"])
def test_mistakes_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--lr .* is not understood"):
        parse_by_resolution(text, "--lr")


def test_batches_are_whole() -> None:
    with pytest.raises(UsageError, match="a whole number"):
        parse_by_resolution("8:1.5", "--batch", whole=True)
