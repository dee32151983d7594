"""What two other programs compute from their own weights, written from docs/convert.md.

Plain formulas over their names and their scales, sharing nothing with our networks: the reference
that conversions are tested against. (Checked against the programs themselves when written.)
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Any]
_BLUR = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1]))[None, None] / 16


def tensors(arrays: Weights) -> Weights:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def blur(x: Tensor) -> Tensor:
    return F.conv2d(x, _BLUR.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def normalise(z: Tensor) -> Tensor:
    return z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()


def scaled(weight: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    return weight * (gain / math.sqrt(weight[0].numel()))


def stddev(x: Tensor) -> Tensor:
    """Append the mean standard deviation of the whole batch."""
    plane = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, plane.expand(len(x), 1, *x.shape[2:])], 1)


def rosinality_image(w: Weights, z: Tensor, noise: list[Tensor]) -> Tensor:
    """Draw with ``noise``, one map [N, 1, h, w] per resolution."""
    x = normalise(z)
    for i in range(1, 99, 2):
        if f"style.{i}.linear.bias" not in w:
            break
        x = lrelu(F.linear(x, scaled(w[f"style.{i}.linear.weight_orig"]),
                           w[f"style.{i}.linear.bias"]))  # fmt: skip
    style, image = x, x
    for s, plane in enumerate(noise):
        name = f"generator.progression.{s}"
        for half in (1, 2):
            conv = f"{name}.conv{half}"
            if s == 0 and half == 1:
                image = w[f"{conv}.input"].expand(len(z), -1, -1, -1)
            elif half == 2:
                image = F.conv2d(image, scaled(w[f"{conv}.conv.weight_orig"]),
                                 w[f"{conv}.conv.bias"], padding=1)  # fmt: skip
            elif f"{conv}.0.weight" in w:  # fused: the mean of the four shifts
                kernel = w[f"{conv}.0.weight"]
                kernel = kernel * math.sqrt(2 / (kernel.shape[0] * 9))
                spread = sum(F.pad(kernel, (a, 1 - a, b, 1 - b)) for a in (0, 1) for b in (0, 1))
                image = blur(F.conv_transpose2d(image, spread / 4, w[f"{conv}.0.bias"], stride=2,
                                                padding=1))  # fmt: skip
            else:
                image = F.interpolate(image, scale_factor=2)
                image = blur(F.conv2d(image, scaled(w[f"{conv}.1.conv.weight_orig"]),
                                      w[f"{conv}.1.conv.bias"], padding=1))  # fmt: skip
            strength = w[f"{name}.noise{half}.weight_orig"]
            image = lrelu(image + strength * math.sqrt(2 / strength.shape[1]) * plane)
            adain = f"{name}.adain{half}.style.linear"
            factor, shift = F.linear(style, scaled(w[f"{adain}.weight_orig"]),
                                     w[f"{adain}.bias"])[:, :, None, None].chunk(2, 1)  # fmt: skip
            image = factor * F.instance_norm(image, eps=1e-5) + shift
    rgb = f"generator.to_rgb.{len(noise) - 1}.conv"
    return F.conv2d(image, scaled(w[f"{rgb}.weight_orig"]), w[f"{rgb}.bias"])


def rosinality_scores(w: Weights, images: Tensor, blocks: int, last: int) -> Tensor:
    """Score images with the last ``blocks`` of its blocks; ``last`` is the index of the last."""
    first = last + 1 - blocks
    colours = f"from_rgb.{first}.0.conv"
    x = lrelu(F.conv2d(images, scaled(w[f"{colours}.weight_orig"]), w[f"{colours}.bias"]))
    for s in range(first, last):
        one, two = f"progression.{s}.conv1.0.conv", f"progression.{s}.conv2.1.conv"
        x = lrelu(F.conv2d(x, scaled(w[f"{one}.weight_orig"]), w[f"{one}.bias"], padding=1))
        x = F.conv2d(blur(x), scaled(w[f"{two}.weight_orig"]), w[f"{two}.bias"], padding=1)
        x = lrelu(F.avg_pool2d(x, 2))
    one, two = f"progression.{last}.conv1.0.conv", f"progression.{last}.conv2.0.conv"
    x = lrelu(F.conv2d(stddev(x), scaled(w[f"{one}.weight_orig"]), w[f"{one}.bias"], padding=1))
    x = lrelu(F.conv2d(x, scaled(w[f"{two}.weight_orig"]), w[f"{two}.bias"])).flatten(1)
    return F.linear(x, scaled(w["linear.linear.weight_orig"]), w["linear.linear.bias"])


def huangzh13_image(w: Weights, z: Tensor, labels: Tensor | None, noise: list[Tensor]) -> Tensor:
    """Draw with ``noise``, one map per layer; ``labels`` are indices of classes."""
    x = z if labels is None else torch.cat([z, w["class_embedding.weight"][labels]], 1)
    x = normalise(x)
    for i in range(sum("g_mapping" in name and "weight" in name for name in w)):
        name = f"g_mapping.map.dense{i}"
        x = lrelu(F.linear(x, scaled(w[f"{name}.weight"]) * 0.01, w[f"{name}.bias"] * 0.01))
    style, image = x, x
    for layer, plane in enumerate(noise):
        block = f"g_synthesis.{f'blocks.{layer // 2 - 1}' if layer > 1 else 'init_block'}"
        if layer == 0:
            image = w[f"{block}.const"] + w[f"{block}.bias"].view(1, -1, 1, 1)
        else:
            conv = f"{block}.{'conv' if layer == 1 else 'conv1' if layer % 2 else 'conv0_up'}"
            if layer > 1 and layer % 2 == 0:
                image = F.interpolate(image, scale_factor=2)
            image = F.conv2d(image, scaled(w[f"{conv}.weight"]), padding=1)
            image = blur(image) if layer > 1 and layer % 2 == 0 else image
            image = image + w[f"{conv}.bias"].view(1, -1, 1, 1)
        epilogue = f"{block}.epi{layer % 2 + 1}"
        image = lrelu(image + w[f"{epilogue}.top_epi.noise.weight"].view(1, -1, 1, 1) * plane)
        mod = f"{epilogue}.style_mod.lin"
        factor, shift = F.linear(style, scaled(w[f"{mod}.weight"], 1.0),
                                 w[f"{mod}.bias"])[:, :, None, None].chunk(2, 1)  # fmt: skip
        image = F.instance_norm(image, eps=1e-5) * (factor + 1) + shift
    rgb = f"g_synthesis.to_rgb.{len(noise) // 2 - 1}"
    return F.conv2d(image, scaled(w[f"{rgb}.weight"], 1.0), w[f"{rgb}.bias"])


def huangzh13_scores(w: Weights, images: Tensor) -> Tensor:
    """Score images of 8 px, at most four: no activation follows the colour layer."""
    x = F.conv2d(images, scaled(w["from_rgb.0.weight"]), w["from_rgb.0.bias"])
    x = lrelu(F.conv2d(x, scaled(w["blocks.0.conv0.weight"]), w["blocks.0.conv0.bias"], padding=1))
    x = F.conv2d(blur(x), scaled(w["blocks.0.conv1_down.weight"]), padding=1)
    x = lrelu(F.avg_pool2d(x, 2) + w["blocks.0.conv1_down.bias"].view(1, -1, 1, 1))
    x = F.conv2d(stddev(x), scaled(w["final_block.conv.weight"]), w["final_block.conv.bias"],
                 padding=1)  # fmt: skip
    x = lrelu(F.linear(lrelu(x).flatten(1), scaled(w["final_block.dense0.weight"]),
                       w["final_block.dense0.bias"]))  # fmt: skip
    return F.linear(x, scaled(w["final_block.dense1.weight"], 1.0), w["final_block.dense1.bias"])
