"""`stylecli plan` as typed: a table, a document, refusals; nothing is left behind."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stylecli.cli import plan as plan_command
from stylecli.cli.app import app
from stylecli.cli.options import network_settings
from stylecli.errors import UsageError
from stylecli.training import costs
from stylecli.training.config import TrainingConfig

SMALL = ["--fmap-base", "64", "--fmap-max", "8", "--z-dim", "8", "--w-dim", "8",
         "--mapping-layers", "1", "--device", "cpu", "--ranks", "1"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "SECONDS_PER_STAGE", 0.0)
    monkeypatch.setattr(costs, "WARM_UP_STEPS", 1)
    # Whether measuring would take too long is counted in a test of its own.
    few = costs.Work([(1e6, 0.0)], images=1)
    monkeypatch.setattr(costs, "count_step", lambda network, training, stage: few)
    return tmp_path


@pytest.fixture(autouse=True)
def _a_little_convolution_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylecli.bench.CEILING_MAPS", 64)


def plan(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_a_resolution_alone_is_planned(here: Path) -> None:
    result = plan("--resolution", "16", *SMALL, "--kimg", "10", "--batch", "4")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["stage", "batch", "passes", "memory", "sec/kimg", "kimg", "time"]
    assert [line.split("  ")[0] for line in lines[1:4]] == ["8 px", "16 px fading in", "16 px"]
    assert lines[4].startswith("full schedule: 10 kimg in ")
    assert list(here.iterdir()) == []


def test_a_dataset_gives_its_size_and_a_batch_its_passes(here: Path, tiny_lmdb: Path) -> None:
    result = plan(str(tiny_lmdb), *SMALL, "--batch", "8", "--batch-gpu", "4", "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [stage["resolution"] for stage in document["stages"]] == [8, 16, 16]
    assert {stage["passes"] for stage in document["stages"]} == {2}
    total = sum(stage["seconds"] for stage in document["stages"])
    assert document["seconds"] == pytest.approx(total)


def test_a_schedule_that_ends_early_is_measured_only_so_far(here: Path) -> None:
    result = plan(
        "--resolution", "64", *SMALL, "--kimg", "10", "--hold-kimg", "20", "--batch", "4", "--json"
    )
    assert [stage["name"] for stage in json.loads(result.stdout)["stages"]] == ["8 px"]


def test_ctrl_c_says_so(here: Path, monkeypatch: Any) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(costs, "measure_stages", interrupt)
    result = plan("--resolution", "16", *SMALL, "--quiet")
    assert result.exit_code == 130
    assert result.stderr == ("stylecli: measuring stopped; run the command again to start over\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 3, "there is no dataset in this folder"),
        (["--resolution", "24"], 2, "resolution 24 is not a power of two"),
        (["--resolution", "16", "--batch-gpu", "2"], 2, "give --batch-gpu 4 or more"),
        (["--resolution", "16", "--precision", "fp16"], 2, "--precision fp16 is for CUDA"),
        (["--resolution", "16", "--gpus", "2"], 4, "no CUDA GPU"),
    ],
)
def test_mistakes_are_one_sentence(here: Path, arguments: list[str], code: int, words: str) -> None:
    options = [*SMALL] if "--gpus" not in arguments else SMALL[:-2]
    result = plan(*arguments, *options)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_gpu_that_is_not_here_is_computed_with_its_cost() -> None:
    network = ("--fmap-base", "256", "--fmap-max", "32", "--config", "f")
    command = ("plan", "--resolution", "16", "--preset", "paper", *network, "--json")
    found = {}
    for gpus in (1, 8):
        arguments = (*command, "--on", "H100", "--gpus", str(gpus), "--price-hour", "2")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        found[gpus] = json.loads(result.stdout)
    one = found[1]
    assert one["gpus"] == 1 and one["gpu"]["name"] == "H100"
    assert one["seconds"] == pytest.approx(sum(row["seconds"] for row in one["stages"]), rel=1e-3)
    assert one["cost"] == pytest.approx(one["seconds"] / 3600 * 2, abs=0.01)
    assert all(row["computed"] for row in one["stages"])
    assert found[8]["seconds"] < one["seconds"]
    refused = CliRunner().invoke(app, (*command, "--on", "h900"))
    assert refused.exit_code == 2 and "h100" in refused.stderr


def test_what_would_not_fit_the_minute_is_computed(monkeypatch: Any) -> None:
    monkeypatch.setattr(plan_command, "MEASURED_CPU_SECONDS", 0.0)
    network = ("--fmap-base", "64", "--fmap-max", "8", "--z-dim", "8", "--w-dim", "8")
    result = CliRunner().invoke(
        app, ("plan", "--resolution", "16", *network, "--ranks", "1", "--device", "cpu")
    )
    assert result.exit_code == 0, result.stderr
    assert "computed: " in result.stdout
    assert "MiB" not in result.stdout


def test_precision_auto_is_what_is_quicker_here(here: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("stylecli.hardware.has_bf16_units", lambda: True)
    asked = ["--resolution", "8", *SMALL, "--kimg", "1", "--batch", "4", "--json", "--precision"]
    for gain, chosen in ((2.0, "bf16"), (0.1, "float32")):
        monkeypatch.setattr("stylecli.hardware.bf16_gain", lambda gain=gain: gain)
        document = json.loads(plan(*asked, "auto").stdout)
        assert (document["precision"], document["bf16_gain"]) == (chosen, gain)
    refused = plan(*asked, "bf16")
    assert refused.exit_code == 2 and "10.0 times slower" in refused.stderr
    with pytest.raises(UsageError, match="auto"):
        TrainingConfig(precision="auto")


def test_plan_takes_what_decides_the_network_and_the_settings_of_train(
    here: Path, tiny_lmdb: Path
) -> None:
    """The settings that train --dry-run writes give the same stages, but for what options say."""
    network = ["--mapping-fmaps", "4", "--mbstd-group", "2", *SMALL]
    asked = [str(tiny_lmdb), *network, "--kimg", "3", "--batch", "4", "--lr", "0.002", "--json"]
    dry = CliRunner().invoke(app, ["train", *asked, "--dry-run"])
    assert dry.exit_code == 0, dry.stderr
    (here / "asked.json").write_text(dry.stdout, "utf-8")

    result = plan(str(tiny_lmdb), "--settings", "asked.json", "--batch", "8", "--json", "--device",
                  "cpu", "--ranks", "1")  # fmt: skip

    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["kimg"] == 3
    assert {stage["batch"] for stage in document["stages"]} == {8}


@pytest.mark.parametrize("command", ["train", "plan"])
def test_every_option_of_the_network_is_one_of_train_and_of_plan(command: str) -> None:
    home = importlib.import_module(f"stylecli.cli.{command}")
    taken = inspect.signature(home.command).parameters

    assert {item.name for item in network_settings()} <= taken.keys()
    assert {"config", "preset", "resolution", "labels", "settings_file"} <= taken.keys()


def test_classes_need_a_dataset_that_has_them(here: Path) -> None:
    refused = plan("--resolution", "16", *SMALL, "--labels")
    assert refused.exit_code == 2 and "--labels" in refused.stderr
