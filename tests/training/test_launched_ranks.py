"""Ranks that torchrun or Slurm started: the same run as with --ranks, one voice, one exit code."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from stylecli.checkpoint import read_tensors
from stylecli.cli.app import app

ROOT = Path(__file__).parent.parent.parent
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
def test_torchrun_trains_what_ranks_train(tmp_path: Path, tiny_lmdb: Path) -> None:
    """Bit for bit; one process up to rounding; and rank 0 alone speaks."""
    train = [*TRAIN, str(tiny_lmdb), *SMALL]
    launched = ended([*TORCHRUN, *train, "--out", "launched"], tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.split() == ["launched/network-snapshot-000000032.safetensors"]
    assert launched.stderr.count("training in launched") == 1
    assert ended([sys.executable, *train, "--out", "two", "--ranks", "2"], tmp_path).returncode == 0
    assert ended([sys.executable, *train, "--out", "one", "--ranks", "1"], tmp_path).returncode == 0

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
        (["nowhere.lmdb"], 3, "dataset nowhere.lmdb does not exist"),
        ([*SMALL, "--ranks", "3"], 2, "--ranks 3 is not what Slurm started, which is 2 processes"),
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
    assert result.stderr.startswith("stylecli: --gpus 2 asks for more CUDA GPUs than the 0")


@pytest.mark.slow
def test_a_killed_main_rank_takes_its_worker_along(tmp_path: Path, tiny_lmdb: Path) -> None:
    arguments = [str(tiny_lmdb), *SMALL, "--kimg", "1000", "--ranks", "2", "--out", "run"]
    main = subprocess.Popen(
        [sys.executable, *TRAIN, *arguments, "--tick-kimg", "0.1"], cwd=tmp_path, env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "stats.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        main.kill()
    # The worker holds the other end of stderr: reading ends when it does.
    _, stderr = main.communicate(timeout=60)
    assert "process 0, the main one, ended without a word" in stderr
