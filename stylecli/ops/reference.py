"""The operators in plain PyTorch: their definition, the CPU's path and the kernels' fallback."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stylecli.errors import UsageError, unknown_name

# ---- bias_act: the nine activations of StyleGAN2, with default, definition and slope of each

SQRT2 = math.sqrt(2.0)
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """An activation with its numbers: clamp(value(u, alpha)·gain, ±clamp)."""

    name: str
    gain: float
    alpha: float
    """Slope below zero of the three pieces of straight line; the others ignore it."""
    code: int
    """Number of a smooth activation in the kernel source; -1 for a piecewise linear one."""
    value: Callable[[Tensor, float], Tensor] = field(compare=False, repr=False)
    slope: Callable[[Tensor, float], Tensor] = field(compare=False, repr=False)
    clamp: float = -1.0
    """Limit of the absolute output; negative for none."""

    @property
    def smooth(self) -> bool:
        return self.code >= 0

    @property
    def known_by_output(self) -> bool:
        """Whether the output tells the slope: then nothing but it is kept for the gradient."""
        return not self.smooth and self.alpha >= 0 and self.gain > 0


def _straight(u: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(u, alpha)


def _straight_slope(u: Tensor, alpha: float) -> Tensor:
    return torch.where(u > 0, u.new_ones(()), u.new_full((), alpha))


def _elu_slope(u: Tensor, alpha: float) -> Tensor:
    return torch.where(u > 0, 1.0, u.clamp(max=0).exp())


def _swish_slope(u: Tensor, alpha: float) -> Tensor:
    y = u.sigmoid()
    return y * (1 + u * (1 - y))


def _sigmoid_slope(u: Tensor, alpha: float) -> Tensor:
    y = u.sigmoid()
    return y * (1 - y)


def _one(u: Tensor, alpha: float) -> Tensor:
    return torch.ones_like(u)


ACTIVATIONS = {
    row.name: row
    for row in (
        Activation("linear", 1.0, 1.0, -1, lambda u, alpha: u, _one),
        Activation("relu", SQRT2, 0.0, -1, lambda u, alpha: F.relu(u), _straight_slope),
        Activation("lrelu", SQRT2, 0.2, -1, _straight, _straight_slope),
        Activation("tanh", 1.0, 0.0, 0, lambda u, _: u.tanh(), lambda u, _: 1 - u.tanh().square()),
        Activation("sigmoid", 1.0, 0.0, 1, lambda u, alpha: u.sigmoid(), _sigmoid_slope),
        Activation("elu", 1.0, 0.0, 2, lambda u, alpha: F.elu(u), _elu_slope),
        Activation("selu", 1.0, 0.0, 3, lambda u, alpha: F.selu(u),
                   lambda u, _: SELU_SCALE * torch.where(
                       u > 0, 1.0, SELU_ALPHA * u.clamp(max=0).exp())),
        Activation("softplus", 1.0, 0.0, 4, lambda u, alpha: F.softplus(u, threshold=50.0),
                   lambda u, alpha: u.sigmoid()),
        Activation("swish", SQRT2, 0.0, 5, lambda u, alpha: u * u.sigmoid(), _swish_slope),
    )
}  # fmt: skip
"""Name, default gain, default alpha, kernel code, value, slope."""


@lru_cache(maxsize=256)  # a network calls with a handful of settings, thousands of times
def resolved_activation(
    act: str, alpha: float | None = None, gain: float | None = None, clamp: float | None = None
) -> Activation:
    """Return the activation with its numbers filled in; raise UsageError for an unknown name.

    Only lrelu has an alpha: the others ignore it. None means the default; clamp None or negative
    means no limit.
    """
    row = ACTIVATIONS.get(act)
    if row is None:
        raise UsageError(unknown_name("activation", act, ACTIVATIONS))
    if gain is not None and gain != row.gain:
        row = replace(row, gain=float(gain))
    if alpha is not None and act == "lrelu" and alpha != row.alpha:
        row = replace(row, alpha=float(alpha))
    if clamp is not None and clamp >= 0:
        row = replace(row, clamp=float(clamp))
    return row


@dataclass(frozen=True, slots=True)
class Additions:
    """What comes between the input and the activation: x·scale + noise·strength + bias.

    bias and strength [C]; scale [N, C]; noise [N or 1, 1, H, W]. Each may be None; strength None
    means one.
    """

    bias: Tensor | None = None
    scale: Tensor | None = None
    noise: Tensor | None = None
    strength: Tensor | None = None


def along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """View values [C] so that they broadcast along ``dim`` of ``like``."""
    return values.view([-1 if axis == dim else 1 for axis in range(like.ndim)])


def per_plane(values: Tensor, like: Tensor) -> Tensor:
    """View values [N, C] so that they broadcast over the planes of ``like`` [N, C, ...]."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))


def preactivation(x: Tensor, more: Additions, dim: int) -> Tensor:
    """Return x·scale + noise·strength + bias."""
    u = x
    if more.scale is not None:
        u = u * per_plane(more.scale, u)
    if more.noise is not None:
        strength = more.strength
        u = u + (more.noise if strength is None else more.noise * along(strength, u, 1))
    if more.bias is not None:
        u = u + along(more.bias, u, dim)
    return u


def bias_act_ref(x: Tensor, more: Additions, dim: int, activation: Activation) -> Tensor:
    """Return clamp(act(x·scale + noise·strength + bias)·gain): differentiable to any order."""
    y = activation.value(preactivation(x, more, dim), activation.alpha)
    if activation.gain != 1:
        y = y * activation.gain
    if activation.clamp >= 0:
        y = y.clamp(-activation.clamp, activation.clamp)
    return y


def bias_act_gradient_ref(
    dy: Tensor,
    reference: Tensor,
    more: Additions,
    dim: int,
    activation: Activation,
    from_output: bool,
) -> tuple[Tensor, Tensor]:
    """Return dx, and du = dx before the scale, where the output's gradient is ``dy``.

    ``reference`` is the input, or the output if ``from_output``. Closed form in differentiable
    steps, so that it gives all higher derivatives.
    """
    limit = activation.clamp
    if from_output:
        u = reference
        # An output that was cut is the limit as its dtype stores it.
        kept = None if limit < 0 else reference.detach().abs() < reference.new_full((), limit)
    else:
        u = preactivation(reference, more, dim)
        kept = None
        if limit >= 0:
            y = activation.value(u.detach(), activation.alpha) * activation.gain
            kept = y.abs() <= limit
    du = dy * activation.slope(u, activation.alpha) * activation.gain
    if kept is not None:
        du = torch.where(kept, du, 0.0)
    dx = du if more.scale is None else du * per_plane(more.scale, du)
    return dx, du


# ---- upfirdn2d


@dataclass(frozen=True, slots=True)
class Resampling:
    """How upfirdn2d resamples: pad, zero-insertion, filter and downsampling of both axes.

    Pairs are (x, y); ``padding`` is (left, right, top, bottom), counted after upsampling, and
    negative to crop.
    """

    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    flip: bool = False
    """Correlate with the filter instead of convolving with it."""
    gain: float = 1.0

    def output_size(self, *sizes: int) -> tuple[int, int]:
        """Return (height, width) of the output for input and filter (height, width each).

        Below one when nothing remains.
        """
        in_h, in_w, filter_h, filter_w = sizes
        left, right, top, bottom = self.padding
        return (
            (in_h * self.up[1] + top + bottom - filter_h) // self.down[1] + 1,
            (in_w * self.up[0] + left + right - filter_w) // self.down[0] + 1,
        )

    def split(self) -> tuple["Resampling", "Resampling"]:
        """Return the pass along x and the pass along y that together do the same."""
        left, right, top, bottom = self.padding
        across = replace(
            self, up=(self.up[0], 1), down=(self.down[0], 1), padding=(left, right, 0, 0), gain=1.0
        )
        along = replace(
            self, up=(1, self.up[1]), down=(1, self.down[1]), padding=(0, 0, top, bottom)
        )
        return across, along

    def transposed(self, *sizes: int) -> "Resampling":
        """Return the resampling that takes gradients back, from the output's size to the input's.

        ``sizes`` are those of input, output and filter (height, width each).
        """
        in_h, in_w, out_h, out_w, filter_h, filter_w = sizes
        left, _, top, _ = self.padding
        return Resampling(
            up=self.down,
            down=self.up,
            padding=(
                filter_w - 1 - left,
                in_w * self.up[0] - out_w * self.down[0] + left - self.up[0] + 1,
                filter_h - 1 - top,
                in_h * self.up[1] - out_h * self.down[1] + top - self.up[1] + 1,
            ),
            flip=not self.flip,
            gain=self.gain,
        )


def filter_size(f: Tensor) -> tuple[int, int]:
    """Return (height, width) of a filter [h, w], or of the square one that [n] stands for."""
    return (f.shape[0], f.shape[-1])


def checked_output_size(x: Tensor, f: Tensor, how: Resampling) -> tuple[int, int]:
    """Return the output's height and width; raise UsageError when nothing would remain."""
    height, width = how.output_size(x.shape[2], x.shape[3], *filter_size(f))
    if height < 1 or width < 1:
        raise UsageError(
            f"upfirdn2d would return {height}×{width} pixels: x has {x.shape[2]}×{x.shape[3]}, "
            f"the filter {list(f.shape)}, padding {list(how.padding)}"
        )
    return height, width


def upfirdn2d_ref(x: Tensor, f: Tensor, how: Resampling) -> Tensor:
    """Resample x [N, C, H, W] with f [h, w] or [n]; differentiable to any order, also in f."""
    f = f.to(x.dtype)
    if f.ndim == 1:
        across, along = how.split()
        return _one_pass(_one_pass(x, f[None, :], across), f[:, None], along)
    return _one_pass(x, f, how)


def _one_pass(x: Tensor, f: Tensor, how: Resampling) -> Tensor:
    channels = x.shape[1]
    out_h, out_w = how.output_size(x.shape[2], x.shape[3], *f.shape)
    left, right, top, bottom = how.padding
    if how.gain != 1:
        f = f * how.gain
    if how.up == (1, 1):
        kernel = f if how.flip else f.flip(0, 1)
        kernel = kernel.expand(channels, 1, *f.shape)
        stride = (how.down[1], how.down[0])
        x = _padded(x, (left, right, top, bottom))
        return F.conv2d(x, kernel, stride=stride, groups=channels)
    # A transposed convolution skips the inserted zeros (2.6 times faster than filtering them on a
    # CPU). Its output begins where a padding of size - 1 would.
    kernel = (f.flip(0, 1) if how.flip else f).expand(channels, 1, *f.shape)
    y = F.conv_transpose2d(x, kernel, stride=(how.up[1], how.up[0]), groups=channels)
    before_y, before_x = top - (f.shape[0] - 1), left - (f.shape[1] - 1)
    rows, columns = (out_h - 1) * how.down[1] + 1, (out_w - 1) * how.down[0] + 1
    after_y, after_x = rows - y.shape[2] - before_y, columns - y.shape[3] - before_x
    y = _padded(y, (before_x, after_x, before_y, after_y))
    return y[:, :, :: how.down[1], :: how.down[0]].contiguous()


def _padded(x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Pad with zeros, then crop where a side is negative: a crop may reach into the padding."""
    left, right, top, bottom = sides
    x = F.pad(x, [max(side, 0) for side in sides])
    rows, columns = x.shape[2] + min(bottom, 0), x.shape[3] + min(right, 0)
    return x[:, :, max(-top, 0) : rows, max(-left, 0) : columns]


# ---- filtered_lrelu


@dataclass(frozen=True, slots=True)
class FilteredActivation:
    """How filtered_lrelu acts: up, leaky ReLU with gain and clamp, down. Both axes are alike.

    ``padding`` is (left, right, top, bottom), counted after upsampling; ``clamp`` is negative for
    none; ``flip`` correlates with both filters instead of convolving.
    """

    up: int = 1
    down: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    gain: float = SQRT2
    slope: float = 0.2
    clamp: float = -1.0
    flip: bool = False

    def resamplings(self) -> tuple[Resampling, Resampling]:
        """Return the resampling before the activation, which keeps the level, and that after it."""
        up, down = self.up, self.down
        return (
            Resampling((up, up), padding=self.padding, flip=self.flip, gain=float(up * up)),
            Resampling(down=(down, down), flip=self.flip),
        )


def filtered_lrelu_ref(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor | None, how: FilteredActivation
) -> Tensor:
    """Do what filtered_lrelu does in plain steps: the definition, differentiable to any order."""
    before, after = how.resamplings()
    u = upfirdn2d_ref(preactivation(x, Additions(bias=b), 1), fu, before)
    lrelu = resolved_activation("lrelu", how.slope, how.gain, how.clamp)
    return upfirdn2d_ref(bias_act_ref(u, Additions(), 1, lrelu), fd, after)


def filtered_lrelu_slopes_ref(
    v: Tensor,
    x: Tensor,
    b: Tensor | None,
    fu: Tensor,
    fd: Tensor,
    how: FilteredActivation,
    back: bool,
) -> Tensor:
    """Return v resampled as filtered_lrelu does, or (``back``) the transposed way, with x's slopes.

    That is the gradient of filtered_lrelu where its output's is v; without ``back``, the gradient
    of that by v. Differentiable in v to any order; the result has x's dtype.
    """
    before, after = how.resamplings()
    with torch.no_grad():
        u = upfirdn2d_ref(preactivation(x, Additions(bias=b), 1), fu, before)
        slopes = torch.full_like(u, how.gain)
        slopes = torch.where(u > 0, slopes, slopes * how.slope)
        if how.clamp >= 0:
            y = torch.where(u > 0, u, u * how.slope) * how.gain
            slopes.masked_fill_(y.abs() > how.clamp, 0.0)
    first, last, f_first, f_last = before, after, fu, fd
    if back:
        middle = tuple(u.shape[2:])
        out = after.output_size(*middle, *filter_size(fd))
        first = after.transposed(*middle, *out, *filter_size(fd))
        last = before.transposed(x.shape[2], x.shape[3], *middle, *filter_size(fu))
        f_first, f_last = fd, fu
    return upfirdn2d_ref(upfirdn2d_ref(v.to(x.dtype), f_first, first) * slopes, f_last, last)


# ---- the [1 2 1] blur


def blur2d_ref(x: Tensor) -> Tensor:
    """Convolve every channel with [1,2,1]⊗[1,2,1]/16, zero padded: the plain definition."""
    kernel = blur_taps(x.shape[1], x.dtype, x.device)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def blur_taps(channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return [1,2,1]⊗[1,2,1]/16 as a depthwise kernel [channels, 1, 3, 3]."""
    # Made on the device: a copy from the host would wait until a GPU has done all before it.
    taps = 0.5 - 0.25 * torch.arange(-1, 2, dtype=dtype, device=device).abs()
    return torch.outer(taps, taps).expand(channels, 1, 3, 3)


# ---- style_epilogue, and both normalisations

LEAKY_SLOPE = 0.2
EPSILON = 1e-8


def pixel_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over channels: x / sqrt(mean_C(x²) + 1e-8)."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def instance_norm(x: Tensor) -> Tensor:
    """Bring every feature map [H, W] to zero mean and unit (biased) variance."""
    x = x - x.mean(dim=(2, 3), keepdim=True)
    return x * (x.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()


def style_epilogue_ref(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    style: Tensor | None = None,
    use_pixel_norm: bool = False,
    use_instance_norm: bool = True,
) -> Tensor:
    """Do what style_epilogue does in plain steps: the definition, and its second derivative."""
    if noise is not None and noise_strength is not None:
        x = x + noise * noise_strength.view(1, -1, 1, 1)
    x = F.leaky_relu(x + bias.view(1, -1, 1, 1), LEAKY_SLOPE)
    if use_pixel_norm:
        x = pixel_norm(x)
    if use_instance_norm:
        x = instance_norm(x)
    if style is not None:
        scale, shift = split_style(style, x)
        x = x * scale + shift
    return x


def split_style(style: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Split a style [N, 2C] into the factor (scale + 1) and the shift, each [N, C, 1, 1]."""
    scale, shift = style.view(like.shape[0], 2, like.shape[1], 1, 1).unbind(1)
    return scale + 1, shift


def style_epilogue_gradient_ref(
    dy: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return dx and sums [N·C, 4]: d scale, d shift, sum of dx, sum of dx·noise.

    With instance norm and a style, where the output's gradient is ``dy``. Closed form in
    differentiable steps, so that it gives the second derivative.
    """
    u = x if noise is None or strength is None else x + noise * strength.view(1, -1, 1, 1)
    a = F.leaky_relu(u + bias.view(1, -1, 1, 1), LEAKY_SLOPE)
    centred = a - a.mean(dim=(2, 3), keepdim=True)
    inverse = (centred.square().mean(dim=(2, 3), keepdim=True) + EPSILON).rsqrt()
    h = centred * inverse
    factor, _ = split_style(style, x)
    mean_dy = dy.mean(dim=(2, 3), keepdim=True)
    mean_dy_h = (dy * h).mean(dim=(2, 3), keepdim=True)
    da = (dy - mean_dy - h * mean_dy_h) * (factor * inverse)
    dx = torch.where(a > 0, da, da * LEAKY_SLOPE)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    with_noise = dx * (0 if noise is None else noise)
    sums = [one.sum(dim=(2, 3), dtype=wide).flatten() for one in (dy * h, dy, dx, with_noise)]
    return dx, torch.stack(sums, dim=1)


# ---- derivatives of a formula by its arguments alone, whatever hangs together behind them


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
