"""Who a process is, from what torchrun and Slurm say."""

import pytest

from stylecli.distributed.places import find_place, first_host
from stylecli.errors import UsageError

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711",
    "SLURM_NODELIST": "gpu[007-008]", "SLURM_NNODES": "2",
}  # fmt: skip


def test_a_process_started_by_itself_has_no_place() -> None:
    assert find_place({}) is None
    assert find_place({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None


def test_torchrun_says_who_is_where() -> None:
    place = find_place(TORCHRUN)
    assert place is not None
    assert (place.rank, place.count, place.local_rank, place.local_count) == (5, 8, 1, 4)
    assert (place.machines, place.host, place.port, place.agent) == (2, "10.0.0.1", 29500, True)


def test_slurm_ranks_meet_on_the_first_host_at_a_port_of_the_job() -> None:
    place = find_place(SLURM)
    assert place is not None
    assert (place.rank, place.count, place.local_rank, place.machines) == (5, 8, 1, 2)
    assert (place.host, place.port, place.agent) == ("gpu007", 24711, False)
    other = find_place({**SLURM, "SLURM_JOB_ID": "4712"})
    assert other is not None and other.port != place.port


def test_slurm_without_a_number_of_machines() -> None:
    alone = {key: value for key, value in SLURM.items() if key != "SLURM_NNODES"}
    spread = find_place(alone)
    single = find_place({**alone, "SLURM_NODELIST": "gpu007"})
    assert spread is not None and spread.machines == 8
    assert single is not None and single.machines == 1


def test_torchrun_under_slurm_counts() -> None:
    place = find_place({**SLURM, **TORCHRUN})
    assert place is not None and place.launcher == "torchrun"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("node1", "node1"), ("b,a", "b"), ("gpu[003-006,010],cpu1", "gpu003"), ("n[2,4]", "n2"),
     ("r[1-2]n[05-07]", "r1n05"), ("n[7-9].cluster,x", "n7.cluster")],
)  # fmt: skip
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize("nodes", ["", "gpu[1-2"])
def test_a_list_without_a_host_is_refused(nodes: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        first_host(nodes)


@pytest.mark.parametrize("change", [{"RANK": "eight"}, {"RANK": "8"}, {"LOCAL_RANK": "x"}])
def test_nonsense_of_a_launcher_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"environment|rank 8 of 8"):
        find_place({**TORCHRUN, **change})
