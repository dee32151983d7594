"""Official StyleGAN and Progressive GAN pickles -> configuration and named arrays of our networks.

Layouts (docs/formats.md): convolutions [kh, kw, in, out] become [out, in, kh, kw], dense layers
are transposed, nothing is flipped or rescaled. The original Progressive GAN repository stores its
up-convolutions as [kh, kw, out, in].
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.errors import NetworkError
from stylecli.interop.pickle_reader import TFNetwork, read_tf_pickle
from stylecli.networks.config import StyleGAN1Config, make_config

LICENCE = "CC BY-NC 4.0 (NVIDIA); check the source if somebody else trained it"
_FAMILIES = {"G_style": "f", "G_paper": "a"}
_DISCRIMINATORS = ("D_basic", "D_paper")


@dataclass
class ForeignNetworks:
    """What a foreign file holds, in our names: arrays per network and each one's stored lod."""

    config: StyleGAN1Config
    networks: dict[str, dict[str, np.ndarray]]  # "G", "D", "G_ema" -> state dict
    lods: dict[str, float]
    info: dict[str, Any] = field(default_factory=dict)


def read_official_pickle(path: Path) -> ForeignNetworks:
    """Read a (G, D, Gs) triple without running its code; Gs becomes G_ema.

    Raises NetworkError for other contents, unknown settings and other families.
    """
    content = read_tf_pickle(path)
    networks = content if isinstance(content, tuple) else ()
    if len(networks) != 3 or not all(isinstance(network, TFNetwork) for network in networks):
        raise NetworkError(f"{path} does not hold the three networks G, D and Gs")
    sources = [_Source(network) for network in networks]
    G, D, Gs = sources
    if G.build not in _FAMILIES or D.build not in _DISCRIMINATORS:
        raise NetworkError(
            f"{path} holds a {G.build} network: this version runs StyleGAN and Progressive GAN"
        )
    config = _config(G, D)
    names = {"G": G, "D": D, "G_ema": Gs}
    return ForeignNetworks(
        config,
        {
            name: _discriminator_arrays(source, config)
            if name == "D"
            else _generator_arrays(source, config)
            for name, source in names.items()
        },
        {name: float(source.variables.get("lod", np.zeros(()))) for name, source in names.items()},
        {"source": path.name, "source_format": f"TensorFlow pickle, {G.build}",
         "source_licence": LICENCE},
    )  # fmt: skip


class _Source:
    """One TF network: settings and variables, components flattened under their short names."""

    def __init__(self, network: TFNetwork) -> None:
        state = network.state or {}
        self.version = state.get("version")
        self.build = str(state.get("build_func_name"))
        self.settings: dict[str, Any] = dict(state.get("static_kwargs") or {})
        self.variables: dict[str, np.ndarray] = {}
        components = state.get("components") or {}
        for part in [network, *components.values()]:
            if not isinstance(part, TFNetwork):
                raise NetworkError("a component of the network is not a network")
            content = part.state or {}
            self.settings = {**content.get("static_kwargs", {}), **self.settings}
            for name, array in content.get("variables", []):
                self.variables.setdefault(str(name), np.asarray(array))

    def array(self, name: str) -> np.ndarray:
        if name not in self.variables:
            raise NetworkError(f"the network has no variable {name!r}")
        return self.variables[name].astype(np.float32)


def _config(G: _Source, D: _Source) -> StyleGAN1Config:
    """Translate the build arguments; what was not passed has the official default."""
    given = {**D.settings, **G.settings}
    fixed = {"fmap_decay": 1.0, "nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu",
             "use_wscale": True, "normalize_latents": True, "mbstd_num_features": 1,
             "use_leakyrelu": True, "use_pixelnorm": True, "mapping_use_wscale": True}  # fmt: skip
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise NetworkError(f"the network was built with {name}={given[name]!r}: not supported")
    preset = _FAMILIES[G.build]
    translated = {
        "num_channels": "channels", "resolution": "resolution", "label_size": "label_dim",
        "latent_size": "z_dim", "dlatent_size": "w_dim", "mapping_layers": "mapping_layers",
        "mapping_fmaps": "mapping_fmaps", "mapping_lrmul": "mapping_lrmul",
        "fmap_base": "fmap_base", "fmap_max": "fmap_max", "use_styles": "use_styles",
        "const_input_layer": "const_input", "use_noise": "use_noise",
        "use_pixel_norm": "pixel_norm", "use_instance_norm": "instance_norm",
        "fused_scale": "fused_scale", "mbstd_group_size": "mbstd_group_size",
        "style_mixing_prob": "style_mixing_prob", "truncation_psi": "truncation_psi",
        "truncation_cutoff": "truncation_cutoff", "dlatent_avg_beta": "w_avg_beta",
    }  # fmt: skip
    fields = {ours: given[theirs] for theirs, ours in translated.items() if theirs in given}
    # None stands for "off" in the official code, except for the cutoff, where it means all layers.
    for name, off in (("style_mixing_prob", 0.0), ("truncation_psi", 1.0), ("w_avg_beta", 0.0)):
        if name in fields and fields[name] is None:
            fields[name] = off
    if "blur_filter" in given:
        if given["blur_filter"] not in (None, [1, 2, 1], (1, 2, 1)):
            raise NetworkError(f"the network blurs with {given['blur_filter']}: not supported")
        fields["blur"] = given["blur_filter"] is not None
    if preset == "a":
        if fields.get("z_dim") is None:
            fields["z_dim"] = make_config("a", **{**fields, "z_dim": 1}).fmaps(0)
        fields["D_label_mode"] = "auxiliary" if _swapped_up(G) else "ignore"
    try:
        return make_config(preset, **{key: _plain(value) for key, value in fields.items()})
    except ValueError as error:
        raise NetworkError(f"the network's settings make no sense: {error}") from None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _swapped_up(source: _Source) -> bool:
    """Whether up-convolutions are stored [kh, kw, out, in]: the original ProGAN repository."""
    return source.build == "G_paper" and source.version == 2


def _conv(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1))


def _dense(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T)


def _generator_arrays(source: _Source, config: StyleGAN1Config) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for index in range(config.mapping_layers):
        arrays[f"mapping.layers.{index}.weight"] = _dense(source.array(f"Dense{index}/weight"))
        arrays[f"mapping.layers.{index}.bias"] = source.array(f"Dense{index}/bias")
    if config.label_dim and config.label_mode == "embed":
        arrays["mapping.label_embedding"] = source.array("LabelConcat/weight")
    arrays["mapping.w_avg"] = (
        source.array("dlatent_avg")
        if "dlatent_avg" in source.variables
        else np.zeros(config.w_out_dim, np.float32)
    )
    for index in range(config.num_layers):
        side = 2 ** (index // 2 + 2)
        names = ("Const" if config.const_input else "Dense", "Conv") if side == 4 else (
            "Conv0_up", "Conv1")  # fmt: skip
        scope, ours = f"{side}x{side}/{names[index % 2]}", f"synthesis.layers.{index}"
        if index == 0 and config.const_input:
            arrays[f"{ours}.const"] = source.array(f"{scope}/const")
        elif index == 0:
            arrays[f"{ours}.dense.weight"] = _dense(source.array(f"{scope}/weight"))
        else:
            weight = source.array(f"{scope}/weight")
            if names[index % 2] == "Conv0_up" and _swapped_up(source):
                weight = weight.transpose(0, 1, 3, 2)
            arrays[f"{ours}.conv.weight"] = _conv(weight)
        arrays[f"{ours}.bias"] = source.array(f"{scope}/bias")
        if config.use_noise:
            arrays[f"{ours}.noise_strength"] = source.array(f"{scope}/Noise/weight")
            arrays[f"{ours}.noise_const"] = source.array(f"noise{index}")
        if config.use_styles:
            arrays[f"{ours}.style.weight"] = _dense(source.array(f"{scope}/StyleMod/weight"))
            arrays[f"{ours}.style.bias"] = source.array(f"{scope}/StyleMod/bias")
    arrays.update(_image_layers(source, config, "ToRGB", "synthesis.to_rgb"))
    return arrays


def _discriminator_arrays(source: _Source, config: StyleGAN1Config) -> dict[str, np.ndarray]:
    arrays = _image_layers(source, config, "FromRGB", "from_rgb")
    for r in range(3, config.resolution_log2 + 1):
        for theirs, ours in (("Conv0", "conv0"), ("Conv1_down", "conv1_down")):
            scope, name = f"{2**r}x{2**r}/{theirs}", f"blocks.{r - 3}.{ours}"
            arrays[f"{name}.weight"] = _conv(source.array(f"{scope}/weight"))
            arrays[f"{name}.bias"] = source.array(f"{scope}/bias")
    arrays["head.conv.weight"] = _conv(source.array("4x4/Conv/weight"))
    arrays["head.conv.bias"] = source.array("4x4/Conv/bias")
    for theirs, ours in (("Dense0", "dense0"), ("Dense1", "dense1")):
        arrays[f"head.{ours}.weight"] = _dense(source.array(f"4x4/{theirs}/weight"))
        arrays[f"head.{ours}.bias"] = source.array(f"4x4/{theirs}/bias")
    return arrays


def _image_layers(
    source: _Source, config: StyleGAN1Config, theirs: str, ours: str
) -> dict[str, np.ndarray]:
    """ToRGB_lodL or FromRGB_lodL, L counted from full size, to our index counted from 4×4."""
    arrays: dict[str, np.ndarray] = {}
    pattern = re.compile(rf"{theirs}_lod(\d+)/weight$")
    for name in source.variables:
        if match := pattern.match(name):
            lod = int(match[1])
            index = config.resolution_log2 - 2 - lod
            arrays[f"{ours}.{index}.weight"] = _conv(source.array(f"{theirs}_lod{lod}/weight"))
            arrays[f"{ours}.{index}.bias"] = source.array(f"{theirs}_lod{lod}/bias")
    return arrays
