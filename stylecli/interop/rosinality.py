"""Checkpoints of rosinality/style-based-gan-pytorch -> our networks.

The program deviates from the paper, and these are the ways the conversion goes:

* equalised layers have the gain √2 everywhere: style, colour and last layers are scaled by √2;
  noise strengths by √(2/C); the mapping network's weights by 100, which our lrmul 0.01 undoes;
* fused up-convolutions average the four shifts of a kernel instead of adding them: kernels ÷ 4;
* a style's bias holds the 1 that ours adds, so 1 is taken off;
* the bias of an up-convolution comes before the blur (``bias_before_blur``), and instance norm adds
  1e-5 to the variance (``norm_epsilon``): switches of the network, for nothing else is equal;
* both layers of a resolution share one noise map: so do the stored maps; random noise is drawn per
  layer, as in the paper;
* w_avg is not in the file: estimated from 10,000 latents;
* a file holds layers up to 1024 px, trained or not: what is untrained is left out;
* from 64 px on the discriminator widens in its first convolution, not its second, and so is none of
  ours: left out. Up to 32 px the widths agree; its statistic runs over the whole batch.
"""

import re
from typing import Any

import numpy as np

from stylecli.errors import NetworkError, UsageError
from stylecli.interop.conversion import (
    Arrays,
    ForeignNetworks,
    Variables,
    estimate_w_avg,
    infer_channels,
    noise_maps,
    state_dict,
)
from stylecli.networks.stylegan1_config import StyleGAN1Config

SQRT2 = np.float32(np.sqrt(2.0))
NORM_EPSILON = 1e-5
LRMUL = 0.01
WHOLE_BATCH = 1024  # the largest group of the minibatch standard deviation
_PROGRESSION = "generator.progression"


def convert_rosinality(tree: Any, _: str) -> ForeignNetworks:
    """Return g_running as G_ema, generator as G, and the discriminator as D where it is ours."""
    named = {"G_ema": "g_running", "G": "generator", "D": "discriminator"}
    parts = {ours: tree[theirs] for ours, theirs in named.items() if theirs in tree}
    if not any(ours in parts for ours in ("G_ema", "G")):
        if "D" in parts or "linear.linear.weight_orig" in tree:
            raise NetworkError("it holds only the discriminator, which does not define the network")
        parts = {"G_ema": tree}
    sources = {ours: Variables(state_dict(part, ours), ours) for ours, part in parts.items()}
    generators = [sources[ours] for ours in ("G_ema", "G") if ours in sources]
    # Trained with --no_from_rgb_activate, the colour layers have one name less.
    activation = "D" not in sources or "from_rgb.0.0.conv.weight_orig" in sources["D"]
    blocks = max(_trained_blocks(source) for source in generators)
    config = _config(generators[0], blocks, activation)
    info: dict[str, Any] = {"w_avg": "estimated from 10,000 latents, as the file has none"}
    networks: dict[str, Arrays] = {
        ours: _generator(sources[ours], config) for ours in ("G_ema", "G") if ours in sources
    }
    if "D" in sources:
        discriminator = _discriminator(sources["D"], config)
        if discriminator is None:
            info["left_out"] = "the discriminator: its blocks are built differently from 64 px on"
        else:
            networks["D"] = discriminator
    return ForeignNetworks(config, networks, info=info)


def _count_blocks(variables: Variables, pattern: str) -> int:
    found = [re.fullmatch(pattern, name) for name in variables.names()]
    return sum(match is not None for match in found)


def _trained_blocks(variables: Variables) -> int:
    """Return how many blocks have ever been trained: untrained colours have a bias of zeros.

    All of them in a file in which nothing was trained.
    """
    blocks = _count_blocks(variables, r"generator\.progression\.\d+\.noise1\.weight_orig")
    trained = [
        index + 1
        for index in range(blocks)
        if variables.take(f"generator.to_rgb.{index}.conv.bias").any()
    ]
    return max(trained, default=blocks)


def _is_fused(variables: Variables, block: int) -> bool:
    return f"{_PROGRESSION}.{block}.conv1.0.weight" in variables


def _config(variables: Variables, blocks: int, activation: bool) -> StyleGAN1Config:
    layers = _count_blocks(variables, r"style\.\d+\.linear\.weight_orig")
    widths = [
        variables.take(f"{_PROGRESSION}.{index}.conv2.conv.weight_orig").shape[0]
        for index in range(blocks)
    ]
    base, most = infer_channels(widths)
    fused = [_is_fused(variables, index) for index in range(1, blocks)]
    auto = [8 << index >= 128 for index in range(blocks - 1)]
    if fused != auto and any(fused) and not all(fused):
        raise NetworkError("its up-convolutions are fused at sides that no setting gives")
    first = variables.take("style.1.linear.weight_orig", None, None)
    last = variables.take(f"style.{2 * layers - 1}.linear.weight_orig", None, None)
    try:
        return StyleGAN1Config.named(
            "f", resolution=2 << blocks,
            channels=variables.take("generator.to_rgb.0.conv.weight_orig").shape[0],
            z_dim=first.shape[1], w_dim=last.shape[0], mapping_layers=layers,
            mapping_fmaps=first.shape[0], mapping_lrmul=LRMUL, fmap_base=base, fmap_max=most,
            fused_scale="auto" if fused == auto else any(fused),
            mbstd_group_size=WHOLE_BATCH, norm_epsilon=NORM_EPSILON, bias_before_blur=True,
            from_rgb_activation=activation,
        )  # fmt: skip
    except UsageError as error:
        raise NetworkError(f"its sizes make no sense: {error}") from None


def _generator(variables: Variables, config: StyleGAN1Config) -> Arrays:
    arrays: Arrays = {}
    mapping = []
    for index in range(config.mapping_layers):
        name = f"style.{2 * index + 1}.linear"
        weight = variables.take(f"{name}.weight_orig", None, None)
        bias = variables.take(f"{name}.bias", weight.shape[0])
        arrays[f"mapping.layers.{index}.weight"] = weight / np.float32(LRMUL)
        arrays[f"mapping.layers.{index}.bias"] = bias / np.float32(LRMUL)
        mapping.append((weight * np.float32(np.sqrt(2 / weight.shape[1])), bias))
    arrays["mapping.w_avg"] = estimate_w_avg(mapping, config.z_dim)
    for index in range(config.num_layers):
        block, ours = f"{_PROGRESSION}.{index // 2}", f"synthesis.layers.{index}"
        half = index % 2 + 1
        _input_or_conv(variables, f"{block}.conv{half}", ours, index, arrays)
        strength = variables.take(f"{block}.noise{half}.weight_orig", 1, None, 1, 1).reshape(-1)
        arrays[f"{ours}.noise_strength"] = strength * np.float32(np.sqrt(2 / len(strength)))
        arrays.setdefault(f"{ours}.bias", np.zeros(len(strength), np.float32))
        style = f"{block}.adain{half}.style.linear"
        arrays[f"{ours}.style.weight"] = variables.take(f"{style}.weight_orig") * SQRT2
        bias = variables.take(f"{style}.bias", 2 * len(strength))
        bias[: len(strength)] -= 1
        arrays[f"{ours}.style.bias"] = bias
    for index in range(config.resolution_log2 - 1):
        name = f"generator.to_rgb.{index}.conv"
        arrays[f"synthesis.to_rgb.{index}.weight"] = variables.take(f"{name}.weight_orig") * SQRT2
        arrays[f"synthesis.to_rgb.{index}.bias"] = variables.take(f"{name}.bias", config.channels)
    arrays.update(noise_maps(config.num_layers, shared=True))
    _skip_rest(variables, config.resolution_log2 - 1)
    variables.finish()
    return arrays


def _input_or_conv(
    variables: Variables, theirs: str, ours: str, index: int, arrays: Arrays
) -> None:
    """Convert the constant (which has no bias) or the convolution of a layer."""
    if index == 0:
        arrays[f"{ours}.const"] = variables.take(f"{theirs}.input", 1, None, 4, 4)
        return
    if index % 2 == 0 and _is_fused(variables, index // 2):
        weight = variables.take(f"{theirs}.0.weight", None, None, 3, 3)  # [in, out, 3, 3]
        arrays[f"{ours}.conv.weight"] = np.ascontiguousarray(weight.transpose(1, 0, 2, 3)) / 4
        arrays[f"{ours}.bias"] = variables.take(f"{theirs}.0.bias", weight.shape[1])
        return
    name = f"{theirs}.1.conv" if index % 2 == 0 else f"{theirs}.conv"
    arrays[f"{ours}.conv.weight"] = variables.take(f"{name}.weight_orig", None, None, 3, 3)
    arrays[f"{ours}.bias"] = variables.take(f"{name}.bias", None)


def _skip_rest(variables: Variables, blocks: int) -> None:
    """Leave out the constant kernels of blurs, and the blocks that were never trained."""
    for name in variables.names():
        match = re.match(r"generator\.(?:progression|to_rgb)\.(\d+)\.", name)
        if match and int(match[1]) >= blocks:
            variables.skip(name)
        elif re.fullmatch(r".*\.conv1\.[12]\.weight(_flip)?", name):
            variables.skip(name)


def _discriminator(variables: Variables, config: StyleGAN1Config) -> Arrays | None:
    """Return the discriminator's arrays, or None where its blocks are not ours."""
    blocks = config.resolution_log2 - 1
    last = _count_blocks(variables, r"progression\.\d+\.conv1\.0\.conv\.weight_orig") - 1
    arrays: Arrays = {}
    for index in range(blocks):  # ours count from 4×4, theirs from 1024 px
        theirs = last - index
        name = f"from_rgb.{theirs}.0.conv" if config.from_rgb_activation else (
            f"from_rgb.{theirs}.conv")  # fmt: skip
        arrays[f"from_rgb.{index}.weight"] = variables.take(f"{name}.weight_orig")
        arrays[f"from_rgb.{index}.bias"] = variables.take(f"{name}.bias")
        first = f"progression.{theirs}.conv1.0.conv"
        kernel = variables.take(f"{first}.weight_orig")
        bias = variables.take(f"{first}.bias")
        if index == 0:
            arrays["head.conv.weight"], arrays["head.conv.bias"] = kernel, bias
            continue
        if kernel.shape[0] != kernel.shape[1] or f"progression.{theirs}.conv2.1.weight" in (
            variables
        ):
            return None
        arrays[f"blocks.{index - 1}.conv0.weight"] = kernel
        arrays[f"blocks.{index - 1}.conv0.bias"] = bias
        second = f"progression.{theirs}.conv2.1.conv"
        arrays[f"blocks.{index - 1}.conv1_down.weight"] = variables.take(f"{second}.weight_orig")
        arrays[f"blocks.{index - 1}.conv1_down.bias"] = variables.take(f"{second}.bias")
    dense = variables.take(f"progression.{last}.conv2.0.conv.weight_orig", None, None, 4, 4)
    arrays["head.dense0.weight"] = dense.reshape(len(dense), -1)
    arrays["head.dense0.bias"] = variables.take(f"progression.{last}.conv2.0.conv.bias")
    arrays["head.dense1.weight"] = variables.take("linear.linear.weight_orig") * SQRT2
    arrays["head.dense1.bias"] = variables.take("linear.linear.bias")
    return arrays
