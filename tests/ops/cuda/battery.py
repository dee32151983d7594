"""Calls that reach every kernel by every way, for the numeric tests and the sanitizers alike."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stylecli import ops
from stylecli.ops.filtered_lrelu import filtered_lrelu
from stylecli.ops.reference import ACTIVATIONS

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An operator call: ``call`` gets tensors of ``shapes``, drawn from a normal distribution."""

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[Shape, ...]
    offset: int = 0
    """Elements by which the first input misses a 16-byte boundary."""
    channels_last: bool = False
    twice: bool = False
    """Whether the gradient of the first gradient, by the output's, is a result too."""

    @property
    def order(self) -> torch.memory_format:
        """The first input's layout."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        """Return the inputs, all wanting gradients: numbers that every dtype holds exactly.

        They lie on a grid on which no sum hits a kink of an activation, where rounding would
        decide which side it is on.
        """
        generator = torch.Generator().manual_seed(20181212)
        first, *others = (
            torch.randn(shape, generator=generator, dtype=torch.float64) for shape in self.shapes
        )
        first = (first * 4).round() / 4 + 1 / 16
        tensors = [first.to(dtype), *[(one.floor() + 0.5).to(dtype) for one in others]]
        if self.offset:
            first = torch.empty(tensors[0].numel() + self.offset, dtype=dtype)[self.offset :]
            size = torch.Size(self.shapes[0])
            strides = torch.empty(size, memory_format=self.order).stride()
            tensors[0] = first.as_strided(size, strides).copy_(tensors[0])
        elif self.channels_last:
            tensors[0] = tensors[0].contiguous(memory_format=self.order)
        return [one.requires_grad_() for one in tensors]

    def results(self, inputs: list[Tensor]) -> list[Tensor]:
        """Return the output and the gradients of all inputs for a fixed upstream gradient."""
        y = self.call(*inputs)
        generator = torch.Generator().manual_seed(7)
        dy = ((torch.randn(y.shape, generator=generator) * 4).round() / 4).to(y.dtype)
        if not self.twice:
            return [y.detach(), *torch.autograd.grad(y, inputs, dy)]
        dy.requires_grad_()
        gradients = torch.autograd.grad(y, inputs, dy, create_graph=True)
        (again,) = torch.autograd.grad(gradients[0], dy, inputs[0].detach())
        return [y.detach(), *(one.detach() for one in gradients), again]


def _activation(name: str, shape: Shape, dim: int = 1, **settings: object) -> Case:
    def call(x: Tensor, b: Tensor) -> Tensor:
        return ops.bias_act(x, b, dim=dim, **names)

    names = {key: value for key, value in settings.items() if key in ("act", "gain", "clamp")}
    others = {key: value for key, value in settings.items() if key not in names}
    return Case(f"bias_act {name}", call, (shape, (shape[dim],)), **others)


def _layer(name: str, shape: Shape, noises: int, **settings: object) -> Case:
    def call(x: Tensor, b: Tensor, scale: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
        return ops.bias_act(
            x, b, act="lrelu", clamp=2.0, scale=scale, noise=noise, noise_strength=strength
        )

    count, channels, height, width = shape
    shapes = (shape, (channels,), (count, channels), (noises, 1, height, width), (1,))
    return Case(f"layer {name}", call, shapes, **settings)


def _fir(name: str, shape: Shape, taps: Shape, **settings: object) -> Case:
    numbers = torch.arange(1.0, 1 + torch.Size(taps).numel()) % 5 - 1.5
    f = (numbers / numbers.abs().sum()).view(taps)
    case = {key: settings.pop(key) for key in ("offset", "channels_last") if key in settings}
    return Case(
        f"upfirdn2d {name}",
        lambda x: ops.upfirdn2d(x, f.double() if x.dtype == torch.float64 else f, **settings),
        (shape,),
        **case,
    )


def _epilogue(name: str, shape: Shape, noises: int = 1, **settings: object) -> Case:
    def call(
        x: Tensor, b: Tensor, style: Tensor, noise: Tensor | None = None, s: Tensor | None = None
    ) -> Tensor:
        return ops.style_epilogue(x, b, noise=noise, noise_strength=s, style=style)

    count, channels, height, width = shape
    shapes: tuple[Shape, ...] = (shape, (channels,), (count, 2 * channels))
    if noises:
        shapes += ((noises, 1, height, width), (channels,))
    return Case(f"style_epilogue {name}", call, shapes, **settings)


def _filtered(
    name: str, shape: Shape, up: int, down_taps: Shape, up_taps: int = 0, **settings: object
) -> Case:
    def taps(*sides: int) -> Tensor:
        numbers = torch.sin(torch.arange(1.0, 1 + torch.Size(sides).numel()) * 2.1) + 0.3
        return (3 * numbers / numbers.abs().sum()).view(sides)

    def call(x: Tensor, b: Tensor) -> Tensor:
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return filtered_lrelu(x, fu.to(wide), fd.to(wide), b, up=up, down=min(up, 2), **settings)

    fu, fd = taps(up_taps or 6 * up), taps(*down_taps)
    case = {key: settings.pop(key) for key in ("offset", "channels_last") if key in settings}
    return Case(f"filtered_lrelu {name}", call, (shape, (shape[1],)), twice=True, **case)


SMALL = (
    *[_activation(act, (2, 3, 5, 7), act=act, gain=1.3, clamp=1.1) for act in ACTIVATIONS],
    *[_activation(f"{act} free", (2, 3, 4, 8), act=act) for act in ACTIVATIONS],
    _activation("one pixel", (1, 1, 1, 1), act="lrelu"),
    _activation("dense", (5, 24), act="lrelu"),
    _activation("vector", (9,), dim=0, act="tanh"),
    _activation("planes for sums", (2, 3, 8, 9), act="lrelu", clamp=0.8),
    _activation("unaligned", (2, 2, 8, 8), act="lrelu", offset=1),
    _activation("channels last", (2, 8, 6, 5), act="lrelu", channels_last=True),
    _layer("own noise", (2, 3, 8, 8), 2),
    _layer("shared noise", (2, 3, 5, 3), 1),
    _layer("unaligned", (1, 2, 8, 8), 1, offset=3),
    _fir("blur", (2, 3, 6, 5), (4, 4), padding=(1, 2, 2, 1)),
    _fir("up 2", (1, 2, 5, 4), (4, 4), up=2, padding=(2, 1), gain=4),
    _fir("down 2", (1, 2, 9, 8), (4, 4), down=2, padding=1),
    _fir("mixed", (1, 2, 9, 7), (2, 3), up=(1, 2), down=(3, 1), padding=(-1, 3, 2, 0),
         flip_filter=True, gain=0.7),
    _fir("separable", (1, 2, 9, 7), (12,), up=3, down=2, padding=(7, 6, 5, 8)),
    _fir("one pixel", (1, 1, 1, 1), (1, 1)),
    _fir("cropped", (1, 1, 8, 8), (3, 3), padding=(-2, -1, -1, -3)),
    _epilogue("one pixel", (1, 2, 1, 1)),
    _epilogue("4x4", (2, 3, 4, 4), 2),
    _epilogue("5x7", (2, 2, 5, 7)),
    _epilogue("no noise", (1, 3, 8, 8), 0),
    _epilogue("16x16", (1, 2, 16, 16)),
    _epilogue("unaligned", (1, 2, 8, 8), offset=1),
    _epilogue("17x16", (1, 2, 17, 16), 1),
    _filtered("up 2", (1, 2, 5, 6), 2, (12,), padding=(9, 8, 11, 10), clamp=1.0),
    _filtered("up 2 radial", (1, 2, 5, 4), 2, (12, 12), padding=(11, 12, 10, 9)),
    _filtered("up 4", (1, 2, 4, 3), 4, (12,), padding=(15, 16, 17, 13), slope=0.1, gain=1.3),
    _filtered("up 4 radial", (1, 1, 3, 4), 4, (12, 12), padding=(19, 17, 18, 16), clamp=0.9),
    _filtered("short filters", (1, 1, 6, 7), 4, (4, 3), 9, padding=(5, -3, 4, 6), flip_filter=True),
    _filtered("cropped", (1, 1, 20, 12), 2, (11,), 7, padding=(-3, 8, 9, -5), clamp=0.7),
    _filtered("one pixel", (1, 1, 1, 1), 2, (2,), 2, padding=1),
    _filtered("blur", (2, 3, 6, 5), 1, (3,), 1, padding=1, gain=1.0),
    _filtered("blur, clamped", (1, 2, 5, 7), 1, (2, 4), 1, padding=(3, -1, 2, 0), clamp=0.8,
              flip_filter=True),
)  # fmt: skip
"""Every kind of call, in planes that a sanitizer gets through quickly."""

LAST = (
    *[
        _activation(
            f"{act}, channels last", (2, 8, 3, 5), act=act, gain=1.3, clamp=1.1, channels_last=True
        )
        for act in ACTIVATIONS
    ],
    _activation("odd maps, channels last", (2, 3, 7, 5), act="lrelu", channels_last=True),
    _activation(
        "unaligned, channels last", (1, 8, 5, 4), act="lrelu", offset=1, channels_last=True
    ),
    _layer("own noise, channels last", (2, 8, 6, 8), 2, channels_last=True),
    _layer("shared noise, odd maps, channels last", (2, 3, 5, 3), 1, channels_last=True),
    _fir("blur, channels last", (2, 8, 6, 5), (4, 4), padding=(1, 2, 2, 1), channels_last=True),
    _fir(
        "up 2, channels last",
        (1, 8, 5, 4),
        (4, 4),
        up=2,
        padding=(2, 1),
        gain=4,
        channels_last=True,
    ),
    _fir(
        "down 2, odd maps, channels last",
        (2, 3, 9, 8),
        (4, 3),
        down=2,
        padding=1,
        flip_filter=True,
        channels_last=True,
    ),
    _fir(
        "separable, channels last",
        (1, 8, 9, 7),
        (12,),
        up=3,
        down=2,
        padding=(7, 6, 5, 8),
        channels_last=True,
    ),
    _filtered("blur, channels last", (2, 8, 6, 5), 1, (3,), 1, padding=1, channels_last=True),
    _filtered(
        "blur, odd maps, channels last",
        (2, 3, 5, 4),
        1,
        (4, 2),
        1,
        padding=(0, 2, 3, -1),
        clamp=0.8,
        flip_filter=True,
        channels_last=True,
    ),
    _filtered(
        "blur, unaligned, channels last",
        (1, 8, 3, 5),
        1,
        (3, 3),
        1,
        padding=1,
        offset=1,
        channels_last=True,
    ),
    _epilogue("5x7, channels last", (2, 8, 5, 7), 2, channels_last=True),
    _epilogue("no noise, odd maps, channels last", (2, 3, 4, 4), 0, channels_last=True),
    _epilogue("unaligned, channels last", (1, 8, 6, 4), offset=1, channels_last=True),
    _epilogue("2x1, channels last", (2, 8, 2, 1), channels_last=True),
)
"""The same in channels-last memory."""

LARGE = (
    _activation("several spans", (1, 2, 64, 65), act="lrelu", clamp=1.0),
    _layer("several spans", (2, 2, 48, 64), 2),
    _fir("tiled blur", (1, 2, 40, 37), (4, 4), padding=(1, 2, 2, 1)),
    _fir("tiled up 2", (1, 2, 33, 20), (4, 4), up=2, padding=(2, 1), gain=4),
    _fir("tiled up 2, odd padding", (1, 1, 20, 33), (3, 4), up=2, padding=(1, 2, 3, -1)),
    _fir("tiled down 2", (1, 2, 70, 81), (4, 3), down=2, padding=(1, 0, 2, 1), flip_filter=True),
    *[
        _epilogue(f"{height}x{width}", (1, 2, height, width), noises)
        for height, width, noises in (
            (63, 65, 1), (64, 64, 1), (17, 241, 1),  # 4096 - 1, 4096, 4096 + 1
            (127, 129, 1), (128, 128, 1), (145, 113, 0),  # 16384 - 1, 16384, 16384 + 1
            (128, 130, 1),
        )
    ],
    _filtered("several tiles", (1, 2, 36, 36), 2, (12,), padding=(9, 8, 9, 8), clamp=1.0),
    _filtered("radial tiles", (1, 2, 24, 40), 2, (12, 12), padding=(13, 12, 9, 8), offset=1),
    _filtered("tiles, up 4", (2, 1, 20, 36), 4, (12,), padding=(-6, -9, -6, -9), clamp=1.0),
    _filtered("blur by tiles", (1, 2, 40, 37), 1, (4,), 1, padding=(1, 2, 2, 1), clamp=1.0),
    _filtered("blur by runs, channels last", (1, 8, 64, 65), 1, (3, 3), 1, padding=1,
              channels_last=True),
    _epilogue("own noise, unaligned", (2, 1, 136, 128), 2, offset=1),
    # several runs of pixels, the last one short; more vectors of maps than threads
    _epilogue("65x130, channels last", (1, 8, 65, 130), channels_last=True),
    _epilogue("9x8, 2056 maps, channels last", (1, 2056, 9, 8), channels_last=True),
    _activation("several runs, channels last", (1, 8, 64, 65), act="lrelu", clamp=1.0,
                channels_last=True),
    _layer("several runs, channels last", (2, 16, 24, 32), 2, channels_last=True),
)  # fmt: skip
"""The sizes at which another way begins."""
