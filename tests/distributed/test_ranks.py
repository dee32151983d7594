"""Ranks, whoever started them: the same run, one voice, one exit code, and nothing left behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from stylecli.checkpoint import read_tensors
from stylecli.cli.app import app
from stylecli.distributed import ranks
from stylecli.distributed.ranks import Ranks, choose_gpu, find_place, first_host, sharing_ranks
from stylecli.errors import DeviceError, UsageError
from stylecli.files import LOCK_FILE

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["-m", "stylecli", "train"]
SMALL = ["--preset", "small", "--kimg", "0.032", "--batch", "8", "--fmap-base", "64", "--fmap-max",
         "8", "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--device", "cpu",
         "--watch", "off"]  # fmt: skip
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def ended(command: list[str], here: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=here, env={**ENVIRONMENT, **environment},
        timeout=150, check=False,
    )  # fmt: skip


def state(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "checkpoint.safetensors")[1]


@pytest.mark.slow
def test_torchrun_trains_what_ranks_train(
    tmp_path: Path, tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit; one process up to rounding; and rank 0 alone speaks."""
    train = [*TRAIN, str(tiny_lmdb), *SMALL]
    launched = ended([*TORCHRUN, *train, "--out", "launched"], tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.split() == ["launched/network-snapshot-000000032.safetensors"]
    assert launched.stderr.count("training in launched") == 1
    assert ended([sys.executable, *train, "--out", "two", "--ranks", "2"], tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path)
    alone = CliRunner().invoke(app, [*train[2:], "--out", "one", "--ranks", "1"])
    assert alone.exit_code == 0, alone.stderr

    found, two, one = (state(tmp_path / name) for name in ("launched", "two", "one"))
    assert found.keys() == two.keys()
    assert all(torch.equal(found[name], two[name]) for name in two)
    for name in ("G.synthesis.layers.0.const", "D.head.dense1.weight"):
        assert torch.allclose(found[name], one[name], rtol=1e-2, atol=1e-3), name
    runs = [json.loads((tmp_path / run / "run.json").read_text()) for run in ("launched", "one")]
    assert [run["ranks"] for run in runs] == [2, 1]
    assert runs[0]["training"] == runs[1]["training"]


def slurm(here: Path, arguments: list[str], job: int) -> list[subprocess.CompletedProcess[str]]:
    """Run the command as the two tasks of a Slurm job on one machine."""
    processes = []
    for rank in (0, 1):
        variables = {
            "SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank),
            "SLURM_NODELIST": "localhost", "SLURM_JOB_ID": str(job), "SLURM_NNODES": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, *TRAIN, *arguments], cwd=here, env={**ENVIRONMENT, **variables},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    texts = [process.communicate(timeout=150) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *text)
        for process, text in zip(processes, texts, strict=True)
    ]


@pytest.mark.slow
def test_slurm_tasks_train_together(tmp_path: Path, tiny_lmdb: Path) -> None:
    main, other = slurm(tmp_path, [str(tiny_lmdb), *SMALL, "--out", "run"], os.getpid())
    assert (main.returncode, other.returncode) == (0, 0), main.stderr + other.stderr
    assert main.stdout.endswith("network-snapshot-000000032.safetensors\n")
    assert (other.stdout, other.stderr) == ("", "")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.lmdb"], 3, "nowhere.lmdb does not exist"),
        ([*SMALL, "--ranks", "3"], 2, "Slurm started 2 processes, not --ranks 3"),
    ],
    ids=["no dataset", "other ranks"],
)
def test_all_ranks_end_with_the_error_of_the_main_one(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    main, other = slurm(tmp_path, arguments, os.getpid() + 1 + code)
    assert (main.returncode, other.returncode) == (code, code)
    assert words in main.stderr
    assert len(main.stderr.splitlines()) == 1
    assert (other.stdout, other.stderr) == ("", "")


def test_more_gpus_than_there_are_is_refused(
    tmp_path: Path, tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", str(tiny_lmdb), "--gpus", "2", "--device", "cpu"])
    assert result.exit_code == 4
    assert "no CUDA GPU" in result.stderr and "--ranks" in result.stderr


def children(process: int) -> dict[str, int]:
    """Return the ranks that a process has started, by number."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = {}
    for number in map(int, listed):
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        found |= {one[5:].decode(): number for one in variables if one.startswith(b"RANK=")}
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LAUNCHER = "launcher"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("to", "number", "code", "words"),
    [
        ("0", signal.SIGKILL, 1, "process 0, the main one, ended without a message"),
        ("1", signal.SIGKILL, 1, "process 1 ended without a message"),
        (LAUNCHER, signal.SIGKILL, -9, "the launching process ended without a message"),
        (LAUNCHER, signal.SIGINT, 130, "stopped and saved at"),
    ],
    ids=["main rank killed", "other rank killed", "launcher killed", "Ctrl-C"],
)
def test_an_end_is_one_sentence_and_nothing_is_left(
    to: str, number: signal.Signals, code: int, words: str, tmp_path: Path, tiny_lmdb: Path
) -> None:
    arguments = [
        str(tiny_lmdb),
        *SMALL,
        "--kimg",
        "1000",
        "--ranks",
        "2",
        "--out",
        "run",
        "-q",
    ]
    with subprocess.Popen(
        [sys.executable, *TRAIN, *arguments, "--tick-kimg", "0.1", "--out", "run"], cwd=tmp_path,
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "run" / "stats.jsonl").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            ranks = children(launcher.pid)
            os.kill(ranks.get(to, launcher.pid), number)
            # The ranks hold the other end of stderr: reading ends when they do.
            _, stderr = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
    said = [line for line in stderr.splitlines() if not line.startswith("warning: ")]
    assert (launcher.returncode, len(said)) == (code, 1), stderr
    assert said[0].startswith(f"stylecli: {words}")
    assert sorted(ranks) == ["0", "1"]
    deadline = time.monotonic() + 10  # streams are closed a moment before a process is gone
    while any(is_running(rank) for rank in ranks.values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    left = {path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")}
    assert left <= {LOCK_FILE}


@pytest.mark.slow  # it waits for 40 s
def test_ranks_whose_launcher_is_gone_before_they_met_end_soon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    started = time.monotonic()
    done = ended([sys.executable, "-m", "stylecli", "metrics", "kid"], tmp_path, **place)
    assert done.returncode == 1
    assert f"cannot reach 127.0.0.1:{port}" in done.stderr
    # Not after ARRIVAL_SECONDS; torch tries for twice REACH_SECONDS.
    assert time.monotonic() - started < 150


@pytest.mark.parametrize(
    ("found", "local_rank", "local_count", "index"),
    [(8, 5, 8, 5), (1, 0, 4, 0), (1, 3, 4, 0), (2, 3, 4, 1), (4, 1, 2, 1)],
    ids=["all shown", "one shown, first", "one shown, last", "two shown", "more than needed"],
)
def test_a_process_takes_its_gpu(found: int, local_rank: int, local_count: int, index: int) -> None:
    assert choose_gpu(found, local_rank, local_count) == index


def test_no_gpu_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="has none"):
        choose_gpu(0, 0, 2)


def test_one_gpu_cannot_be_named_for_several_processes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device cuda:1 names one GPU"):
        with sharing_ranks(2, "cuda:1", ["-m", "stylecli"]):
            pass


@pytest.mark.parametrize(
    "words", [["train", "DATA"], ["plan", "DATA"], ["metrics", "pr", "--data", "DATA"]], ids=str
)
def test_it_is_refused_before_anything_is_made(
    words: list[str], tmp_path: Path, tiny_lmdb: Path, tiny_network_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    words = [str(tiny_lmdb) if word == "DATA" else word for word in words]
    network = ["--network", str(tiny_network_file)] if words[0] == "metrics" else []
    chosen = ["--ranks", "2", "--device", "cuda:1"]
    result = CliRunner().invoke(app, [*words, *network, *chosen])
    assert result.exit_code == 2
    assert "--device cuda:1 names one GPU" in result.output
    assert not list(here.iterdir())


class HangingTensor:
    """A tensor on a GPU whose exchange never ends."""

    is_cuda, device = True, "cuda:0"

    def div_(self, count: int) -> None: ...


@pytest.mark.parametrize("wait", [True, False])
def test_a_gpus_exchange_is_over_when_the_gpu_says_so(wait: bool, monkeypatch: Any) -> None:
    """Or one that hangs in NCCL would not be noticed: it returns at once."""
    inside: list[bool] = []

    class Watched:
        on = False

        @contextlib.contextmanager
        def exchange(self) -> Iterator[None]:
            self.on = True
            yield
            self.on = False

    watched = Watched()
    stream = SimpleNamespace(synchronize=lambda: inside.append(watched.on))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    Ranks(0, 2, watched).mean_(HangingTensor(), wait=wait)  # type: ignore[arg-type]
    assert inside == [True] * wait
    sent = SimpleNamespace(wait=lambda: inside.append(watched.on))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, async_op: sent)
    finish = Ranks(0, 2, watched).add_up(HangingTensor())  # type: ignore[arg-type]
    assert len(inside) == wait  # it only began
    finish()
    assert inside[wait:] == [True, True]


@pytest.mark.parametrize(
    ("cuda", "nccl", "backend"),
    [(False, True, "gloo"), (True, True, "cpu:gloo,cuda:nccl"), (True, False, "gloo")],
)
def test_tensors_of_gpus_travel_by_nccl_where_torch_has_it(
    cuda: bool, nccl: bool, backend: str, monkeypatch: Any
) -> None:
    """Builds for Windows have none."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda name, **_: asked.append(name)
    )
    place = find_place(BY_TORCHRUN)
    assert place is not None
    with ranks._group(place, None, None, cuda=cuda):  # type: ignore[arg-type]
        assert asked == [backend]


BY_TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
BY_SLURM = {
    "SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711",
    "SLURM_NODELIST": "gpu[007-008]", "SLURM_NNODES": "2",
}  # fmt: skip


def test_a_process_started_by_itself_has_no_place() -> None:
    assert find_place({}) is None
    assert find_place({**BY_TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None


def test_torchrun_says_who_is_where() -> None:
    place = find_place(BY_TORCHRUN)
    assert place is not None
    assert (place.rank, place.count, place.local_rank, place.local_count) == (5, 8, 1, 4)
    assert (place.machines, place.host, place.port, place.agent) == (2, "10.0.0.1", 29500, True)


def test_slurm_ranks_meet_on_the_first_host_at_a_port_of_the_job() -> None:
    place = find_place(BY_SLURM)
    assert place is not None
    assert (place.rank, place.count, place.local_rank, place.machines) == (5, 8, 1, 2)
    assert (place.host, place.port, place.agent) == ("gpu007", 24711, False)
    other = find_place({**BY_SLURM, "SLURM_JOB_ID": "4712"})
    assert other is not None and other.port != place.port


def test_slurm_without_a_number_of_machines() -> None:
    alone = {key: value for key, value in BY_SLURM.items() if key != "SLURM_NNODES"}
    spread = find_place(alone)
    single = find_place({**alone, "SLURM_NODELIST": "gpu007"})
    assert spread is not None and spread.machines == 8
    assert single is not None and single.machines == 1


def test_torchrun_under_slurm_counts() -> None:
    place = find_place({**BY_SLURM, **BY_TORCHRUN})
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
        find_place({**BY_TORCHRUN, **change})
