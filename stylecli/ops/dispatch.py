"""Which way a call of an operator goes: plain PyTorch, kernels in eager mode, or an opaque op.

``STYLECLI_KERNELS`` decides whether kernels are used:

    auto      use them where they work; where they do not, say why once and use plain PyTorch
    off       plain PyTorch; nothing is compiled
    require   raise DeviceError where they do not work

The first question about an operator, device and dtype compiles its kernels (or fetches them from
the cache), loads them and checks them against plain PyTorch. Later ones are a dictionary look-up.
"""

import os
import threading
import warnings
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from stylecli.errors import DeviceError, UsageError
from stylecli.ops.cuda.launches import DTYPE_NAMES, backend_for
from stylecli.ops.cuda.runtime import ready_backend

Result = TypeVar("Result")


class Route(Enum):
    """How to carry a call out."""

    REFERENCE = "plain PyTorch"
    EAGER = "kernels behind an autograd.Function: a third of the cost of a registered op"
    COMPILED = "the registered op, which torch.compile keeps whole"


Check = Callable[[str, torch.device, torch.dtype], object]

# Operator -> what compiles its kernels and compares them with plain PyTorch, or raises. The file of
# an operator enters its own, so that asking for a route imports no kernel.
CHECKS: dict[str, Check] = {}


def kernels_usable(name: str, x: Tensor) -> bool:
    """Say whether operator ``name`` runs as a kernel on x's device and dtype.

    On CUDA the first question compiles the kernels and checks them against plain PyTorch. On
    other devices only a test's host build says yes.
    """
    return x.dtype in DTYPE_NAMES and usable(name, x)


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
            give_up(name, x, error)
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


# ---- whether kernels are used on a device: asked once, remembered, never fatal


MODE_VARIABLE = "STYLECLI_KERNELS"
MODES = ("auto", "off", "require")

Question = tuple[str, torch.device, torch.dtype]

_ANSWERS: dict[Question, bool] = {}
_REASONS: dict[Question, str] = {}
_TOLD: set[str] = set()
_LOCK = threading.RLock()


def kernel_mode() -> str:
    """Return STYLECLI_KERNELS, ``auto`` when it is unset; raise UsageError for an unknown value."""
    given = os.environ.get(MODE_VARIABLE) or "auto"
    if given not in MODES:
        raise UsageError(f"{MODE_VARIABLE} is {given!r}: expected {', '.join(MODES)}")
    return given


def usable(name: str, tensor: Tensor) -> bool:
    """Say whether operator ``name`` runs as a kernel on the tensor's device and dtype.

    False means plain PyTorch. Raises DeviceError under STYLECLI_KERNELS=require instead.
    Devices other than CUDA have kernels only where a test installs a backend, which is not checked.
    """
    if not tensor.is_cuda and backend_for(tensor.device) is None:
        return False
    answer = _ANSWERS.get((name, tensor.device, tensor.dtype))
    if answer is None:
        return not tensor.is_cuda or decide(name, tensor.device, tensor.dtype)
    return answer


def decide(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Find out whether operator ``name`` works on a device in a dtype, and remember the answer."""
    mode = kernel_mode()
    question = (name, device, dtype)
    if mode == "off":
        _ANSWERS[question] = False
        return False
    with _LOCK:  # another thread may be finding out: wait for it
        if question in _REASONS:
            return _refuse(question, _REASONS[question])
        if question not in _ANSWERS:
            try:
                if ready_backend(device).capturing():
                    return _not_now(name, mode)
                CHECKS[name](name, device, dtype)
            except Exception as error:
                return _refuse(question, str(error) or type(error).__name__)
            _ANSWERS[question] = True
        return _ANSWERS[question]


def give_up(name: str, tensor: Tensor, error: Exception) -> None:
    """Use plain PyTorch for this operator, device and dtype from now on, because of ``error``.

    For a launch that fails after the check had passed. Warns once; raises DeviceError under
    STYLECLI_KERNELS=require.
    """
    with _LOCK:
        _refuse((name, tensor.device, tensor.dtype), str(error) or type(error).__name__)


def reason(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why an operator's kernels are not used there, None when they are or nobody asked."""
    return _REASONS.get((name, device, dtype))


def forget() -> None:
    """Forget every answer, as if nothing had been asked yet."""
    with _LOCK:
        _ANSWERS.clear()
        _REASONS.clear()
        _TOLD.clear()


def _refuse(question: Question, why: str) -> bool:
    name, device, dtype = question
    _REASONS[question] = why
    if kernel_mode() == "require":
        _ANSWERS.pop(question, None)  # asked again, it raises again
        raise DeviceError(
            f"{name} has no kernel on {device} in {_short(dtype)}: {why}. "
            f"Set {MODE_VARIABLE}=auto to use plain PyTorch, or run: stylecli doctor"
        )
    _ANSWERS[question] = False
    _tell(why, f"{name} uses plain PyTorch on {device} in {_short(dtype)}: {why}")
    return False


def _not_now(name: str, mode: str) -> bool:
    why = (
        f"{name} was first used while a CUDA graph was being captured, when nothing can be "
        "compiled or checked: run one step before the capture"
    )
    if mode == "require":
        raise DeviceError(why)
    _tell(why, f"plain PyTorch was captured: {why}")
    return False


def _tell(why: str, sentence: str) -> None:
    """Warn, once for each cause: a missing package is one message, not one per operator."""
    if why not in _TOLD:
        _TOLD.add(why)
        warnings.warn(f"{sentence}. See: stylecli doctor", RuntimeWarning, stacklevel=4)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
