"""``python -m stylecli.training.worker``: one further rank of a run on this machine.

Started by ``stylecli.training.launch``; reads all settings from the run folder.
"""

import argparse
import signal
import sys
from pathlib import Path

import torch

from stylecli.distributed import join, leave
from stylecli.errors import Interrupted
from stylecli.host_memory import keep_large_blocks


def main() -> int:
    """Train as one rank until the run ends or its main rank says stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--meet", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--calibrate", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main rank decides and tells
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()
    ranks = join(arguments.rank, arguments.count, arguments.meet)
    try:
        if arguments.calibrate:
            from stylecli.training.calibration import measure_stages

            measure_stages(arguments.run, ranks)
        else:
            from stylecli.training.loop import TrainingLoop

            TrainingLoop(arguments.run, ranks).train()
    except Interrupted:
        return 0
    finally:
        leave(ranks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
