"""Whether an operator's kernels are used on a device: asked once, remembered, never fatal.

``STYLECLI_KERNELS`` decides:

    auto      use them where they work; where they do not, say why once and use plain PyTorch
    off       plain PyTorch; nothing is compiled
    require   raise DeviceError where they do not work

The first question about an operator, device and dtype compiles its kernels (or fetches them from
the cache), loads them and checks them against plain PyTorch. Later ones are a dictionary look-up.
"""

import os
import threading
import warnings

import torch
from torch import Tensor

from stylecli.errors import DeviceError, UsageError
from stylecli.ops.cuda.launch import backend_for

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
            # imported here: the operators import this module
            from stylecli.ops.cuda.cuda_runtime import ready_backend
            from stylecli.ops.cuda.selfcheck import check_operator

            try:
                if ready_backend(device).capturing():
                    return _not_now(name, mode)
                check_operator(name, device, dtype)
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
