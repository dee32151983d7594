"""Training of StyleGAN2 and R3GAN goes as in the official programs, of which runs are recorded."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stylecli
from stylecli.networks.model import Bundle, new_network
from stylecli.training.augment import Pipe
from stylecli.training.config import TrainingConfig
from stylecli.training.draws import Draws
from stylecli.training.gradients import blurred
from stylecli.training.schedule import moment_at, stage_at
from stylecli.training.step import TrainingStep
from tests.conftest import FIXTURES
from tests.networks.test_r3gan import our_name

OFFICIAL = FIXTURES / "official"


def read_trace(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with np.load(OFFICIAL / f"{name}_training.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file}
    return json.loads((OFFICIAL / f"{name}_training.json").read_text()), arrays


def assert_weights(
    network: Any, wanted: dict[str, Tensor], reach: float, least: float = 0.0
) -> None:
    """Every tensor is as wanted, to ``reach`` of its range, or to ``least``."""
    own = network.state_dict()
    for name, tensor in wanted.items():
        span = max(float(tensor.max() - tensor.min()), float(tensor.abs().max()))
        assert float((own[name] - tensor).abs().max()) <= max(reach * span, least), name


class Recorded:
    """The draws of the official run: in each phase and micro-batch of their own."""

    def __init__(self, step: TrainingStep, arrays: dict[str, Tensor], mixing: float) -> None:
        self.streams, self.ranks, self.arrays, self.mixing = (
            step.streams,
            step.ranks,
            arrays,
            mixing,
        )

    def fakes(self, stage: Any, position: int, *_: Any, **__: Any) -> "Recorded":
        self.step, self.phase = divmod(position, 4)
        return self

    def part(self, index: int, count: int) -> Any:
        if self.phase == 3:
            return None  # D's penalty has no fakes
        at, mine = (self.step, self.phase), slice(2 * index, 2 * index + 2)
        second = self.arrays["second_z"][at][mine]
        mixes = float(self.arrays["rand"][(*at, index)]) < self.mixing
        noise = self.arrays["path_noise"][self.step // 4, index][None]  # of the first half
        return Draws(
            self.arrays["z"][at][mine], second if mixes else None,
            int(self.arrays["mixing_cutoff"][(*at, index)]), None, None, noise,
        )  # fmt: skip


def test_the_official_run_of_stylegan2_is_reproduced() -> None:
    """18 steps with both lazy regularisations: losses, path lengths, p, weights and averages."""
    trace, arrays = read_trace("stylegan2")
    asked = trace["settings"]
    config = TrainingConfig(
        phases="lazy", batch={}, batch_base=asked["batch"], lr={}, lr_base=asked["lr"],
        r1_gamma=asked["gamma"], r1_interval=16, pl_weight=asked["pl"], pl_interval=4,
        ema_kimg=asked["ema_kimg"], ema_rampup=asked["ramp"], initial_resolution=16,
        augment="adaptive", augment_kimg=asked["ada_kimg"],
    )  # fmt: skip
    object.__setattr__(config, "augment_target", asked["target"])  # no run would aim so low
    net = new_network(
        "stylegan2", resolution=16, z_dim=16, w_dim=16, mapping_layers=2, fmap_base=64, fmap_max=16,
        mbstd_group_size=2, use_noise=False,
        # The program moves w_avg with each of two micro-batches, here one batch moves it once.
        w_avg_beta=0.995**2,
    )  # fmt: skip
    for name in ("G", "D"):
        start = f"start:{name}:"
        state = {key.removeprefix(start): arrays[key] for key in arrays if key.startswith(start)}
        getattr(net, name).load_state_dict(state)
    step = TrainingStep(net, config, batch_gpu=2)
    draws: Any = Recorded(step, arrays, asked["mix"])
    step.draws = step.gradients.draws = draws
    step.augmentation.pipe = Pipe()  # p moves, and nothing is changed
    step.augmentation.p.fill_(asked["p0"])
    names = {"loss_G": "Loss/G/loss", "loss_D": "Loss/D/loss"}
    for number, wanted in enumerate(trace["steps"]):
        stage = stage_at(config, 16, number * asked["batch"])
        moment = moment_at(config, stage)
        for phase, rates in zip(
            trace["phases"], (moment.G, moment.G, moment.D, moment.D), strict=True
        ):
            assert (rates.lr, rates.beta1, rates.beta2) == pytest.approx(
                (phase["lr"], *phase["betas"])
            )
        beta = 0.5 ** (asked["batch"] / max(moment.ema_images, 1e-8))
        assert beta == pytest.approx(wanted["ema_beta"])
        # A pass takes every second picture, the program's micro-batches lie one after the other.
        step(arrays["reals_uint8"][number][[0, 2, 1, 3]], None, stage, number)
        found = step.take_statistics()
        for ours, theirs in names.items():
            assert found[ours] == pytest.approx(wanted[theirs], rel=1e-3), (number, ours)
        assert found["path_mean"] == pytest.approx(wanted["pl_mean"], rel=1e-3)
        if number % 4 == 0:
            assert found["path_penalty"] == pytest.approx(wanted["Loss/pl_penalty"], rel=1e-3)
        if number % 16 == 0:
            assert found["r1_penalty"] == pytest.approx(wanted["Loss/r1_penalty"], rel=1e-3)
        if "ada_p" in wanted:
            assert found["augment_p"] == pytest.approx(wanted["ada_p"], abs=1e-6)
    for name in ("G", "D", "G_ema"):
        end = f"end:{name}:"
        state = {key.removeprefix(end): arrays[key] for key in arrays if key.startswith(end)}
        # Where a leaky ReLU is at its kink, one step may go another way: half of one is allowed.
        assert_weights(getattr(step, name), state, 1e-3, 0.6 * asked["lr"])


def test_the_official_run_of_r3gan_is_reproduced() -> None:
    """12 steps, by class: losses and penalties, the schedules, weights and averages."""
    trace, arrays = read_trace("r3gan")
    read = stylecli.load_network(OFFICIAL / "r3gan_labels_snapshot.pkl")
    asked = trace["schedules"]
    images = asked["lr"]["total_nimg"]
    config = TrainingConfig(
        phases="paired", loss="relativistic", batch={}, batch_base=4, lr={},
        lr_base=asked["lr"]["base_value"], lr_final=asked["lr"]["final_value"],
        adam_beta2=asked["beta2"]["base_value"], beta2_final=asked["beta2"]["final_value"],
        r1_gamma=asked["gamma"]["base_value"], r2_gamma=asked["gamma"]["base_value"],
        gamma_final=asked["gamma"]["final_value"], ema_kimg=asked["ema"]["final_value"] / 1000,
        anneal_kimg=images / 1000, initial_resolution=8,
    )  # fmt: skip
    net = Bundle(read.config, G=read.G, D=read.D, G_ema=read.G_ema)
    table = torch.eye(read.config.label_dim)
    step = TrainingStep(net, config, label_table=table)

    class Given:
        def fakes(self, stage: Any, position: int, shapes: Any, labels: Tensor, **_: Any) -> Draws:
            return Draws(arrays["z"][2 * (position // 4) + position % 4], None, 1, None, labels)

    step.draws = Given()  # type: ignore[assignment]
    for number, wanted in enumerate(trace["steps"]):
        stage = stage_at(config, 8, wanted["cur_nimg"])
        moment = moment_at(config, stage)
        assert (
            moment.G.lr,
            moment.D.beta2,
            moment.r1_gamma,
            moment.r2_gamma,
            moment.ema_images,
        ) == (pytest.approx([wanted[key] for key in ("lr", "beta2", "gamma", "gamma", "ema")]))
        both = slice(2 * number, 2 * number + 2)
        reals, labels = arrays["reals_uint8"][both].flatten(0, 1), arrays["labels"][both].flatten()
        step(reals, table[labels.long()], stage, number)
        found = step.take_statistics()
        D, G = (np.array(wanted[name]).mean(axis=0) for name in ("D", "G"))
        assert found["loss_D"] == pytest.approx(D[0], rel=1e-3)
        assert found["real_logits"] - found["fake_logits"] == pytest.approx(
            D[1], rel=1e-3, abs=1e-4
        )
        assert found["r1_penalty"] == pytest.approx(D[2] + D[3], rel=1e-3)
        assert found["loss_G"] == pytest.approx(G[0], rel=1e-3)
    for name in ("G", "D", "G_ema"):
        after = f"after:{name}:"
        state = {our_name(key.removeprefix(after), name[0], 2): arrays[key]
                 for key in arrays if key.startswith(after)}  # fmt: skip
        own = getattr(step, name).state_dict()
        state = {key: tensor.view_as(own[key]) for key, tensor in state.items()}
        assert_weights(getattr(step, name), state, 1e-3)


def test_the_official_blur_is_reproduced() -> None:
    with np.load(OFFICIAL / "stylegan3_blur.npz") as file:
        values = {key: torch.from_numpy(file[key]) for key in file}
    for sigma, name in ((1.0, "1"), (2.5, "2p5"), (10.0, "10")):
        found = blurred(values["image"], sigma)
        assert torch.allclose(found, values[f"blur_sigma{name}"], atol=1e-5)
    assert blurred(values["image"], 0.3) is values["image"]  # reaches no pixel


def test_the_official_schedules_are_reproduced() -> None:
    rows = json.loads((OFFICIAL / "r3gan_schedules.json").read_text())
    for row in rows:
        config = TrainingConfig(
            lr={}, lr_base=row["base_value"] or 1.0, lr_final=row["final_value"],
            anneal_kimg=row["total_nimg"] / 1000, ema_kimg=row["final_value"],
        )  # fmt: skip
        moment = moment_at(config, stage_at(config, 8, round(row["cur_nimg"])))
        found = moment.G.lr if row["base_value"] else moment.ema_images / 1000
        assert found == pytest.approx(row["value"], rel=1e-6)


@pytest.mark.parametrize("config", ["stylegan3-t", "stylegan3-r"])
def test_stylegan3_moves_its_averages_in_one_pass_of_d(config: str, monkeypatch: Any) -> None:
    """Once a step, by the fakes that D sees; blur goes; G's rate is its own."""
    net = new_network(config, resolution=16, num_layers=3, z_dim=8, w_dim=8, fmap_base=128,
                      fmap_max=8, magnitude_beta=0.5)  # fmt: skip
    settings = TrainingConfig(
        phases="lazy", batch={}, batch_base=4, lr={}, lr_base=0.0025, lr_D=0.002, r1_interval=16,
        blur_sigma=10.0, blur_kimg=0.008, initial_resolution=16,
    )  # fmt: skip
    step = TrainingStep(net, settings)
    reals = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    moment = moment_at(settings, stage_at(settings, 16, 4))
    assert (moment.G.lr, moment.G.beta2, moment.blur_sigma) == (0.0025, 0.99, 5.0)
    assert moment.D.lr == pytest.approx(0.002 * 16 / 17)
    assert moment_at(settings, stage_at(settings, 16, 12)).blur_sigma == 0
    before = [buffer.clone() for buffer in step.gradients.magnitudes]
    w_avg = step.G.mapping.w_avg.clone()
    draw, moved_by = step.G.synthesis.forward, []

    def note(*given: Any, **how: Any) -> Tensor:
        moved_by.append(how.get("update_emas", False))
        return draw(*given, **how)

    monkeypatch.setattr(step.G.synthesis, "forward", note)
    step(reals, None, stage_at(settings, 16, 4), 1)
    assert moved_by == [False, True]  # G's pass, then D's
    for old, new in zip(before, step.gradients.magnitudes, strict=True):
        assert float(new) > 0 and float(new) != float(old)
    draws = step.draws.fakes(stage_at(settings, 16, 4), 4 + 2, [])
    with torch.no_grad():
        net2 = new_network(config, resolution=16, num_layers=3, z_dim=8, w_dim=8, fmap_base=128,
                           fmap_max=8)  # fmt: skip
        mean = net2.G.mapping.embed(draws.z).mean(dim=0)
    # w_avg moved by D's draws alone, through the mapping after G's first update.
    moved = (step.G.mapping.w_avg - w_avg) / (1 - 0.998)
    assert float((moved - mean).abs().max()) < 0.1 * float(mean.abs().max())
    assert all(
        torch.equal(a, b) for a, b in zip(step.G_ema.buffers(), step.G.buffers(), strict=True)
    )
