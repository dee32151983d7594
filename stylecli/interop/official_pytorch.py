"""Snapshots of NVIDIA's PyTorch programs -> our StyleGAN2, and StyleGAN3 in T and R.

stylegan2-ada-pytorch and stylegan3 write the same StyleGAN2 with the same names. The first nests
the arguments of synthesis and computes in float32 unless told; the second has them flat, with other
defaults. What is not passed is the program's default; a setting of a fork, which no network here
has, is refused by its name. StyleGAN3's discriminator is StyleGAN2's; the sizes of its layers and
their filters follow from the arguments, so filters are compared and left out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import NetworkError, UsageError
from stylecli.interop.conversion import Arrays, ForeignNetworks, Variables, square_side
from stylecli.interop.pickles import PlainObject, shown
from stylecli.interop.trees import PersistentModule, child_modules
from stylecli.networks.stylegan2_config import ModulatedConfig, StyleGAN2Config
from stylecli.networks.stylegan3_config import StyleGAN3Config
from stylecli.networks.stylegan3_filters import layer_filters

# What the programs' classes take by position.
GENERATOR_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_DISCRIMINATOR_ARGUMENTS = ("c_dim", "img_resolution", "img_channels")
_WITHOUT_EFFECT = frozenset((
    "fused_modconv_default", "fp16_channels_last", "freeze_layers", "class_name",
))  # fmt: skip
_MAX_MODULES, _MAX_DEPTH, _MAX_LIST = 2_000, 8, 64
_FILTER = "resample_filter"
_DEFAULT_TAPS = (1, 3, 3, 1)


def has_flat_settings(G: PersistentModule) -> bool:
    """Tell whether a StyleGAN2 has synthesis' settings flat, as the stylegan3 program does."""
    given = G.state.get("_init_kwargs")
    flat = {"channel_base", "channel_max", "num_fp16_res", "conv_clamp", "fused_modconv_default"}
    return isinstance(given, dict) and "synthesis_kwargs" not in given and bool(flat & set(given))


def convert_snapshot(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a snapshot {G, D, G_ema}, of which any may be missing.

    Raises NetworkError for settings that no network here has and networks that are not whole.
    """
    generator = tree["G_ema"] if isinstance(tree.get("G_ema"), PersistentModule) else tree["G"]
    flat = has_flat_settings(generator)
    return convert_modules(
        tree,
        StyleGAN2Config,
        flat,
        lambda G: generator_fields(G, flat),
        lambda config: lambda key: low_pass_taps(config, "G", key),
    )


FiltersOf = Callable[[Any], Callable[[str], NDArray[Any] | None]]


def convert_modules(
    tree: Any,
    family: type[ModulatedConfig],
    flat: bool,
    fields_of: Callable[[PersistentModule], dict[str, Any]],
    filters_of: FiltersOf,
) -> ForeignNetworks:
    """Return the networks of a snapshot whose discriminator is StyleGAN2's.

    ``fields_of`` gives the fields of a configuration of ``family`` that a generator's arguments
    say; ``filters_of`` a configuration's filters by name; ``flat`` is as in has_flat_settings.
    """
    networks = {
        name: tree[name]
        for name in ("G", "D", "G_ema")
        if isinstance(tree.get(name), PersistentModule)
    }
    generators = [networks[name] for name in ("G_ema", "G") if name in networks]
    info: dict[str, Any] = {}
    if "D" in networks and "b4" not in child_modules(networks["D"]):
        info["left_out"] = "the discriminator: it is of another family"
        del networks["D"]
    fields = fields_of(generators[0])
    for other in generators[1:]:
        if fields_of(other) != fields:
            raise NetworkError("its two generators are built with different settings")
    if "D" in networks:
        fields |= discriminator_fields(networks["D"], flat, fields)
    try:
        family.check_types(fields)
        config = family(**fields)
    except (ValueError, TypeError) as error:  # UsageError is a ValueError
        raise NetworkError(f"its settings make no sense: {error}") from None
    filters = {"D": lambda key: low_pass_taps(config, "D", key)}
    arrays = {
        name: from_nvidia_names(
            module_arrays(module), name, config, filters.get(name) or filters_of(config)
        )
        for name, module in networks.items()
    }
    strength = _augmentation(tree.get("augment_pipe"))
    if strength is not None:
        info["augment_p"] = strength
    info["source_format"] = f"PyTorch snapshot, persistence version {shown(generators[0].version)}"
    return ForeignNetworks(config, arrays, info=info)


class Settings:
    """The arguments that a class was called with, of which every one is to be understood."""

    def __init__(self, given: Any, where: str = "") -> None:
        if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
            raise NetworkError(f"its settings{where} are not named values")
        self.where = where
        self._left = {name: given[name] for name in given if name not in _WITHOUT_EFFECT}

    @classmethod
    def of(cls, module: PersistentModule, order: tuple[str, ...]) -> "Settings":
        """Return a module's arguments; those passed by position have the names in ``order``."""
        by_place, by_name = module.state.get("_init_args", ()), module.state.get("_init_kwargs")
        if not isinstance(by_place, tuple | list) or len(by_place) > len(order):
            raise NetworkError("its networks were made with more arguments than are known")
        if not isinstance(by_name, dict):
            raise NetworkError("its networks do not record their settings")
        return cls({**dict(zip(order, by_place, strict=False)), **by_name})

    def take(self, name: str, default: Any) -> Any:
        """Return a setting as a plain value and count it as understood."""
        value = self._left.pop(name, default)
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist() if value.size <= _MAX_LIST else None
        if isinstance(value, tuple | list):
            return list(value[: _MAX_LIST + 1])
        if value is not None and not isinstance(value, bool | int | float | str):
            raise NetworkError(f"its setting {name!r} is an unusable {type(value).__name__}")
        return value

    def inside(self, name: str) -> "Settings":
        """Return the settings that are nested under a name; none where it is missing."""
        return Settings(self._left.pop(name, {}), f" under {name}")

    def expect(self, name: str, *usual: Any) -> None:
        """Take a setting; raise NetworkError unless it has a usual value."""
        if (value := self.take(name, usual[0])) not in usual:
            raise NetworkError(
                f"it was built with {name}={shown(value)}, which no network here has"
            )

    def expect_square(self, resolution: Any) -> None:
        """Take what forks add for pictures of any shape; raise NetworkError unless it is square.

        ``init_res`` is the size of the first features, of which pictures are resolution / 4 times
        the height and width; others give the pictures' height and width themselves.
        """
        start = self.take("init_res", [4, 4])
        if start != [4, 4]:
            sides = start if isinstance(start, list) and len(start) == 2 else [None, None]
            whole = all(type(side) is int for side in [*sides, resolution])
            height, width = (side * resolution // 4 if whole else side for side in sides)
            square_side(width, height)
            raise NetworkError(f"it was built with init_res={shown(start)}: known is [4, 4]")
        height = self.take("resolution_h", resolution)
        if square_side(self.take("resolution_w", height), height) != resolution:
            raise NetworkError(f"it has img_resolution={shown(resolution)} and {shown(height)}")

    def finish(self) -> None:
        """Raise NetworkError for a setting that is not understood."""
        if self._left:
            raise NetworkError(
                f"it was built with the setting {shown(min(self._left))}{self.where}, which is not "
                "known"
            )


def generator_fields(G: PersistentModule, flat: bool) -> dict[str, Any]:
    """Return the fields of a configuration that a generator's arguments say."""
    given = Settings.of(G, GENERATOR_ARGUMENTS)
    mapping = given.inside("mapping_kwargs")
    synthesis = given if flat else given.inside("synthesis_kwargs")
    beta = mapping.take("w_avg_beta", 0.998 if flat else 0.995)
    fields = {
        "preset": "stylegan2",
        "z_dim": given.take("z_dim", None), "label_dim": given.take("c_dim", None),
        "w_dim": given.take("w_dim", None), "resolution": given.take("img_resolution", None),
        "channels": given.take("img_channels", None),
        "mapping_layers": mapping.take("num_layers", 8),
        "mapping_fmaps": mapping.take("layer_features", None),
        "embed_dim": mapping.take("embed_features", None),
        "mapping_lrmul": mapping.take("lr_multiplier", 0.01),
        "w_avg_beta": 1.0 if beta is None else beta,
        "fmap_base": synthesis.take("channel_base", 32_768),
        "fmap_max": synthesis.take("channel_max", 512),
        "num_fp16_res": synthesis.take("num_fp16_res", 4 if flat else 0),
        "conv_clamp": synthesis.take("conv_clamp", 256 if flat else None),
        "G_architecture": synthesis.take("architecture", "skip"),
        "resample_filter": synthesis.take(_FILTER, [1, 3, 3, 1]),
        "use_noise": synthesis.take("use_noise", True),
    }  # fmt: skip
    for settings in (given, synthesis):
        settings.expect_square(fields["resolution"])
    for settings in (mapping, synthesis):
        settings.expect("activation", "lrelu")
    synthesis.expect("kernel_size", 3)
    for settings in (mapping, synthesis, given):
        settings.finish()
    return fields


def discriminator_fields(D: PersistentModule, flat: bool, G: dict[str, Any]) -> dict[str, Any]:
    """Return the further fields that a discriminator's arguments say, given the generator's.

    ``flat``: the defaults of the stylegan3 repository. Raises NetworkError where both disagree.
    """
    given = Settings.of(D, _DISCRIMINATOR_ARGUMENTS)
    block, mapping = given.inside("block_kwargs"), given.inside("mapping_kwargs")
    epilogue = given.inside("epilogue_kwargs")
    shared = {
        "label_dim": given.take("c_dim", None), "resolution": given.take("img_resolution", None),
        "channels": given.take("img_channels", None),
        "conv_clamp": given.take("conv_clamp", 256 if flat else None),
        "resample_filter": block.take(_FILTER, [1, 3, 3, 1]),
    }  # fmt: skip
    for settings in (given, block, epilogue):
        settings.expect_square(shared["resolution"])
    given.take("num_fp16_res", None)  # of speed on a GPU alone: the generator's serves both
    base, most = given.take("channel_base", 32_768), given.take("channel_max", 512)
    if type(base) is not int or type(most) is not int:
        raise NetworkError("its discriminator's feature maps are not whole numbers")
    group = epilogue.take("mbstd_group_size", 4)
    features = epilogue.take("mbstd_num_channels", 1)
    fields = {
        "D_architecture": given.take("architecture", "resnet"),
        "D_fmap_base": None if base == G.get("fmap_base") else base,
        "D_fmap_max": None if most == G.get("fmap_max") else most,
        "D_mapping_layers": mapping.take("num_layers", 8),
        "cmap_dim": given.take("cmap_dim", None) if shared["label_dim"] else None,
        "mbstd_group_size": 0 if features == 0 else 1024 if group is None else group,
        "mbstd_features": features or 1,
    }  # fmt: skip
    taken = [block, epilogue, given]
    if shared["label_dim"]:
        width = fields["cmap_dim"] or min(base // 4, most)
        for name in ("layer_features", "embed_features"):
            mapping.expect(name, None, width)
        mapping.expect("lr_multiplier", 0.01)
        taken.insert(0, mapping)
    else:  # its labels' network was never built, whatever its arguments say
        given.take("cmap_dim", None)
    for one in taken:
        one.expect("activation", "lrelu")
    for one in taken:
        one.finish()
    for name, value in shared.items():
        if value != G[name]:
            raise NetworkError(
                f"its generator has {name}={shown(G[name])} and its discriminator {shown(value)}"
            )
    return fields


def module_arrays(module: PersistentModule | PlainObject) -> Arrays:
    """Return parameters and buffers of a module and all in it, as its state dict names them."""
    arrays: Arrays = {}
    waiting: list[tuple[str, Any, int]] = [("", module, 0)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return arrays
        prefix, current, depth = waiting.pop()
        if (
            not isinstance(current, PersistentModule | PlainObject)
            or depth > _MAX_DEPTH
            or len(prefix) > 200
        ):
            raise NetworkError(f"it has something other than a module at {shown(prefix)}")
        for kind in ("_parameters", "_buffers"):
            values = current.state.get(kind, {})
            for name, value in values.items() if isinstance(values, dict) else ():
                if value is not None and not isinstance(value, np.ndarray):
                    raise NetworkError(f"it has something other than an array at {shown(prefix)}")
                if value is not None:
                    arrays[f"{prefix}{str(name)[:80]}"] = value
        waiting += [
            (f"{prefix}{str(name)[:80]}.", child, depth + 1)
            for name, child in child_modules(current).items()
            if child is not None
        ]
    raise NetworkError(f"it has over {_MAX_MODULES} modules")


def low_pass_taps(config: ModulatedConfig, name: str, key: str) -> NDArray[Any]:
    """Return the filter that a layer of StyleGAN2 stores: [n, n], from 8 taps on [n].

    ``name`` is of the network (G, G_ema, D), ``key`` of the filter. Layers that neither double nor
    halve have the program's default, whatever it was told.
    """
    used = resamples(name, key)
    taps = np.asarray(config.resample_filter if used else _DEFAULT_TAPS, np.float64)
    f = np.outer(taps, taps) if len(taps) < 8 else taps  # longer ones go by two passes
    return np.asarray(f / f.sum())


def resamples(name: str, key: str) -> bool:
    """Tell whether the layer of a filter makes use of it."""
    layer = key.split(".")[-2] if "." in key else ""
    return layer in ("skip", "conv1" if name == "D" else "conv0") or layer[:1] == "b"


def from_nvidia_names(
    named: Arrays,
    name: str,
    config: ModulatedConfig,
    filter_of: Callable[[str], NDArray[Any] | None],
) -> Arrays:
    """Return a network's arrays in our names; filters are compared and left out."""
    variables = Variables(named, f"{name} of the file")
    arrays: Arrays = {}
    for key in variables.names():
        array = variables.take(key)
        if not key.endswith("_filter"):
            arrays[key.replace("mapping.embed.", "mapping.label.", 1)] = array
            continue
        if not key.startswith("synthesis.L") and not resamples(name, key):
            continue
        wanted = filter_of(key)
        if (
            wanted is None
            or array.shape != wanted.shape
            or not np.allclose(array, wanted, atol=1e-6)
        ):
            raise NetworkError(
                f"{name} of the file has a filter at {key} that differs from its settings"
            )
    if name != "D" and "mapping.w_avg" not in arrays:
        arrays["mapping.w_avg"] = np.zeros(config.w_dim, np.float32)
    return arrays


def _augmentation(pipe: Any) -> float | None:
    """Return the strength that adaptive augmentation had come to, where there is one."""
    buffers = pipe.state.get("_buffers") if isinstance(pipe, PersistentModule) else None
    p = buffers.get("p") if isinstance(buffers, dict) else None
    return float(p.reshape(())) if isinstance(p, np.ndarray) and p.size == 1 else None


def convert_stylegan3(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a snapshot {G, D, G_ema}, of which any may be missing.

    Raises NetworkError for settings that no network here has and networks that are not whole.
    """
    return convert_modules(tree, StyleGAN3Config, True, _generator_fields, generator_filters)


def generator_filters(config: StyleGAN3Config) -> Callable[[str], NDArray[Any] | None]:
    """Return the filters of a generator by their names."""
    return {
        f"synthesis.{plan.name}.{which}_filter": f
        for plan in config.layers()
        for which, f in zip(("up", "down"), layer_filters(plan), strict=True)
    }.get


def _generator_fields(G: PersistentModule) -> dict[str, Any]:
    """Return the fields of a configuration that a generator's arguments say."""
    given = Settings.of(G, GENERATOR_ARGUMENTS)
    mapping = given.inside("mapping_kwargs")
    given.take("num_fp16_res", None)  # of speed on a GPU alone
    radial = given.take("use_radial_filters", False)
    beta = mapping.take("w_avg_beta", 0.998)
    fields = {
        "preset": "stylegan3-r" if radial else "stylegan3-t", "radial_filters": bool(radial),
        "z_dim": given.take("z_dim", None), "label_dim": given.take("c_dim", None),
        "w_dim": given.take("w_dim", None), "resolution": given.take("img_resolution", None),
        "channels": given.take("img_channels", None),
        "mapping_layers": mapping.take("num_layers", 2),
        "mapping_lrmul": mapping.take("lr_multiplier", 0.01),
        "w_avg_beta": 1.0 if beta is None else beta,
        "fmap_base": given.take("channel_base", 32_768),
        "fmap_max": given.take("channel_max", 512),
        "num_layers": given.take("num_layers", 14),
        "num_critical": given.take("num_critical", 2),
        "first_cutoff": given.take("first_cutoff", 2),
        "first_stopband": given.take("first_stopband", 2**2.1),
        "last_stopband_rel": given.take("last_stopband_rel", 2**0.3),
        "margin": given.take("margin_size", 10),
        "output_scale": given.take("output_scale", 0.25),
        "conv_kernel": given.take("conv_kernel", 3),
        "filter_size": given.take("filter_size", 6),
        "lrelu_upsampling": given.take("lrelu_upsampling", 2),
        "conv_clamp": given.take("conv_clamp", 256),
        "magnitude_beta": given.take("magnitude_ema_beta", 0.999),
        "resample_filter": [1, 3, 3, 1],  # the discriminator's
    }  # fmt: skip
    mapping.finish()
    given.finish()
    return fields


# ---- the inverse: our networks under the program's names, and the arguments that build them there

_STYLEGAN2, _STYLEGAN3 = "training.networks_stylegan2", "training.networks_stylegan3"


def write_nvidia(
    name: str, arrays: Arrays, config: StyleGAN2Config | StyleGAN3Config
) -> tuple[Arrays, dict[str, Any]]:
    """Return a network's state dict there, and its class with its arguments.

    Raises UsageError for labels that the program does not have.
    """
    _check_labels(config)
    return _nvidia_arrays(name, arrays, config), _nvidia_arguments(name, config)


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
