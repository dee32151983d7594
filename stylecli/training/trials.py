"""Whether a GPU computes rightly what training can have it do: ``stylecli doctor`` asks.

No GPU has tried some of it here, so it is off until a person turns it on (``train --accelerate``),
which these trials are to precede. Each ends in one sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylecli.hardware import cuda_arithmetic, quicker_precision
from stylecli.networks.model import new_network
from stylecli.ops.cuda.selfcheck import Timer, seconds_on_cuda
from stylecli.training.config import CHANNELS_LAST, GRAPHS, TrainingConfig
from stylecli.training.graphs import WARM_UPS
from stylecli.training.schedule import Stage
from stylecli.training.step import TrainingStep

_SIDE, _BATCH, _PRODUCT = 64, 16, 512
_SMALL: dict[str, Any] = {
    "fmap_base": 2048,
    "fmap_max": 64,
    "mapping_layers": 2,
    "z_dim": 64,
    "w_dim": 64,
}
_HALVINGS = 16
_FULL = 1e-5  # the most that a full float32 product of this size is off; TF32 is by 3e-4
_REPLAYED = 1e-3  # of parameters after some steps: sums of atomic additions differ in their order
_APART = 0.15  # of gradients in half precision, whose sums are in another order


@dataclass(frozen=True)
class Trial:
    """What came of one: a sentence, and whether all is as it should be."""

    name: str
    works: bool
    sentence: str


def try_training(
    device: torch.device, timer: Timer = seconds_on_cuda, *, side: int = _SIDE
) -> list[Trial]:
    """Try TF32 and every acceleration on a device; raises nothing for what they do.

    ``timer`` returns the seconds that a piece of work takes.
    """
    trials: dict[str, Callable[[], tuple[bool, str]]] = {
        "TF32": lambda: _try_tf32(device),
        CHANNELS_LAST: lambda: _try_channels_last(device, timer, side),
        GRAPHS: lambda: _try_graphs(device, timer, max(side // 4, 8)),  # small steps gain
    }
    found = []
    for name, attempt in trials.items():
        try:
            works, sentence = attempt()
        except Exception as error:
            works, sentence = False, f"failed: {str(error).splitlines()[0] or type(error).__name__}"
        found.append(Trial(name, works, sentence))
    return found


def _try_tf32(device: torch.device) -> tuple[bool, str]:
    random = torch.Generator("cpu").manual_seed(0)
    a, b = (torch.randn(_PRODUCT, _PRODUCT, generator=random) for _ in range(2))
    wanted = a.cpu().double() @ b.cpu().double()
    errors = []
    for exact in (True, False):
        with cuda_arithmetic(device, exact=exact):
            errors.append(_apart((a.to(device) @ b.to(device)).cpu(), wanted))
    works = errors[0] < _FULL
    sentence = (
        f"float32 products are off by {errors[0]:.0e} with --exact and {errors[1]:.0e} without"
    )
    return works, sentence if works else f"{sentence}: --exact does not compute in full here"


def _try_channels_last(device: torch.device, timer: Timer, side: int) -> tuple[bool, str]:
    precision = "bf16" if quicker_precision(device) == "bf16" else "fp16"
    if device.type != "cuda":
        precision = "bf16"
    usual, last = (
        _first_step(device, precision, chosen, side) for chosen in ((), (CHANNELS_LAST,))
    )
    apart = max(_apart(*pair) for pair in zip(last.gradients, usual.gradients, strict=True))
    seconds = [min(timer(one.again) for _ in range(3)) * 1e3 for one in (last, usual)]
    works = apart < _APART
    sentence = (
        f"gradients in {precision} are within {apart:.1%} of those in the usual layout; a step of "
        f"{side} px takes {seconds[0]:.2g} ms instead of {seconds[1]:.2g}"
    )
    return works, sentence if works else f"{sentence}: do not use --accelerate {CHANNELS_LAST}"


def _try_graphs(device: torch.device, timer: Timer, side: int) -> tuple[bool, str]:
    plain, held = (_some_steps(device, chosen, side) for chosen in ((), (GRAPHS,)))
    apart = max(_apart(*pair) for pair in zip(held.gradients, plain.gradients, strict=True))
    seconds = [min(timer(one.again) for _ in range(3)) * 1e3 for one in (held, plain)]
    works = apart < _REPLAYED
    sentence = (
        f"parameters after replayed steps are within {apart:.0e} of those after plain ones; a step "
        f"of {side} px takes {seconds[0]:.2g} ms instead of {seconds[1]:.2g}"
    )
    return works, sentence if works else f"{sentence}: do not use --accelerate {GRAPHS}"


@dataclass(frozen=True)
class _Taken:
    gradients: list[Tensor]  # of D and G; of several steps, what became of both
    again: Callable[[], object]


def _some_steps(device: torch.device, chosen: tuple[str, ...], side: int) -> _Taken:
    """Take steps of a small network until they are replayed, and two more."""
    net, count = new_network("f", resolution=side, seed=0, **_SMALL), WARM_UPS + 3
    step = TrainingStep(net, TrainingConfig(), device=device,
                        accelerations=frozenset(chosen), exact=True)  # fmt: skip
    reals = _some_reals(side).to(device)
    for number in range(count):
        stage = Stage(0.5 - 0.1 * number, side, _BATCH, 1e-3 / (1 + number), 1.0)  # both move
        step.set_stage(stage, reset=not number)
        step(reals, None, stage, number)
    moved = [step.flat_D.data.clone(), step.flat_G.data.clone()]
    return _Taken(moved, lambda: step(reals, None, stage, count))


def _some_reals(side: int) -> Tensor:
    random = torch.Generator("cpu").manual_seed(1)
    return torch.randint(0, 256, (_BATCH, 3, side, side), dtype=torch.uint8, generator=random)


def _first_step(device: torch.device, precision: str, chosen: tuple[str, ...], side: int) -> _Taken:
    """Take a first step of a small network; the same draws every time."""
    net = new_network("f", resolution=side, seed=0, **_SMALL)
    config: dict[str, Any] = {"precision": precision}
    step = TrainingStep(net, TrainingConfig(**config), device=device,
                        accelerations=frozenset(chosen), exact=True)  # fmt: skip
    stage = Stage(lod=0.0, resolution=side, batch=_BATCH, lr=1e-3, tick_kimg=1)
    step.set_stage(stage, reset=True)
    reals = _some_reals(side).to(device)
    for _ in range(_HALVINGS):
        step(reals, None, stage, 0)
        gradients = [flat.grad.clone() for flat in (step.flat_D, step.flat_G)]
        if all(float(one.norm()) for one in gradients):
            break  # else fp16 has yet to find its scale
    return _Taken(gradients, lambda: step(reals, None, stage, 1))


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Return the relative distance, infinite where it is not a number."""
    found, wanted = (one.detach().cpu().double() for one in (found, wanted))
    return float(((found - wanted).norm() / wanted.norm()).nan_to_num(nan=torch.inf))
