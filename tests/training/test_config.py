"""Settings of a session are checked as they are made."""

import pytest

from stylecli.errors import UsageError
from stylecli.training.config import Session, TrainingConfig


@pytest.mark.parametrize(
    "fields", [{"batch_gpu": 0}, {"keep": -1}, {"watch": "cat"}, {"accelerate": "graphs,overlap"}]
)
def test_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Session(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["64,", "48", "2", "auto", "64 128", ""])
def test_sides_of_planar_gradients_are_powers_of_two(value: str) -> None:
    with pytest.raises(UsageError, match="planar_gradients"):
        TrainingConfig(planar_gradients=value)


def test_sides_of_planar_gradients_are_those_that_a_network_has() -> None:
    found = [TrainingConfig(planar_gradients=text).planar_sides(16) for text in
             ("all", "none", "8,64", "16")]  # fmt: skip
    assert found == [[4, 8, 16], [], [8], [16]]
