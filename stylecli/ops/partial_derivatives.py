"""Differentiate a formula by its arguments alone, whatever hangs together behind them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def partial_gradients(
    formula: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of ``formula(*inputs)`` for the inputs ``needed``, None for the others.

    ``grads`` are the upstream gradients of its results; None counts as zero. For the backward of an
    autograd.Function: a graph is made if one is wanted there.
    """
    with torch.enable_grad():
        # Aliases: in a second derivative one input may have been computed from another, and
        # gradients must not flow through that computation here.
        aliases = [one if one is None else one.view_as(one) for one in inputs]
        results = formula(*aliases)
    pairs = [
        (result, grad)
        for result, grad in zip(results, grads, strict=True)
        if result is not None and grad is not None and result.requires_grad
    ]
    found: list[Tensor | None] = [None] * len(inputs)
    wanted = [index for index, need in enumerate(needed) if need and inputs[index] is not None]
    if pairs and wanted:
        gradients = torch.autograd.grad(
            [result for result, _ in pairs],
            [alias for index in wanted if (alias := aliases[index]) is not None],
            [grad for _, grad in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
        for index, gradient in zip(wanted, gradients, strict=True):
            found[index] = gradient
    return found
