"""NVIDIA's TensorFlow StyleGAN2 pickles -> our StyleGAN2, labels too.

Convolutions [kh, kw, in, out] become [out, in, kh, kw], turned by 180° where they double the
resolution: TensorFlow's layers turn kernels as they run, ours convolve. A style's bias is stored
without the 1 that is added to it. ``fmap_base`` counts stages: half of what it is by pixels.
"""

from typing import Any

import numpy as np

from stylecli.errors import NetworkError
from stylecli.interop.conversion import Arrays, ForeignNetworks, square_side
from stylecli.interop.tf_stylegan1 import TFSource, conv_kernel, dense_matrix, plain_setting
from stylecli.networks.stylegan2_config import StyleGAN2Config

_DISCRIMINATORS = ("D_stylegan2",)
_FMAP_BASE = 16_384  # the program's default
# Settings of both networks, with the only values that networks here have.
_FIXED: dict[str, Any] = {
    "fmap_decay": 1.0, "fmap_min": 1, "nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu",
    "normalize_latents": True, "truncation_psi_val": None, "truncation_cutoff_val": None,
}  # fmt: skip
_SHARED = {
    "num_channels": ("channels", 1), "resolution": ("resolution", 32),
    "label_size": ("label_dim", 0), "fmap_max": ("fmap_max", 512),
    "resample_kernel": ("resample_filter", [1, 3, 3, 1]), "conv_clamp": ("conv_clamp", None),
    "num_fp16_res": ("num_fp16_res", 0),
}  # fmt: skip
_GENERATOR = {
    "latent_size": ("z_dim", 512), "dlatent_size": ("w_dim", 512),
    "mapping_layers": ("mapping_layers", 8), "mapping_fmaps": ("mapping_fmaps", 512),
    "mapping_lrmul": ("mapping_lrmul", 0.01), "architecture": ("G_architecture", "skip"),
    "use_noise": ("use_noise", True), "style_mixing_prob": ("style_mixing_prob", 0.9),
    "truncation_psi": ("truncation_psi", 0.5), "truncation_cutoff": ("truncation_cutoff", None),
    "dlatent_avg_beta": ("w_avg_beta", 0.995),
}  # fmt: skip
_DISCRIMINATOR = {
    "architecture": ("D_architecture", "resnet"), "mbstd_group_size": ("mbstd_group_size", 4),
    "mbstd_num_features": ("mbstd_features", 1),
}  # fmt: skip
# Settings that do not change what a trained network draws.
_WITHOUT_EFFECT = frozenset((
    "func_name", "dtype", "dlatent_broadcast", "randomize_noise", "is_training", "is_validation",
    "return_dlatents", "force_clean_graph", "is_template_graph", "fused_modconv", "synthesis_func",
    "mapping_func", "fmap_base",
))  # fmt: skip
_SQUARE = ("resolution_w", "resolution_h")
# None stands for "off" in the program, except where it means all layers or no limit.
_OFF = {"style_mixing_prob": 0.0, "truncation_psi": 1.0, "w_avg_beta": 1.0, "mbstd_group_size": 0}


def convert_tf_stylegan2(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a triple (G, D, Gs); Gs becomes G_ema.

    Raises NetworkError for unknown settings and for networks that are not whole.
    """
    G, D, Gs = (TFSource(network) for network in tree)
    if D.build not in _DISCRIMINATORS or Gs.build != G.build:
        raise NetworkError(f"its networks are built by {G.build!r}, {D.build!r} and {Gs.build!r}")
    fields = _fields(G, {**_SHARED, **_GENERATOR})
    for other in (Gs, D):
        own = _fields(other, _SHARED if other is D else {**_SHARED, **_GENERATOR})
        if differing := sorted(name for name in own if own[name] != fields[name]):
            name = differing[0]
            raise NetworkError(f"its networks have {name}={fields[name]!r} and {own[name]!r}")
    fields |= _fields(D, _DISCRIMINATOR)
    if fields["label_dim"]:
        joint, mapped = "LabelConcat/weight" in G.variables, "LabelEmbed/weight" in D.variables
        fields |= {"label_mode": "joint" if joint else "embed",
                   "D_label_mode": "project" if mapped else "select",
                   "D_mapping_layers": _count(D, "Mapping")}  # fmt: skip
        if mapped:
            fields["cmap_dim"] = D.array("LabelEmbed/weight", 2).shape[1]
        if not joint:
            fields["embed_dim"] = G.array("LabelEmbed/weight", 2).shape[1]
    try:
        StyleGAN2Config.check_types(fields)
        config = StyleGAN2Config(**fields)
    except (ValueError, TypeError) as error:  # UsageError is a ValueError
        raise NetworkError(f"its settings make no sense: {error}") from None
    networks = {
        "G": _generator_arrays(G, config), "D": _discriminator_arrays(D, config),
        "G_ema": _generator_arrays(Gs, config),
    }  # fmt: skip
    for source in (G, D, Gs):
        source.finish()
    info = {"source_format": f"TensorFlow pickle, {G.build} with {D.build}"}
    return ForeignNetworks(config, networks, info=info)


def _fields(source: TFSource, names: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Translate a network's settings by ``names``; what was not passed has the program's default.

    Raises NetworkError for a setting that no official file has.
    """
    known = {*_FIXED, *_SHARED, *_GENERATOR, *_DISCRIMINATOR, *_WITHOUT_EFFECT}
    given = {}
    settings = dict(source.settings)
    if all(name in settings for name in _SQUARE):  # of forks that draw other shapes too
        side = square_side(*(plain_setting(name, settings.pop(name)) for name in _SQUARE))
        settings.setdefault("resolution", side)
    for name, value in settings.items():
        if name not in known:
            raise NetworkError(f"it was built with the setting {name!r}, which is not known")
        given[name] = None if name in _WITHOUT_EFFECT else plain_setting(name, value)
    for name, usual in _FIXED.items():
        if given.get(name, usual) != usual:
            raise NetworkError(f"it was built with {name}={given[name]!r}, which no network has")
    fields = {ours: given.get(theirs, default) for theirs, (ours, default) in names.items()}
    for ours, off in _OFF.items():
        if ours in fields and fields[ours] is None:
            fields[ours] = off
    if "fmap_max" in fields:
        base = plain_setting("fmap_base", source.settings.get("fmap_base", _FMAP_BASE))
        if not isinstance(base, int | float) or not 0 < base < 1e6:
            raise NetworkError("its setting 'fmap_base' is not a number of feature maps")
        fields["fmap_base"] = int(2 * base)
    return fields


def _count(source: TFSource, name: str) -> int:
    """Return how many layers of a name, counted from 0, there are."""
    names = set(source.variables.names())
    return next(index for index in range(len(names) + 1) if f"{name}{index}/weight" not in names)


def _dense(source: TFSource, scope: str, ours: str) -> Arrays:
    return {f"{ours}.weight": dense_matrix(source, f"{scope}/weight"),
            f"{ours}.bias": source.array(f"{scope}/bias", 1)}  # fmt: skip


def _generator_arrays(source: TFSource, config: StyleGAN2Config) -> Arrays:
    arrays: Arrays = {}
    for index in range(config.mapping_layers):
        arrays |= _dense(source, f"Dense{index}", f"mapping.fc{index}")
    if config.label_dim and config.label_mode == "embed":
        arrays |= _dense(source, "LabelEmbed", "mapping.label")
    elif config.label_dim:
        # There the matrix is used as it is; here it is divided by √classes.
        scale = np.float32(np.sqrt(config.label_dim))
        arrays["mapping.label.weight"] = dense_matrix(source, "LabelConcat/weight") * scale
    arrays["mapping.w_avg"] = (
        source.array("dlatent_avg")
        if "dlatent_avg" in source.variables
        else np.zeros(config.w_dim, np.float32)
    )
    arrays["synthesis.b4.const"] = source.array("4x4/Const/const", 4)[0]
    layer = 0
    for side in config.sides:
        block, scope = f"synthesis.b{side}", f"{side}x{side}"
        convolutions = {"Conv": "conv1"} if side == 4 else {"Conv0_up": "conv0", "Conv1": "conv1"}
        for theirs, ours in convolutions.items():
            name = f"{block}.{ours}"
            arrays |= _modulated(source, f"{scope}/{theirs}", name, turned=theirs == "Conv0_up")
            if config.use_noise:
                arrays[f"{name}.noise_strength"] = source.array(f"{scope}/{theirs}/noise_strength")
                arrays[f"{name}.noise_const"] = source.array(f"noise{layer}", 4)[0, 0]
            layer += 1
        if config.G_architecture == "skip" or side == config.resolution:
            arrays |= _modulated(source, f"{scope}/ToRGB", f"{block}.torgb")
        if config.G_architecture == "resnet" and side > 4:
            arrays[f"{block}.skip.weight"] = conv_kernel(source, f"{scope}/Skip/weight")
    return arrays


def _modulated(source: TFSource, scope: str, ours: str, *, turned: bool = False) -> Arrays:
    """Return a modulated convolution's kernel, bias and style."""
    kernel = conv_kernel(source, f"{scope}/weight")
    if turned:
        kernel = np.ascontiguousarray(kernel[:, :, ::-1, ::-1])
    return {
        f"{ours}.weight": kernel,
        f"{ours}.bias": source.array(f"{scope}/bias", 1),
        f"{ours}.affine.weight": dense_matrix(source, f"{scope}/mod_weight"),
        f"{ours}.affine.bias": source.array(f"{scope}/mod_bias", 1) + np.float32(1),
    }


def _discriminator_arrays(source: TFSource, config: StyleGAN2Config) -> Arrays:
    arrays: Arrays = {}

    def convolution(scope: str, ours: str, *, bias: bool = True) -> None:
        arrays[f"{ours}.weight"] = conv_kernel(source, f"{scope}/weight")
        if bias:
            arrays[f"{ours}.bias"] = source.array(f"{scope}/bias", 1)

    for side in config.sides:
        scope = f"{side}x{side}"
        if config.D_architecture == "skip" or side == config.resolution:
            convolution(f"{scope}/FromRGB", f"b{side}.fromrgb")
        if side == 4:
            continue
        convolution(f"{scope}/Conv0", f"b{side}.conv0")
        convolution(f"{scope}/Conv1_down", f"b{side}.conv1")
        if config.D_architecture == "resnet":
            convolution(f"{scope}/Skip", f"b{side}.skip", bias=False)
    convolution("4x4/Conv", "b4.conv")
    arrays |= _dense(source, "4x4/Dense0", "b4.fc")
    arrays |= _dense(source, "Output", "b4.out")
    if config.label_dim and config.D_label_mode == "project":
        arrays |= _dense(source, "LabelEmbed", "mapping.label")
        for index in range(config.D_mapping_layers):
            arrays |= _dense(source, f"Mapping{index}", f"mapping.fc{index}")
    return arrays
