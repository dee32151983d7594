"""Interrupts wait while numpy and torch load, whichever command needs them."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stylecli.lazy import holding_back_interrupts

SLOW = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.05); print(1)"
LOADING = """
import sys
from stylecli.lazy import hold_back_interrupts_while_loading
hold_back_interrupts_while_loading()
sys.path.insert(0, {folder!r})
try:
    import torch
except KeyboardInterrupt:
    print(2)
"""


def test_an_interrupt_waits_for_what_must_not_be_cut() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), holding_back_interrupts():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done


def test_other_threads_hold_nothing_back() -> None:
    done = []

    def work() -> None:
        with holding_back_interrupts():
            done.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == [True]


def test_torch_loads_whole_before_an_interrupt_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SLOW)
    done = subprocess.run(
        [sys.executable, "-c", LOADING.format(folder=str(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == "1\n2\n", done.stderr
