"""Checkpoints of rosinality/stylegan2-pytorch <-> our StyleGAN2: the names of both, one table.

The program has NVIDIA's layers under names of its own, so every tensor is one of ours in another
shape and the same table reads and writes. What differs:

* arguments stand beside the networks (``args``), or nowhere: sizes are read off the shapes, and
  compared with the arguments where there are some;
* nothing is clamped and nothing computed in float16;
* w_avg is in files that its converter made (``latent_avg``), else estimated from 10,000 latents;
* old files hold no noise maps: drawn from seed 0.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import NetworkError, UsageError
from stylecli.interop.conversion import (
    Arrays,
    ForeignNetworks,
    Variables,
    difference_table,
    estimate_w_avg,
    infer_channels,
    state_dict,
)
from stylecli.interop.pickles import PlainObject, shown
from stylecli.networks.stylegan2_config import StyleGAN2Config

AVERAGE = "latent_avg"  # of w, beside or among the generator's tensors
_PARTS = {"G_ema": "g_running", "G": "generator", "D": "discriminator"}
_LRMUL = 0.01  # the program's default, which no file says
_USUAL = (16_384, 8_192)  # fmap_base of channel_multiplier 2 and 1, as infer_channels counts
_KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
_MAX_LAYERS = 64


class Tensor(NamedTuple):
    """A tensor of ours that theirs holds in another shape."""

    name: str
    shape: tuple[int, ...]  # ours
    there: tuple[int, ...]  # theirs, of as many numbers


Table = dict[str, Tensor]  # by their names


def convert_rosinality2(tree: Any, _: str) -> ForeignNetworks:
    """Return g_ema as G_ema, g as G and d as D, of which all but a generator may be missing.

    Raises NetworkError, with a table of differences, where a network is not what its shapes say,
    and where the arguments beside it say something else.
    """
    parts = {ours: tree[theirs] for ours, theirs in _PARTS.items() if theirs in tree}
    if not any(ours in parts for ours in ("G_ema", "G")):
        if "D" in parts or "final_linear.0.weight" in tree:
            raise NetworkError("it holds the discriminator alone, which has no pictures to draw")
        parts = {"G_ema": tree}
    parts = {ours: dict(state_dict(part, ours)) for ours, part in parts.items()}
    generators = [parts[ours] for ours in ("G_ema", "G") if ours in parts]
    averages = [tree.get(AVERAGE), *(part.pop(AVERAGE, None) for part in generators)]
    config = _config(generators[0], parts.get("D"))
    _compare_arguments(tree.get("args"), config)
    average = next((value for value in averages if isinstance(value, np.ndarray)), None)
    networks: dict[str, Arrays] = {}
    for ours, part in parts.items():
        table = discriminator_table(config) if ours == "D" else generator_table(config)
        networks[ours] = _take(part, table, ours)
        if ours != "D":
            networks[ours]["mapping.w_avg"] = _w_avg(average, networks[ours], config)
    info: dict[str, Any] = {}
    if average is None:
        info["w_avg"] = "estimated from 10,000 latents: the file has none"
    strength = tree.get("ada_aug_p")
    if isinstance(strength, int | float) and 0 <= strength <= 1:
        info["augment_p"] = float(strength)
    return ForeignNetworks(config, networks, info=info)


def write_rosinality2(name: str, arrays: Arrays, config: StyleGAN2Config) -> Arrays:
    """Return one of our networks, a generator or ``D``, under their names with their filters.

    A generator's average of w is ``latent_avg``. Raises UsageError for what the program lacks.
    """
    fixed: dict[str, Any] = {
        "G_architecture": "skip", "D_architecture": "resnet", "label_dim": 0, "use_noise": True,
        "mapping_lrmul": _LRMUL, "resample_filter": (1, 3, 3, 1),
    }  # fmt: skip
    for field, wanted in fixed.items():
        if (found := getattr(config, field)) != wanted:
            raise UsageError(
                f"rosinality's StyleGAN2 has {field} {wanted!r} and this network {found!r}: "
                "use --layout nvidia"
            )
    table = discriminator_table(config) if name == "D" else generator_table(config)
    written = {theirs: arrays[ours.name].reshape(ours.there) for theirs, ours in table.items()}
    if name != "D":
        written[AVERAGE] = arrays["mapping.w_avg"]
    gain = 1 if name == "D" else 4
    kernels = _kernel_names(name, config)
    return written | {kernel: (_KERNEL * gain).astype(np.float32) for kernel in kernels}


# ---- names and shapes


def generator_table(config: StyleGAN2Config) -> Table:
    """Return their name of every tensor of a generator but the average of w."""
    table: Table = {}
    widths, w = config.mapping_widths, config.w_dim
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        table |= _dense(f"style.{index + 1}", f"mapping.fc{index}", fan_in, fan_out)
    first = config.fmaps(4)
    table["input.input"] = Tensor("synthesis.b4.const", (first, 4, 4), (1, first, 4, 4))
    layer = 0
    for index, side in enumerate(config.sides):
        maps, before = config.fmaps(side), config.fmaps(max(4, side // 2))
        block = f"synthesis.b{side}"
        layers = {"conv1": f"{block}.conv1"} if side == 4 else {
            f"convs.{2 * index - 2}": f"{block}.conv0", f"convs.{2 * index - 1}": f"{block}.conv1"
        }  # fmt: skip
        for theirs, ours in layers.items():
            fan_in = before if ours.endswith("conv0") else maps
            table |= _modulated(theirs, ours, fan_in, maps, 3, w)
            table[f"{theirs}.activate.bias"] = Tensor(f"{ours}.bias", (maps,), (maps,))
            table[f"{theirs}.noise.weight"] = Tensor(f"{ours}.noise_strength", (), (1,))
            noise = Tensor(f"{ours}.noise_const", (side, side), (1, 1, side, side))
            table[f"noises.noise_{layer}"] = noise
            layer += 1
        theirs = "to_rgb1" if side == 4 else f"to_rgbs.{index - 1}"
        table |= _modulated(theirs, f"{block}.torgb", maps, config.channels, 1, w)
        shape = (config.channels,)
        table[f"{theirs}.bias"] = Tensor(f"{block}.torgb.bias", shape, (1, *shape, 1, 1))
    return table


def discriminator_table(config: StyleGAN2Config) -> Table:
    """Return their name of every tensor of a discriminator."""
    table: Table = {}
    f, top = config.D_fmaps, config.resolution
    table |= _convolution("convs.0", f"b{top}.fromrgb", config.channels, f(top), 1)
    for index, side in enumerate(reversed(config.sides[1:]), start=1):
        theirs, ours, after = f"convs.{index}", f"b{side}", f(side // 2)
        table |= _convolution(f"{theirs}.conv1", f"{ours}.conv0", f(side), f(side), 3)
        table |= _convolution(f"{theirs}.conv2", f"{ours}.conv1", f(side), after, 3, at=1)
        shape = (after, f(side), 1, 1)
        table[f"{theirs}.skip.1.weight"] = Tensor(f"{ours}.skip.weight", shape, shape)
    last = f(4)
    table |= _convolution("final_conv", "b4.conv", last + 1, last, 3)
    table |= _dense("final_linear.0", "b4.fc", 16 * last, last)
    return table | _dense("final_linear.1", "b4.out", last, 1)


def _dense(theirs: str, ours: str, fan_in: int, fan_out: int) -> Table:
    weight, bias = (fan_out, fan_in), (fan_out,)
    return {f"{theirs}.weight": Tensor(f"{ours}.weight", weight, weight),
            f"{theirs}.bias": Tensor(f"{ours}.bias", bias, bias)}  # fmt: skip


def _modulated(theirs: str, ours: str, fan_in: int, fan_out: int, kernel: int, w: int) -> Table:
    shape = (fan_out, fan_in, kernel, kernel)
    return {f"{theirs}.conv.weight": Tensor(f"{ours}.weight", shape, (1, *shape)),
            **_dense(f"{theirs}.conv.modulation", f"{ours}.affine", w, fan_in)}  # fmt: skip


def _convolution(
    theirs: str, ours: str, fan_in: int, fan_out: int, kernel: int, at: int = 0
) -> Table:
    """Return a convolution of D and its bias, which are steps ``at`` and ``at + 1`` there."""
    shape = (fan_out, fan_in, kernel, kernel)
    return {f"{theirs}.{at}.weight": Tensor(f"{ours}.weight", shape, shape),
            f"{theirs}.{at + 1}.bias": Tensor(f"{ours}.bias", shape[:1], shape[:1])}  # fmt: skip


def _kernel_names(name: str, config: StyleGAN2Config) -> list[str]:
    """Return the names of the filters that a network of theirs stores."""
    steps = range(len(config.sides) - 1)
    if name == "D":
        return [f"convs.{i + 1}.{part}.0.kernel" for i in steps for part in ("conv2", "skip")]
    kernels = [f"convs.{2 * i}.conv.blur.kernel" for i in steps]
    return [*kernels, *(f"to_rgbs.{i}.upsample.kernel" for i in steps)]


# ---- reading


def _config(G: Arrays, D: Arrays | None) -> StyleGAN2Config:
    """Return the configuration that the shapes say."""
    variables = Variables(G, "the generator")
    mapping = _mapping_layers(variables)
    sides = _count(variables, "to_rgbs.{}.conv.weight")
    last = [f"convs.{2 * index + 1}" for index in range(sides)]
    widths = [
        variables.take(f"{layer}.conv.weight", 1, None, None, 3, 3).shape[1]
        for layer in ("conv1", *last)
    ]
    base, most = infer_channels(widths, _USUAL)
    fields: dict[str, Any] = {
        "resolution": 4 << sides, "fmap_base": 2 * base, "fmap_max": most,
        "channels": variables.take("to_rgb1.conv.weight", 1, None, None, 1, 1).shape[1],
        "z_dim": mapping[0].shape[1], "w_dim": mapping[-1].shape[0],
        "mapping_fmaps": mapping[0].shape[0], "mapping_layers": len(mapping),
        "conv_clamp": None, "num_fp16_res": 0,
    }  # fmt: skip
    if fields["mapping_fmaps"] == fields["w_dim"]:
        fields["mapping_fmaps"] = None
    if D is not None:
        fields |= _discriminator_widths(Variables(D, "the discriminator"), sides, base, most)
    try:
        for preset in ("stylegan2", "stylegan2-e"):  # a published network goes by its name
            config = StyleGAN2Config.named(preset, **fields)
            if config.preset_fields.get("fmap_base", 32_768) == config.fmap_base:
                return config
        return StyleGAN2Config(**fields)
    except UsageError as error:
        raise NetworkError(f"its sizes make no sense: {error}") from None


def _count(variables: Variables, pattern: str, first: int = 0) -> int:
    """Return how many names of a pattern there are, numbered without a gap."""
    numbers = range(first, first + _MAX_LAYERS + 1)
    return next((n - first for n in numbers if pattern.format(n) not in variables), _MAX_LAYERS)


def _mapping_layers(variables: Variables) -> list[NDArray[np.float32]]:
    count = _count(variables, "style.{}.weight", 1)
    names = [f"style.{index + 1}.weight" for index in range(max(1, count))]
    return [variables.take(name, None, None) for name in names]


def _discriminator_widths(
    variables: Variables, sides: int, base: int, most: int
) -> dict[str, int | None]:
    """Return the fields of D's feature maps where they are not the generator's."""
    names = [f"convs.{index}.conv2.1.weight" for index in range(sides, 0, -1)]
    names.append("convs.0.0.weight")  # from the picture, at the highest resolution
    widths = [variables.take(name, None, None, None, None).shape[0] for name in names]
    D_base, D_most = infer_channels(widths, (base, *_USUAL))
    return {"D_fmap_base": None if D_base == base else 2 * D_base,
            "D_fmap_max": None if D_most == most else D_most}  # fmt: skip


def _compare_arguments(args: Any, config: StyleGAN2Config) -> None:
    """Raise NetworkError with a table where the arguments of a training are not its network's."""
    given = args.state if isinstance(args, PlainObject) else args
    if not isinstance(given, dict):
        return
    top = config.resolution
    found: dict[str, Any] = {"size": top, "latent": config.w_dim, "n_mlp": config.mapping_layers,
                             "arch": "stylegan2"}  # fmt: skip
    if top >= 64:  # below, both multipliers give the same
        found["channel_multiplier"] = config.fmaps(top) * top // _USUAL[0]
    lines = [
        f"{name}: its arguments say {shown(given[name])}, its shapes {value}"
        for name, value in found.items()
        if name in given and given[name] != value
    ]
    if lines:
        raise NetworkError("its shapes are not what its arguments say:\n  " + "\n  ".join(lines))


def _take(part: Arrays, table: Table, name: str) -> Arrays:
    """Return a network's arrays in our names; filters are compared and left out."""
    gain = 1 if name == "D" else 4
    for theirs in [theirs for theirs in part if theirs.endswith(".kernel")]:
        kernel = part.pop(theirs)
        if kernel.shape != (4, 4) or not np.allclose(kernel, _KERNEL * gain, atol=1e-6):
            raise NetworkError(f"{name} of the file has another filter at {theirs} than [1 3 3 1]")
    noises = [theirs for theirs in table if theirs.startswith("noises.")]
    if not any(theirs in part for theirs in noises):
        part |= _noise_maps({theirs: table[theirs] for theirs in noises})
    wanted = {theirs: tensor.there for theirs, tensor in table.items()}
    if differences := difference_table({key: part[key].shape for key in part}, wanted):
        raise NetworkError(f"{name} of the file is not built as its shapes say:\n  {differences}")
    variables = Variables(part, f"{name} of the file")
    return {t.name: variables.take(theirs).reshape(t.shape) for theirs, t in table.items()}


def _noise_maps(tensors: Table) -> Arrays:
    rng = np.random.RandomState(0)
    return {name: rng.randn(*t.there).astype(np.float32) for name, t in tensors.items()}


def _w_avg(average: Any, G: Arrays, config: StyleGAN2Config) -> NDArray[np.float32]:
    """Return the stored average of w, or the mean of w over many latents."""
    if average is not None:
        if average.size != config.w_dim or average.dtype.kind not in "fiu":
            raise NetworkError(f"its {AVERAGE} has shape {list(average.shape)}")
        return np.asarray(average.reshape(-1), np.float32)
    gain = _LRMUL * np.sqrt(2.0)  # of the activation too, which estimate_w_avg has none of
    layers = []
    for index in range(config.mapping_layers):
        weight, bias = G[f"mapping.fc{index}.weight"], G[f"mapping.fc{index}.bias"]
        scale = np.float32(gain / np.sqrt(weight.shape[1]))
        layers.append((weight * scale, bias * np.float32(gain)))
    return np.asarray(estimate_w_avg(layers, config.z_dim), np.float32)


def rosinality2_arguments(name: str, config: StyleGAN2Config) -> dict[str, Any]:
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
