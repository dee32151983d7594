"""Start the ranks of a run on this machine, or join those that torchrun or Slurm started.

On CPUs several one-thread processes beat one process with as many threads, because small
convolutions hardly speed up from threads. On GPUs each process has one.
"""

import contextlib
import datetime
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.distributed import processes
from stylecli.distributed.places import World
from stylecli.distributed.ranks import Ranks, join, leave
from stylecli.errors import DeviceError, ExitCode, Interrupted, StyleCLIError, explain
from stylecli.training import run_folder
from stylecli.training.hub import Hub, reach_hub
from stylecli.training.peers import Peers, speaks_for
from stylecli.training.session import Session, session_from_json

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

ARRIVAL_SECONDS = 300.0  # for all ranks to start; loading torch over a network takes its time
TOKEN_VARIABLE = "STYLECLI_RANK_TOKEN"
_LOOPBACK = "127.0.0.1"


class _Launched:
    """The main rank of a world started from outside, until it says what is to be trained."""

    current: "_Launched | None" = None

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._patience = contextlib.ExitStack()
        assert ranks.watch is not None
        self._patience.enter_context(ranks.watch.alone())  # the others wait for what to do

    def tell(self, task: dict[str, Any] | None) -> None:
        """Tell the others to train, or with None that there is nothing to do."""
        self._patience.close()
        self.ranks.from_main(task)
        _Launched.current = None


@contextlib.contextmanager
def rank_processes(
    run: Path, count: int, *, session: Session | None = None, calibrate: bool = False
) -> Iterator[Ranks]:
    """Yield this process as rank 0 of ``count``; the others are started and ended with it.

    Where torchrun or Slurm started all ranks, those follow, and none are started. Raises
    StyleCLIError naming the rank when one is lost.
    """
    session = session or Session()
    if (launched := _Launched.current) is not None:
        launched.tell({"run": str(run.resolve()), "session": session.to_json(),
                       "calibrate": calibrate})  # fmt: skip
        yield launched.ranks
        return
    if count == 1:
        yield Ranks()
        return
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    cuda = run_folder.load_settings(run).device == "cuda"
    if cuda:
        choose_gpu(0, count)
    threads_before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // count)
    store = TCPStore(_LOOPBACK, 0, is_master=True, wait_for_workers=False)
    hub = Hub(_LOOPBACK)
    arguments = [str(run), "--count", str(count), "--store", str(store.port),
                 "--hub", str(hub.port), "--threads", str(threads),
                 "--session", session.to_json()]  # fmt: skip
    arguments += (["--calibrate"] if calibrate else []) + (["--cuda"] if cuda else [])
    environment = {"OMP_NUM_THREADS": str(threads), TOKEN_VARIABLE: hub.token}
    workers = [
        processes.start_python(
            "stylecli.training.worker", *arguments, "--rank", str(rank), environment=environment
        )
        for rank in range(1, count)
    ]
    torch.set_num_threads(threads)
    try:
        links = hub.gather(count, ARRIVAL_SECONDS, lambda: _early_end(workers))
        peers = _watch_over(workers, links)
        with reporting(peers), _group(0, count, store, peers, cuda=cuda) as ranks:
            yield ranks
    finally:
        torch.set_num_threads(threads_before)
        for worker in workers:
            _end(worker)


@contextlib.contextmanager
def launched_ranks(
    world: World,
    device: Callable[[], "torch.device"],
    met: Callable[[Peers], None] = lambda peers: None,
    workers: "Sequence[subprocess.Popen[bytes]]" = (),
) -> Iterator[Ranks]:
    """Yield this process's rank in a world that a launcher started; ``device`` resolves its device.

    ``met`` is handed the watch as soon as there is one. ``workers`` are the processes of the ranks
    1 and up, where this one started them: the end of one is then noticed before it has arrived.
    The main rank's ``rank_processes`` then starts no processes; when none came, the others end with
    this context. Raises StyleCLIError when not all arrive.
    """
    import torch

    cpus = os.environ.get("SLURM_CPUS_PER_TASK") if world.launcher == "Slurm" else None
    torch.set_num_threads(max(1, int(cpus or (os.cpu_count() or 1) // world.local_count)))
    store = _meet(world)
    if world.rank == 0:
        hub = Hub(_LOOPBACK if world.machines == 1 else "")
        store.set("hub", f"{hub.port} {hub.token}")
        links = hub.gather(world.count, ARRIVAL_SECONDS, lambda: _early_end(workers))
    else:
        port, token = store.get("hub").decode().split()
        host = _LOOPBACK if world.machines == 1 else world.host
        links = {0: reach_hub(world.rank, host, int(port), token, ARRIVAL_SECONDS)}
    peers = _watch_over(workers, links) if workers else Peers(world.rank, links)
    met(peers)
    with reporting(peers):
        cuda = device().type == "cuda"
        if cuda:
            choose_gpu(world.local_rank, world.local_count)
        with _group(world.rank, world.count, store, peers, cuda=cuda,
                    one_machine=world.machines == 1) as ranks:  # fmt: skip
            if world.rank == 0:
                _Launched.current = _Launched(ranks)
            try:
                yield ranks
                if _Launched.current is not None:
                    _Launched.current.tell(None)
            finally:
                _Launched.current = None


def follow(world: World, device: Callable[[], "torch.device"]) -> int:
    """Do what the main rank of a launched world says: train a run, measure it, or nothing.

    Returns the exit code, which is the main rank's own where that one failed.
    """
    met: list[Peers] = []

    def work() -> None:
        with launched_ranks(world, device, met.append) as ranks:
            task = ranks.from_main()
            if task is not None:
                session = session_from_json(task["session"])
                work_as_rank(Path(task["run"]), ranks, session, calibrate=task["calibrate"])

    return exit_code_of(work, world.rank, lambda: met[0] if met else None)


def work_as_rank(run: Path, ranks: Ranks, session: Session, *, calibrate: bool) -> None:
    """Take part in training a run, or in measuring its steps."""
    if calibrate:
        from stylecli.training.calibration import measure_stages

        measure_stages(run, ranks, session=session)
    else:
        from stylecli.training.loop import TrainingLoop

        TrainingLoop(run, ranks, session).train()


def exit_code_of(work: Callable[[], None], rank: int, peers: Callable[[], Peers | None]) -> int:
    """Run the work of a rank other than the main one; return the code its process ends with.

    It says nothing where the main rank speaks for it. ``peers`` tells its watch, once it has one.
    """
    try:
        work()
        return ExitCode.DONE
    except Interrupted as error:
        found = peers()
        return found.loss.exit_code if found and found.loss else error.exit_code
    except Exception as error:
        if os.environ.get("STYLECLI_DEBUG") == "1":
            raise
        text, code = explain(error)
        found = peers()
        loss = found.loss if found else None
        if found is None or (loss is not None and speaks_for(rank, loss)):
            print(f"stylecli: {text}", file=sys.stderr, flush=True)
        return code


@contextlib.contextmanager
def reporting(peers: Peers) -> Iterator[None]:
    """Tell the other ranks of an error that ends this one, and say goodbye in any case."""
    try:
        yield
    except Interrupted:
        if peers.rank:
            peers.wait_for_main(5.0)  # which may have stopped for a reason of its own
        raise
    except StyleCLIError as error:
        peers.tell_failure(str(error), int(error.exit_code))
        raise
    except KeyboardInterrupt:
        peers.tell_failure("interrupted", int(ExitCode.INTERRUPTED))
        raise
    except BaseException as error:
        text, code = explain(error)
        peers.tell_failure(text, int(code))
        raise
    finally:
        peers.close()


def choose_gpu(local_rank: int, local_count: int) -> None:
    """Make a GPU of this machine the current one; raise DeviceError when there are too few.

    Where a launcher shows every process one GPU, that is taken.
    """
    import torch

    found = torch.cuda.device_count()
    if found == 1 and os.environ.get("CUDA_VISIBLE_DEVICES", "").count(",") == 0 and local_rank:
        torch.cuda.set_device(0)
        return
    if found < local_count:
        raise DeviceError(f"{local_count} processes need a GPU each: this machine has {found}")
    torch.cuda.set_device(local_rank)


@contextlib.contextmanager
def _group(
    rank: int,
    count: int,
    store: "Store",
    peers: Peers,
    *,
    cuda: bool,
    one_machine: bool = True,
) -> Iterator[Ranks]:
    ranks = join(rank, count, store, cuda=cuda, one_machine=one_machine, watch=peers)
    try:
        yield ranks
    finally:
        leave(ranks)


def _meet(world: World) -> "Store":
    """Return the store at which the ranks of a launched world find each other."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    try:
        store = TCPStore(
            world.host,
            world.port,
            world.count,
            is_master=world.rank == 0 and not world.agent,
            timeout=datetime.timedelta(seconds=ARRIVAL_SECONDS),
            wait_for_workers=False,
        )
    except RuntimeError as error:  # includes what torch.distributed raises
        first = str(error).splitlines()[0]
        raise StyleCLIError(
            f"process {world.rank} of {world.count} started by {world.launcher} does not reach "
            f"{world.host}:{world.port} ({first}): is the port free? MASTER_PORT sets another"
        ) from None
    # torchrun keeps one store over restarts: what an earlier attempt left there is not ours.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"stylecli-{attempt}", store)


def _watch_over(
    workers: "Sequence[subprocess.Popen[bytes]]", links: dict[int, socket.socket]
) -> Peers:
    """Return the main rank's watch over processes that it started itself."""
    return Peers(
        0,
        links,
        exit_code=lambda rank: workers[rank - 1].poll(),
        on_loss=lambda: _kill(workers),
    )


def _early_end(workers: "Sequence[subprocess.Popen[bytes]]") -> str | None:
    """Say which worker ended before it reported, if one did."""
    for rank, worker in enumerate(workers, start=1):
        if (code := worker.poll()) is not None:
            return (
                f"process {rank} ended with exit code {code} as it started: its own "
                "message stands above"
            )
    return None


def _kill(workers: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End all workers at once, after a moment in which one that failed says why."""
    deadline = time.monotonic() + 3.0
    for worker in workers:
        while worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        worker.kill()


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """Give a worker a moment to finish by itself, then end it."""
    try:
        worker.wait(timeout=10)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
