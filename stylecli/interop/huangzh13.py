"""State dicts of huangzh13/StyleGAN.pytorch -> our networks: one file each for G and D.

It follows the official layout without scaling: weights need no change. These things differ from
the paper. Instance norm adds 1e-5 to the variance where the paper's programs add 1e-8
(``norm_epsilon``), and no activation follows the discriminator's colour layers
(``from_rgb_activation``): switches of the network keep both. Noise maps and truncation settings are
not in the file: new maps are drawn, psi is the paper's. A conditional discriminator turns labels
into picture planes, which no network of ours has, so it is refused; the conditional generator is
the official one.
"""

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

NORM_EPSILON = 1e-5
LRMUL = 0.01
_BLUR = np.outer([1, 2, 1], [1, 2, 1]) / 16.0


def convert_huangzh13(tree: Any, _: str) -> ForeignNetworks:
    """Return the generator of a state dict as G_ema, or the discriminator as D.

    Of several, as others keep them in one file, the generator: its average where there is one.
    """
    kept = [name for name in ("g_running", "generator", "discriminator") if name in tree]
    state = tree[kept[0]] if kept else tree
    variables = Variables(state_dict(state, "the state dict"), "the state dict")
    if "g_synthesis.init_block.epi1.style_mod.lin.weight" not in variables:
        return _discriminator(variables)
    networks = _generator(variables)
    if kept[1:]:
        networks.info["left_out"] = " and ".join(kept[1:]) + ": a file of this family has one"
    return networks


def _generator(variables: Variables) -> ForeignNetworks:
    config = _generator_config(variables)
    arrays: Arrays = {}
    mapping = []
    scale = np.sqrt(2.0) * LRMUL
    for index in range(config.mapping_layers):
        weight = variables.take(f"g_mapping.map.dense{index}.weight", None, None)
        bias = variables.take(f"g_mapping.map.dense{index}.bias", weight.shape[0])
        arrays[f"mapping.layers.{index}.weight"] = weight
        arrays[f"mapping.layers.{index}.bias"] = bias
        mapping.append((weight * np.float32(scale / np.sqrt(weight.shape[1])), bias * LRMUL))
    labels = None
    if config.label_dim:
        labels = variables.take("class_embedding.weight", config.label_dim, config.z_dim)
        arrays["mapping.label_embedding"] = labels
    info: dict[str, Any] = {}
    if "truncation.avg_latent" in variables:
        arrays["mapping.w_avg"] = variables.take("truncation.avg_latent", config.w_dim)
    else:
        arrays["mapping.w_avg"] = estimate_w_avg(mapping, config.z_dim, labels)
        info["w_avg"] = "estimated from 10,000 latents, as the file has none"
    synthesis = "g_synthesis."
    for index in range(config.num_layers):
        ours = f"synthesis.layers.{index}"
        block = f"{synthesis}blocks.{index // 2 - 1}." if index > 1 else f"{synthesis}init_block."
        epilogue = f"{block}epi{index % 2 + 1}."
        if index == 0:
            arrays[f"{ours}.const"] = variables.take(f"{block}const", 1, None, 4, 4)
            arrays[f"{ours}.bias"] = variables.take(f"{block}bias", None)
        else:
            conv = "conv" if index == 1 else "conv1" if index % 2 else "conv0_up"
            arrays[f"{ours}.conv.weight"] = variables.take(f"{block}{conv}.weight")
            arrays[f"{ours}.bias"] = variables.take(f"{block}{conv}.bias")
        arrays[f"{ours}.noise_strength"] = variables.take(f"{epilogue}top_epi.noise.weight", None)
        arrays[f"{ours}.style.weight"] = variables.take(f"{epilogue}style_mod.lin.weight")
        arrays[f"{ours}.style.bias"] = variables.take(f"{epilogue}style_mod.lin.bias")
    for index in range(config.resolution_log2 - 1):
        for part in ("weight", "bias"):
            name = f"{synthesis}to_rgb.{index}.{part}"
            arrays[f"synthesis.to_rgb.{index}.{part}"] = variables.take(name)
    arrays.update(noise_maps(config.num_layers, shared=False))
    variables.finish()
    return ForeignNetworks(config, {"G_ema": arrays}, info=info)


def _generator_config(variables: Variables) -> StyleGAN1Config:
    """Infer the sizes from shapes; what leaves no trace has the program's default."""
    names = variables.names()
    layers = sum(name.startswith("g_mapping.map.dense") and name.endswith(".weight")
                 for name in names)  # fmt: skip
    blocks = sum(name.startswith("g_synthesis.blocks.") and name.endswith(".conv1.weight")
                 for name in names)  # fmt: skip
    first = variables.take("g_mapping.map.dense0.weight", None, None)
    last = variables.take(f"g_mapping.map.dense{layers - 1}.weight", None, None)
    widths = [variables.take("g_synthesis.init_block.conv.weight").shape[0]] + [
        variables.take(f"g_synthesis.blocks.{index}.conv1.weight").shape[0]
        for index in range(blocks)
    ]
    base, most = infer_channels(widths)
    label_dim = 0
    z_dim = first.shape[1]
    if "class_embedding.weight" in variables:
        label_dim, z_dim = variables.take("class_embedding.weight", None, None).shape
    blur = _check_blurs(variables, [f"g_synthesis.blocks.{i}.conv0_up.intermediate.kernel"
                                    for i in range(blocks)])  # fmt: skip
    channels = variables.take("g_synthesis.to_rgb.0.weight", None, None, 1, 1).shape[0]
    return _make_config(
        resolution=4 << blocks, channels=channels, label_dim=label_dim, z_dim=z_dim,
        w_dim=last.shape[0], mapping_layers=layers, mapping_fmaps=first.shape[0],
        fmap_base=base, fmap_max=most, blur=blur,
    )  # fmt: skip


def _make_config(**fields: Any) -> StyleGAN1Config:
    try:
        return StyleGAN1Config.named("f", norm_epsilon=NORM_EPSILON, **fields)
    except UsageError as error:
        raise NetworkError(f"its sizes make no sense: {error}") from None


def _check_blurs(variables: Variables, names: list[str]) -> bool:
    """Tell whether the network blurs, and refuse another filter than [1 2 1]."""
    present = [name for name in names if name in variables]
    for name in present:
        if not np.allclose(variables.take(name, 1, 1, 3, 3)[0, 0], _BLUR, atol=1e-6):
            raise NetworkError("its blur filter is not [1 2 1]")
    if present and len(present) != len(names):
        raise NetworkError("it blurs in some blocks only")
    return bool(present)


def _discriminator(variables: Variables) -> ForeignNetworks:
    if "embeddings.0.weight" in variables:
        raise NetworkError(
            "its discriminator draws labels as planes of the picture, which no network here does: "
            "convert the generator alone"
        )
    blocks = sum(name.startswith("blocks.") and name.endswith(".conv0.weight")
                 for name in variables.names())  # fmt: skip
    final = variables.take("final_block.conv.weight", None, None, 3, 3)
    widths = [final.shape[0]] + [
        variables.take(f"blocks.{index}.conv0.weight").shape[0] for index in reversed(range(blocks))
    ]
    base, most = infer_channels(widths)
    config = _make_config(
        resolution=4 << blocks,
        channels=variables.take("from_rgb.0.weight", None, None, 1, 1).shape[1],
        fmap_base=base, fmap_max=most, from_rgb_activation=False,
        blur=_check_blurs(variables, [f"blocks.{i}.blur.kernel" for i in range(blocks)]),
        mbstd_group_size=4 if final.shape[1] > final.shape[0] else 0,
    )  # fmt: skip
    arrays: Arrays = {}
    for index in range(blocks + 1):  # theirs count from the largest side, ours from 4×4
        ours = blocks - index
        for part in ("weight", "bias"):
            arrays[f"from_rgb.{ours}.{part}"] = variables.take(f"from_rgb.{index}.{part}")
            for conv in ("conv0", "conv1_down") if index < blocks else ():
                arrays[f"blocks.{ours - 1}.{conv}.{part}"] = variables.take(
                    f"blocks.{index}.{conv}.{part}"
                )
        variables.skip(f"blocks.{index}.conv1_down.downscale.blur.kernel")  # a 2×2 mean
    for layer in ("conv", "dense0", "dense1"):
        for part in ("weight", "bias"):
            arrays[f"head.{layer}.{part}"] = variables.take(f"final_block.{layer}.{part}")
    variables.finish()
    return ForeignNetworks(config, {"D": arrays})
