"""What turns gradients into new parameters: flat vectors, Adam, loss scaling, frozen layers."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylecli.errors import UsageError
from stylecli.networks.config import NetworkConfig


class FlatParameters:
    """All parameters of a network in one vector ``data`` [P], all gradients in another, ``grad``.

    Every parameter and its .grad become views into them. Optimizer, moving average and the
    reduction over ranks are then a few operations on one long vector instead of thousands on short
    ones, which on small networks is most of their cost.
    Parameters a step did not use have a zero gradient, which with fresh moments moves nothing.
    """

    def __init__(self, network: nn.Module) -> None:
        parameters = dict(network.named_parameters())
        self.names = list(parameters)
        self.shapes = [parameter.shape for parameter in parameters.values()]
        self.sizes = [parameter.numel() for parameter in parameters.values()]
        with torch.no_grad():
            self.data = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        self.grad = torch.zeros_like(self.data)
        for parameter, data, grad in zip(
            parameters.values(), self.split(self.data), self.split(self.grad), strict=True
        ):
            parameter.data = data
            parameter.grad = grad
        self._frozen: list[Tensor] = []  # gradients of what keeps its values

    def freeze(self, names: Iterable[str]) -> None:
        """Keep these parameters from now on as they are; raise KeyError for unknown names."""
        grads = self.named(self.grad)
        self._frozen = [grads[name] for name in names]

    def clear_frozen(self) -> None:
        """Clear the gradients of what is frozen: with fresh moments nothing then moves."""
        for grad in self._frozen:
            grad.zero_()

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return a [P] vector as views of the parameters' shapes."""
        pieces = vector.split(self.sizes)  # type: ignore[no-untyped-call]
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a [P] vector as parameter name -> view."""
        return dict(zip(self.names, self.split(vector), strict=True))


class Adam:
    """Adam as TensorFlow 1 has it, which StyleGAN was trained with: of one vector [P].

        p -= lr·√(1-β2^t)/(1-β1^t) · m / (√v + ε)

    PyTorch corrects the bias of v before adding ε; the two differ only where gradients are near ε.
    """

    def __init__(self, size: Tensor, *, beta1: float, beta2: float, epsilon: float) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.steps = 0
        self.mean = torch.zeros_like(size) if beta1 else None  # with β1 = 0 it is the gradient
        self.square = torch.zeros_like(size)

    def reset(self) -> None:
        """Forget all moments, as at the start and end of every fade."""
        self.steps = 0
        self.square.zero_()
        if self.mean is not None:
            self.mean.zero_()

    @torch.no_grad()
    def step(self, data: Tensor, grad: Tensor, lr: float) -> None:
        """Update ``data`` [P] in place from ``grad`` [P]."""
        self.steps += 1
        self.square.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        mean = grad
        if self.mean is not None:
            mean = self.mean.lerp_(grad, 1 - self.beta1)
        rate = lr * math.sqrt(1 - self.beta2**self.steps) / (1 - self.beta1**self.steps)
        data.addcdiv_(mean, self.square.sqrt().add_(self.epsilon), value=-rate)


FIRST_SCALE = 2.0**16
LARGEST_SCALE = 2.0**24
STEPS_TO_GROW = 2000


@dataclass
class LossScaler:
    """Keep gradients in the range of float16: a factor of one network's loss, found on the way.

    float16 ends at 65504 and loses what is below 6e-8, so gradients are computed of the loss times
    S and divided by S afterwards (Micikevicius et al. 2017, "Mixed Precision Training"). Where one
    is not finite the step is left out and S halved; after 2000 good steps S is doubled. All ranks
    see the same gradient and agree without a word.
    """

    scale: float = 1.0
    good_steps: int = 0  # since the scale last changed
    enabled: bool = False  # False: the scale stays 1

    @classmethod
    def for_precision(cls, precision: str) -> "LossScaler":
        """Return a scaler that works for fp16 and does nothing for other precisions."""
        enabled = precision == "fp16"
        return cls(FIRST_SCALE if enabled else 1.0, 0, enabled)

    def update(self, *, finite: bool) -> None:
        """Learn whether the gradient of a step was finite."""
        if not self.enabled:
            return
        if not finite:
            self.scale, self.good_steps = max(self.scale / 2, 1.0), 0
            return
        self.good_steps += 1
        if self.good_steps == STEPS_TO_GROW:
            self.scale, self.good_steps = min(self.scale * 2, LARGEST_SCALE), 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept, unless it is of a run without scaling."""
        if self.enabled and state.get("enabled"):
            self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])


def frozen_layers(config: NetworkConfig, count: int, resolution: int) -> list[str]:
    """Return the names of D's first ``count`` layers for pictures of ``resolution`` pixels.

    Freeze-D (Mo, Cho, Shin 2020, "Freeze the Discriminator: a Simple Baseline for Fine-Tuning
    GANs"): they keep the weights they began with. The first layers, near the picture, know what
    pictures are made of; fine-tuning the rest needs less data.

    What lies above ``resolution``, and grows in afresh, is never frozen. Raises UsageError when D
    has fewer layers in front of its last one.
    """
    side = min(resolution, config.resolution)
    layers = config.discriminator_layers(side)
    if not 0 <= count <= len(layers):
        raise UsageError(
            f"freeze_d {count} is not within 0 to {len(layers)}, the layers of a {side} px "
            "discriminator before its last one"
        )
    return layers[:count]


def describe_frozen(layers: list[str]) -> str:
    """Say which layers are frozen, as people name them."""
    said = []
    for name in layers:
        kind, place, *rest = name.split(".")
        if kind == "head":
            said.append(f"head {place}")
        else:
            side = 2 ** (int(place) + (2 if kind == "from_rgb" else 3))
            said.append(f"FromRGB {side} px" if kind == "from_rgb" else f"{rest[0]} {side} px")
    return ", ".join(said)
