"""``python -m stylecli.training.worker``: one further rank of a run on this machine.

Started by ``stylecli.training.launch``; reads all settings from the run folder.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stylecli.distributed.ranks import join, leave
from stylecli.hardware import keep_large_blocks
from stylecli.training import launch
from stylecli.training.hub import reach_hub
from stylecli.training.peers import Peers
from stylecli.training.session import session_from_json

_LOOPBACK = "127.0.0.1"


def main() -> int:
    """Train as one rank until the run ends or its main rank says stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--store", type=int, required=True)
    parser.add_argument("--hub", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--cuda", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main rank decides and tells
    torch.set_num_threads(arguments.threads)
    keep_large_blocks()
    peers: list[Peers] = []

    def work() -> None:
        rank, count = arguments.rank, arguments.count
        token = os.environ[launch.TOKEN_VARIABLE]
        peers.append(Peers(rank, {0: reach_hub(rank, _LOOPBACK, arguments.hub, token, 60.0)}))
        with launch.reporting(peers[0]):
            if arguments.cuda:
                launch.choose_gpu(rank, count)
            store = TCPStore(_LOOPBACK, arguments.store, is_master=False, wait_for_workers=False)
            ranks = join(rank, count, store, cuda=arguments.cuda, watch=peers[0])
            try:
                session = session_from_json(arguments.session)
                launch.work_as_rank(arguments.run, ranks, session, calibrate=arguments.calibrate)
            finally:
                leave(ranks)

    return launch.exit_code_of(work, arguments.rank, lambda: peers[0] if peers else None)


if __name__ == "__main__":
    sys.exit(main())
