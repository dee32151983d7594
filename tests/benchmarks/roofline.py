"""What the kernels could save at most, on paper: bytes moved, divided by a memory bandwidth.

    python tests/benchmarks/roofline.py [--bandwidth 3350]

Nothing is timed and no GPU is needed. A *move* is one reading or writing of a whole tensor of the
layer's size. Unfused moves are counted here, from the operators that eager PyTorch runs for the
plain path (what a network runs where there are no kernels), by a dispatch mode that adds up the
bytes of their inputs and outputs. Fused moves follow from what a kernel reads and writes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stylecli.networks.stylegan1_config import StyleGAN1Config
from stylecli.ops.cuda.calls import plane_shape
from stylecli.ops.epilogue import style_epilogue
from stylecli.ops.reference import (
    Additions,
    FilteredActivation,
    Resampling,
    bias_act_ref,
    filtered_lrelu_ref,
    resolved_activation,
    upfirdn2d_ref,
)

FREE = ("view", "reshape", "expand", "unbind", "select", "slice", "as_strided", "alias", "detach",
        "unsqueeze", "squeeze", "transpose", "permute", "t.", "split")  # fmt: skip


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not str(func).removeprefix("aten.").lstrip("_").startswith(FREE):
            for one in tree_leaves((args, kwargs, result)):
                if isinstance(one, Tensor):
                    # what is broadcast is read from memory once
                    own = one.untyped_storage().nbytes()
                    self.bytes += min(one.numel() * one.element_size(), own)
        return result


@dataclass(frozen=True)
class Operator:
    """An operator with the moves of its kernels, in units of its input."""

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    fused_forward: float
    fused_backward: float


def _lrelu(x: Tensor, b: Tensor) -> Tensor:
    return bias_act_ref(x, Additions(b), 1, resolved_activation("lrelu", clamp=256.0))


def _layer(x: Tensor, b: Tensor, scale: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    more = Additions(b, scale, noise, strength)
    return bias_act_ref(x, more, 1, resolved_activation("lrelu", clamp=256.0))


def _epilogue(x: Tensor, b: Tensor, noise: Tensor, strength: Tensor, style: Tensor) -> Tensor:
    # without kernels a network runs this: one autograd node with a hand-written gradient
    return style_epilogue(x, b, noise=noise, noise_strength=strength, style=style)


def _fir(how: Resampling) -> Callable[[Tensor], Tensor]:
    f = torch.ones(4, 4) / 16
    return lambda x: upfirdn2d_ref(x, f, how)


def _filtered(how: FilteredActivation) -> Callable[[Tensor, Tensor], Tensor]:
    fu, fd = torch.ones(6 * how.up) / 6 / how.up, torch.ones(6 * how.down) / 6 / how.down
    return lambda x, b: filtered_lrelu_ref(x, fu, fd, b, how)


def _bent(x: Tensor, b: Tensor) -> Tensor:
    u = bias_act_ref(x, Additions(b), 1, resolved_activation("lrelu", gain=1.0))
    return upfirdn2d_ref(u, torch.ones(3, 3) / 9, Resampling(padding=(1, 1, 1, 1)))


X, C, NOISE = (2, 64, 64, 64), (64,), (1, 1, 64, 64)
EPILOGUE = (X, C, NOISE, C, (2, 128))
UP = Resampling((2, 2), (1, 1), (2, 1, 2, 1), gain=4.0)
DOWN = Resampling((1, 1), (2, 2), (1, 1, 1, 1))
BLUR = Resampling(padding=(2, 1, 2, 1))
KEEPING = FilteredActivation(2, 2, (11, 10, 11, 10), clamp=256.0)
GROWING = FilteredActivation(4, 2, (17, 16, 17, 16), clamp=256.0)
OPERATORS = (
    Operator("style_epilogue, planes up to 128²", _epilogue, EPILOGUE, 2, 3),
    Operator("style_epilogue, larger planes", _epilogue, EPILOGUE, 3, 5),
    Operator("bias_act: lrelu, gain, clamp", _lrelu, (X, C), 2, 3),
    Operator("bias_act with scale and noise", _layer, (X, C, (2, 64), NOISE, C), 2, 3),
    Operator("upfirdn2d, up 2, 4×4 taps", _fir(UP), (X,), 5, 5),
    Operator("upfirdn2d, down 2, 4×4 taps", _fir(DOWN), (X,), 1.25, 1.25),
    Operator("upfirdn2d, blur, 4×4 taps", _fir(BLUR), (X,), 2, 2),
    Operator("filtered_lrelu, nothing resampled, 3×3 taps", _bent, (X, C), 2, 3),
    # Borders of tiles, which several blocks read, are left out.
    Operator("filtered_lrelu, up 2, down 2", _filtered(KEEPING), (X, C), 2, 3),
    Operator("filtered_lrelu, up 4, down 2", _filtered(GROWING), (X, C), 5, 6),
)


def unfused(operator: Operator) -> tuple[float, float]:
    """Return the moves of the plain definition, forward and backward."""
    inputs = [torch.randn(shape, requires_grad=True) for shape in operator.shapes]
    unit = inputs[0].numel() * inputs[0].element_size()
    with Traffic() as forward:
        y = operator.call(*inputs)
    with Traffic() as backward:
        torch.autograd.grad(y, inputs, torch.ones_like(y))
    return forward.bytes / unit, backward.bytes / unit


@dataclass(frozen=True)
class Work:
    """Bytes of all epilogues of one picture."""

    elements: int
    plain: tuple[float, float]
    fused: tuple[float, float]


def epilogues_of_picture(resolution: int, size: int) -> Work:
    """Add up the epilogues of a StyleGAN1 generator (config f), ``size`` bytes an element."""
    config = StyleGAN1Config(resolution=resolution)
    small, large = OPERATORS[:2]
    moves = unfused(small)
    elements = 0
    plain, fused = [0.0, 0.0], [0.0, 0.0]
    for r in range(2, config.resolution_log2 + 1):
        side = 2**r
        own = 2 * config.fmaps(r - 1) * side * side  # two epilogues at every resolution
        kernel = small if plane_shape("float", side * side) else large
        elements += own
        for kind, count in enumerate((kernel.fused_forward, kernel.fused_backward)):
            plain[kind] += own * size * moves[kind]
            fused[kind] += own * size * count
    return Work(elements, (plain[0], plain[1]), (fused[0], fused[1]))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bandwidth", type=float, default=3350, help="GB/s (an H100's: 3350)")
    bandwidth = parser.parse_args().bandwidth
    print("| operator | plain forward | plain backward | fused forward | fused backward | bound |")
    print("|---|---|---|---|---|---|")
    for one in OPERATORS:
        forward, backward = unfused(one)
        bound = (forward + backward) / (one.fused_forward + one.fused_backward)
        print(
            f"| {one.name} | {forward:.1f} | {backward:.1f} | {one.fused_forward:g} | "
            f"{one.fused_backward:g} | {bound:.1f}× |"
        )
    print()
    print(f"| 1024² picture, all epilogues, at {bandwidth:g} GB/s | plain | fused | bound |")
    print("|---|---|---|---|")
    for name, size in (("float32", 4), ("half", 2)):
        work = epilogues_of_picture(1024, size)
        kinds = (("generate", 1), ("one training pass, forward and backward", 2))
        for what, passes in kinds:
            plain, fused = sum(work.plain[:passes]), sum(work.fused[:passes])
            print(
                f"| {name}: {what} | {plain / 1e9:.2f} GB, {plain / bandwidth / 1e6:.2f} ms | "
                f"{fused / 1e9:.2f} GB, {fused / bandwidth / 1e6:.2f} ms | {plain / fused:.1f}× |"
            )
    print(f"\n{epilogues_of_picture(1024, 4).elements / 1e6:.1f} M elements in the epilogues")


if __name__ == "__main__":
    main()
