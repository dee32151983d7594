"""Adam as TensorFlow 1 has it, which StyleGAN was trained with.

    p -= lr·√(1-β2^t)/(1-β1^t) · m / (√v + ε)

PyTorch corrects the bias of v before adding ε; the two differ only where gradients are near ε.
"""

import math

import torch
from torch import Tensor


class Adam:
    """State and update of one vector of parameters [P]."""

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
