"""The watch over ranks: who is lost, why, and that nobody is where all is well."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from stylecli.errors import StyleCLIError
from stylecli.training import peers as watching
from stylecli.training.hub import Hub, reach_hub
from stylecli.training.peers import Peers


@contextlib.contextmanager
def pair(**options: Any) -> Iterator[tuple[Peers, Peers]]:
    """Yield rank 0 and rank 1, connected."""
    ends = socket.socketpair()
    main, other = Peers(0, {1: ends[0]}, **options), Peers(1, {0: ends[1]})
    try:
        yield main, other
    finally:
        main.close()
        other.close()


def wait_for(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_rank_that_says_goodbye_is_not_lost() -> None:
    with pair() as (main, other):
        other.close()
        wait_for(lambda: main._peers[1].gone)
        time.sleep(0.5)
        assert main.loss is None


def test_a_failure_arrives_with_its_sentence_and_exit_code() -> None:
    with pair() as (main, other):
        other.tell_failure("the dataset is not there", 3)
        with pytest.raises(StyleCLIError, match="process 1 failed: the dataset is not") as caught:
            main.explain(RuntimeError("connection closed"))
        assert caught.value.exit_code == 3


def test_a_broken_connection_is_a_loss_with_the_exit_code() -> None:
    with pair(exit_code=lambda rank: -9) as (main, other):
        other._peers[0].connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(StyleCLIError, match="process 1 ended with exit code -9"):
            main.explain(RuntimeError())


def test_a_silent_rank_is_lost(monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(Peers, "_beat", lambda self: None)
    ended = threading.Event()
    with pair(on_loss=ended.set) as (main, _):
        with pytest.raises(StyleCLIError, match="process 1 was not heard of"):
            main.explain(RuntimeError())
        assert ended.wait(5.0)


def test_a_rank_that_lives_but_does_not_come_is_stuck(monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(watching, "BEAT_SECONDS", 0.1)
    with pair() as (main, _), main.exchange():
        with pytest.raises(StyleCLIError, match="process 1 is stuck"):
            main.explain(RuntimeError())


def test_nobody_is_stuck_while_the_main_rank_is_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(watching, "BEAT_SECONDS", 0.1)
    with pair() as (main, other), other.exchange(), main.alone():
        time.sleep(1.5)
        assert main.loss is None


def test_the_others_learn_which_rank_is_lost() -> None:
    first, second = socket.socketpair(), socket.socketpair()
    main = Peers(0, {1: first[0], 2: second[0]})
    others = [Peers(1, {0: first[1]}), Peers(2, {0: second[1]})]
    others[1].tell_failure("no memory", 1)
    with pytest.raises(StyleCLIError, match="process 2 failed: no memory"):
        others[0].explain(RuntimeError())
    for each in (main, *others):
        each._closing.set()
        each.close()


def test_ranks_find_the_hub_and_strangers_do_not_count() -> None:
    hub = Hub("127.0.0.1")
    links: list[socket.socket] = []

    def arrive() -> None:
        links.append(reach_hub(1, "127.0.0.1", hub.port, "guessed", 10.0))
        links.append(reach_hub(2, "127.0.0.1", hub.port, hub.token, 10.0))
        links.append(reach_hub(1, "127.0.0.1", hub.port, hub.token, 10.0))

    thread = threading.Thread(target=arrive)
    thread.start()
    found = hub.gather(3, 20.0)
    thread.join()
    assert sorted(found) == [1, 2]
    for link in [*found.values(), *links]:
        link.close()


def test_ranks_that_do_not_come_are_named() -> None:
    with pytest.raises(StyleCLIError, match="of 3 training processes, number 1, 2 did not come"):
        Hub("127.0.0.1").gather(3, 0.3)
