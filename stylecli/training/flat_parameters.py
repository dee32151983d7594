"""All parameters of a network in one vector, all gradients in another.

Optimizer, moving average and the reduction over ranks are then a few operations on one long
vector instead of thousands on short ones, which on small networks is most of their cost.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatParameters:
    """``data`` and ``grad`` [P]; every parameter and its .grad become views into them.

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
