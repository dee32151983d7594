"""Launches of bias_act and its gradient: tensors in, tensors out, no autograd."""

import math

import torch
from torch import Tensor

from stylecli.ops.cuda.kernel_names import ACTIVATION_THREADS
from stylecli.ops.cuda.launch import DTYPE_NAMES, Int64, Launch, hand_over
from stylecli.ops.reference import Activation, Additions

VALUES_PER_THREAD = 16
SMALLEST_SUMMED_PLANE = 64  # smaller planes would leave most threads of their block idle


def _dense(x: Tensor, dim: int, more: Additions) -> tuple[Tensor, int, int]:
    """Return x in a layout the kernel reads, its channels and the elements inside one channel.

    Channels-last input stays as it is unless something varies by plane: there the channel is the
    fastest index, as after a dense layer.
    """
    if x.ndim == 4 and dim == 1 and more.scale is None and more.noise is None:
        if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
            return x, x.shape[1], 1
    return x.contiguous(), x.shape[dim], math.prod(x.shape[dim + 1 :])


def empty_output(x: Tensor, dim: int, more: Additions) -> Tensor:
    """Return memory for an output, laid out as the kernels lay it out."""
    return torch.empty_like(_dense(x, dim, more)[0])


def laid_out(values: Tensor, x: Tensor, dim: int, more: Additions) -> Tensor:
    """Return ``values`` in memory laid out as the kernels would."""
    return empty_output(x, dim, more).copy_(values)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that kernels accumulate in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def sums_shape(x: Tensor, dim: int, more: Additions) -> tuple[int, int]:
    """Return the shape of the gradient's sums."""
    if more.scale is None and more.noise is None:
        return x.shape[dim], 1
    return x.shape[0] * x.shape[1], 3


def _pointers(more: Additions) -> tuple[Tensor | None, ...]:
    return tuple(
        None if tensor is None else tensor.contiguous()
        for tensor in (more.bias, more.scale, more.noise, more.strength)
    )


def _noise_stride(more: Additions, inner: int) -> Int64:
    shared = more.noise is None or more.noise.shape[0] == 1
    return Int64(0 if shared else inner)


def bias_act_forward(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain) in x's dtype and layout."""
    x, channels, inner = _dense(x, dim, more)
    y = torch.empty_like(x)
    total = x.numel()
    if not total:
        return y
    kind = DTYPE_NAMES[x.dtype]
    hand_over(
        Launch(
            kernel=f"bias_act<{kind}, {int(activation.smooth)}, {ACTIVATION_THREADS}>",
            grid=(-(-total // (ACTIVATION_THREADS * VALUES_PER_THREAD)), 1, 1),
            block=ACTIVATION_THREADS,
            shared_bytes=0,
            arguments=(
                x,
                *_pointers(more),
                y,
                Int64(total),
                Int64(inner),
                _noise_stride(more, inner),
                channels,
                activation.code,
                float(activation.alpha),
                float(activation.gain),
                float(activation.clamp),
            ),
            device=x.device,
        )
    )
    return y


def bias_act_gradient(
    dy: Tensor,
    reference: Tensor,
    more: Additions,
    dim: int,
    activation: Activation,
    *,
    from_output: bool,
    want_sums: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return dx and, if wanted, sums.

    ``reference`` is the forward input, or its output if ``from_output``. du is dx before the scale.
    Without scale and noise the sums are those of du by channel, [C, 1]; else those of du, du·x and
    du·noise by plane, [N·C, 3]. They are float32 (float64 for float64), the same in every run.
    """
    reference, channels, inner = _dense(reference, dim, more)
    if reference.is_contiguous():
        dy = dy.contiguous()
    else:
        dy = dy.contiguous(memory_format=torch.channels_last)
    dx = torch.empty_like(reference)
    total = reference.numel()
    planes = total // inner if inner else 0
    by_plane = more.scale is not None or more.noise is not None
    by_block = want_sums and (by_plane or inner >= SMALLEST_SUMMED_PLANE)
    span = ACTIVATION_THREADS * VALUES_PER_THREAD
    spans = -(-inner // span)
    sums = None
    if by_block:
        sums = torch.empty(planes, spans, 3, dtype=wide(dx.dtype), device=dx.device)
    if total:
        kind = DTYPE_NAMES[dx.dtype]
        bias, scale, noise, strength = _pointers(more)
        hand_over(
            Launch(
                kernel=f"bias_act_gradient<{kind}, {int(activation.smooth)}, {ACTIVATION_THREADS}>",
                grid=(planes * spans if by_block else -(-total // span), 1, 1),
                block=ACTIVATION_THREADS,
                shared_bytes=0,
                arguments=(
                    dy,
                    reference,
                    bias,
                    scale,
                    noise,
                    strength,
                    dx,
                    sums,
                    Int64(total),
                    Int64(inner),
                    _noise_stride(more, inner),
                    channels,
                    spans,
                    activation.code,
                    int(from_output),
                    float(activation.alpha),
                    float(activation.gain),
                    float(activation.clamp),
                ),
                device=dx.device,
            )
        )
    return dx, _finish_sums(dx, sums, dim, by_plane) if want_sums else None


def _finish_sums(dx: Tensor, sums: Tensor | None, dim: int, by_plane: bool) -> Tensor:
    """Add up what the blocks left, or dx itself where they left nothing."""
    if by_plane and sums is not None:
        return sums.sum(dim=1)
    if sums is not None:
        return sums[..., 0].view(-1, dx.shape[dim], sums.shape[1]).sum(dim=(0, 2))[:, None]
    others = [axis for axis in range(dx.ndim) if axis != dim]
    total = dx.sum(dim=others, dtype=wide(dx.dtype)) if others else dx.to(wide(dx.dtype))
    return total[:, None]
