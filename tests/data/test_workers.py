"""Work spread over processes comes back in order, as plain values; no process outlives it."""

import math
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stylecli.data import workers
from stylecli.data.preparation import Prepared, Skipped
from stylecli.data.workers import from_bytes, ordered_map, to_bytes
from stylecli.errors import DataError, UsageError

PREPARED = Prepared((3, 2, 2), b"abc", None, b"d" * 32, 2, False, "")
VALUES = [
    None, True, False, 0, -(1 << 63), 1 << 70, -1.5, math.inf, "", "Bärbel \udcff", b"\0", [], (),
    {1, 2}, {"a": [1, (2, {"b": None})]}, Path("a/b"), Skipped("x", "y"), PREPARED,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _importable_here(monkeypatch):
    """Let workers import this file: nothing of this process's own path reaches them."""
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), known]))


def square(number):
    """Return number squared."""
    return number * number


def slowest_first(number):
    """Take the longer the earlier."""
    time.sleep(0.02 * (5 - number))
    return number


def process_number(number):
    """Return who worked on it."""
    return os.getpid()


def abort_on_seven(number):
    """Crash as a decoder written in C would."""
    if number == 7:
        os.abort()
    return number


def fail_on_seven(number):
    """Raise an ordinary error."""
    if number == 7:
        raise DataError("seven is not for us")
    return number


def raise_what_cannot_travel(number):
    """Raise an error that holds something unpicklable."""
    raise ValueError(lambda: number)


def forge(number):
    """Answer as a decoder would that a picture has taken over: with a pickle that runs code."""
    mark = os.environ["STYLECLI_TEST_MARK"]
    content = pickle.dumps((True, [_Loud(mark)]))
    os.write(3, struct.pack("<Q", len(content)) + content)
    time.sleep(60)


class _Loud:
    """Runs something when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


def signal_handling(number):
    """Return what Ctrl-C does in a worker."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def heavy_modules(number):
    """Prepare nothing, but load what preparing loads."""
    from stylecli.data import preparation  # noqa: F401

    return sorted({"torch", "numpy", "lmdb", "typer"} & set(sys.modules))


@pytest.mark.parametrize(("count", "chunk"), [(1, 1), (2, 4)])
def test_results_come_in_order(count, chunk):
    assert list(ordered_map(square, range(30), workers=count, chunk=chunk)) == [
        number * number for number in range(30)
    ]
    assert list(ordered_map(slowest_first, range(6), workers=count, chunk=chunk)) == list(range(6))


def test_one_worker_is_this_process():
    assert set(ordered_map(process_number, range(3), workers=1)) == {os.getpid()}
    assert set(ordered_map(process_number, [0])) == {os.getpid()}


def test_more_workers_are_other_processes():
    others = set(ordered_map(process_number, range(20), workers=2))
    assert len(others) in (1, 2) and os.getpid() not in others


def test_items_are_taken_only_as_needed():
    taken = []
    results = ordered_map(square, (taken.append(n) or n for n in range(1000)), workers=2)
    next(results)
    assert len(taken) <= 7
    results.close()


def test_ending_early_ends_the_processes():
    results = ordered_map(process_number, range(1000), workers=2)
    pid = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_dead_worker_names_the_item():
    with pytest.raises(DataError, match=r"^7 ended the process that worked on it \(signal 6"):
        list(ordered_map(abort_on_seven, range(30), workers=2))


def test_a_dead_worker_can_be_replaced():
    results = ordered_map(
        abort_on_seven, range(12), workers=2, chunk=4, on_death=lambda item, cause: (item, cause)
    )
    assert list(results) == [*range(7), (7, "signal 6, Aborted"), *range(8, 12)]


def test_errors_arrive_as_they_were():
    with pytest.raises(DataError, match="seven is not for us"):
        list(ordered_map(fail_on_seven, range(30), workers=2))
    with pytest.raises(DataError, match="ValueError"):
        list(ordered_map(raise_what_cannot_travel, range(3), workers=2))


def test_nothing_that_a_worker_sends_is_run(tmp_path, monkeypatch):
    mark = tmp_path / "RAN"
    monkeypatch.setenv("STYLECLI_TEST_MARK", str(mark))
    with pytest.raises(DataError, match="a worker's answer is damaged"):
        list(ordered_map(forge, range(3), workers=2))
    assert not mark.exists()


def test_what_cannot_travel_is_said():
    with pytest.raises(DataError, match="cannot be sent to a worker"):
        list(ordered_map(lambda n: n, range(3), workers=2))


def test_an_interpreter_that_does_not_start_is_said(monkeypatch):
    monkeypatch.setattr(workers, "_MODULE", "stylecli.no_such_module")
    with pytest.raises(DataError, match=r"no worker process can be started: .*no_such_module"):
        list(ordered_map(square, range(3), workers=2))


def test_workers_leave_ctrl_c_to_the_parent():
    assert set(ordered_map(signal_handling, range(3), workers=2)) == {True}


def test_workers_stay_light():
    assert list(ordered_map(heavy_modules, range(2), workers=2)) == [[], []]


def test_workers_end_with_a_killed_parent(tmp_path):
    script = (
        "import os, signal, time\n"
        "from stylecli.data.workers import ordered_map\n"
        "print(next(ordered_map(os.getpgid, [0] * 50, workers=2)), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The pipe reaches its end only when all who hold it are gone: the workers' stderr is a file.
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        start_new_session=True,
    )
    group = int(done.stdout)
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a worker outlived its parent")


def test_small_jobs_stay_in_one_process():
    assert workers.count_workers(workers.SMALL_JOB - 1) == 1
    assert 1 <= workers.count_workers(10**6) <= workers.MAX_WORKERS


def test_refuses_no_workers():
    with pytest.raises(UsageError, match="0 workers"):
        list(ordered_map(square, [1, 2], workers=0))


class Loud:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch RAN",)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_went(value):
    found = from_bytes(to_bytes(value))
    assert found == value and type(found) is type(value)


def test_arrays_and_their_numbers_come_back():
    import numpy as np  # not above: workers import this module, and are to stay light

    for array in (
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        np.zeros((0, 3)),
        np.ones(2, ">f4"),
    ):
        found = from_bytes(to_bytes(array))
        assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()
    number = from_bytes(to_bytes(np.float64(2.5)))
    assert number == 2.5 and isinstance(number, np.float64)


def test_what_is_no_plain_value_is_not_sent():
    import numpy as np

    for value in (object(), print, Loud(), np.array([object()]), lambda: 0):
        with pytest.raises(DataError, match="not a plain value"):
            to_bytes([value])


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="damaged"):
        from_bytes(pickle.dumps(Loud()))
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    "name", ["os:_wrap_close", "stylecli.data.workers:_Worker", "stylecli.files:X"]
)
def test_no_class_but_our_records_is_made(name):
    content = to_bytes(Skipped("x", "y"))
    known = b"stylecli.data.preparation:Skipped"
    forged = content.replace(len(known).to_bytes(8, "little") + known,
                             len(name).to_bytes(8, "little") + name.encode())  # fmt: skip
    assert forged != content
    with pytest.raises(DataError, match="damaged"):
        from_bytes(forged)


def test_spoilt_bytes_are_an_error_of_ours_or_another_value():
    import numpy as np

    content = to_bytes([*VALUES, np.arange(4.0), np.int64(3)])
    random.seed(0)
    refused = 0
    for _ in range(3000):
        spoilt = bytearray(content)
        for _ in range(random.randint(1, 4)):
            spoilt[random.randrange(len(spoilt))] = random.randrange(256)
        if random.random() < 0.3:
            del spoilt[random.randrange(len(spoilt)) :]
        try:
            from_bytes(bytes(spoilt))
        except DataError:
            refused += 1
    assert refused > 1000
    with pytest.raises(DataError, match="damaged"):
        from_bytes(b"l\x01\0\0\0\0\0\0\0" * 5000)
