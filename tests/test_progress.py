"""Durations and bytes as people read them."""

import pytest

from stylecli.progress import describe_seconds, format_bytes, format_seconds


@pytest.mark.parametrize(
    ("seconds", "short", "words"),
    [
        (-3, "0s", "0 seconds"), (0.4, "0s", "0 seconds"), (1.2, "1s", "1 second"),
        (59.6, "1m00s", "60 seconds"), (89, "1m29s", "89 seconds"), (185, "3m05s", "3 minutes"),
        (7200, "2h00m", "2 hours"), (7800, "2h10m", "2.2 hours"), (86_400, "1d00h", "24 hours"),
        (4 * 86_400 + 7200, "4d02h", "4.1 days"), (30 * 86_400, "30d00h", "30 days"),
    ],
)  # fmt: skip
def test_a_duration_is_read_at_a_glance(seconds: float, short: str, words: str) -> None:
    assert (format_seconds(seconds), describe_seconds(seconds)) == (short, words)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (512, "512 B"), (3400, "3.4 kB"), (999_700, "1 MB"), (12_345_678, "12.3 MB"),
        (1.5e12, "1.5 TB"), (1e18, "1,000,000 TB"),
    ],
)  # fmt: skip
def test_bytes_are_written_the_short_way(count: float, text: str) -> None:
    assert format_bytes(count) == text
