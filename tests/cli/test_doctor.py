"""``stylecli doctor``: one block that comes out whatever is broken, and the commands that help."""

import importlib
import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from stylecli import health
from stylecli.cli import doctor
from stylecli.ops.cuda import selfcheck
from stylecli.ops.cuda.calls import variants
from stylecli.ops.cuda.compiler import kernel_folder
from stylecli.ops.cuda.launches import DTYPE_NAMES
from stylecli.training import trials
from stylecli.training.trials import Trial

SECTIONS = ["versions", "devices", "extras", "cache", "kernels", "training", "problems"]


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(health, "_driver", lambda: None)
    app = typer.Typer()
    app.command()(doctor.command)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU; return what its checks answer."""
    answers = {}
    card = {"device": "cuda:0", "name": "Imaginary 9000", "compute_capability": "9.0",
            "multiprocessors": 132, "memory_gib": 80.0, "free_gib": 79.5}  # fmt: skip

    def devices(found):
        found.devices.append(card)

    def check(name, device, dtype):
        answer = answers.get((name, dtype), {"y": 1e-6, "dx": 2e-6})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def measure(name, device, dtype):
        return [
            selfcheck.Bandwidth(name, way, str(dtype), fused, 400.0)
            for way, fused in (("forward", 2500.0), ("backward", 2100.0))
        ]

    devices.__name__ = "_devices"
    monkeypatch.setattr(health, "_devices", devices)
    monkeypatch.setattr(selfcheck, "check_operator", check)
    monkeypatch.setattr(selfcheck, "measure_operator", measure)
    tried = [Trial("TF32", True, "products are right"), Trial("channels-last", False, "all wrong")]
    monkeypatch.setattr(trials, "try_training", lambda device: [
        one for one in tried if one.works or answers.get("wrong training")])  # fmt: skip
    return answers


def sections(text):
    found, title = {}, None
    for line in text.splitlines():
        if line.startswith("  "):
            found[title].append(line.strip())
        else:
            title = line.split()[0]
            found[title] = []
    return found


def test_prints_one_block_of_every_section(run):
    result = run()
    assert result.exit_code == 0
    found = sections(result.stdout)
    assert list(found) == SECTIONS
    assert any(line.startswith("torch ") for line in found["versions"])
    assert not re.search(r"\b1 (cores|threads)", found["devices"][0])
    assert found["problems"] == ["none"]


def test_without_a_gpu_it_says_so_and_what_would_be_tested(run):
    kernels = sections(run().stdout)["kernels"]
    assert kernels[0].startswith("no CUDA device")
    assert "bias_act, upfirdn2d, style_epilogue and filtered_lrelu" in kernels[1]


def test_json_holds_the_same(run):
    document = json.loads(run("--json").stdout)
    assert list(document) == SECTIONS
    assert document["devices"][0]["device"] == "cpu"
    assert document["devices"][0]["bf16_gain"] > 0
    assert document["kernels"] == {"mode": "auto", "devices": [], "operators": []}


def test_no_path_tells_the_name_of_the_user(run, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    shown = run().stdout
    assert "~/cache: " in shown and str(tmp_path) not in shown


def test_sizes_read_as_everywhere(run, monkeypatch, tmp_path):
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    kernels = kernel_folder()
    kernels.mkdir(parents=True)
    (kernels / "one.kernels").write_bytes(b"x" * 12_300)
    (line,) = sections(run().stdout)["cache"]
    assert re.search(r": [\d.,]+ [kMGT]?B free, 1 file of compiled kernels \(12\.3 kB\), ", line)


def test_a_broken_package_is_named_with_the_command_that_mends_it(run, monkeypatch):
    real = importlib.import_module

    def broken(name, *rest):
        if name == "lmdb":
            raise ImportError("liblmdb.so: cannot open shared object file\nmore")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    result = run()
    assert result.exit_code == 0
    (problem,) = sections(result.stdout)["problems"]
    assert problem == (
        "lmdb does not work (ImportError: liblmdb.so: cannot open shared object file), run: "
        "pip install --force-reinstall lmdb"
    )


@pytest.mark.parametrize("name", ["_versions", "_devices", "_extras", "_cache", "_kernels"])
def test_a_question_that_fails_leaves_the_others_answered(run, monkeypatch, name):
    def fails(*_):
        raise OSError("out of order")

    fails.__name__ = name
    monkeypatch.setattr(health, name, fails)
    result = run()
    assert result.exit_code == 0
    found = sections(result.stdout)
    assert list(found) == SECTIONS
    assert found["problems"] == [f"cannot find out {name[1:]}: OSError: out of order"]


def test_a_missing_extra_ends_with_its_command(run, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "resvg-py":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    extras = sections(run().stdout)["extras"]
    assert "demo         the drawn faces of stylecli demo: pip install 'stylecli[demo]'" in extras


def test_a_driver_that_torch_does_not_see_is_a_problem(run, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    monkeypatch.setattr(health, "_driver", lambda: "580.65")
    (problem,) = sections(run().stdout)["problems"]
    assert "torch sees no GPU" in problem and "run: pip install" in problem


def test_on_a_gpu_it_prints_errors_and_gigabytes(run, gpu):
    result = run()
    assert result.exit_code == 0
    found = sections(result.stdout)
    assert "Imaginary 9000, compute capability 9.0, 132 multiprocessors" in found["devices"][0]
    rows = [line.split() for line in found["kernels"][1:-1]]
    assert len(rows) == 4 * len(variants())
    assert rows[0] == "cuda:0 bias_act float32 2.0e-06 1e-04 2500 / 400 2100 / 400".split()
    assert "checking kernels: 16/16 cases" in result.stderr


def test_a_kernel_that_fails_is_a_row_and_a_problem(run, gpu):
    gpu["upfirdn2d", torch.float16] = RuntimeError("the self-check failed: up 2 y differs")
    result = run()
    assert result.exit_code == 0
    found = sections(result.stdout)
    assert "cuda:0  upfirdn2d       float16   not used" in found["kernels"]
    assert found["problems"] == [
        "plain PyTorch is used on cuda:0: the self-check failed: up 2 y differs"
    ]


def test_a_kernel_that_cannot_be_timed_still_works(run, gpu, monkeypatch):
    def fails(name, device, dtype):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(selfcheck, "measure_operator", fails)
    found = sections(run().stdout)
    assert found["kernels"][1].split() == "cuda:0 bias_act float32 2.0e-06 1e-04".split()
    assert found["problems"][0] == "bias_act cannot be timed on cuda:0: out of memory"


def test_required_kernels_that_fail_exit_with_4(run, gpu, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    assert run().exit_code == 0
    gpu["bias_act", torch.float32] = RuntimeError("wrong")
    result = run()
    assert result.exit_code == 4 and "problems" in result.stdout


def test_required_kernels_without_a_gpu_exit_with_4(run, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "require")
    result = run()
    assert result.exit_code == 4
    assert sections(result.stdout)["problems"] == [
        "STYLECLI_KERNELS=require and there is no CUDA device, run: unset STYLECLI_KERNELS"
    ]


def test_off_checks_nothing(run, gpu, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "off")
    gpu["bias_act", torch.float32] = AssertionError("was asked")
    found = sections(run().stdout)
    assert found["kernels"] == ["switched off: nothing was compiled"]
    assert found["problems"] == ["none"]


def test_an_unknown_mode_is_a_problem(run, monkeypatch):
    monkeypatch.setenv("STYLECLI_KERNELS", "yes")
    (problem,) = sections(run().stdout)["problems"]
    assert problem.endswith("expected auto, off, require, run: unset STYLECLI_KERNELS")


def test_knows_every_operator_dtype_and_extra():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = set(pyproject["project"]["optional-dependencies"]) - {"dev"}
    assert set(health.EXTRAS) == extras
    assert tuple(variants()) == health.OPERATORS
    assert {getattr(torch, name) for name in health.DTYPES} == set(DTYPE_NAMES)


def test_training_that_goes_wrong_is_a_line_and_a_problem(run, gpu):
    gpu["wrong training"] = True
    found = sections(run().stdout)
    assert found["training"] == [
        "cuda:0  TF32: products are right", "cuda:0  channels-last: all wrong",
    ]  # fmt: skip
    assert found["problems"] == ["channels-last on cuda:0: all wrong"]
