"""Train runs in turn as one of the ranks that a test starts, and what befalls rank 0 or 1 when."""

import argparse
import os
import signal
from pathlib import Path

from stylecli.distributed.ranks import Ranks, sharing_ranks
from stylecli.errors import Interrupted, explain
from stylecli.training import checkpoints, optimizer, watchdog
from stylecli.training.config import Session
from stylecli.training.loop import TrainingLoop
from stylecli.training.watchdog import Finding

PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("runs", type=Path, nargs="+")
PARSER.add_argument("--stop-at", type=int, help="images after which rank 0 has Ctrl-C, in each run")
PARSER.add_argument("--kill-at", type=int, help="images after which rank 1 is killed")
PARSER.add_argument("--wrong-at", type=int, help="images at which the watchdog finds a collapse")
PARSER.add_argument("--watch", default="warn")
PARSER.add_argument("--keep", type=int)
PARSER.add_argument("--accelerate", default="", help="with overlap, in many small slices")


def train(run: Path, ranks: Ranks, asked: argparse.Namespace) -> None:
    """Train one run, with what befalls it."""
    interrupted = False

    def report(done: float, total: float, note: str = "") -> None:
        nonlocal interrupted
        if not interrupted and done * 1000 >= (asked.stop_at or total * 2000):
            interrupted = True  # a second Ctrl-C would interrupt at once
            signal.raise_signal(signal.SIGINT)

    session = Session(watch=asked.watch, keep=asked.keep, accelerate=asked.accelerate)
    loop = TrainingLoop(run, ranks, session)
    if asked.kill_at and not ranks.is_main:
        step = loop._train_batch

        def die(stage: object) -> None:
            if loop.counters.nimg >= asked.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            step(stage)  # type: ignore[arg-type]

        loop._train_batch = die  # type: ignore[method-assign]
    loop.train(progress=report)


def main() -> None:
    """Train; an error is one line on stderr and an exit code, as in a command."""
    asked = PARSER.parse_args()
    checkpoints.SHEET_SIDE = 2
    optimizer.SLICE = 500
    left = [1]

    def find(rows: list[dict[str, int]], config: object) -> Finding | None:
        if rows[-1]["nimg"] != asked.wrong_at or not left:
            return None
        left.clear()
        return Finding("collapse", "the pictures collapse", "try a lower --lr")

    if asked.wrong_at:
        watchdog.find_collapse = find  # type: ignore[assignment]
    try:
        with sharing_ranks(None, "cpu", ()) as ranks:
            stopped = None
            for run in asked.runs:
                try:
                    train(run, ranks, asked)
                except Interrupted as error:
                    stopped = error  # raised when the runs behind it were stopped as well
            if stopped:
                raise stopped
    except Exception as error:
        text, code = explain(error)
        raise SystemExit(f"{text} ({int(code)})" if int(code) == 1 else int(code)) from None


if __name__ == "__main__":
    main()
