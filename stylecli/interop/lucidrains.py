"""Checkpoints of lucidrains/stylegan2-pytorch -> our networks of its kind.

No arguments are stored: sizes, widths and attention are read off names and shapes. The learning
rate's multiplier in the mapping network leaves no trace; its program's default is taken.
"""

import re
from typing import Any

import numpy as np

from stylecli.errors import NetworkError, UsageError
from stylecli.interop.conversion import (
    Arrays,
    ForeignNetworks,
    Variables,
    difference_table,
    estimate_w_avg,
    state_dict,
)
from stylecli.networks.lucidrains_config import HEAD_WIDTH, HEADS, LucidrainsConfig

# Ours -> the prefixes of its parts in the file's one state dict.
_GENERATORS = {"G_ema": ("SE.", "GE."), "G": ("S.", "G.")}
_MAX_BLOCKS, _MAX_LAYERS, _USUAL_WIDTH = 9, 64, 512
_ATTENTION = re.compile(r"attns\.(\d{1,2})\.0\.fn\.fn\.to_q\.weight")
_FILTER = np.array([1.0, 2.0, 1.0])
# Each Linear or Conv2d, theirs -> ours, of a block of synthesis and of D, and the attention's.
_BLOCK = {"conv1": "conv0", "conv2": "conv1", "to_rgb.conv": "torgb", "to_style1": "conv0.affine",
          "to_style2": "conv1.affine", "to_rgb.to_style": "torgb.affine",
          "to_noise1": "conv0.noise", "to_noise2": "conv1.noise"}  # fmt: skip
_D_BLOCK = {"conv_res": "skip", "net.0": "conv0", "net.2": "conv1", "downsample.1": "down"}
_ATTENDING = {"0.fn.fn.to_q": "query", "0.fn.fn.to_kv.net.0": "around",
              "0.fn.fn.to_kv.net.1": "key_value", "0.fn.fn.to_out": "out", "1.fn.fn.0": "wide",
              "1.fn.fn.2": "narrow"}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]
Table = dict[str, tuple[str, tuple[int, ...]]]  # theirs -> ours and the shape


def convert_lucidrains(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a checkpoint {GAN: one state dict, version}: G_ema, G and D.

    Raises NetworkError where none is whole, or one is not built as its own shapes say.
    """
    arrays = state_dict(tree.get("GAN"), "its GAN")
    parts = {name: _part(arrays, *prefixes) for name, prefixes in _GENERATORS.items()}
    parts = {name: part for name, part in parts.items() if part}
    if not parts:
        raise NetworkError("it has no generator")
    D = _part(arrays, "D.")
    config = _config(next(iter(parts.values())), D)
    info: dict[str, Any] = {
        "w_avg": "estimated from 10,000 latents: the file stores none",
        "mapping_lrmul": f"{config.mapping_lrmul:g}, the program's default: the file does not say",
    }
    networks = {}
    for name, part in parts.items():
        found = _take(part, _generator_table(config), name)
        found["mapping.w_avg"] = _w_avg(found, config)
        side = config.resolution
        found["synthesis.noise_const"] = (
            np.random.RandomState(0).randn(side, side).astype(np.float32)
        )
        networks[name] = found
    if any(name.startswith("quantize_blocks.") for name in D):
        info["left_out"] = "the discriminator: it quantises its features, which none here does"
    elif D:
        networks["D"] = _take(D, _discriminator_table(config), "D")
    return ForeignNetworks(config, networks, info=info)


def _part(arrays: Arrays, *prefixes: str) -> Arrays:
    """Return the arrays below prefixes; those of a mapping network stay below S."""
    found: Arrays = {}
    for prefix in prefixes:
        kept = "S." if prefix.startswith("S") else ""
        found |= {kept + name.removeprefix(prefix): array for name, array in arrays.items()
                  if name.startswith(prefix)}  # fmt: skip
    return found


def _config(G: Arrays, D: Arrays) -> LucidrainsConfig:
    """Return the configuration that the shapes say."""
    variables = Variables(G, "the generator")
    dense = _count(variables, "S.net.{}.weight", 2, _MAX_LAYERS)
    blocks = _count(variables, "blocks.{}.conv2.weight", 1, _MAX_BLOCKS)
    if not dense or not blocks:
        raise NetworkError("the generator has no mapping layers or no blocks")
    widths = [variables.take(f"blocks.{index}.conv2.weight", None, None, 3, 3).shape[0]
              for index in range(blocks)]  # fmt: skip
    fields: dict[str, Any] = {
        "resolution": 2 << blocks, "mapping_layers": dense,
        "channels": variables.take("blocks.0.to_rgb.conv.weight", None, None, 1, 1).shape[0],
        "z_dim": variables.take("S.net.0.weight", None, None).shape[1],
        "w_dim": variables.take("S.net.0.weight", None, None).shape[0],
        "capacity": max(1, widths[-1] // 2),
        "attention": tuple(blocks - int(found[1]) for name in G
                           if (found := _ATTENTION.fullmatch(name))),
    }  # fmt: skip
    wide = Variables(D, "the discriminator")
    last = f"blocks.{blocks}.net.2.weight"
    most = wide.take(last, None, None, 3, 3).shape[0] if last in wide else max(widths)
    try:
        for limit in (_USUAL_WIDTH, most):
            config = LucidrainsConfig(**fields, fmap_max=limit)
            if config.widths == widths and (not D or config.D_widths[-1] == most):
                return config
    except UsageError as error:
        raise NetworkError(f"its sizes make no sense: {error}") from None
    raise NetworkError(f"its layers have {widths} feature maps, which do not double each time")


def _count(variables: Variables, pattern: str, step: int, most: int) -> int:
    """Return how many names of a pattern there are, numbered by ``step`` without a gap."""
    numbers = range(most + 1)
    return next((n for n in numbers if pattern.format(n * step) not in variables), most)


# ---- theirs and ours, with shapes


def _layers(names: dict[str, str], theirs: str, ours: str, shapes: Shapes) -> Table:
    """Return the weights and biases of some layers, of whose weights ``shapes`` knows the shape."""
    table: Table = {}
    for their, our in names.items():
        if our not in shapes:
            continue
        shape = shapes[our]
        table[f"{theirs}{their}.weight"] = (f"{ours}{our}.weight", shape)
        if f"{our}.bias" in shapes:
            table[f"{theirs}{their}.bias"] = (f"{ours}{our}.bias", shapes[f"{our}.bias"])
    return table


def _biased(**shapes: tuple[int, ...]) -> Shapes:
    """Return shapes of weights and of a bias beside each; __ stands for a full stop."""
    named = {name.replace("__", "."): shape for name, shape in shapes.items()}
    return named | {f"{name}.bias": shape[:1] for name, shape in named.items()}


def _attention_table(theirs: str, ours: str, maps: int) -> Table:
    inner = HEADS * HEAD_WIDTH
    shapes = _biased(out=(maps, inner, 1, 1), wide=(2 * maps, maps, 1, 1),
                     narrow=(maps, 2 * maps, 1, 1))  # fmt: skip
    shapes |= {"query": (inner, maps, 1, 1), "around": (maps, 1, 3, 3),
               "key_value": (2 * inner, maps, 1, 1)}  # fmt: skip
    table = _layers(_ATTENDING, theirs, ours, shapes)
    for index in (0, 1):
        for their, our in (("g", "gain"), ("b", "offset")):
            table[f"{theirs}{index}.fn.norm.{their}"] = (
                f"{ours}norm{index}.{our}", (1, maps, 1, 1)
            )  # fmt: skip
    return table


def _generator_table(config: LucidrainsConfig) -> Table:
    table: Table = {}
    for index in range(config.mapping_layers):
        shape = (config.w_dim, config.z_dim if not index else config.w_dim)
        table |= _layers({f"net.{2 * index}": f"fc{index}"}, "S.", "mapping.",
                         _biased(**{f"fc{index}": shape}))  # fmt: skip
    first, w = config.widths[0], config.w_dim
    table["initial_block"] = ("synthesis.const", (1, first, 4, 4))
    table |= _layers({"initial_conv": "conv"}, "", "synthesis.",
                     _biased(conv=(first, first, 3, 3)))  # fmt: skip
    for block, maps in enumerate(config.widths):
        before, ours = config.widths[max(block - 1, 0)], f"synthesis.b{4 << block}."
        shapes = _biased(conv0__affine=(before, w), conv1__affine=(maps, w),
                         torgb__affine=(maps, w), conv0__noise=(maps, 1),
                         conv1__noise=(maps, 1))  # fmt: skip
        shapes |= {"conv0": (maps, before, 3, 3), "conv1": (maps, maps, 3, 3),
                   "torgb": (config.channels, maps, 1, 1)}  # fmt: skip
        table |= _layers(_BLOCK, f"blocks.{block}.", ours, shapes)
        if block in config.attending_blocks:
            table |= _attention_table(f"attns.{block}.", f"{ours}attention.", before)
    return table


def _discriminator_table(config: LucidrainsConfig) -> Table:
    table: Table = {}
    before = config.channels
    for block, maps in enumerate(config.D_widths):
        shapes = _biased(skip=(maps, before, 1, 1), conv0=(maps, before, 3, 3),
                         conv1=(maps, maps, 3, 3), down=(maps, maps, 3, 3))  # fmt: skip
        if block == len(config.D_widths) - 1:
            del shapes["down"]
        table |= _layers(_D_BLOCK, f"blocks.{block}.", f"blocks.{block}.", shapes)
        if block in config.D_attending_blocks:
            table |= _attention_table(f"attn_blocks.{block}.", f"blocks.{block}.attention.", maps)
        before = maps
    ends = _biased(conv=(before, before, 3, 3), out=(1, 4 * before))
    return table | _layers({"final_conv": "conv", "to_logit": "out"}, "", "", ends)


# ---- arrays


def _take(part: Arrays, table: Table, name: str) -> Arrays:
    """Return a network's arrays in our names; filters are compared and left out."""
    part = dict(part)
    for theirs in [theirs for theirs in part if theirs.endswith(".f")]:
        taps = part.pop(theirs)
        if taps.shape != (3,) or not np.allclose(taps, _FILTER):
            raise NetworkError(f"{name} of the file has another filter at {theirs} than [1 2 1]")
    wanted = {theirs: shape for theirs, (_, shape) in table.items()}
    if differences := difference_table({key: part[key].shape for key in part}, wanted):
        raise NetworkError(f"{name} of the file is not built as its shapes say:\n  {differences}")
    variables = Variables(part, f"{name} of the file")
    return {ours: variables.take(theirs) for theirs, (ours, _) in table.items()}


def _w_avg(G: Arrays, config: LucidrainsConfig) -> Any:
    """Return the mean of w over many latents, of length 1 here and of deviation 1 there."""
    layers = []
    for index in range(config.mapping_layers):
        weight, bias = (G[f"mapping.fc{index}.{kind}"] for kind in ("weight", "bias"))
        scale = np.float32(config.mapping_lrmul)
        length = np.float32(1 if index else np.sqrt(config.z_dim))
        layers.append((weight * (scale / length), bias * scale))
    return estimate_w_avg(layers, config.z_dim)
