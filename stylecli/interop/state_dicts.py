"""Our networks -> state dicts as other programs name them, and the arguments that build them there.

The inverse of their readers: parameters and buffers under the names and in the shapes of NVIDIA's
PyTorch programs (stylegan3, stylegan2-ada-pytorch) or of rosinality's StyleGAN2.
"""

from typing import Any

import numpy as np

from stylecli.errors import UsageError
from stylecli.interop.conversion import Arrays
from stylecli.interop.official_pytorch import generator_filters, low_pass_taps
from stylecli.interop.rosinality_stylegan2 import write_rosinality2
from stylecli.networks.config import NetworkConfig
from stylecli.networks.stylegan2_config import ModulatedConfig, StyleGAN2Config
from stylecli.networks.stylegan3_config import StyleGAN3Config

LAYOUTS = ("nvidia", "rosinality")
_STYLEGAN2, _STYLEGAN3 = "training.networks_stylegan2", "training.networks_stylegan3"


def write_state_dict(
    name: str, arrays: Arrays, config: NetworkConfig, layout: str
) -> tuple[Arrays, dict[str, Any]]:
    """Return a network's state dict, and what builds its module there.

    ``name`` is G_ema, G or D, ``arrays`` its state dict here. Raises UsageError for a family, or a
    switch of one, that the other program does not have.
    """
    if layout == "rosinality" and isinstance(config, StyleGAN2Config):
        return write_rosinality2(name, arrays, config), _rosinality_arguments(name, config)
    if layout == "nvidia" and isinstance(config, StyleGAN2Config | StyleGAN3Config):
        _check_labels(config)
        return _nvidia_arrays(name, arrays, config), _nvidia_arguments(name, config)
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: expected {' or '.join(LAYOUTS)}")
    of = "StyleGAN2 and StyleGAN3" if layout == "nvidia" else "StyleGAN2"
    raise UsageError(
        f"a network of configuration {config.preset!r} has no place in layout {layout}, which is "
        f"for {of}: stylecli convert writes any network as safetensors"
    )


def _check_labels(config: ModulatedConfig) -> None:
    if config.label_dim and (config.label_mode, config.D_label_mode) != ("embed", "project"):
        raise UsageError(
            "its labels are those of NVIDIA's TensorFlow program, which their PyTorch programs do "
            "not have"
        )


def _nvidia_arrays(name: str, arrays: Arrays, config: StyleGAN2Config | StyleGAN3Config) -> Arrays:
    written = {
        key.replace("mapping.label.", "mapping.embed.", 1): array for key, array in arrays.items()
    }
    if name != "D" and isinstance(config, StyleGAN3Config):
        filter_of = generator_filters(config)
        keys = (f"synthesis.{plan.name}.{which}_filter"
                for plan in config.layers() for which in ("up", "down"))  # fmt: skip
        filters = {key: f for key in keys if (f := filter_of(key)) is not None}
    else:
        filters = {key: low_pass_taps(config, name, key) for key in _filter_names(written, name)}
    return written | {key: f.astype(np.float32) for key, f in filters.items()}


def _filter_names(arrays: Arrays, name: str) -> list[str]:
    """Return the names of the filters of StyleGAN2: one per block and convolution."""
    layers = {"conv0", "conv1", "skip"} | ({"fromrgb", "conv"} if name == "D" else set())
    words = [key.split(".") for key in arrays if key.endswith(".weight")]
    holders = {".".join(word[:-1]) for word in words if word[-2] in layers}
    blocks = {".".join(word[:-2]) for word in words if word[-2] in layers}
    blocks -= {"b4"}  # D's last block neither halves nor has colours of its own
    return sorted(f"{holder}.resample_filter" for holder in holders | blocks)


# ---- arguments of their classes


def _nvidia_arguments(name: str, config: StyleGAN2Config | StyleGAN3Config) -> dict[str, Any]:
    """Return the class of the stylegan3 repository and its arguments; what is else in ADA's."""
    shared: dict[str, Any] = {"c_dim": config.label_dim, "img_resolution": config.resolution,
                              "img_channels": config.channels}  # fmt: skip
    if name == "D":
        arguments = shared | _discriminator_arguments(config)
        ada = arguments if isinstance(config, StyleGAN2Config) else None
        return {"class_name": f"{_STYLEGAN2}.Discriminator", "arguments": arguments,
                "ada_arguments": ada}  # fmt: skip
    mapping: dict[str, Any] = {"num_layers": config.mapping_layers,
                               "lr_multiplier": config.mapping_lrmul,
                               "w_avg_beta": config.w_avg_beta}  # fmt: skip
    shared |= {"z_dim": config.z_dim, "w_dim": config.w_dim}
    if isinstance(config, StyleGAN3Config):
        arguments = shared | {"mapping_kwargs": mapping, **_stylegan3_arguments(config)}
        return {"class_name": f"{_STYLEGAN3}.Generator", "arguments": arguments}
    mapping |= {"layer_features": config.mapping_fmaps, "embed_features": config.embed_dim}
    synthesis: dict[str, Any] = {
        "channel_base": config.fmap_base, "channel_max": config.fmap_max,
        "num_fp16_res": config.num_fp16_res, "conv_clamp": config.conv_clamp,
        "architecture": config.G_architecture, "use_noise": config.use_noise,
        "resample_filter": list(config.resample_filter),
    }  # fmt: skip
    shared["mapping_kwargs"] = mapping
    return {"class_name": f"{_STYLEGAN2}.Generator", "arguments": shared | synthesis,
            "ada_arguments": shared | {"synthesis_kwargs": synthesis}}  # fmt: skip


def _discriminator_arguments(config: ModulatedConfig) -> dict[str, Any]:
    group = config.mbstd_group_size
    base, most = config.D_fmap_base, config.D_fmap_max
    return {
        "architecture": config.D_architecture, "conv_clamp": config.conv_clamp,
        "channel_base": config.fmap_base if base is None else base,
        "channel_max": config.fmap_max if most is None else most,
        "num_fp16_res": config.num_fp16_res, "cmap_dim": config.cmap_dim,
        "block_kwargs": {"resample_filter": list(config.resample_filter)},
        "mapping_kwargs": {"num_layers": config.D_mapping_layers},
        "epilogue_kwargs": {"mbstd_group_size": group or 1,
                            "mbstd_num_channels": config.mbstd_features if group else 0},
    }  # fmt: skip


def _stylegan3_arguments(config: StyleGAN3Config) -> dict[str, Any]:
    return {
        "channel_base": config.fmap_base, "channel_max": config.fmap_max,
        "num_layers": config.num_layers, "num_critical": config.num_critical,
        "first_cutoff": config.first_cutoff, "first_stopband": config.first_stopband,
        "last_stopband_rel": config.last_stopband_rel, "margin_size": config.margin,
        "output_scale": config.output_scale, "conv_kernel": config.conv_kernel,
        "filter_size": config.filter_size, "lrelu_upsampling": config.lrelu_upsampling,
        "use_radial_filters": config.radial_filters, "conv_clamp": config.conv_clamp,
        "magnitude_ema_beta": config.magnitude_beta, "num_fp16_res": config.num_fp16_res,
    }  # fmt: skip


def _rosinality_arguments(name: str, config: StyleGAN2Config) -> dict[str, Any]:
    """Return the class of rosinality's model.py and its arguments; none where widths are others."""
    multiplier = config.fmap_base // 16_384
    f = config.D_fmaps if name == "D" else config.fmaps
    usual = all(f(side) == min(512, 16_384 * multiplier // side) for side in config.sides)
    arguments: dict[str, Any] = {"size": config.resolution, "channel_multiplier": multiplier}
    if name != "D":
        arguments |= {"style_dim": config.w_dim, "n_mlp": config.mapping_layers}
        usual = usual and {config.z_dim, *config.mapping_widths} == {config.w_dim}
    return {"class_name": "model.Discriminator" if name == "D" else "model.Generator",
            "arguments": arguments if usual else None}  # fmt: skip
