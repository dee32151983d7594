"""Captured updates: replays equal plain steps to the bit, wherever they begin; what ends them."""

from typing import Any

import pytest
import torch

from stylecli.distributed.ranks import Ranks
from stylecli.errors import DeviceError
from stylecli.networks.model import new_network
from stylecli.training.augment import StreamDraws
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep
from tests.training.tape import Tapes

TINY = {"resolution": 8, "fmap_base": 64, "fmap_max": 8, "z_dim": 8}
F = {"w_dim": 8, "mapping_layers": 2, "mapping_fmaps": 8}
LAZY: dict[str, Any] = {"phases": "lazy", "r1_interval": 2, "ema_rampup": 0.05}
# preset, fields of the network, settings of training, of the step
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "f": ("f", F, {}, {}),
    "R2, R1 now and then": ("f", F, {"r1_interval": 3, "r2_gamma": 0.5}, {}),
    "wgan-gp, labels": ("f", {**F, "label_dim": 3}, {"loss": "wgan-gp"}, {}),
    "passes, shared fakes": ("f", F, {"share_fakes": True}, {"batch_gpu": 4}),
    "fp16, momentum": ("f", F, {"precision": "fp16", "adam_beta1": 0.5, "share_fakes": True}, {}),
    "bf16, augmented": ("f", F, {"precision": "bf16", "augment": "adaptive",
                                 "augment_pipe": "bgcfnc"}, {}),
    "stylegan2": ("stylegan2", {"w_dim": 8, "mapping_layers": 2},
                  {**LAZY, "pl_weight": 2.0, "pl_interval": 3, "augment": "adaptive",
                   "r1_interval": 1}, {"batch_gpu": 4}),
    "stylegan3": ("stylegan3-r", {"resolution": 16, "w_dim": 8, "num_layers": 3,
                                  "D_fmap_base": 64, "D_fmap_max": 8},
                  {**LAZY, "r2_gamma": 0.3, "blur_sigma": 2.0, "blur_kimg": 0.02}, {}),
    "r3gan": ("r3gan", {"group_fmaps": 4, "label_dim": 3, "embed_dim": 4},
              {"phases": "paired", "loss": "relativistic", "r2_gamma": 1.0, "gamma_final": 0.1,
               "anneal_kimg": 0.08, "lr_final": 0.001, "beta2_final": 0.999, "augment": "fixed",
               "augment_pipe": "halfcolor"}, {}),
}  # fmt: skip


class Trained:
    """A run of a few steps: fading in (where networks grow), then full size at another rate."""

    def __init__(self, case: str, recorder: Tapes | None, ranks: Ranks | None = None) -> None:
        preset, fields, settings, more = CASES[case]
        self.net = new_network(preset, seed=0, **{**TINY, **fields})
        self.side = self.net.config.resolution
        if preset == "f":
            with torch.no_grad():
                for layer in self.net.G.synthesis.layers:
                    layer.noise_strength.fill_(0.1)
        config = TrainingConfig(**{"r1_gamma": 1.0, "seed": 3, **settings})
        table = torch.eye(3) if self.net.config.label_dim else None
        self.step = TrainingStep(self.net, config, label_table=table, recorder=recorder,
                                 ranks=ranks, **more)  # fmt: skip
        self.table, self.number = table, 0

    def take(self, count: int) -> None:
        """Take steps; each shows other pictures."""
        step, config = self.step, self.step.config
        for _ in range(count):
            grown = self.number >= 6 or not self.net.config.grows
            lod = 0.0 if grown else 0.7 - 0.11 * self.number
            lr = 0.003 if self.number < 6 else 0.002
            stage = Stage(lod, self.side, 8, lr, 1.0, nimg=8 * self.number)
            step.set_stage(stage, reset=self.number == 6)
            random = torch.Generator().manual_seed(self.number)
            share = 8 // step.ranks.count
            shape = (share * config.batches_of_reals, 3, self.side, self.side)
            reals = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
            labels = None if self.table is None else self.table[torch.arange(shape[0]) % 3]
            step(reals, labels, stage, self.number)
            self.number += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that the next step begins with, and what is reported."""
        step = self.step
        found = {f"{name}.{key}": value for name in ("G", "D", "G_ema")
                 for key, value in getattr(self.net, name).state_dict().items()}  # fmt: skip
        for name, adam in (("adam_G", step.adam_G), ("adam_D", step.adam_D)):
            found |= {f"{name}.steps": adam.steps, f"{name}.square": adam.square}
            found |= {} if adam.mean is None else {f"{name}.mean": adam.mean}
        for name, scaler in (("scaler_G", step.scaler_G), ("scaler_D", step.scaler_D)):
            found |= {name: scaler._scale, f"{name}.good": scaler._good_steps}
        return found | {"path_mean": step.gradients.path_mean, "p": step.augmentation.p,
                        "seen": step.augmentation.seen, "sums": step.totals.sums}  # fmt: skip


def differences(found: Trained, wanted: Trained) -> list[str]:
    pairs = found.tensors(), wanted.tensors()
    apart = [key for key in pairs[1] if not torch.equal(pairs[0][key], pairs[1][key])]
    return apart + ["counts"] * (found.step.totals.counts != wanted.step.totals.counts)


QUICK = "fp16, momentum"


@pytest.mark.parametrize(
    "case",
    [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != QUICK)],
)
def test_replays_equal_plain_steps(case: str) -> None:
    """While a fade, rates and gammas move, across the end of the fade, with what is reported."""
    recorder = Tapes()
    plain, held = Trained(case, None), Trained(case, recorder)
    for _ in range(11):
        plain.take(1)
        held.take(1)
        assert differences(held, plain) == [], held.number
    assert recorder.replayed >= 4
    grows = plain.net.config.grows
    assert recorder.forgotten == 1 + grows  # at the start, and where the fade ends


def test_a_run_continues_without_graphs_and_with_new_ones() -> None:
    """With no more than what a checkpoint keeps."""
    whole, first = Trained(QUICK, None), Trained(QUICK, Tapes())
    whole.take(10)
    first.take(4)
    for recorder in (None, Tapes()):
        rest = Trained(QUICK, recorder)
        with torch.no_grad():
            for key, value in rest.tensors().items():
                value.copy_(first.tensors()[key])
        rest.step.totals.counts, rest.number = list(first.step.totals.counts), first.number
        rest.take(6)
        assert differences(rest, whole) == []


class Two(Ranks):
    """Two ranks that always agree. To exchange is to look at numbers, which no tape allows."""

    def mean_(self, tensor: torch.Tensor, *, wait: bool = True) -> None:
        assert tensor.sum().item() is not None


def test_what_ranks_exchange_stays_between_two_captured_parts() -> None:
    recorder = Tapes()
    plain, held = (Trained(QUICK, one, Two(1, 2)) for one in (None, recorder))
    plain.take(5)
    held.take(5)
    assert differences(held, plain) == []
    assert recorder.captured == 5  # two for D, two for G, the average


class Failing(Tapes):
    """Cannot capture the third piece of work."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def capture(self, work: Any) -> Any:
        if self.captured < 2:
            return super().capture(work)
        raise self.error


def broken_by_memory() -> RuntimeError:
    """Return what the end of a capture raises, of which an error within is the context."""
    error = RuntimeError("operation failed due to a previous error during capture")
    error.__context__ = torch.OutOfMemoryError("full")
    return error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), broken_by_memory()])
def test_graphs_that_do_not_fit_are_done_without(error: Exception) -> None:
    told: list[str] = []
    plain, held = Trained(QUICK, None), Trained(QUICK, Failing(error))
    held.step.adapt = told.append
    plain.take(5)
    held.take(5)
    assert differences(held, plain) == []
    assert len(told) == 1 and "graphs" in told[0] and held.step.graphs is None


def test_what_does_not_fit_while_it_is_captured_is_done_without(monkeypatch: Any) -> None:
    """Memory runs out within the work, not in the recorder."""
    told: list[str] = []
    plain, held = Trained(QUICK, None), Trained(QUICK, Tapes())
    held.step.adapt = told.append
    forward = held.step.D.forward

    def judge(*given: Any, **how: Any) -> torch.Tensor:
        if held.step.graphs is not None and held.step.graphs.capturing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*given, **how)

    monkeypatch.setattr(held.step.D, "forward", judge)
    plain.take(5)
    held.take(5)
    assert differences(held, plain) == []
    assert len(told) == 1 and "graphs" in told[0] and held.step.graphs is None


def test_a_pass_that_ends_between_two_draws_draws_them_all_again(monkeypatch: Any) -> None:
    """Memory runs out in the augmentation of the first pass; half of it fits."""
    draw = StreamDraws._mine
    pair = []
    for recorder in (None, Tapes()):
        asked: list[str] = []

        def once(self: Any, *given: Any, asked: list[str] = asked) -> torch.Tensor:
            asked.append(given[0])
            if len(asked) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return draw(self, *given)

        monkeypatch.setattr(StreamDraws, "_mine", once)
        pair.append(Trained("bf16, augmented", recorder))
        pair[-1].step.adapt = lambda text: None
        pair[-1].take(2)
        assert pair[-1].step.batch_gpu == 4
    plain, held = pair
    assert differences(held, plain) == []


def test_what_cannot_be_captured_ends_in_one_sentence() -> None:
    held = Trained(QUICK, Failing(RuntimeError("not permitted\nwhen stream is capturing")))
    held.step.adapt = lambda text: None
    with pytest.raises(DeviceError, match=r"not permitted\): .*--accelerate") as raised:
        held.take(5)
    assert raised.value.exit_code == 4
