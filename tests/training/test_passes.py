"""A step in several passes: gradients and draws of the whole, memory, and passes tried again."""

from typing import Any

import pytest
import torch

from stylecli.distributed.ranks import Ranks
from stylecli.errors import ExitCode, UsageError
from stylecli.networks.layers import minibatch_stddev
from stylecli.networks.model import new_network
from stylecli.training.config import TrainingConfig
from stylecli.training.schedule import Stage, count_passes, smaller_pass
from stylecli.training.step import StepMemoryError, TrainingStep

DIVIDED = Stage(lod=0.5, resolution=16, batch=16, lr=0.003, tick_kimg=1)
SETTINGS: dict[str, dict[str, Any]] = {
    "logistic with R1 and R2": {"r1_gamma": 5.0, "r2_gamma": 2.0},
    "lazy R1": {"r1_gamma": 5.0, "r1_interval": 4},
    "WGAN-GP": {"loss": "wgan-gp", "r1_gamma": 0.0},
    "hinge-GP": {"loss": "hinge-gp", "r1_gamma": 0.0},
    "shared fakes": {"r1_gamma": 5.0, "share_fakes": True},
}


def gradients(
    fields: dict[str, Any], batch_gpu: int | None, settings: dict[str, Any], step_number: int = 4
) -> dict[str, torch.Tensor]:
    """Return what one step computes before it is applied: gradients, w_avg, statistics."""
    bundle = new_network(seed=0, label_dim=3, **fields)
    step = TrainingStep(
        bundle, TrainingConfig(**settings), label_table=torch.eye(3), batch_gpu=batch_gpu
    )
    with torch.no_grad():
        for layer in step.G.synthesis.layers:
            layer.noise_strength.fill_(0.1)  # type: ignore[operator]
    found = {}

    def keep(flat: Any, adam: Any, scaler: Any, rates: Any) -> None:
        found["D" if flat is step.flat_D else "G"] = flat.grad.clone()
        # The networks stay, so that both gradients are of the same weights.

    step._apply = keep  # type: ignore[method-assign]
    step.set_stage(DIVIDED, reset=False)
    generator = torch.Generator().manual_seed(0)
    reals = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8, generator=generator)
    step(reals, torch.eye(3)[torch.arange(16) % 3], DIVIDED, step_number)
    statistics = step.take_statistics()
    return {**found, "w_avg": step.G.mapping.w_avg.clone(),
            "statistics": torch.tensor(list(statistics.values()))}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("batch_gpu", [4, 9])
def test_passes_have_the_gradients_of_the_whole(
    batch_gpu: int, settings: dict[str, Any], tiny_config_fields: dict[str, Any]
) -> None:
    fields = {**tiny_config_fields, "style_mixing_prob": 1.0}
    whole = gradients(fields, None, settings)
    parts = gradients(fields, batch_gpu, settings)

    for name in ("D", "G", "w_avg", "statistics"):
        difference = (parts[name] - whole[name]).norm() / whole[name].norm()
        assert float(difference) < 1e-5, name


def test_a_step_in_passes_moves_like_a_whole_one(tiny_config_fields: dict[str, Any]) -> None:
    """Through Adam and the averages, with mixing drawn again in every step."""
    ends = []
    for batch_gpu in (None, 4):
        step = TrainingStep(
            new_network(seed=0, **tiny_config_fields), TrainingConfig(), batch_gpu=batch_gpu
        )
        flats = (step.flat_G, step.flat_D, step.flat_ema)
        before = [flat.data.clone() for flat in flats]
        step.set_stage(DIVIDED, reset=False)
        generator = torch.Generator().manual_seed(0)
        for number in range(3):
            reals = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8, generator=generator)
            step(reals, None, DIVIDED, number)
        ends.append([flat.data - start for flat, start in zip(flats, before, strict=True)])

    for whole, parts in zip(*ends, strict=True):
        # Adam makes whole steps of gradients that are all rounding, such as of unused noise.
        assert float((parts - whole).norm() / whole.norm()) < 0.1


def test_a_pass_holds_the_activations_of_its_own_samples_only(
    tiny_config_fields: dict[str, Any],
) -> None:
    saved = {}
    for batch_gpu in (None, 4):
        step = TrainingStep(
            new_network(seed=0, **tiny_config_fields),
            TrainingConfig(share_fakes=True),
            batch_gpu=batch_gpu,
        )
        alive: dict[int, int] = {}
        peak = 0

        def pack(tensor: torch.Tensor, alive: dict[int, int] = alive) -> Any:
            nonlocal peak
            kept = _Kept(tensor, alive)
            peak = max(peak, sum(alive.values()))
            return kept

        step.set_stage(DIVIDED, reset=False)
        reals = torch.zeros(16, 3, 16, 16, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            step(reals, None, DIVIDED, 0)
        saved[batch_gpu] = peak

    assert saved[4] < 0.35 * saved[None]  # a quarter, and weights


class _Kept:
    """A tensor that autograd keeps, counted for as long as it is kept."""

    def __init__(self, tensor: torch.Tensor, alive: dict[int, int]) -> None:
        self.tensor, self.alive = tensor, alive
        alive[id(self)] = tensor.numel() * tensor.element_size()

    def __del__(self) -> None:
        self.alive.pop(id(self), None)


def test_groups_of_every_other_sample_are_groups_of_the_whole() -> None:
    x = torch.randn(16, 3, 4, 4)
    whole = minibatch_stddev(x, 4)
    for count in (2, 4):
        for index in range(count):
            assert torch.equal(minibatch_stddev(x[index::count], 4), whole[index::count])


@pytest.mark.parametrize(
    ("share", "batch_gpu", "group", "passes"),
    [(16, None, 4, 1), (16, 16, 4, 1), (16, 8, 4, 2), (16, 7, 4, 4), (12, 8, 4, 3), (6, 4, 0, 2),
     (3, 8, 4, 1), (6, 5, 1, 2)],
)  # fmt: skip
def test_as_few_passes_as_fit(share: int, batch_gpu: int | None, group: int, passes: int) -> None:
    assert count_passes(share, batch_gpu, group) == passes


def test_a_pass_smaller_than_a_group_is_refused() -> None:
    with pytest.raises(UsageError, match="give --batch-gpu 4 or more"):
        count_passes(16, 2, 4)


def test_draws_are_dealt_to_ranks_and_passes_alike(tiny_config_fields: dict[str, Any]) -> None:
    """Sample 5 of a batch is the same fake on one rank, on two, and in any pass."""

    def latents(rank: int, count: int) -> torch.Tensor:
        step = TrainingStep(new_network(**tiny_config_fields), TrainingConfig(),
                            ranks=Ranks(rank, count))  # fmt: skip
        return step.draws.fakes(DIVIDED, 7, step.G.config.noise_shapes()).z

    whole = latents(0, 1)
    assert torch.equal(latents(1, 2), whole[1::2])
    step = TrainingStep(new_network(**tiny_config_fields), TrainingConfig())
    draws = step.draws.fakes(DIVIDED, 7, step.G.config.noise_shapes())
    assert torch.equal(draws.part(1, 4).z, whole[1::4])
    whole_noise: Any = draws.noise
    noise: Any = draws.part(1, 4).noise
    assert torch.equal(noise[0], whole_noise[0][1::4])


@pytest.mark.parametrize(
    ("share", "passes", "group", "smaller"),
    [(16, 1, 4, 8), (16, 2, 4, 4), (16, 4, 4, None), (12, 1, 4, 4), (6, 1, 0, 3), (1, 1, 4, None)],
)
def test_the_next_smaller_pass_is_one_that_divides(
    share: int, passes: int, group: int, smaller: int | None
) -> None:
    assert smaller_pass(share, passes, group) == smaller
    if smaller is not None:
        assert share // count_passes(share, smaller, group) == smaller


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, other allocations: 1 GB)"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
    ],
    ids=["cuda", "mps", "cudnn", "cpu"],
)
@pytest.mark.parametrize(("batch_gpu", "advice"), [(None, "--batch-gpu 8"), (4, "--resolution")])
def test_a_pass_that_does_not_fit_says_what_to_give(
    error: Exception, batch_gpu: int | None, advice: str, tiny_network: Any, monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    step = TrainingStep(tiny_network, TrainingConfig(), batch_gpu=batch_gpu)
    monkeypatch.setattr(step.D, "forward", full)
    reals = torch.zeros(16, 3, 16, 16, dtype=torch.uint8)

    with pytest.raises(StepMemoryError, match=advice) as told:
        step(reals, None, DIVIDED, 0)
    assert told.value.exit_code == ExitCode.NO_DEVICE
    assert f"{batch_gpu or 16} pictures of 16 px" in str(told.value)


def test_another_failure_stays_what_it_is(tiny_network: Any, monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    step = TrainingStep(tiny_network, TrainingConfig())
    monkeypatch.setattr(step.D, "forward", fails)

    with pytest.raises(RuntimeError, match="illegal"):
        step(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), None, DIVIDED, 0)


def with_little_memory(
    step: TrainingStep, most: int, monkeypatch: Any, *, only_G: bool = False
) -> list[int]:
    """Let D take at most so many pictures; return the list of what it was asked to take."""
    forward, asked = step.D.forward, []

    def judge(images: torch.Tensor, *given: Any, **how: Any) -> torch.Tensor:
        asked.append(len(images))
        trains_G = not any(parameter.requires_grad for parameter in step.D.parameters())
        if len(images) > most and (trains_G or not only_G):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(images, *given, **how)  # type: ignore[no-any-return]

    monkeypatch.setattr(step.D, "forward", judge)
    return asked


@pytest.mark.parametrize("share_fakes", [False, True])
def test_passes_that_do_not_fit_are_halved_until_they_do(
    share_fakes: bool, tiny_config_fields: dict[str, Any], monkeypatch: Any
) -> None:
    told: list[str] = []
    config = TrainingConfig(r1_gamma=5.0, share_fakes=share_fakes)
    asked_for, found_out = (
        TrainingStep(new_network(seed=0, **tiny_config_fields), config, **how)
        for how in ({"batch_gpu": 4}, {"adapt": told.append})
    )
    asked = with_little_memory(found_out, 4, monkeypatch)
    reals = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    for number in range(2):
        for step in (asked_for, found_out):
            step(reals, None, DIVIDED, number)

    assert [size for size in asked if size > 4] == [16, 8]  # once in a session, not in each step
    assert [text.split()[-1] for text in told] == ["8", "4"]
    assert torch.equal(asked_for.flat_D.data, found_out.flat_D.data)
    assert torch.equal(asked_for.flat_G.data, found_out.flat_G.data)
    assert asked_for.take_statistics() == found_out.take_statistics()


def test_what_only_the_generator_has_no_room_for_is_halved_there(
    tiny_config_fields: dict[str, Any], monkeypatch: Any
) -> None:
    """D's fakes with their history are let go of, and D is applied once."""
    told: list[str] = []
    config = TrainingConfig(r1_gamma=5.0, share_fakes=True)
    whole, halved = (
        TrainingStep(new_network(seed=0, **tiny_config_fields), config, adapt=told.append)
        for _ in range(2)
    )
    with_little_memory(halved, 8, monkeypatch, only_G=True)
    reals = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    for step in (whole, halved):
        step(reals, None, DIVIDED, 0)

    assert len(told) == 1 and halved.batch_gpu == 8
    assert torch.equal(whole.flat_D.data, halved.flat_D.data)
    apart = (whole.flat_G.grad - halved.flat_G.grad).norm() / whole.flat_G.grad.norm()
    assert float(apart) < 1e-5
    assert all(parameter.requires_grad for parameter in halved.D.parameters())


def test_reals_of_a_pass_tried_again_count_once(
    tiny_config_fields: dict[str, Any], monkeypatch: Any
) -> None:
    """The second backward pass of D, that of the lazy penalty, does not fit."""
    bundle = new_network(seed=0, **tiny_config_fields)
    config = TrainingConfig(phases="lazy", r1_gamma=1.0, r1_interval=16, augment="adaptive")
    told: list[str] = []
    step = TrainingStep(bundle, config, adapt=told.append)
    backward, calls = step.gradients._backward, []

    def fail_once(loss: torch.Tensor, passes: int, scaler: Any) -> None:
        if scaler is step.scaler_D:
            calls.append(passes)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        backward(loss, passes, scaler)

    monkeypatch.setattr(step.gradients, "_backward", fail_once)
    stage = Stage(lod=0.5, resolution=16, batch=8, lr=0.003, tick_kimg=1)
    step.set_stage(stage, reset=True)
    step(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), None, stage, 0)
    assert calls == [1, 1, 2, 2] and len(told) == 1
    assert step.augmentation.seen.tolist()[1] == 16
