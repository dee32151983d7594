"""Snapshots of R3GAN's program -> our R3GAN.

No arguments are stored: widths, groups, blocks and labels are read off the shapes, and compared
with the three numbers that the generator keeps beside them.
"""

from typing import Any

import numpy as np

from stylecli.errors import NetworkError, UsageError
from stylecli.interop.conversion import Arrays, ForeignNetworks, Variables
from stylecli.interop.official_pytorch import module_arrays
from stylecli.interop.pickles import PlainObject, shown
from stylecli.interop.trees import child_modules, persistent_facts
from stylecli.networks.r3gan_config import PRESETS, R3GANConfig

GENERATOR, DISCRIMINATOR = "training.networks.Generator", "training.networks.Discriminator"
_TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
_MAX_STAGES, _MAX_BLOCKS, _MAX_IMAGES = 9, 64, 1 << 50


def convert_r3gan(tree: Any, _: str) -> ForeignNetworks:
    """Return the networks of a snapshot {G, D, G_ema}, of which all but a generator may be missing.

    Raises NetworkError for networks that are not whole, that no network here is built like, or that
    are not of the size that they say.
    """
    config = read_config(tree)
    networks: dict[str, Arrays] = {}
    info: dict[str, Any] = {}
    for name in ("G", "G_ema"):
        if isinstance(tree.get(name), PlainObject):
            networks[name] = _generator(_variables(tree[name], name), config)
    D = tree.get("D")
    if isinstance(D, PlainObject) and D.name == DISCRIMINATOR:
        variables = _variables(D, "D")
        if _mirrors(variables, config):
            networks["D"] = _discriminator(variables, config)
        else:
            info["left_out"] = (
                "the discriminator: it does not mirror the generator, as every one here does"
            )
    shown_images = tree.get("cur_nimg")
    if type(shown_images) is int and 0 <= shown_images < _MAX_IMAGES:
        info["kimg"] = shown_images / 1000
    return ForeignNetworks(config, networks, info=info)


def r3gan_facts(tree: Any) -> dict[str, Any]:
    """Describe a snapshot: sizes, and what the shapes say of how its networks are built."""
    facts = persistent_facts(tree)
    try:
        config = read_config(tree)
    except NetworkError as error:
        return {**facts, "settings": f"not known: {error}"}
    facts["channels"] = config.channels
    facts["settings"] = {
        "feature maps from 4 px on": [config.fmaps(side) for side in config.sides],
        "groups": [config.groups_at(side) for side in config.sides],
        "blocks at each resolution": config.blocks, "expansion": config.expansion,
        "label embedding": config.embed_dim if config.label_dim else 0,
        "resolutions in bfloat16": config.num_bf16_res,
    }  # fmt: skip
    return facts


def read_config(tree: Any) -> R3GANConfig:
    """Return the configuration of a snapshot's generator; its two must have the same."""
    generators = [tree[name] for name in ("G_ema", "G") if isinstance(tree.get(name), PlainObject)]
    configs = [_config_of(G, tree.get("D")) for G in generators]
    if any(config != configs[0] for config in configs):
        raise NetworkError("its two generators are built differently")
    return configs[0]


def _config_of(G: PlainObject, D: Any) -> R3GANConfig:
    variables = _variables(G, "the generator")
    rows = _stages(variables, first_block=1)
    blocks = {row[-1] for row in rows}
    ratios = {middle / maps for maps, middle, _, _ in rows}
    if len(blocks) != 1 or len(ratios) != 1 or not (ratio := ratios.pop()).is_integer():
        raise NetworkError("its resolutions are built differently, which no network here is")
    latent = variables.take("MainLayers.0.Layers.0.LinearLayer.weight", None, None).shape[1]
    embed, classes = _labels(variables)
    widths, groups = [row[0] for row in rows], [row[2] for row in rows]
    fields: dict[str, Any] = {
        "resolution": 4 << (len(rows) - 1), "label_dim": classes, "z_dim": latent - embed,
        "channels": variables.take("AggregationLayer.Layer.weight", None, None, 1, 1).shape[0],
        "blocks": blocks.pop(), "expansion": int(ratio), "num_bf16_res": _bfloat16_stages(G),
    }  # fmt: skip
    if classes:
        fields["embed_dim"] = embed
        judged = _labels(_variables(D, "D"))[0] if isinstance(D, PlainObject) else widths[0]
        fields["D_embed_dim"] = None if judged in (0, widths[0]) else judged
    _compare(G, fields)
    try:
        for preset in PRESETS:  # a published network goes by its name
            config = R3GANConfig.named(preset, **fields)
            if [(config.fmaps(side), config.groups_at(side)) for side in config.sides] == list(
                zip(widths, groups, strict=True)
            ):
                return config
        return R3GANConfig(**fields, widths=tuple(widths), groups=tuple(groups))
    except UsageError as error:
        raise NetworkError(f"its sizes make no sense: {error}") from None


def _compare(G: PlainObject, fields: dict[str, Any]) -> None:
    """Raise NetworkError where the numbers that a generator keeps are not those of its shapes."""
    kept = {"z_dim": "z_dim", "c_dim": "label_dim", "img_resolution": "resolution"}
    for theirs, ours in kept.items():
        if (said := G.state.get(theirs, fields[ours])) != fields[ours]:
            raise NetworkError(
                f"it has {theirs}={shown(said)}, but its shapes are those of {fields[ours]}"
            )


def _variables(network: PlainObject, what: str) -> Variables:
    """Return a network's arrays as it names them, without ``Model.``, filters compared and gone."""
    model = child_modules(network).get("Model")
    if not isinstance(model, PlainObject):
        raise NetworkError(f"{what} has no Model")
    arrays = module_arrays(model)
    for name in [name for name in arrays if name.endswith(".Resampler.Kernel")]:
        found = arrays.pop(name)
        if found.shape != _TAPS.shape or not np.allclose(found, _TAPS, atol=1e-6):
            raise NetworkError(f"{what} has a filter at {name} that is not [1 3 3 1]")
    return Variables(arrays, what)


def _stages(variables: Variables, first_block: int) -> list[tuple[int, int, int, int]]:
    """Return each stage's feature maps, those in the middle of a block, groups and blocks."""
    rows = []
    for stage in range(_MAX_STAGES + 1):
        layers = [f"MainLayers.{stage}.Layers.{first_block + i}" for i in range(_MAX_BLOCKS + 1)]
        found = [f"{layer}.LinearLayer1.Layer.weight" in variables for layer in layers]
        if not found[0]:
            break
        middle, maps = variables.take(
            f"{layers[0]}.LinearLayer1.Layer.weight", None, None, 1, 1
        ).shape[:2]
        inner = variables.take(f"{layers[0]}.LinearLayer2.Layer.weight", middle, None, 3, 3).shape[
            1
        ]
        if not maps or not inner or middle % inner:
            raise NetworkError(f"{variables.what} has blocks without feature maps")
        rows.append((maps, middle, middle // inner, [*found, False].index(False)))
    if not 1 <= len(rows) <= _MAX_STAGES:
        raise NetworkError(
            f"{variables.what} has {len(rows)} resolutions: 4 to 1024 px make 1 to {_MAX_STAGES}"
        )
    return rows


def _labels(variables: Variables) -> tuple[int, int]:
    """Return the width of a label's embedding and the number of classes; noughts without any."""
    if "EmbeddingLayer.weight" not in variables:
        return 0, 0
    embed, classes = variables.take("EmbeddingLayer.weight", None, None).shape
    return embed, classes


def _bfloat16_stages(G: PlainObject) -> int:
    """Return how many stages compute in bfloat16, as the type beside them says."""
    stages = child_modules(child_modules(child_modules(G).get("Model")).get("MainLayers"))
    return sum(
        isinstance(stage, PlainObject) and stage.state.get("DataType") == "bfloat16"
        for stage in stages.values()
    )


def _mirrors(D: Variables, config: R3GANConfig) -> bool:
    wanted = [
        (config.fmaps(side), config.expansion * config.fmaps(side), config.groups_at(side),
         config.blocks)
        for side in reversed(config.sides)
    ]  # fmt: skip
    return _stages(D, first_block=0) == wanted


def _blocks(variables: Variables, stage: int, side: int, first: int, count: int) -> Arrays:
    """Return the blocks of a stage in our names."""
    arrays: Arrays = {}
    for index in range(count):
        theirs = f"MainLayers.{stage}.Layers.{first + index}"
        ours = f"b{side}.blocks.{index}"
        for number in range(3):
            name = f"{theirs}.LinearLayer{number + 1}.Layer.weight"
            arrays[f"{ours}.conv{number}.weight"] = variables.take(name)
        for number in range(2):
            arrays[f"{ours}.bias{number}"] = variables.take(
                f"{theirs}.NonLinearity{number + 1}.Bias"
            )
    return arrays


def _generator(variables: Variables, config: R3GANConfig) -> Arrays:
    start = "MainLayers.0.Layers.0"
    synthesis: Arrays = {
        "start.basis": variables.take(f"{start}.Basis"),
        "start.dense.weight": variables.take(f"{start}.LinearLayer.weight"),
        "torgb.weight": variables.take("AggregationLayer.Layer.weight"),
    }
    for stage, side in enumerate(config.sides):
        synthesis |= _blocks(variables, stage, side, 1, config.blocks)
        if (change := f"MainLayers.{stage}.Layers.0.LinearLayer.Layer.weight") in variables:
            synthesis[f"b{side}.change.weight"] = variables.take(change)
    arrays = {f"synthesis.{name}": array for name, array in synthesis.items()}
    if config.label_dim:
        arrays["mapping.label.weight"] = variables.take("EmbeddingLayer.weight")
    variables.finish()
    return arrays


def _discriminator(variables: Variables, config: R3GANConfig) -> Arrays:
    arrays: Arrays = {"fromrgb.weight": variables.take("ExtractionLayer.Layer.weight")}
    for stage, side in enumerate(reversed(config.sides)):
        arrays |= _blocks(variables, stage, side, 0, config.blocks)
        last = f"MainLayers.{stage}.Layers.{config.blocks}"
        if (change := f"{last}.LinearLayer.Layer.weight") in variables:
            arrays[f"b{side}.change.weight"] = variables.take(change)
    arrays["head.basis"] = variables.take(f"{last}.Basis.weight", None, 1, 4, 4)[:, 0]
    arrays["head.dense.weight"] = variables.take(f"{last}.LinearLayer.weight", None, None)
    if config.label_dim:
        arrays["label.weight"] = variables.take("EmbeddingLayer.weight")
    variables.finish()
    return arrays
