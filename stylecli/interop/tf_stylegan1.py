"""Official StyleGAN and Progressive GAN pickles -> configuration and named arrays of our networks.

Layouts (docs/formats.md): convolutions [kh, kw, in, out] become [out, in, kh, kw], dense layers
are transposed, nothing is flipped or rescaled. The original Progressive GAN repository stores its
up-convolutions as [kh, kw, out, in].
"""

import re
from typing import Any

import numpy as np

from stylecli.errors import NetworkError
from stylecli.interop.conversion import ForeignNetworks, Variables
from stylecli.interop.trees import TFNetwork
from stylecli.networks.stylegan1_config import StyleGAN1Config

_FAMILIES = {"G_style": "f", "G_paper": "a"}
_DISCRIMINATORS = ("D_basic", "D_paper")
_LONGEST = 80  # letters of a name
_MAX_COMPONENTS = 8
MAX_LOD = 8  # 4×4 of 1024
_FIXED = {
    "fmap_decay": 1.0, "nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu",
    "use_wscale": True, "normalize_latents": True, "mbstd_num_features": 1, "use_leakyrelu": True,
    "use_pixelnorm": True, "pixelnorm_epsilon": 1e-8, "mapping_use_wscale": True,
    "tanh_at_end": None, "latent_distribution": "normal",
}  # fmt: skip
_TRANSLATED = {
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
# Settings that do not change what a trained network draws.
_WITHOUT_EFFECT = frozenset((
    "func_name", "dtype", "structure", "dlatent_broadcast", "randomize_noise", "is_training",
    "is_validation", "is_template_graph", "return_dlatents", "force_clean_graph",
))  # fmt: skip


def convert_tf_triple(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a triple (G, D, Gs); Gs becomes G_ema.

    Raises NetworkError for unknown settings and for networks that are not whole.
    """
    sources = [TFSource(network) for network in tree]
    G, D, Gs = sources
    if G.build not in _FAMILIES or D.build not in _DISCRIMINATORS or Gs.build != G.build:
        raise NetworkError(f"its networks are built by {G.build!r}, {D.build!r} and {Gs.build!r}")
    config = _config(G, D)
    names = {"G": G, "D": D, "G_ema": Gs}
    networks = {
        name: _discriminator_arrays(source, config)
        if name == "D"
        else _generator_arrays(source, config)
        for name, source in names.items()
    }
    for source in sources:
        source.finish()
    return ForeignNetworks(
        config,
        networks,
        {name: source.lod() for name, source in names.items()},
        {"source_format": f"TensorFlow pickle, {G.build}"},
    )


def convert_tf_discriminator(network: TFNetwork) -> ForeignNetworks:
    """Return a discriminator that stands alone, as the CelebA attribute classifiers do.

    Whether it looks at the minibatch's deviation is read from its shapes. Raises NetworkError for
    unknown settings and for a network that is not whole.
    """
    source = TFSource(network)
    given = _settings(source, source)
    names = ("num_channels", "resolution", "label_size", "fmap_base", "fmap_max", "fused_scale",
             "mbstd_group_size")  # fmt: skip
    fields = {_TRANSLATED[name]: given[name] for name in names if name in given}
    if given.get("blur_filter", [1, 2, 1]) not in (None, [1, 2, 1]):
        raise NetworkError(f"it blurs with {given['blur_filter']}, and only [1, 2, 1] is known")
    head = source.array("4x4/Conv/weight", 4)  # [3, 3, in, out]: one more in than out, or not
    if head.shape[2] == head.shape[3]:
        fields["mbstd_group_size"] = 0
    try:
        config = StyleGAN1Config.named(
            "f",
            **fields,
            blur=given.get("blur_filter", True) is not None and source.build != "D_paper",
        )
    except (ValueError, TypeError) as error:
        raise NetworkError(f"its settings make no sense: {error}") from None
    arrays = _discriminator_arrays(source, config)
    source.finish()
    info = {"source_format": f"TensorFlow pickle, {source.build}"}
    return ForeignNetworks(config, {"D": arrays}, {"D": source.lod()}, info)


class TFSource:
    """One TF network: settings and variables, components flattened under their short names."""

    def __init__(self, network: TFNetwork) -> None:
        state = network.state
        version = state.get("version")
        self.version = version if isinstance(version, int) else None
        build = state.get("build_func_name")
        self.build = build if isinstance(build, str) and len(build) < _LONGEST else "an unnamed one"
        self.settings: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        components = state.get("components", {})
        if not isinstance(components, dict) or len(components) > _MAX_COMPONENTS:
            raise NetworkError("its components are not a synthesis and a mapping network")
        for part in [*components.values(), network]:  # the network's own settings win
            if not isinstance(part, TFNetwork):
                raise NetworkError("a component of the network is not a network")
            given, variables = part.state.get("static_kwargs"), part.state.get("variables")
            if not isinstance(given, dict) or not isinstance(variables, list | tuple):
                raise NetworkError("a network has no settings or no variables")
            self.settings |= {str(name)[:80]: value for name, value in given.items()}
            for entry in variables:
                name, array = entry if _is_pair(entry) else (None, None)
                if not isinstance(name, str) or not isinstance(array, np.ndarray):
                    raise NetworkError("a variable is not a name and an array")
                arrays.setdefault(name[:200], array)
        self.variables = Variables(arrays, f"{self.build} of the file")

    def array(self, name: str, dimensions: int | None = None) -> np.ndarray:
        return self.variables.take(name, *(None,) * (dimensions or 0))

    def lod(self) -> float:
        """Return the stored level of detail, 0 where there is none."""
        if "lod" not in self.variables:
            return 0.0
        stored = self.array("lod")
        if stored.size != 1 or not 0 <= float(stored.reshape(())) <= MAX_LOD:
            raise NetworkError("its level of detail makes no sense")
        return float(stored.reshape(()))

    def finish(self) -> None:
        """Raise NetworkError if a variable was overlooked."""
        self.variables.skip("lod")
        self.variables.finish()


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _config(G: TFSource, D: TFSource) -> StyleGAN1Config:
    """Translate the build arguments; what was not passed has the official default."""
    given = _settings(G, D)
    for name, value in _FIXED.items():
        if given.get(name, value) != value:
            raise NetworkError(
                f"it was built with {name}={given[name]!r}, which no network here has"
            )
    preset = _FAMILIES[G.build]
    fields = {ours: given[theirs] for theirs, ours in _TRANSLATED.items() if theirs in given}
    # None stands for "off" in the official code, except for the cutoff, where it means all layers.
    for name, off in (("style_mixing_prob", 0.0), ("truncation_psi", 1.0), ("w_avg_beta", 0.0)):
        if name in fields and fields[name] is None:
            fields[name] = off
    if "blur_filter" in given:
        if given["blur_filter"] not in (None, [1, 2, 1]):
            raise NetworkError(f"it blurs with {given['blur_filter']}, and only [1, 2, 1] is known")
        fields["blur"] = given["blur_filter"] is not None
    try:
        if preset == "a":
            if fields.get("z_dim") is None:
                fields["z_dim"] = StyleGAN1Config.named("a", **{**fields, "z_dim": 1}).fmaps(0)
            fields["D_label_mode"] = "auxiliary" if _swapped_up(G) else "ignore"
        return StyleGAN1Config.named(preset, **fields)
    except (ValueError, TypeError) as error:  # UsageError is a ValueError
        raise NetworkError(f"its settings make no sense: {error}") from None


def _settings(G: TFSource, D: TFSource) -> dict[str, Any]:
    """Return the settings of both networks as plain values; refuse what no official file has."""
    known = {*_FIXED, *_TRANSLATED, *_WITHOUT_EFFECT, "blur_filter"}
    for source in (G, D):
        for name, value in source.settings.items():
            if name not in known:
                raise NetworkError(f"it was built with the setting {name!r}, which is not known")
            source.settings[name] = plain_setting(name, value)
    for name in G.settings.keys() & D.settings.keys() - _WITHOUT_EFFECT:
        if G.settings[name] != D.settings[name]:
            raise NetworkError(
                f"its generator has {name}={G.settings[name]!r} and its discriminator "
                f"{D.settings[name]!r}"
            )
    return {**D.settings, **G.settings}


def plain_setting(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    items = value if isinstance(value, list | tuple) else [value]
    plain = all(item is None or isinstance(item, bool | int | float | str) for item in items[:16])
    long = any(isinstance(item, str) and len(item) > _LONGEST for item in items[:16])
    if not plain or long or len(items) > 16:
        raise NetworkError(f"its setting {name!r} is an unusable {type(value).__name__}")
    return list(items) if items is value else value


def _swapped_up(source: TFSource) -> bool:
    """Whether up-convolutions are stored [kh, kw, out, in]: the original ProGAN repository."""
    return source.build == "G_paper" and source.version == 2


def conv_kernel(source: TFSource, name: str) -> np.ndarray:
    """Return a kernel [kh, kw, in, out] as [out, in, kh, kw]."""
    return np.ascontiguousarray(source.array(name, 4).transpose(3, 2, 0, 1))


def dense_matrix(source: TFSource, name: str) -> np.ndarray:
    """Return a matrix [in, out] as [out, in]."""
    return np.ascontiguousarray(source.array(name, 2).T)


def _generator_arrays(source: TFSource, config: StyleGAN1Config) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for index in range(config.mapping_layers):
        arrays[f"mapping.layers.{index}.weight"] = dense_matrix(source, f"Dense{index}/weight")
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
            arrays[f"{ours}.dense.weight"] = dense_matrix(source, f"{scope}/weight")
        else:
            weight = conv_kernel(source, f"{scope}/weight")
            if names[index % 2] == "Conv0_up" and _swapped_up(source):
                weight = np.ascontiguousarray(weight.swapaxes(0, 1))
            arrays[f"{ours}.conv.weight"] = weight
        arrays[f"{ours}.bias"] = source.array(f"{scope}/bias")
        if config.use_noise:
            arrays[f"{ours}.noise_strength"] = source.array(f"{scope}/Noise/weight")
            arrays[f"{ours}.noise_const"] = source.array(f"noise{index}")
        if config.use_styles:
            arrays[f"{ours}.style.weight"] = dense_matrix(source, f"{scope}/StyleMod/weight")
            arrays[f"{ours}.style.bias"] = source.array(f"{scope}/StyleMod/bias")
    arrays.update(_image_layers(source, config, "ToRGB", "synthesis.to_rgb"))
    return arrays


def _discriminator_arrays(source: TFSource, config: StyleGAN1Config) -> dict[str, np.ndarray]:
    arrays = _image_layers(source, config, "FromRGB", "from_rgb")
    for r in range(3, config.resolution_log2 + 1):
        for theirs, ours in (("Conv0", "conv0"), ("Conv1_down", "conv1_down")):
            scope, name = f"{2**r}x{2**r}/{theirs}", f"blocks.{r - 3}.{ours}"
            arrays[f"{name}.weight"] = conv_kernel(source, f"{scope}/weight")
            arrays[f"{name}.bias"] = source.array(f"{scope}/bias")
    arrays["head.conv.weight"] = conv_kernel(source, "4x4/Conv/weight")
    arrays["head.conv.bias"] = source.array("4x4/Conv/bias")
    for theirs, ours in (("Dense0", "dense0"), ("Dense1", "dense1")):
        arrays[f"head.{ours}.weight"] = dense_matrix(source, f"4x4/{theirs}/weight")
        arrays[f"head.{ours}.bias"] = source.array(f"4x4/{theirs}/bias")
    return arrays


def _image_layers(
    source: TFSource, config: StyleGAN1Config, theirs: str, ours: str
) -> dict[str, np.ndarray]:
    """ToRGB_lodL or FromRGB_lodL, L counted from full size, to our index counted from 4×4."""
    arrays: dict[str, np.ndarray] = {}
    pattern = re.compile(rf"{theirs}_lod(\d{{1,2}})/weight")
    for name in source.variables.names():
        if match := pattern.fullmatch(name):
            lod = int(match[1])
            index = config.resolution_log2 - 2 - lod
            arrays[f"{ours}.{index}.weight"] = conv_kernel(source, f"{theirs}_lod{lod}/weight")
            arrays[f"{ours}.{index}.bias"] = source.array(f"{theirs}_lod{lod}/bias")
    return arrays
