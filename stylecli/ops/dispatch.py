"""Which way a call of an operator goes: plain PyTorch, kernels in eager mode, or an opaque op."""

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stylecli.errors import DeviceError
from stylecli.ops.cuda import availability
from stylecli.ops.cuda.launch import DTYPE_NAMES, backend_for

Result = TypeVar("Result")


class Route(Enum):
    """How to carry a call out."""

    REFERENCE = "plain PyTorch"
    EAGER = "kernels behind an autograd.Function: a third of the cost of a registered op"
    COMPILED = "the registered op, which torch.compile keeps whole"


def kernels_usable(name: str, x: Tensor) -> bool:
    """Say whether operator ``name`` runs as a kernel on x's device and dtype.

    On CUDA the first question compiles the kernels and checks them against plain PyTorch. On
    other devices only a test's host build says yes.
    """
    return x.dtype in DTYPE_NAMES and availability.usable(name, x)


def run_fused(
    name: str, x: Tensor, kernel: Callable[[], Result], plain: Callable[[], Result]
) -> Result:
    """Return ``kernel()``; where kernels are not usable or a launch fails, ``plain()``.

    The one place from which operators launch: forward and backward, eager and compiled. A
    failed launch is told once, and operator ``name`` stays with plain PyTorch from then on. Raises
    DeviceError instead under STYLECLI_KERNELS=require. Autocast is off in ``plain``: a kernel's
    results have x's dtype.
    """
    if kernels_usable(name, x):
        try:
            return kernel()
        except DeviceError as error:
            availability.give_up(name, x, error)
    with torch.autocast(x.device.type, enabled=False):
        return plain()


def route(name: str, x: Tensor, *others: Tensor | None) -> Route:
    """Choose the way of a call with input ``x`` [any shape] and its other tensors.

    Raises DeviceError where a kernel would be given a dual tensor: kernels have no forward-mode
    derivative, and a registered op would silently return a zero tangent.
    """
    if not x.is_cuda and backend_for(x.device) is None:
        return Route.REFERENCE
    if torch.compiler.is_compiling():
        # The op itself asks whether kernels are usable: asking means launching, not tracing.
        if x.dtype not in DTYPE_NAMES:
            return Route.REFERENCE
        chosen = Route.COMPILED
    elif kernels_usable(name, x):
        chosen = Route.EAGER
    else:
        return Route.REFERENCE
    refuse_dual_tensors(name, x, *others)
    return chosen


def refuse_dual_tensors(name: str, *tensors: Tensor | None) -> None:
    """Raise DeviceError if a tensor carries a forward-mode tangent."""
    if forward_ad._current_level < 0:  # ten times cheaper than unpacking
        return
    for tensor in tensors:
        if tensor is not None:
            unpacked = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
            if unpacked.tangent is not None:
                raise DeviceError(_NO_FORWARD_MODE.format(name=name, what="a dual tensor"))


def refuse_forward_mode(name: str) -> None:
    """Raise DeviceError where forward-mode derivatives are being taken at all.

    For the registered ops when they run, which may be long after they were traced: there a
    tangent can no longer be seen, and would come out as zero.
    """
    if forward_ad._current_level >= 0:
        raise DeviceError(_NO_FORWARD_MODE.format(name=name, what="forward mode"))


_NO_FORWARD_MODE = (
    "{name} met {what}: its kernels have reverse-mode derivatives only. Set STYLECLI_KERNELS=off "
    "to take forward-mode derivatives through plain PyTorch"
)
