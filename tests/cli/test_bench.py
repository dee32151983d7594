"""``stylecli bench``: the table and the document, and what it refuses."""

import functools
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stylecli.cli.app import app
from stylecli.networks import registry

QUICK = ["bench", "--small", "--resolutions", "8", "--repeats", "1", "--quiet"]


@pytest.fixture
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are only compared with each other here: narrow networks have them too."""
    narrow = {"fmap_max": 16, "mapping_layers": 2, "mapping_fmaps": 16, "z_dim": 16, "w_dim": 16}
    made = functools.partial(registry.make_config, **narrow)
    monkeypatch.setattr(registry, "make_config", made)
    monkeypatch.setattr("stylecli.bench.CEILING_MAPS", 64)


@pytest.mark.usefixtures("little_work")
def test_every_case_has_a_row_and_a_record() -> None:
    done = CliRunner().invoke(
        app, [*QUICK, "--train", "--batches", "4", "--json", "--precisions", "float32,bf16"]
    )

    document = json.loads(done.stdout)
    names = [case["name"] for case in document["cases"]]
    assert done.exit_code == 0
    assert names[2:] == [
        "draw 8 px, batch 4, float32",
        "draw 8 px, batch 4, bf16",
        "train 8 px, batch 4, float32",
        "train 8 px, batch 4, bf16",
    ]
    assert all(0 < case["cpu_seconds"]["median"] for case in document["cases"])
    assert 0 < document["cases"][2]["share_of_ceiling"] <= 1


@pytest.mark.usefixtures("little_work")
@pytest.mark.parametrize(("gain", "drawn"), [(2.0, ["float32", "bf16"]), (0.02, ["float32"])])
def test_bf16_is_measured_where_it_is_quicker(
    monkeypatch: pytest.MonkeyPatch, gain: float, drawn: list[str]
) -> None:
    for name, value in (("bf16_gain", gain), ("has_bf16_units", True)):
        monkeypatch.setattr(f"stylecli.hardware.{name}", lambda value=value: value)
    monkeypatch.setattr("stylecli.cli.bench.bf16_gain", lambda: gain)

    done = CliRunner().invoke(app, [*QUICK, "--device", "cpu", "--json"])

    document = json.loads(done.stdout)
    assert [case["name"].split()[-1] for case in document["cases"]] == drawn + drawn
    assert document["bf16_gain"] == gain


def test_numbers_that_are_none_are_refused() -> None:
    for wrong in (["--resolutions", "48"], ["--batches", "0"], ["--precisions", "half"]):
        done = CliRunner().invoke(app, [*QUICK, *wrong])

        assert done.exit_code == 2
        assert wrong[1] in done.stderr


@pytest.mark.parametrize("words", [["--train"], ["--small"]])
def test_networks_that_are_not_trained_here_have_no_training_step(words: list[str]) -> None:
    done = CliRunner().invoke(
        app, ["bench", "--config", "lucidrains", "--resolutions", "8", *words]
    )

    assert done.exit_code == 2
    assert "'lucidrains'" in done.stderr and "--config" in done.stderr


# As little as bench needs of the two programs: one convolution each.
ROSINALITY = """
from torch import nn
class StyledGenerator(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.grow = nn.Linear(code, 3 * 64)
    def forward(self, latents, step, alpha):
        assert (step, alpha) == (1, 1)
        return self.grow(latents).view(-1, 3, 8, 8)
class Discriminator(nn.Module):
    def __init__(self, from_rgb_activate):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)
    def forward(self, images, step, alpha):
        return self.conv(images).square().mean(dim=(1, 2, 3))
"""
HUANGZH13 = """
from data import get_data_loader
from torch import nn
from models import about
class StyleGAN:
    def __init__(self, structure, side, channels, latent, **options):
        assert options["loss"] == "logistic" and side == 8
        self.gen = nn.Linear(latent, 3)
        self.gen.forward = lambda latents, depth, alpha: latents @ self.gen.weight.T
        self.steps = 0
    def optimize_discriminator(self, latents, reals, depth, alpha):
        assert reals.shape == (4, 3, 8, 8) and (depth, alpha) == (1, 1.0)
    optimize_generator = optimize_discriminator
"""


@pytest.fixture
def checkouts(tmp_path: Path) -> list[str]:
    """Two folders that look like the programs' checkouts."""
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "models").mkdir(parents=True)
    first.mkdir()
    (first / "model.py").write_text(ROSINALITY)
    (second / "models" / "__init__.py").write_text("about = 1")
    (second / "models" / "GAN.py").write_text(HUANGZH13)
    return [str(first), str(second)]


@pytest.mark.usefixtures("little_work")
def test_other_programs_are_timed_beside_and_compared(checkouts: list[str]) -> None:
    quick = ["bench", "--resolutions", "8", "--repeats", "2", "--precisions", "float32", "--train"]
    against = [word for path in checkouts for word in ("--against", path)]

    done = CliRunner().invoke(app, [*quick, *against, "--device", "cpu", "--json", "--quiet"])

    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    cases = {case["name"]: case for case in document["cases"]}
    for work in ("draw 8 px, batch 1", "train 8 px, batch 4"):
        ratios = cases[f"{work}, float32"]["times_as_fast"]
        assert list(ratios) == ["rosinality", "huangzh13"]
        for program, ratio in ratios.items():
            theirs, ours = cases[f"{work}, {program}"], cases[f"{work}, float32"]
            assert theirs["times_as_fast"][program] == {"median": 1.0, "min": 1.0, "max": 1.0}
            quickest = theirs["cpu_seconds"]["min"] / ours["cpu_seconds"]["max"]
            slowest = theirs["cpu_seconds"]["max"] / ours["cpu_seconds"]["min"]
            assert quickest <= ratio["min"] <= ratio["median"] <= ratio["max"] <= slowest
    assert "torch" in document["processor"]
    assert not {"model", "models", "models.GAN", "data"} & set(sys.modules)


@pytest.mark.parametrize("options", [["--small"], ["--config", "b"], []])
def test_what_cannot_be_compared_is_refused(tmp_path: Path, options: list[str]) -> None:
    quick = ["bench", "--resolutions", "8", "--repeats", "1", "--device", "cpu"]

    done = CliRunner().invoke(app, [*quick, "--against", str(tmp_path), *options])

    assert done.exit_code == 2
    assert (options[0] if options else str(tmp_path)) in done.stderr
