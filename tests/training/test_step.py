"""One training step: averages, copies, skipped steps, draws; at every stage."""

from typing import Any

import numpy as np
import pytest
import torch

from stylecli.checkpoint import load_network
from stylecli.distributed.ranks import Ranks
from stylecli.networks.model import new_network
from stylecli.networks.stylegan1_config import PRESETS
from stylecli.settings import ByResolution
from stylecli.training import gradients as gradients_of_training
from stylecli.training import step as step_of_training
from stylecli.training.augment import Augmentation
from stylecli.training.config import TrainingConfig
from stylecli.training.draws import Purpose
from stylecli.training.plan import TrainingPlan, plan_training
from stylecli.training.schedule import (
    Dials,
    Stage,
    list_stages,
    moment_at,
    stage_at,
)
from stylecli.training.step import TrainingStep, process_reals
from tests.conftest import FIXTURES

OFFICIAL = FIXTURES / "official"
STAGE = Stage(lod=0.5, resolution=16, batch=8, lr=0.003, tick_kimg=1)


@pytest.fixture
def io() -> dict[str, torch.Tensor]:
    with np.load(OFFICIAL / "stylegan1_labels_G_io.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def make_step(fields: dict[str, Any], **settings: Any) -> TrainingStep:
    bundle = new_network(seed=0, **fields)
    return TrainingStep(bundle, TrainingConfig(**{"r1_gamma": 1.0, **settings}))


def reals(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)


def test_official_processing_of_reals(io: dict[str, torch.Tensor]) -> None:
    for key in [key for key in io if key.startswith("reals_in_lod")]:
        lod = float(key.removeprefix("reals_in_lod").replace("p", "."))
        found = process_reals(io[key], lod % 1, 2 ** int(lod))
        assert torch.allclose(found, io[key.replace("_in_", "_out_")], atol=1e-5)


def test_official_w_avg_update(io: dict[str, torch.Tensor]) -> None:
    G = load_network(OFFICIAL / "stylegan1_labels_G_D_Gs.pkl").G
    assert torch.allclose(G.mapping.w_avg, io["wavg_before"])
    G.train().mapping(io["z"], io["labels"])
    assert torch.allclose(G.mapping.w_avg, io["wavg_after_beta0p995"], rtol=1e-4, atol=1e-6)


def test_official_moving_average(io: dict[str, torch.Tensor]) -> None:
    step = TrainingStep(load_network(OFFICIAL / "stylegan1_labels_G_D_Gs.pkl"), TrainingConfig())
    assert float(io["ema_beta"]) == pytest.approx(0.5 ** (32 / 10_000))
    stage = Stage(lod=0, resolution=16, batch=32, lr=0.001, tick_kimg=1)
    step._update_ema(Dials.at(step.config, stage, moment_at(step.config, stage)))
    state = step.G_ema.state_dict()
    names = {"dlatent_avg": "mapping.w_avg", "G_synthesis/noise0": "synthesis.layers.0.noise_const",
             "G_mapping/Dense0/bias": "mapping.layers.0.bias"}  # fmt: skip
    for official, ours in names.items():
        wanted = io[f"ema_after:{official}"]
        assert torch.allclose(state[ours], wanted, rtol=1e-4, atol=1e-6), official


def test_same_seed_same_step(tiny_config_fields: Any) -> None:
    steps = [make_step(tiny_config_fields) for _ in range(2)]
    for step in steps:
        step.set_stage(STAGE, reset=False)
        step(reals(), None, STAGE, 0)
    assert torch.equal(steps[0].flat_G.data, steps[1].flat_G.data)
    assert torch.equal(steps[0].flat_D.data, steps[1].flat_D.data)


@pytest.mark.parametrize(
    "settings",
    [{"loss": "wgan-gp"}, {"loss": "hinge-gp"}, {"r2_gamma": 1.0}, {"share_fakes": True},
     {"loss": "hinge"}, {"loss": "logistic-saturating"}],
    ids=str,
)  # fmt: skip
def test_every_loss_moves_both_networks(settings: dict[str, Any], tiny_config_fields: Any) -> None:
    step = make_step(tiny_config_fields, **settings)
    before = step.flat_G.data.clone(), step.flat_D.data.clone()
    step.set_stage(STAGE, reset=False)
    step(reals(), None, STAGE, 0)
    assert not torch.equal(before[0], step.flat_G.data)
    assert not torch.equal(before[1], step.flat_D.data)
    assert torch.isfinite(step.flat_G.data).all()


def test_layers_above_the_current_resolution_stay(tiny_config_fields: Any) -> None:
    step = make_step(tiny_config_fields)
    stage = Stage(lod=1.0, resolution=8, batch=8, lr=0.003, tick_kimg=1)
    before = step.flat_G.named(step.flat_G.data.clone())
    step.set_stage(stage, reset=False)
    small = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    step(small, None, stage, 0)
    after = step.flat_G.named(step.flat_G.data)
    assert torch.equal(before["synthesis.layers.4.conv.weight"],
                       after["synthesis.layers.4.conv.weight"])  # fmt: skip
    assert not torch.equal(before["synthesis.layers.3.conv.weight"],
                           after["synthesis.layers.3.conv.weight"])  # fmt: skip


def test_gradients_that_are_not_finite_are_not_applied(tiny_config_fields: Any) -> None:
    step = make_step(tiny_config_fields)
    step.set_stage(STAGE, reset=False)
    with torch.no_grad():
        step.D.head.dense1.bias.fill_(float("nan"))
    before = step.flat_G.data.clone()
    step(reals(), None, STAGE, 0)
    assert torch.equal(before, step.flat_G.data)
    assert step.take_statistics()["skipped_steps"] == 2


def lazy_step(preset: str, side: int, network: dict[str, Any], **settings: Any) -> TrainingStep:
    net = new_network(preset, seed=0, resolution=side, **network)
    config = TrainingConfig(**{"phases": "lazy", "batch": {}, "lr": {}, "initial_resolution": side,
                               "r1_interval": 16, **settings})  # fmt: skip
    return TrainingStep(net, config)


SMALLEST = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "fmap_base": 64, "fmap_max": 8}


def test_path_lengths_that_are_not_finite_stay_out_of_their_mean(monkeypatch: Any) -> None:
    step = lazy_step("stylegan2", 16, SMALLEST, batch_base=4, pl_weight=2.0, pl_interval=1)
    stage = Stage(lod=0.0, resolution=16, batch=4, lr=0.002, tick_kimg=1)
    true, means = gradients_of_training.path_lengths, []

    def at_first_infinite(*given: Any) -> torch.Tensor:
        return true(*given) * (1 if means else torch.inf)

    monkeypatch.setattr(gradients_of_training, "path_lengths", at_first_infinite)
    for number in range(2):
        step(reals()[:4], None, stage, number)
        means.append(float(step.gradients.path_mean))
    assert means[0] == 0 < means[1] < torch.inf
    assert step.take_statistics()["skipped_steps"] == 1


def test_features_that_are_not_finite_stay_out_of_the_averages() -> None:
    """Those of the magnitudes and of w; the step after them goes on."""
    network = {**SMALLEST, "num_layers": 3}
    step = lazy_step("stylegan3-t", 16, network, batch_base=4, pl_weight=0.0)
    stage = Stage(lod=0.0, resolution=16, batch=4, lr=0.002, tick_kimg=1)

    def overflow(_: Any, arguments: Any, how: Any) -> Any:
        if how.get("update_emas"):  # of D's pass, not of G's
            return (arguments[0] * torch.inf, *arguments[1:]), how
        return None

    averages = [*step.gradients.magnitudes, step.G.mapping.w_avg]
    first = getattr(step.G.synthesis, step.G.synthesis.names[0])
    hook = first.register_forward_pre_hook(overflow, with_kwargs=True)
    step(reals()[:4], None, stage, 0)
    hook.remove()
    assert all(bool(average.isfinite().all()) for average in averages)
    assert all(float(magnitude) == 1 for magnitude in step.gradients.magnitudes)
    step.G.mapping.update_w_avg(torch.full((4, 8), torch.nan))
    step(reals()[:4], None, stage, 1)
    assert all(bool(average.isfinite().all()) for average in averages)
    assert all(float(magnitude) != 1 for magnitude in step.gradients.magnitudes)
    assert step.take_statistics()["skipped_steps"] == 1


@pytest.mark.slow
def test_fp16_settles() -> None:
    """Updates by path lengths are applied once a scale is found, and move their mean."""
    step = lazy_step("stylegan2", 16, {**SMALLEST, "z_dim": 32, "w_dim": 32, "fmap_base": 256,
                     "fmap_max": 16}, batch_base=4, precision="fp16", pl_weight=2.0,
                     pl_interval=1)  # fmt: skip
    stage = Stage(lod=0.0, resolution=16, batch=4, lr=0.002, tick_kimg=1)
    skipped, means = [], []
    for number in range(12):
        step(reals()[:4], None, stage, number)
        skipped.append(step.take_statistics()["skipped_steps"])
        means.append(float(step.gradients.path_mean))
    assert skipped[0] > 0  # or nothing was searched for
    assert sum(skipped[-4:]) < 4
    assert 0 < means[-5] < means[-1] < torch.inf


PHASES: dict[str, dict[str, Any]] = {
    "joint": {"loss": "logistic"},
    "joint, relativistic": {"loss": "relativistic"},
    "joint, own fakes": {"loss": "relativistic", "r2_gamma": 1.0, "share_fakes": True},
    "paired": {"phases": "paired", "loss": "relativistic", "r2_gamma": 1.0},
    "lazy": {"phases": "lazy", "r1_interval": 2},
    "lazy, R2": {"phases": "lazy", "r1_interval": 2, "r2_gamma": 1.0},
    "lazy, relativistic": {
        "phases": "lazy", "r1_interval": 2, "r2_gamma": 1.0, "loss": "relativistic",
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", PHASES.values(), ids=PHASES)
def test_no_two_batches_that_d_sees_are_changed_by_the_same_draws(
    settings: dict[str, Any], tiny_config_fields: dict[str, Any], monkeypatch: Any
) -> None:
    step = make_step(tiny_config_fields, augment="fixed", augment_p=0.5, **settings)
    at, taken, moments = step.streams.at, [], []

    def note(purpose: Purpose, position: int) -> torch.Generator:
        if purpose is Purpose.AUGMENTATION:
            taken.append(position)
        return at(purpose, position)

    def note_moment(*given: Any) -> Any:
        moments.append(given)
        return moment_at(*given)

    monkeypatch.setattr(step.streams, "at", note)
    monkeypatch.setattr(step_of_training, "moment_at", note_moment)
    step.set_stage(STAGE, reset=True)
    both = torch.cat([reals()] * step.config.batches_of_reals)
    for number in range(3):
        step(both, None, STAGE, number)
    assert len(set(taken)) == len(taken) >= 9
    assert len(moments) == 3  # once a step
    if settings == PHASES["joint"]:  # as runs of the first version have them
        assert taken == list(range(9))
    if settings == PHASES["lazy"]:
        assert taken == [2, 0, 1, 3, 7, 5, 6, 12, 10, 11, 13]


def test_labels_reach_both_networks(tiny_config_fields: Any) -> None:
    bundle = new_network(label_dim=3, **tiny_config_fields)
    labels = torch.eye(3)[torch.arange(8) % 3]
    step = TrainingStep(bundle, TrainingConfig(), label_table=torch.eye(3))
    step.set_stage(STAGE, reset=False)
    step(reals(), labels, STAGE, 0)
    assert bundle.G.mapping.label_embedding.grad.abs().sum() > 0
    assert (bundle.D.head.dense1.bias.grad != 0).all()


@pytest.mark.parametrize("settings", [{"precision": "bf16"}])
def test_cheaper_steps_go_nearly_the_same_way(
    tiny_config_fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    """The same first step; only the convolutions are rounded."""
    exact, cheap = make_step(tiny_config_fields), make_step(tiny_config_fields, **settings)
    before = exact.flat_D.data.clone()
    for step in (exact, cheap):
        step(reals(), None, STAGE, 0)

    moved = exact.flat_D.data - before
    difference = (cheap.flat_D.data - exact.flat_D.data).norm() / moved.norm()
    assert 0 < float(difference) < 0.5
    assert cheap.flat_D.data.dtype == torch.float32


TINY = {"z_dim": 8, "w_dim": 8, "mapping_fmaps": 8, "fmap_base": 64, "fmap_max": 8}


def planned_step(plan: TrainingPlan) -> TrainingStep:
    fields = plan.network.to_dict()
    preset = fields.pop("preset")
    del fields["family"]
    return TrainingStep(new_network(preset, seed=0, **fields), plan.training)


@pytest.mark.parametrize(
    ("config", "preset"), [*((config, "small") for config in PRESETS), ("f", "paper")]
)
def test_a_step_at_every_stage_moves_both_networks(config: str, preset: str) -> None:
    plan = plan_training(
        preset, config=config, resolution=32, network=TINY, training={"batch": ByResolution(4)}
    )
    step = planned_step(plan)
    stages = list_stages(plan.training, 32)
    assert [(stage.resolution, stage.fading) for stage in stages] == [
        (8, False), (16, True), (16, False), (32, True), (32, False)
    ]  # fmt: skip
    for number, planned in enumerate(stages):
        middle = (planned.from_kimg + planned.to_kimg) / 2
        stage = stage_at(plan.training, 32, round(middle * 1000))
        before = step.flat_G.data.clone(), step.flat_D.data.clone(), step.flat_ema.data.clone()
        side = stage.resolution
        images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
        step.set_stage(stage, reset=number > 0)
        step(images, None, stage, number)
        after = step.flat_G.data, step.flat_D.data, step.flat_ema.data
        # The average of the first step is of weights that have not moved yet.
        moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
        assert moved == [True, True, number > 0]
        assert all(bool(torch.isfinite(new).all()) for new in after)
    assert step.take_statistics()["skipped_steps"] == 0


def follow(settings: dict[str, Any], signs: list[float]) -> list[float]:
    """Return p after each of these steps of 8 reals with this mean sign."""
    config = TrainingConfig(augment="adaptive", **settings)
    control = Augmentation(config, torch.device("cpu"))
    found = []
    for step, sign in enumerate(signs):
        seen = torch.tensor([8 * sign, 8.0], dtype=torch.float64)
        control.follow(seen, Ranks(), batch=8, step=step)
        found.append(float(control.p))
    return found


def test_the_strength_of_augmentation_moves_as_published() -> None:
    """Every fourth step by batch · 4 / speed, to the target's side; at the target not at all."""
    stride = 8 * 4 / 500_000
    found = follow({}, [1.0] * 8 + [0.0] * 8)
    assert found == pytest.approx([0] * 3 + [stride] * 4 + [2 * stride] * 4 + [stride] * 4 + [0])
    assert follow({}, [-1.0] * 4) == [0] * 4  # never below 0
    assert follow({"augment_target": 0.5}, [0.5] * 4) == [0] * 4
    assert follow({"augment_kimg": 0.032}, [1.0] * 8)[-1] == 2  # no upper end in the program


def test_reals_of_a_lazy_penalty_count_twice(tiny_config_fields: dict[str, Any]) -> None:
    for interval, counts in ((2, [16, 24, 40]), (1, [8, 16, 24])):
        step = make_step(tiny_config_fields, augment="adaptive", r1_interval=interval)
        step.set_stage(STAGE, reset=True)
        for number, count in enumerate(counts):
            step(reals(number), None, STAGE, number)
            assert step.augmentation.state()["seen"][1] == count


def test_augmentation_is_alike_however_many_passes(tiny_config_fields: dict[str, Any]) -> None:
    found = []
    for size in (None, 4):
        step = make_step(tiny_config_fields, augment="fixed", augment_p=0.9)
        step.batch_gpu = size
        step.set_stage(STAGE, reset=True)
        step(reals(), None, STAGE, 0)
        found.append(torch.cat([step.flat_D.grad, step.flat_G.grad]))
    assert (found[0] - found[1]).norm() < 1e-3 * found[0].norm()
    plain = make_step(tiny_config_fields)
    plain.set_stage(STAGE, reset=True)
    plain(reals(), None, STAGE, 0)
    assert not torch.allclose(plain.flat_D.grad, found[0][: len(plain.flat_D.grad)], rtol=0.1)


def test_d_is_never_shown_an_unchanged_picture(tiny_config_fields: dict[str, Any]) -> None:
    """Reals and fakes of D's pass and the fakes of G's; under a hook that D calls with them."""
    for loss in ("logistic", "wgan-gp"):
        step = make_step(tiny_config_fields, augment="fixed", augment_p=1.0, loss=loss,
                         augment_pipe="cutout")  # fmt: skip
        step.set_stage(STAGE, reset=True)
        holes: list[float] = []

        def look(module: Any, arguments: Any, holes: list[float] = holes) -> None:
            grey = (arguments[0] == 0).all(dim=1).float().mean(dim=(1, 2))
            holes.append(float(grey.min()))

        step.D.register_forward_pre_hook(look)
        step(reals(), None, STAGE, 0)
        assert len(holes) == (3 if loss == "logistic" else 4)
        assert min(holes[0], holes[1], holes[-1]) > 0.03
