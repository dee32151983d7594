"""The registry: a family of another kind, known to this test alone, goes through the whole tool.

It neither grows nor takes noise. As ``toy`` it has no w, as ``toy-styles`` a w for three layers.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import stylecli
from stylecli.cli.app import main
from stylecli.data.writer import DatasetWriter
from stylecli.errors import UsageError
from stylecli.metrics.picture_sets import draw_samples
from stylecli.networks import model, registry
from stylecli.networks.config import NetworkConfig, Preset
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.registry import Family, config_from_dict, list_presets, make_config
from stylecli.rendering import Drawing
from stylecli.sampling import check_truncation
from stylecli.sheets.mixing import draw_mixing_sheet
from stylecli.training.plan import describe_plan, plan_training
from stylecli.training.schedule import list_stages, stage_at
from stylecli.training.step import TrainingStep
from stylecli.training.transfer import same_architecture, transfer_networks
from stylecli.training.transfer_table import describe_transfer


def run(words: list[str]) -> int:
    """Run a command in this process, where the toy is known; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stylecli", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


SMALL = {"resolution": 16, "z_dim": 6, "w_dim": 5}


@dataclass(frozen=True)
class ToyConfig(NetworkConfig):
    """Three layers that only add up."""

    family: ClassVar[str] = "toyfamily"
    presets: ClassVar[dict[str, Preset]] = {
        "toy": Preset({}, "pictures from z"),
        "toy-styles": Preset({"styles": True}, "pictures from w"),
    }

    styles: bool = False

    @property
    def has_w(self) -> bool:
        return self.styles

    @property
    def num_layers(self) -> int:
        return 3

    def layer_side(self, layer: int) -> int:
        return self.resolution

    def maps_at(self, side: int) -> int:
        return self.channels

    def count_weights(self, network: str) -> int:
        return self.channels * self.resolution**2

    def largest_features(self) -> int:
        return self.channels * self.resolution**2


class ToyMapping(model.MappingNetwork):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.dense = nn.Linear(config.z_dim, config.w_out_dim) if config.styles else None
        if config.styles:
            self.register_buffer("w_avg", torch.zeros(config.w_out_dim))

    def embed(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        self.check_latents(z, c)
        return z if self.dense is None else self.dense(z)


class ToySynthesis(model.SynthesisNetwork):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        pixels = config.channels * config.resolution**2
        layers = [nn.Linear(config.w_out_dim, pixels) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        ws: Tensor,
        *,
        noise_mode: str = "const",
        noise: Sequence[Tensor | None] | None = None,
        noise_scale: float | Sequence[float] = 1.0,
    ) -> Tensor:
        self.check_inputs(ws, noise_mode, noise)
        per_layer = ws.expand(-1, len(self.layers), -1).unbind(1)
        pictures = [layer(w) for layer, w in zip(self.layers, per_layer, strict=True)]
        side = self.config.resolution
        return torch.tanh(sum(pictures)).view(len(ws), self.config.channels, side, side)


class ToyGenerator(model.Generator):
    halves = ToyMapping, ToySynthesis


class ToyDiscriminator(model.Discriminator):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.channels * config.resolution**2, 1)

    def forward(self, images: Tensor, c: Tensor | None = None) -> Tensor:
        return self.head(images.flatten(1).square())


@pytest.fixture(autouse=True)
def _toy_family(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Family(ToyConfig, f"{__name__}:ToyGenerator", f"{__name__}:ToyDiscriminator")
    monkeypatch.setitem(registry.FAMILIES, "toyfamily", row)


@pytest.fixture(params=["toy", "toy-styles"])
def toy(request: pytest.FixtureRequest) -> Bundle:
    return new_network(request.param, **SMALL)


@pytest.fixture
def toy_file(toy: Bundle, tmp_path: Path) -> str:
    path = tmp_path / "toy.safetensors"
    stylecli.save_network(path, toy)
    return str(path)


def test_what_is_known_follows_from_the_table() -> None:
    assert {"f", "toy", "toy-styles"} <= set(list_presets())
    assert set(list_presets(trainable=True)) | {"lucidrains"} == set(list_presets())
    assert list_presets(trainable=False) == ["lucidrains"]
    with pytest.raises(UsageError, match="Did you mean 'toy-styles'"):
        make_config("toy-style")
    with pytest.raises(UsageError, match="toyfamily"):
        config_from_dict({"family": "stylegan9"})
    with pytest.raises(UsageError, match="fmap_base"):
        make_config("toy", fmap_base=8)
    with pytest.raises(UsageError, match="styles"):
        config_from_dict({"family": "toyfamily", "styles": 3})
    with pytest.raises(UsageError, match="resolution 17"):
        make_config("toy", resolution=17)


def test_it_is_saved_and_loaded(toy: Bundle, toy_file: str) -> None:
    again = stylecli.load_network(toy_file)
    assert again.config == toy.config and isinstance(again.config, ToyConfig)
    wanted = toy.G_ema.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in again.G_ema.state_dict().items())
    with pytest.raises(UsageError):
        again.generator.lod = 1.0


def test_it_draws_the_same_in_any_batch(toy: Bundle) -> None:
    one = [picture for _, picture in stylecli.generate(toy, range(5), batch=1)]
    five = [picture for _, picture in stylecli.generate(toy, range(5), noise_mode="random")]
    assert one[0].shape == (16, 16, 3) and (one[0] != one[1]).any()
    assert all((a == b).all() for a, b in zip(one, five, strict=True))
    with pytest.raises(UsageError, match="lod 1"):
        list(stylecli.generate(toy, [0], lod=1))


def test_only_what_has_a_w_is_mixed_and_truncated() -> None:
    plain, styled = (new_network(name, **SMALL) for name in ("toy", "toy-styles"))
    with pytest.raises(UsageError, match="'toy'"):
        draw_mixing_sheet(plain.generator, [0], [1], [0])
    with pytest.raises(UsageError, match="'toy'"):
        check_truncation(plain.config, 0.7)
    assert plain.generator.mapping(torch.zeros(2, 6)).shape == (2, 1, 6)
    assert styled.generator.mapping(torch.zeros(2, 6)).shape == (2, 3, 5)
    sheet = draw_mixing_sheet(
        styled.generator, [0], [1], [0], drawing=Drawing(psi=0.5, scale=1), padding=0
    )
    assert sheet.shape == (32, 32, 3)


def test_metrics_draw_it(toy: Bundle) -> None:
    samples = list(draw_samples(toy.generator, 3, seed=0, batch=2, labels=None))
    assert [len(sample.images) for sample in samples] == [2, 1]
    assert samples[0].w.shape == (2, toy.config.w_out_dim)


def test_commands_take_it(
    toy: Bundle, toy_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["info", toy_file, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "lod" not in facts and facts["layers"] == 3
    assert facts["configuration"].startswith(toy.config.preset)
    out = str(tmp_path / "out")
    assert run(["generate", "--network", toy_file, "--seeds", "1", "--out", out]) == 0
    assert run(["generate", "--network", toy_file, "--lod", "1", "--out", out]) == 2
    assert f"{toy.config.preset!r}" in capsys.readouterr().err
    assert run(
        ["generate", "--network", toy_file, "--psi-layers", "fine:0.5", "--grid", "--out", out]
    ) == (0 if toy.config.has_w else 2)
    assert run(["figures", "2", "--network", toy_file, "--out", out]) == 0
    assert run(["mix", "--network", toy_file, "--rows", "1", "--cols", "1", "--out", out]) == (
        0 if toy.config.has_w else 2
    )
    assert run(["mix", "--network", toy_file, "--rows", "1", "--cols", "1", "--styles", "0",
                 "--out", str(tmp_path / "mix.png")]) == (0 if toy.config.has_w else 2)  # fmt: skip


def test_it_is_planned_at_one_size_and_without_anothers_preset() -> None:
    plan = plan_training(config="toy", resolution=32, device="cpu")
    assert plan.training.initial_resolution == 32 and plan.preset == "none"
    assert [(stage.resolution, stage.fading) for stage in list_stages(plan.training, 32)] == [
        (32, False)
    ]
    assert {"G", "D"} == set(describe_plan(plan).parameters)
    with pytest.raises(UsageError, match=r"'small'.*'toy'"):
        plan_training("small", config="toy", resolution=32)
    with pytest.raises(UsageError, match="--initial-resolution"):
        plan_training(config="toy", resolution=32, training={"initial_resolution": 8})


def test_a_step_trains_it(toy: Bundle) -> None:
    plan = plan_training(config=toy.config.preset, resolution=16, training={"batch_base": 4})
    step = TrainingStep(toy, plan.training)
    stage = stage_at(plan.training, 16, 0)
    before = {key: value.clone() for key, value in toy.G.state_dict().items()}
    step.set_stage(stage, reset=False)
    reals = torch.zeros((stage.batch, 3, 16, 16), dtype=torch.uint8)
    step(reals, None, stage, 0)
    after = toy.G.state_dict()
    assert stage.lod == 0 and all(not torch.equal(after[key], before[key]) for key in before)


def test_weights_go_to_their_own_family_where_shapes_are_equal(toy: Bundle) -> None:
    larger = make_config(toy.config.preset, **{**SMALL, "resolution": 32})
    outcomes = transfer_networks(toy, larger, seed=1).outcomes
    fates = {name: set(rows.values()) for name, rows in outcomes.items()}
    assert fates["D"] == {"initialised", "taken over"}  # its bias has one number at any size
    assert fates["G"] == ({"initialised", "taken over"} if toy.config.has_w else {"initialised"})
    assert describe_transfer(outcomes, toy.config, larger)
    assert not same_architecture(toy.config, make_config("f", resolution=16))
    with pytest.raises(UsageError, match="toyfamily"):
        transfer_networks(toy, make_config("f", resolution=16), seed=1)


def test_it_trains_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with DatasetWriter(tmp_path / "dots.lmdb", resolution=16, channels=3) as writer:
        for value in range(8):
            writer.add(torch.full((3, 16, 16), 20 * value, dtype=torch.uint8).numpy())
    train = ["train", "dots.lmdb", "--config", "toy-styles", "--ranks", "1", "--device", "cpu"]
    assert run([*train, "--preset", "small"]) == 2
    assert "'toy-styles'" in capsys.readouterr().err
    assert run([*train, "--kimg", "0.05", "--batch", "8", "--dry-run", "--json"]) == 0
    assert run([*train, "--kimg", "0.05", "--batch", "8", "--out", "run", "--watch", "off"]) == 0
    assert isinstance(stylecli.load_network(next(Path("run").glob("network-*"))).config, ToyConfig)
