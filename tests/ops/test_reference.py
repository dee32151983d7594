"""The closed forms that kernels fall back to are the derivatives of their definitions."""

import pytest
import torch

from stylecli.ops.reference import (
    ACTIVATIONS,
    Additions,
    bias_act_gradient_ref,
    bias_act_ref,
    resolved_activation,
)


@pytest.mark.parametrize(
    ("act", "from_output"),
    [*[(act, False) for act in ACTIVATIONS], ("linear", True), ("relu", True), ("lrelu", True)],
)
def test_the_closed_form_is_the_gradient(act: str, from_output: bool) -> None:
    """The closed form is what the registered op falls back to, and the second derivative."""
    activation = resolved_activation(act, gain=1.3, clamp=1.1)
    assert activation.known_by_output == (act in ("linear", "relu", "lrelu"))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    more = Additions(bias=torch.randn(3, dtype=torch.float64))
    y = bias_act_ref(x, more, 1, activation)
    dy = torch.randn_like(y)
    (wanted,) = torch.autograd.grad(y, x, dy)
    reference = y.detach() if from_output else x
    more = Additions() if from_output else more
    dx, _ = bias_act_gradient_ref(dy, reference, more, 1, activation, from_output)
    assert torch.allclose(dx, wanted, atol=1e-12)
