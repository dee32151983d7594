"""GAN losses on logits, one value per sample, and their scale in float16; callers take the mean.

Logits are [N, 1]; results are [N]. Names follow the paper: the default is the non-saturating
logistic loss with R1 (Mescheder et al. 2018), for CelebA-HQ WGAN-GP (Gulrajani et al. 2017).
StyleGAN2 and StyleGAN3 keep it; R3GAN pairs reals and fakes (Jolicoeur-Martineau 2018).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from stylecli.ops.convolution import input_gradients_only

WGAN_DRIFT = 0.001  # keeps the critic's real scores near zero
GP_WEIGHT = 10.0
GP_TARGET = 1.0
FIRST_SCALE = 2.0**16  # of a loss in float16
LARGEST_SCALE = 2.0**24
STEPS_TO_GROW = 2000


def G_loss(loss: str, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Return the generator's loss per sample; ``relativistic`` needs the logits of reals, too."""
    score = fake_logits.squeeze(1)
    if loss == "relativistic":
        assert real_logits is not None
        return softplus(real_logits.squeeze(1) - score)
    if loss == "logistic":
        return softplus(-score)
    if loss == "logistic-saturating":
        return -softplus(score)
    return -score  # wgan-gp, hinge


def D_loss(loss: str, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the discriminator's loss per sample, without gradient penalties."""
    real, fake = real_logits.squeeze(1), fake_logits.squeeze(1)
    if loss == "relativistic":  # each real against the fake of its number
        return softplus(fake - real)
    if loss.startswith("logistic"):
        return softplus(fake) + softplus(-real)
    if loss.startswith("hinge"):
        return torch.relu(1 + fake) + torch.relu(1 - real)
    return fake - real + WGAN_DRIFT * real.square()


def squared_gradient(
    logits: Tensor, images: Tensor, pixels_per_value: int = 1, scale: Tensor | None = None
) -> Tensor:
    """Return ‖∇_images ΣD‖² per sample [N], differentiable once more.

    ``images`` [N, C, h, w] must require grad. Where they stand for pictures upscaled by f they
    hold one value for f² = ``pixels_per_value`` pixels; the squared norm over the full-size
    picture is then 1/f² of the one over these values. The logits are multiplied by ``scale`` on the
    way and the gradient divided by it, which keeps float16 from losing small gradients.
    """
    total = logits.sum()
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(
            total if scale is None else total * scale, images, create_graph=True
        )
    if scale is not None:
        gradient = gradient.float() / scale
    return gradient.square().sum(dim=(1, 2, 3)) / pixels_per_value


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return how far images move along ``noise`` per step in w [N], differentiable once more.

    √(mean over layers of ‖∇_w Σ images·noise‖²) for ws [N, num_ws, w_dim] and noise of the
    images' shape, of variance 1/(H·W) (Karras et al. 2019, section 3.2). ``scale`` as in
    ``squared_gradient``.
    """
    total = (images * noise).sum()
    with input_gradients_only():
        (gradient,) = torch.autograd.grad(
            total if scale is None else total * scale, ws, create_graph=True
        )
    if scale is not None:
        gradient = gradient.float() / scale
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def gradient_penalty(
    D: Callable[[Tensor], Tensor],
    real_images: Tensor,
    fake_images: Tensor,
    mixing: Tensor,
    pixels_per_value: int = 1,
    scale: Tensor | None = None,
) -> Tensor:
    """Return 10·(‖∇_x̂ D(x̂)‖ - 1)² per sample, x̂ = lerp(real, fake, mixing).

    mixing [N, 1, 1, 1] is uniform in 0..1: WGAN-GP and hinge-GP. ``scale`` as in
    ``squared_gradient``.
    """
    mixed = torch.lerp(real_images, fake_images, mixing).detach().requires_grad_(True)
    norm = squared_gradient(D(mixed), mixed, pixels_per_value, scale).sqrt()
    return GP_WEIGHT * (norm - GP_TARGET).square()


class LossScaler:
    """Keep gradients in the range of float16: a factor of one network's loss, found on the way.

    float16 ends at 65504 and loses what is below 6e-8, so gradients are computed of the loss times
    S and divided by S afterwards (Micikevicius et al. 2017, "Mixed Precision Training"). Where one
    is not finite the step is left out and S halved; after 2000 good steps S is doubled. All ranks
    see the same gradient and agree without a word, and so do host and device: S stays on the
    device.
    """

    def __init__(self, precision: str, device: torch.device | None = None) -> None:
        """Scale for fp16; do nothing for other precisions."""
        self.enabled = precision == "fp16"
        self._scale = torch.tensor(FIRST_SCALE if self.enabled else 1.0, device=device)
        self._good_steps = torch.tensor(0.0, device=device)  # since the scale last changed

    @property
    def scale(self) -> Tensor | None:
        """S [], None for no scaling."""
        return self._scale if self.enabled else None

    def update(self, finite: Tensor) -> None:
        """Learn whether the gradient of a step was finite: bool []."""
        if not self.enabled:
            return
        good = (self._good_steps + 1) * finite
        grows = good == STEPS_TO_GROW
        larger = torch.where(grows, (self._scale * 2).clamp(max=LARGEST_SCALE), self._scale)
        self._scale.copy_(torch.where(finite, larger, (self._scale / 2).clamp(min=1.0)))
        self._good_steps.copy_(good * ~grows)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"scale": float(self._scale), "good_steps": int(self._good_steps),
                "enabled": self.enabled}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept, unless it is of a run without scaling."""
        if self.enabled and state.get("enabled"):
            self._scale.fill_(float(state["scale"]))
            self._good_steps.fill_(int(state["good_steps"]))
