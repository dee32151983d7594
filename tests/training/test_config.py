"""Settings of a session are checked as they are made."""

import pytest

from stylecli.errors import UsageError
from stylecli.training.config import Session


@pytest.mark.parametrize("fields", [{"batch_gpu": 0}, {"keep": -1}, {"watch": "cat"}])
def test_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Session(**fields)  # type: ignore[arg-type]
