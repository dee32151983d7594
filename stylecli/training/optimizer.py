"""What turns gradients into new parameters: flat vectors, sums over ranks, Adam, frozen layers."""

from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor, nn

from stylecli.distributed.ranks import Ranks
from stylecli.errors import UsageError
from stylecli.hardware import widest_float
from stylecli.networks.config import NetworkConfig
from stylecli.training.schedule import Rates

_PART = 1 << 16  # numbers of a network that Adam updates at a time on a CPU
SLICE = 6_000_000  # numbers that travel together, 24 MB, or a little more


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


class EarlySums:
    """Adds a flat gradient up over ranks slice by slice, while the rest of it is being computed.

    A slice begins to travel when the last of its gradients of a step is there, also where several
    passes add to it. Which that is, and in which order slices are complete, is learnt from the
    first step of each shape. The order is the main rank's, for all must send slices alike; how
    many passes a rank takes is its own business.
    """

    def __init__(self, network: nn.Module, flat: FlatParameters, ranks: Ranks) -> None:
        """``flat`` holds the gradients of ``network``."""
        self.flat, self.ranks = flat, ranks
        self._slices: list[Tensor] = []
        self._slice_of: list[int] = []
        begin = end = 0
        for size in flat.sizes:
            self._slice_of.append(len(self._slices))
            end += size
            if end - begin >= SLICE:
                self._slices.append(flat.grad[begin:end])
                begin = end
        if end > begin:
            self._slices.append(flat.grad[begin:end])
        self._orders: dict[Hashable, list[int]] = {}  # by the shape of a step
        self._awaited: dict[Hashable, list[int]] = {}  # gradients of each slice; also by passes
        self._order: list[int] | None = None
        self._found: list[int] = []  # slices, the one of the last gradient last
        self._left: list[int] | None = None
        self._sent: list[Callable[[], None]] = []
        for index, parameter in enumerate(network.parameters()):
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _, place=self._slice_of[index]: self._arrived(place)
            )

    def begin(self, shape: Hashable, passes: int) -> None:
        """Expect the gradients of a step of a shape, in so many passes."""
        self._shape, self._passes = shape, passes
        self._order = self._orders.get(shape)
        known = self._awaited.get((shape, passes))
        self._left = None if self._order is None or known is None else list(known)
        self._counts = [0] * len(self._slices)
        self._found, self._sent = [], []

    @property
    def sending(self) -> bool:
        """Whether slices are on their way: their gradients cannot be computed a second time."""
        return bool(self._sent)

    def _arrived(self, place: int) -> None:
        if self._left is None:
            self._counts[place] += 1
            self._found.append(place)
            return
        self._left[place] -= 1
        assert self._left[place] >= 0, "a gradient came after its slice was sent"
        self._send()

    def _send(self, *, all_of_them: bool = False) -> None:
        """Send slices in their order, as far as they are complete."""
        assert self._order is not None
        while len(self._sent) < len(self._order):
            place = self._order[len(self._sent)]
            if not all_of_them and self._left is not None and self._left[place]:
                return
            self._sent.append(self.ranks.add_up(self._slices[place]))

    def finish(self) -> None:
        """Make the gradient the mean over ranks: what is left is sent, and all is waited for."""
        if self._order is None:
            last = {place: number for number, place in enumerate(self._found)}
            order = sorted(range(len(self._slices)), key=lambda place: last.get(place, -1))
            self._order = self._orders[self._shape] = self.ranks.from_main(order)
        if self._left is None:
            self._awaited[self._shape, self._passes] = self._counts
        self._send(all_of_them=True)
        for wait in self._sent:
            wait()
        self._sent = []
        self.flat.grad.div_(self.ranks.count)


class Adam:
    """Adam as TensorFlow 1 has it, which StyleGAN was trained with: of one vector [P].

        p -= lr·√(1-β2^t)/(1-β1^t) · m / (√v + ε)

    PyTorch corrects the bias of v before adding ε; the two differ only where gradients are near ε.
    The count t is kept on the device, so that a step that is left out needs no word with the host,
    which would wait for all that the device has still to do.
    """

    def __init__(self, size: Tensor, *, beta1: float, epsilon: float) -> None:
        self.epsilon = epsilon
        self.steps = torch.zeros((), dtype=widest_float(size.device), device=size.device)
        self.mean = torch.zeros_like(size) if beta1 else None  # with β1 = 0 it is the gradient
        self.square = torch.zeros_like(size)

    def reset(self) -> None:
        """Forget all moments, as at the start and end of every fade."""
        self.steps.zero_()
        self.square.zero_()
        if self.mean is not None:
            self.mean.zero_()

    @torch.no_grad()
    def step(self, data: Tensor, grad: Tensor, rates: Rates, taken: Tensor) -> None:
        """Update ``data`` [P] in place from ``grad`` [P]; not at all where ``taken`` [] is false.

        The gradient is zero there. A β2 that moves corrects the bias as if it had held always.
        Rates may be numbers of float64 on the device.
        """
        lr, beta1, beta2 = rates.lr, rates.beta1, rates.beta2
        # By factors of 0 and 1: a choice between Python's numbers may bring them from the host.
        kept = taken.to(self.steps.dtype)
        self.steps.add_(kept)
        count = self.steps.clamp(min=1)
        rate = kept * (lr * (1 - beta2**count).sqrt() / (1 - beta1**count))
        wide = torch.stack([rate, 1 - kept * (1 - beta2), kept * (1 - beta1)])
        rate, decay, moved = wide.to(grad.dtype)
        # A part stays in a processor's cache for all operations; a GPU has each launched once.
        size = _PART if data.is_cpu else len(data)
        for start in range(0, len(data), size):
            here = slice(start, start + size)
            p, g, square = data[here], grad[here], self.square[here]
            square.mul_(decay)
            if isinstance(beta2, Tensor):  # the same to the bit, with a pass more
                square.addcmul_(g * (1 - beta2), g)
            else:
                square.addcmul_(g, g, value=1 - beta2)
            mean = g if self.mean is None else self.mean[here].lerp_(g, moved)
            update = mean / square.sqrt().add_(self.epsilon)
            p.sub_(update.mul_(rate))


def frozen_layers(config: NetworkConfig, count: int, resolution: int) -> list[str]:
    """Return the names of D's first ``count`` layers for pictures of ``resolution`` pixels.

    Freeze-D (Mo, Cho, Shin 2020, "Freeze the Discriminator: a Simple Baseline for Fine-Tuning
    GANs"): they keep the weights they started with. The first layers, near the picture, know what
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
        kind, place, *rest = [*name.split("."), ""]
        if kind == "head":
            said.append(f"head {place}")
        elif kind == "fromrgb":
            said.append("FromRGB")
        elif kind in ("from_rgb", "blocks"):
            side = 2 ** (int(place) + (2 if kind == "from_rgb" else 3))
            said.append(f"FromRGB {side} px" if kind == "from_rgb" else f"{rest[0]} {side} px")
        else:  # b64.conv0, b64.blocks.1
            part = " ".join(word for word in (place, *rest) if word)
            said.append(f"{part.replace('fromrgb', 'FromRGB')} {kind[1:]} px")
    return ", ".join(said)
