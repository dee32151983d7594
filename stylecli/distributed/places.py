"""Who this process is among those that torchrun or Slurm started. Stdlib only.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Slurm's
srun sets SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and a list of hosts; the ranks meet on the first
of them, at a port that follows from the job's number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stylecli.errors import UsageError

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
