"""Start other Python processes of this program: the one place that does.

They run ``sys.executable -P -m MODULE``: without ``-P`` Python would put the working folder first
on its path and import a ``signal.py`` or a ``torch.py`` that lies there. ``-I`` would be safe as
well, but lose PYTHONPATH and what the user installed for himself.

The ranks of a command are started, watched and ended by torch's own launcher, the agent behind
torchrun. It is handed a command, never a function: it starts those by ``-c``, which imports from
the working folder.
"""

import contextlib
import inspect
import logging
import os
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.errors import ExitCode, StyleCLIError
from stylecli.lazy import holding_back_interrupts

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

STORE_PREFIX = "stylecli-"  # before our keys in torch's store, and the number of the attempt
_LOOPBACK = "127.0.0.1"
# From Ctrl-C until ranks are killed. The launcher's own 30 s are less than a large save takes; who
# does not want to wait presses Ctrl-C again.
_SAVE_SECONDS = 86_400

_ROOT = str(Path(__file__).resolve().parents[2])  # the folder that this program is loaded from


def can_start_python() -> bool:
    """Whether the interpreter knows its own program; one embedded in another does not."""
    return bool(sys.executable)


def start_python(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.Popen[bytes]":
    """Start ``python -m module arguments``; it imports nothing from the working folder.

    ``environment`` is added to this process's own. ``options`` go to ``subprocess.Popen``. Raises
    StyleCLIError when no process can be started.
    """
    if not can_start_python():
        raise StyleCLIError(
            "this Python does not know its own program, so it cannot start further processes: "
            "give --workers 1 or --ranks 1"
        )
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        env={**os.environ, **(environment or {}), "PYTHONPATH": _python_path()},
        **options,
    )


def _python_path() -> str:
    """Return PYTHONPATH without empty entries, which mean the working folder.

    A program that is not installed (run from its source folder) is found through it too.
    """
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    installed = {os.path.realpath(path) for path in _site_folders()}
    if _ROOT not in installed | {os.path.realpath(entry) for entry in entries}:
        entries.append(_ROOT)
    return os.pathsep.join(entries)


def _site_folders() -> list[str]:
    return [*site.getsitepackages(), site.getusersitepackages()]


def launch(count: int, command: Sequence[str]) -> int:
    """Run ``python -P command`` as ``count`` ranks on this machine; return their exit code.

    Ctrl-C and SIGTERM are handed to the ranks, which save and end; a second Ctrl-C kills them. No
    process and no file is left behind. Raises StyleCLIError where a rank was killed and no other
    said so, KeyboardInterrupt where an interrupted rank did not say so.
    """
    if not can_start_python():
        raise StyleCLIError("this Python does not know its own program: give --ranks 1")
    agent = _make_agent(count, command)
    failures: Mapping[int, Any] = {}
    interrupted = False
    with _ready_to_launch(agent, count):
        try:
            failures = agent.run().failures
        except KeyboardInterrupt:
            interrupted = True
        finally:
            _signal_all(agent, "SIGKILL")
        spoken = _has_spoken(agent)
        agent.get_worker_group().spec.rdzv_handler.shutdown()
    if interrupted:
        if not spoken:
            raise KeyboardInterrupt
        return ExitCode.INTERRUPTED
    if not failures:
        return ExitCode.DONE
    # The agent ends the others by SIGTERM, within the same second.
    rank, first = min(
        failures.items(), key=lambda item: (item[1].timestamp, item[1].exitcode == -signal.SIGTERM)
    )
    if first.exitcode >= 0:
        return int(first.exitcode)
    if not spoken:
        cause = " (killed, or out of memory)" if first.exitcode == -9 else ""
        raise StyleCLIError(
            f"process {rank} ended with exit code {first.exitcode}{cause}; run the same command to "
            "continue"
        )
    return ExitCode.FAILED


def _make_agent(count: int, command: Sequence[str]) -> "LocalElasticAgent":
    """Return torch's launcher for so many ranks, which meet at a free port and never restart."""
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    class Agent(LocalElasticAgent):
        def _start_workers(self, worker_group: Any) -> Any:
            with holding_back_interrupts():  # or a process would be left that nobody ends
                return super()._start_workers(worker_group)

    class Console(LogsSpecs):
        """Ranks print where this process does; torch's own would make folders, or threads."""

        root_log_dir = ""

        def reify(self, envs: Any) -> LogsDest:
            console = dict.fromkeys(envs, "")
            return LogsDest(console, console, {}, {}, dict.fromkeys(envs, os.devnull))

    meeting = RendezvousParameters(
        "c10d", f"{_LOOPBACK}:0", "stylecli", min_nodes=1, max_nodes=1, local_addr=_LOOPBACK
    )
    spec = WorkerSpec(
        role="stylecli",
        local_world_size=count,
        entrypoint=sys.executable,
        args=("-P", *(word.replace("$", "$$") for word in command)),  # the agent fills in ${...}
        rdzv_handler=get_rendezvous_handler(meeting),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr=_LOOPBACK,
    )
    known = inspect.signature(LocalElasticAgent).parameters  # torch 2.9 has 30 s and no setting
    patience: dict[str, Any] = (
        {"shutdown_timeout": _SAVE_SECONDS} if "shutdown_timeout" in known else {}
    )
    return Agent(spec, Console(), **patience)


@contextlib.contextmanager
def _ready_to_launch(agent: "LocalElasticAgent", count: int) -> Iterator[None]:
    """Have the agent's environment, signals and log as ``launch`` needs them, for a while."""
    log = logging.getLogger("torch.distributed.elastic")
    log.addHandler(logging.NullHandler())
    log.propagate = False  # what there is to say is said in one sentence
    settings = {
        "PYTHONPATH": _python_path(),
        # How many threads a product is split over shows in its last digits.
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "",  # they stay Python's: a second one is to end all
    }
    before = {name: os.environ.get(name) for name in settings}

    def suspend(number: int, frame: object) -> None:
        _signal_all(agent, "SIGSTOP")  # the ranks have process groups of their own
        signal.raise_signal(signal.SIGSTOP)
        _signal_all(agent, "SIGCONT")

    wanted: dict[str, Any] = {"SIGTERM": signal.default_int_handler, "SIGTSTP": suspend}
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name, handler in wanted.items():
            if hasattr(signal, name):
                handlers[name] = signal.signal(getattr(signal, name), handler)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler or signal.SIG_DFL)


def _signal_all(agent: "LocalElasticAgent", name: str) -> None:
    """Send a signal to all ranks that still run, and what they have started."""
    if not hasattr(os, "killpg"):
        return
    for worker in agent.get_worker_group().workers:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            # WNOWAIT leaves its end for the agent to see; a process that has ended is no child.
            if (
                worker.id
                and os.waitid(os.P_PID, worker.id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            ):
                os.killpg(worker.id, getattr(signal, name))


def _has_spoken(agent: "LocalElasticAgent") -> bool:
    """Whether a rank has said how they ended."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    port = agent.get_worker_group().master_port
    if port is None:
        return False
    store = TCPStore(_LOOPBACK, port, is_master=False, wait_for_workers=False)
    return bool(PrefixStore(f"{STORE_PREFIX}0", store).check(["said"]))
