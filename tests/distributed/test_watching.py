"""The watch over ranks: who is lost, why, and that nobody is where all is well."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stylecli.distributed import ranks, watching
from stylecli.distributed.watching import LAUNCHER, Watch
from stylecli.errors import DeviceError, StyleCLIError
from stylecli.progress import describe_seconds


@contextlib.contextmanager
def watches(count: int = 2, keeper: int = LAUNCHER) -> Iterator[list[Watch]]:
    """Yield the watches of so many ranks, which have met."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def connect() -> TCPStore:
        return TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)

    found = [Watch(rank, count, connect, keeper) for rank in range(count)]
    try:
        wait_for(lambda: all(len(watch._states) == count - 1 for watch in found))
        yield found
    finally:
        for watch in reversed(found):
            watch.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the watch look ten times as often; nothing of these tests ends its process."""
    monkeypatch.setattr(watching, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(watching, "GRACE_SECONDS", 1e6)


def wait_for(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def falls_silent(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a rank say nothing more, as one does that is killed or stopped."""
    monkeypatch.setattr(watch, "_beat", lambda: None)


def test_a_rank_that_has_left_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENT_SECONDS", 0.3)
    with watches() as (main, other):
        other.close()
        wait_for(lambda: main._states[1].gone)
        time.sleep(1.0)
        assert main.loss is None


def test_a_failure_arrives_with_its_sentence_and_exit_code_on_all_ranks() -> None:
    with watches(3) as (main, other, third):
        third.report_failure("the dataset is not there", 3)
        for watch in (main, other):
            with pytest.raises(StyleCLIError, match="process 2 failed: the dataset is") as caught:
                watch.explain(RuntimeError("connection closed"))
            assert caught.value.exit_code == 3
        assert third.loss is None  # it ends with its own error


def test_one_process_alone_says_how_the_run_ended() -> None:
    with watches(3) as found:
        assert [watch.may_speak() for watch in found] == [True, False, False]
        assert found[0].may_speak()


def test_a_rank_that_ended_is_named_soon_after_the_exchange_that_broke(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "BROKEN_SECONDS", 0.5)
    with watches() as (main, other):
        falls_silent(other, monkeypatch)
        with (
            pytest.raises(StyleCLIError, match="process 1 ended without a message"),
            main.exchange(),
        ):
            raise RuntimeError("connection closed by peer")


def test_an_exchange_that_breaks_with_nobody_lost_keeps_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "BROKEN_SECONDS", 0.5)
    with watches() as (main, _):
        with pytest.raises(RuntimeError, match="wrong shape"), main.exchange():
            raise RuntimeError("wrong shape")


def test_a_silent_rank_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENT_SECONDS", 0.5)
    with watches() as (main, other):
        falls_silent(other, monkeypatch)
        wait_for(lambda: main.loss is not None)
        with pytest.raises(StyleCLIError, match="process 1 has been silent"):
            main.raise_loss()


@pytest.mark.parametrize("inside", [False, True], ids=["one does not come", "all hang"])
def test_ranks_that_live_but_do_not_get_on_are_stuck(
    inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is what a hang within NCCL looks like."""
    monkeypatch.setattr(watching, "STUCK_SECONDS", 0.5)
    with watches() as (main, other), main.exchange():
        with other.exchange() if inside else contextlib.nullcontext():
            wait_for(lambda: main.loss is not None)
    assert main.loss is not None
    assert ("waited for each other" if inside else "is stuck") in main.loss.text
    assert describe_seconds(watching.STUCK_SECONDS) in main.loss.text
    assert inside or main.loss.rank == 1


def test_nobody_is_stuck_while_the_main_rank_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "STUCK_SECONDS", 0.5)
    with watches() as (main, other), other.exchange(), main.alone():
        time.sleep(1.5)
        assert main.loss is None and other.loss is None


def test_an_interrupt_is_none_where_a_rank_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BROKEN_SECONDS", 0.5)
    with watches() as (main, other):
        main.tell_interrupt(10.0)
        assert main.loss is None
        falls_silent(other, monkeypatch)
        main.tell_interrupt(10.0)
        assert main.loss is not None and main.loss.rank == 1


def test_the_store_going_with_its_keeper_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise RuntimeError("connection reset by peer")

    with watches() as (main, _):
        monkeypatch.setattr(main, "_beat", gone)
        wait_for(lambda: main.loss is not None)
        assert main.loss is not None and main.loss.rank == LAUNCHER
        assert main.may_speak()


def test_a_failure_of_the_watch_itself_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    with watches() as (main, _):
        monkeypatch.setattr(watching, "parse_json", lambda *words, **options: 1 / 0)
        wait_for(lambda: main.loss is not None)
        assert main.loss is not None and "ZeroDivisionError" in main.loss.text


def test_the_keeper_of_the_store_leaves_last() -> None:
    with watches(keeper=0) as (main, other):
        started = time.monotonic()
        other._own.gone = True  # in its next beat
        main.close()
        assert main._states[1].gone and time.monotonic() - started < 5.0


def test_ranks_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "ARRIVAL_SECONDS", 0.3)
    with watches() as (main, _):
        with pytest.raises(StyleCLIError, match="of 2 processes, number 1 did not connect"):
            ranks._meet(main, "")


@pytest.mark.parametrize("device", ["GPU-1", "GPU-0"])
def test_all_that_come_have_a_gpu_of_their_own(device: str) -> None:
    with watches() as (main, other):
        other.tell_device(device)
        same = pytest.raises(DeviceError, match="processes 0 and 1 have the same GPU")
        with same if device == "GPU-0" else contextlib.nullcontext():
            ranks._meet(main, "GPU-0")
