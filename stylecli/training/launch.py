"""Start the further ranks of a run on this machine; this process is rank 0.

On CPUs several one-thread processes beat one process with as many threads, because small
convolutions hardly speed up from threads.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stylecli.distributed import Ranks, join, leave
from stylecli.errors import StyleCLIError


@contextlib.contextmanager
def rank_processes(run: Path, count: int, *, calibrate: bool = False) -> Iterator[Ranks]:
    """Yield this process as rank 0 of ``count``; the others are started and ended with it."""
    import torch

    if count == 1:
        yield Ranks()
        return
    threads_before = torch.get_num_threads()
    threads = max(1, (os.cpu_count() or 1) // count)
    with tempfile.TemporaryDirectory(prefix="stylecli-ranks-") as folder:
        meet = (Path(folder) / "meet").as_uri()
        command = [sys.executable, "-m", "stylecli.training.worker", str(run)]
        command += ["--count", str(count), "--meet", meet, "--threads", str(threads)]
        command += ["--calibrate"] if calibrate else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        workers = [
            subprocess.Popen([*command, "--rank", str(rank)], env=environment)
            for rank in range(1, count)
        ]
        torch.set_num_threads(threads)
        try:
            ranks = join(0, count, meet)
            try:
                yield ranks
            except RuntimeError as error:
                _explain(workers, error)
                raise
            finally:
                leave(ranks)
        finally:
            torch.set_num_threads(threads_before)
            for worker in workers:
                _end(worker)


def _explain(workers: "list[subprocess.Popen[bytes]]", error: RuntimeError) -> None:
    """Raise a clear error when a reduction failed because a worker had ended."""
    time.sleep(1.0)  # the broken connection is noticed before the process is gone
    for rank, worker in enumerate(workers, start=1):
        if worker.poll():
            raise StyleCLIError(
                f"training process {rank} ended with exit code {worker.returncode}: "
                "its own message stands above; the same command goes on from the last save"
            ) from error


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """Give a worker a moment to finish by itself, then end it."""
    try:
        worker.wait(timeout=10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
