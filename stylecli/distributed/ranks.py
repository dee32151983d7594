"""Ranks: who am I, add up over all, agree; and how a command becomes one of them.

One process is rank 0 of 1 and needs nothing else. Numbers that decide travel by gloo in main
memory, whatever carries the gradients.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Slurm's
srun sets SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and a list of hosts; the ranks meet on the first
of them, at a port that follows from the job's number.
"""

import contextlib
import datetime
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from stylecli.distributed.processes import STORE_PREFIX, launch
from stylecli.distributed.watching import LAUNCHER, Loss, Watch
from stylecli.errors import DeviceError, Interrupted, StyleCLIError, UsageError, explain, plural
from stylecli.files import parse_json, to_json

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]


# Below the ports that Linux hands out by itself (32768 on) and above the well-known ones.
_FIRST_PORT, _PORTS = 20_000, 12_000


@dataclass(frozen=True)
class Place:
    """A process's place among all that train together."""

    rank: int
    count: int
    local_rank: int  # on its machine
    machines: int
    host: str  # where rank 0 is
    port: int
    launcher: str  # torchrun or Slurm
    agent: bool = False  # torchrun itself keeps the store at host:port

    @property
    def local_count(self) -> int:
        """Processes on a machine, the most where machines differ."""
        return -(-self.count // self.machines)


def find_place(environment: Mapping[str, str]) -> Place | None:
    """Return what a launcher says of this process; None for one that was started by itself.

    torchrun comes before Slurm, for it may run under it. Raises UsageError for variables that make
    no sense.
    """
    try:
        if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
            place = _torchrun(environment)
        elif {"SLURM_PROCID", "SLURM_NTASKS"} <= environment.keys():
            place = _slurm(environment)
        else:
            return None
    except (KeyError, ValueError) as error:
        raise UsageError(f"cannot read the launcher's environment: {error}") from None
    if not 0 <= place.rank < place.count:
        raise UsageError(f"{place.launcher} started rank {place.rank} of {place.count}")
    return place if place.count > 1 else None


def first_host(nodes: str) -> str:
    """Return the first host of a Slurm list: ``gpu[003-006,010],cpu1`` is gpu003.

    Raises UsageError for a list that is empty or not closed.
    """
    outside = re.sub(r"\[[^\]]*\]", lambda ranges: ranges[0].replace(",", "\0"), nodes)
    first = outside.split(",")[0].replace("\0", ",").strip()
    host = re.sub(r"\[([^\]]*)\]", lambda ranges: re.split("[-,]", ranges[1])[0], first)
    if not host or "[" in host or "]" in host:
        raise UsageError(f"cannot read the list of hosts {nodes!r}")
    return host


def _torchrun(environment: Mapping[str, str]) -> Place:
    count = int(environment["WORLD_SIZE"])
    rank = int(environment["RANK"])
    return Place(
        rank,
        count,
        int(environment.get("LOCAL_RANK", rank)),
        -(-count // int(environment.get("LOCAL_WORLD_SIZE", count))),
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        "torchrun",
        environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _slurm(environment: Mapping[str, str]) -> Place:
    count = int(environment["SLURM_NTASKS"])
    rank = int(environment["SLURM_PROCID"])
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_NODELIST"]
    machines = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES")
    if not machines:  # not known: as many as there may be
        machines = str(count) if re.search(r"[,\[]", nodes) else "1"
    job = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    port = environment.get("MASTER_PORT") or str(_FIRST_PORT + job % _PORTS)
    return Place(
        rank,
        count,
        int(environment.get("SLURM_LOCALID", rank)),
        int(machines),
        environment.get("MASTER_ADDR") or first_host(nodes),
        int(port),
        "Slurm",
    )


Result = TypeVar("Result")

# Of single exchanges. Lost and stuck ranks are found by the watch, long before; a limit here would
# only end runs whose main rank is busy by itself, or that were suspended as a whole.
TIMEOUT_DAYS = 30
ARRIVAL_SECONDS = 300.0  # for all ranks to start; loading torch over a network takes its time
# To reach the store of a launcher, which is there before its ranks are: or the launcher is gone.
REACH_SECONDS = 20.0


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; a plain ``Ranks()`` is a single one."""

    rank: int = 0
    count: int = 1
    watch: Watch | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def mean_(self, tensor: "torch.Tensor", *, wait: bool = True) -> None:
        """Replace ``tensor`` by its mean over all ranks.

        A GPU's exchange only begins here; with ``wait`` this returns when it is over, so that one
        that hangs is noticed as the exchange it is.
        """
        if self.count > 1:
            import torch
            import torch.distributed as dist

            with self.exchange():
                dist.all_reduce(tensor)
                if wait and tensor.is_cuda:
                    torch.cuda.current_stream(tensor.device).synchronize()
            tensor.div_(self.count)

    def add_up(self, tensor: "torch.Tensor") -> Callable[[], None]:
        """Begin to replace ``tensor`` by its sum over all ranks; return what waits for the end.

        All ranks must begin their sums in the same order.
        """
        import torch
        import torch.distributed as dist

        with self.exchange():
            sent = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self.exchange():
                sent.wait()
                if tensor.is_cuda:
                    torch.cuda.current_stream(tensor.device).synchronize()

        return wait

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Return of each flag whether it is set on any rank, in one exchange."""
        if self.count == 1:
            return flags
        import torch
        import torch.distributed as dist

        values = torch.tensor([int(flag) for flag in flags])
        with self.exchange():
            dist.all_reduce(values)
        return tuple(bool(value) for value in values.tolist())

    def main_alone(self, function: Callable[[], Result]) -> Result | None:
        """Run ``function`` on rank 0, however long it takes, while the others wait.

        Returns its result on rank 0, None on the others. They end within a minute when rank 0 dies.
        """
        if self.count == 1:
            return function()
        result = None
        if self.is_main:
            with self.alone():
                result = function()
        self.any(False)
        return result

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Let the others wait without limit while this rank does something by itself."""
        return self.watch.alone() if self.watch else contextlib.nullcontext()

    def from_main(self, value: Any = None) -> Any:
        """Return rank 0's ``value`` on every rank: plain JSON."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        data = bytearray(to_json(value)) if self.is_main else bytearray()
        size = torch.tensor([len(data)])
        with self.exchange():
            dist.broadcast(size, 0)
        letters = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
        letters = letters if self.is_main else torch.empty(int(size.item()), dtype=torch.uint8)
        with self.exchange():
            dist.broadcast(letters, 0)
        return parse_json(bytes(letters.tolist()), "what the main process sent", of=object)

    def exchange(self) -> contextlib.AbstractContextManager[None]:
        """Surround an exchange; an error in it then names the rank that is lost."""
        return self.watch.exchange() if self.watch else contextlib.nullcontext()


@contextlib.contextmanager
def sharing_ranks(count: int | None, device: str, command: Sequence[str]) -> Iterator[Ranks]:
    """Yield this process's place among those that run the same command together.

    They are those that torchrun or Slurm started. Without such a launcher ``count`` above 1 starts
    that many processes, ``python -P`` with the arguments ``command``; then this one waits for them
    and ends with their exit code (SystemExit). ``device`` is that of the command's option. Of all
    that end with an error the first to do so says why; the others end with SystemExit. Raises
    UsageError for a count or a device that does not fit, StyleCLIError naming a rank that is lost.
    """
    place = find_place(os.environ)
    if place is None and (count or 1) == 1:
        yield Ranks()
        return
    if place is None:
        assert count is not None
        check_shared_device(device)
        raise SystemExit(launch(count, command))
    with joined(place, lambda: _resolve(device)) as ranks:
        if count not in (None, place.count):
            raise UsageError(
                f"{place.launcher} started {plural(place.count, 'process', 'processes')}, not "
                f"--ranks {count}: leave --ranks out"
            )
        yield ranks


@contextlib.contextmanager
def joined(place: Place, device: Callable[[], "torch.device"]) -> Iterator[Ranks]:
    """Yield this process's rank, at its ``place``; ``device`` resolves what it computes on.

    See ``sharing_ranks`` for what becomes of errors.
    """
    import torch

    if threading.current_thread() is threading.main_thread():
        # torch's launcher and schedulers end a job with SIGTERM: as Ctrl-C does, tidily.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    cpus = os.environ.get("SLURM_CPUS_PER_TASK") if place.launcher == "Slurm" else None
    torch.set_num_threads(max(1, int(cpus or (os.cpu_count() or 1) // place.local_count)))
    store = _connect(place, is_master=place.rank == 0 and not place.agent)
    keeper = LAUNCHER if place.agent else 0
    watch = Watch(place.rank, place.count, lambda: _connect(place), keeper)
    try:
        with _reporting(watch):
            gpu = _take_gpu(place, device())
            _meet(watch, gpu)
            with _group(place, store, watch, cuda=bool(gpu)):
                yield Ranks(place.rank, place.count, watch)
    finally:
        watch.close()


@contextlib.contextmanager
def _reporting(watch: Watch) -> Iterator[None]:
    """Tell the other ranks of an error that ends this one; SystemExit where another said why."""
    try:
        yield
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            # It ends, with a reason of its own: the launcher's SIGTERM is no other one.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        if isinstance(error, KeyboardInterrupt):
            watch.tell_interrupt(12.0)
        elif watch.rank:
            watch.wait_for_main(3.0)  # which may fail for the same reason, or stopped for another
        if watch.loss is not None:
            error = watch.loss.error()
        text, code = explain(error)
        own = watch.loss is None
        if isinstance(error, KeyboardInterrupt) and len(watch.devices()) < watch.count - 1:
            raise SystemExit(int(code)) from None  # why, who started the ranks knows alone
        first = watch.may_speak()
        watch.report_failure(text, int(code))
        if not first:
            raise SystemExit(int(code)) from None
        if own and watch.rank and not isinstance(error, KeyboardInterrupt | Interrupted):
            raise Loss(watch.rank, f"failed: {text}", int(code)).error() from error
        raise error


def choose_gpu(found: int, local_rank: int, local_count: int) -> int:
    """Return which of the ``found`` GPUs that a process sees is its own.

    Launchers show each process all GPUs of the machine, or its own alone. Raises DeviceError where
    there is none.
    """
    if not found:
        raise DeviceError(f"{local_count} processes need one GPU each; this machine has none")
    return local_rank if found >= local_count else local_rank % found


def _take_gpu(place: Place, device: "torch.device") -> str:
    """Make this process's GPU the current one; return its name in the world, "" for CPUs."""
    if device.type != "cuda":
        return ""
    import torch

    index = choose_gpu(torch.cuda.device_count(), place.local_rank, place.local_count)
    torch.cuda.set_device(index)
    return str(torch.cuda.get_device_properties(index).uuid)


def _meet(watch: Watch, gpu: str) -> None:
    """Wait until every rank has come; raise DeviceError where another has the same GPU."""
    watch.tell_device(gpu or "cpu")
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while len(others := watch.devices()) < watch.count - 1:
        watch.raise_loss()
        if time.monotonic() > deadline:
            missing = sorted(set(range(watch.count)) - {watch.rank} - others.keys())
            raise StyleCLIError(
                f"of {watch.count} processes, number {', '.join(map(str, missing[:8]))} did not "
                f"connect within {ARRIVAL_SECONDS:.0f} s: start all of them and read their messages"
            )
        time.sleep(0.1)
    # Where a driver gives no names, all are zero.
    if gpu.strip("0-") and (same := [rank for rank, other in others.items() if other == gpu]):
        raise DeviceError(
            f"processes {watch.rank} and {same[0]} have the same GPU: start as many processes as "
            "there are GPUs"
        )


@contextlib.contextmanager
def _group(place: Place, store: "Store", watch: Watch, *, cuda: bool) -> Iterator[None]:
    """Be in torch's process group; on GPUs tensors travel by NCCL, where torch has it."""
    import torch.distributed as dist

    if place.machines == 1 and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # stay on the loopback interface
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda and dist.is_nccl_available() else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.count,
            timeout=datetime.timedelta(days=TIMEOUT_DAYS),
        )
    except RuntimeError as error:
        watch.explain(error)
        raise
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _connect(place: Place, *, is_master: bool = False) -> "Store":
    """Return a connection to the store at which the ranks find each other."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    seconds = REACH_SECONDS if place.agent else ARRIVAL_SECONDS
    try:
        store = TCPStore(
            place.host,
            place.port,
            place.count,
            is_master=is_master,
            timeout=datetime.timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except RuntimeError as error:  # includes what torch.distributed raises
        first = str(error).splitlines()[0]
        raise StyleCLIError(
            f"process {place.rank} of {place.count} started by {place.launcher} cannot reach "
            f"{place.host}:{place.port} ({first}): check that the port is free, or set another "
            f"with MASTER_PORT"
        ) from None
    # torchrun keeps one store over restarts: what an earlier attempt left there is not ours.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"{STORE_PREFIX}{attempt}", store)


def _resolve(device: str) -> "torch.device":
    """Return what a rank computes on; raise UsageError for a GPU that all would share."""
    from stylecli.hardware import resolve_device

    check_shared_device(device)
    return resolve_device(device)


def check_shared_device(device: str) -> None:
    """Raise UsageError for a device that several processes cannot have one each of."""
    if ":" in device:
        raise UsageError(
            f"--device {device} names one GPU, but each of several processes needs its own: give "
            f"--device {device.partition(':')[0]}"
        )
