"""Settings of a session travel to worker processes and are checked."""

import pytest

from stylecli.errors import UsageError
from stylecli.training.session import Session, session_from_json


def test_a_session_comes_back_from_a_command_line() -> None:
    session = Session(batch_gpu=8, exact=True, watch="stop")
    assert session_from_json(session.to_json()) == session


@pytest.mark.parametrize("fields", [{"batch_gpu": 0}, {"keep": -1}, {"watch": "cat"}])
def test_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        Session(**fields)  # type: ignore[arg-type]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown"):
        session_from_json('{"speed": 11}')
