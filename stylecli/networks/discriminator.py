"""The discriminator of StyleGAN and Progressive GAN, growing by ``lod``."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylecli.errors import UsageError
from stylecli.networks.config import StyleGAN1Config
from stylecli.networks.layers import (
    SQRT2,
    EqualConv2d,
    EqualLinear,
    box_average,
    check_labels,
    leaky_relu,
    lerp,
    minibatch_stddev,
    split_lod,
    whole_precision,
)
from stylecli.ops.blurring import blur2d
from stylecli.ops.resampled_conv import conv2d_downsample


class DiscriminatorBlock(nn.Module):
    """Features at 2^r -> features at 2^(r-1): convolve, blur, convolve and halve."""

    def __init__(self, fan_in: int, fan_out: int, *, blur: bool) -> None:
        super().__init__()
        self.blur = blur
        self.conv0 = EqualConv2d(fan_in, fan_in, 3, gain=SQRT2)
        self.conv1_down = EqualConv2d(fan_in, fan_out, 3, gain=SQRT2)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I, 2h, 2w] -> [N, O, h, w]."""
        x = self.conv0.activated(x)
        if self.blur:
            x = blur2d(x)
        x = conv2d_downsample(x, self.conv1_down.scaled_weight)
        return leaky_relu(x, self.conv1_down.bias)


class DiscriminatorHead(nn.Module):
    """Features at 4×4 -> outputs: minibatch stddev, convolution, two dense layers."""

    def __init__(self, config: StyleGAN1Config, outputs: int) -> None:
        super().__init__()
        self.group_size = config.mbstd_group_size
        extra = 1 if self.group_size > 1 else 0
        self.conv = EqualConv2d(config.fmaps(1) + extra, config.fmaps(1), 3, gain=SQRT2)
        self.dense0 = EqualLinear(16 * config.fmaps(1), config.fmaps(0), gain=SQRT2)
        self.dense1 = EqualLinear(config.fmaps(0), outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, 4, 4] -> [N, outputs]."""
        if self.group_size > 1:
            x = minibatch_stddev(x, self.group_size)
        x = self.conv.activated(x)
        x = leaky_relu(self.dense0(x.flatten(1)))
        return self.dense1(x)  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """D: image -> logit; positive means real.

    Labels, by ``config.D_label_mode``: ``select`` has one output per class and takes the labelled
    one (StyleGAN); ``ignore`` does not look at them (Progressive GAN as shipped with StyleGAN);
    ``auxiliary`` has the score first and class logits behind it (the original Progressive GAN).
    """

    def __init__(self, config: StyleGAN1Config) -> None:
        super().__init__()
        self.config = config
        self.lod = 0.0
        r_max = config.resolution_log2
        outputs = {
            "select": max(config.label_dim, 1),
            "ignore": 1,
            "auxiliary": 1 + config.label_dim,
        }[config.D_label_mode]
        self.from_rgb = nn.ModuleList(
            EqualConv2d(config.channels, config.fmaps(r - 1), 1, gain=SQRT2)
            for r in range(2, r_max + 1)
        )  # from_rgb[i] belongs to resolution 2^(i + 2)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(config.fmaps(r - 1), config.fmaps(r - 2), blur=config.blur)
            for r in range(3, r_max + 1)
        )  # blocks[i] takes resolution 2^(i + 3)
        self.head = DiscriminatorHead(config, outputs)

    def forward(
        self, images: Tensor, c: Tensor | None = None, *, lod: float | None = None
    ) -> Tensor:
        """Score images [N, C, R, R] (or already at R / 2^floor(lod)): logits [N, 1].

        ``c`` is one-hot [N, label_dim]; ``lod=None`` is the stored one. Raises UsageError for
        wrong shapes, labels or batch sizes that do not divide into stddev groups.
        """
        logits = self.outputs(images, lod=lod)  # [N, outputs]
        if self.config.label_dim and self.config.D_label_mode == "select":
            check_labels(c, self.config.label_dim, len(images))
            assert c is not None
            return (logits * c.to(logits.dtype)).sum(dim=1, keepdim=True)
        return logits[:, :1]

    def outputs(self, images: Tensor, *, lod: float | None = None) -> Tensor:
        """Return all outputs [N, outputs] of the last layer, before labels are looked at."""
        level, fade = split_lod(self.lod if lod is None else lod, self.config.resolution_log2)
        images = self._at_level(images, level)
        if images.is_cpu:  # blurs ten times faster there; all features keep the layout
            images = images.contiguous(memory_format=torch.channels_last)
        depth = self.config.resolution_log2 - 2 - level  # blocks to run
        x = self._features(images, depth)
        for index in range(depth - 1, -1, -1):
            x = self.blocks[index](x)
            if fade and index == depth - 1:
                coarse = self._features(F.avg_pool2d(images, 2), depth - 1)
                x = lerp(x, coarse, fade)
        with torch.autocast(x.device.type, enabled=False):  # deviations and logits need all bits
            return self.head(whole_precision(x))  # type: ignore[no-any-return]

    def _features(self, images: Tensor, depth: int) -> Tensor:
        layer = self.from_rgb[depth]
        assert isinstance(layer, EqualConv2d)
        if not self.config.from_rgb_activation:
            return layer(images)  # type: ignore[no-any-return]
        return layer.activated(images)

    def _at_level(self, images: Tensor, level: int) -> Tensor:
        """Box-average full-size images to the level's size; take those of that size as they are."""
        full = self.config.resolution
        expected = (self.config.channels, full, full)
        if tuple(images.shape[1:]) == (self.config.channels, full >> level, full >> level):
            return images
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise UsageError(
                f"images have shape {list(images.shape)}: this network needs [N, "
                f"{expected[0]}, {full}, {full}]"
            )
        return box_average(images, 2**level)
