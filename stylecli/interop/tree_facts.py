"""What a foreign file says of its networks: resolution, parameters, settings."""

import re
from typing import Any

import numpy as np

from stylecli.interop.foreign_tree import PersistentModule, TFNetwork
from stylecli.interop.stand_ins import PlainObject

Facts = dict[str, Any]
SETTINGS = ("args", "config", "cfg", "opt", "hparams", "hyper_parameters")  # keys people use
_UNTRAINED = ("lod", "dlatent_avg", "noise")  # TensorFlow variables that are not trained
_NETWORKS = ("G_ema", "G", "D")
_TO_RGB = re.compile(r"to_rgbs\.\d+\.conv\.weight")
_MAX_COLOURS = 12
_MAX_PARTS = 20
_MAX_SHOWN, _MAX_DEPTH = 1_000, 6


def tf_facts(tree: Any) -> Facts:
    """Describe the triple (G, D, Gs) of a TensorFlow pickle."""
    named = dict(zip(("G", "D", "G_ema"), tree, strict=True))
    settings = {
        name: _shown(network.state.get("static_kwargs"))
        for name, network in named.items()
        if name != "G_ema"
    }
    given = settings["G"] if isinstance(settings["G"], dict) else {}
    facts: Facts = {
        "resolution": given.get("resolution"), "channels": given.get("num_channels"),
        "classes": given.get("label_size"),
    }  # fmt: skip
    for name in _NETWORKS:
        facts[f"{name} parameters"] = _count_tf(named[name], set())
    facts["state version"] = _shown(tree[0].state.get("version"))
    facts["build functions"] = [_shown(network.state.get("build_func_name")) for network in tree]
    return {**facts, "settings": settings}


def _count_tf(network: TFNetwork, seen: set[int]) -> int:
    if id(network) in seen:
        return 0
    seen.add(id(network))
    variables = network.state.get("variables")
    if id(variables) in seen:
        return 0
    seen.add(id(variables))
    own = sum(
        array.size
        for entry in (variables if isinstance(variables, list | tuple) else ())
        if isinstance(entry, tuple | list) and len(entry) == 2
        for name, array in [entry]
        if isinstance(array, np.ndarray) and not str(name).startswith(_UNTRAINED)
    )
    components = network.state.get("components")
    inner = components.values() if isinstance(components, dict) else ()
    return own + sum(_count_tf(part, seen) for part in inner if isinstance(part, TFNetwork))


def persistent_facts(tree: Any) -> Facts:
    """Describe a snapshot of StyleGAN2-ADA, StyleGAN3 or R3GAN."""
    G = tree.get("G_ema", tree.get("G"))
    settings = {
        name: _shown(tree[name].state.get("_init_kwargs"))
        for name in ("G_ema", "D")
        if isinstance(tree.get(name), PersistentModule)
    }
    state = G.state
    facts: Facts = {
        "resolution": state.get("img_resolution"), "channels": state.get("img_channels"),
        "classes": state.get("c_dim"), "z_dim": state.get("z_dim"), "w_dim": state.get("w_dim"),
        "layers": state.get("num_ws"),
    }  # fmt: skip
    facts = {name: _shown(value) for name, value in facts.items() if value is not None}
    for name in _NETWORKS:
        if isinstance(tree.get(name), PersistentModule | PlainObject):
            facts[f"{name} parameters"] = _count_module(tree[name], set())
    if isinstance(tree.get("cur_nimg"), int):
        facts["cur_nimg"] = tree["cur_nimg"]
    facts["settings"] = settings
    data = tree.get("training_set_kwargs")
    if isinstance(data, dict):
        facts["dataset"] = _shown(data)
    return facts


def child_modules(module: Any) -> dict[Any, Any]:
    """Return a module's children by name; none for anything else."""
    children = (
        module.state.get("_modules") if isinstance(module, PersistentModule | PlainObject) else None
    )
    return children if isinstance(children, dict) else {}


def _count_module(module: Any, seen: set[int]) -> int:
    if id(module) in seen or not isinstance(module, PersistentModule | PlainObject):
        return 0
    seen.add(id(module))
    own = module.state.get("_parameters")
    if id(own) in seen:
        return 0
    seen.add(id(own))
    count = sum(
        array.size
        for array in (own.values() if isinstance(own, dict) else ())
        if isinstance(array, np.ndarray)
    )
    return count + sum(_count_module(child, seen) for child in child_modules(module).values())


def plain_facts(tree: Any) -> Facts:
    """Describe state dicts: how many numbers each holds; of rosinality's StyleGAN2 the size too."""
    parts = {name: part for name, part in tree.items() if isinstance(part, dict)}
    if not parts or any(isinstance(value, np.ndarray) for value in tree.values()):
        parts = {"network": tree}
    facts: Facts = {}
    for name, part in list(parts.items())[:_MAX_PARTS]:  # one dict may stand under many names
        arrays = {key: value for key, value in part.items() if isinstance(value, np.ndarray)}
        if arrays:
            facts[f"{str(name)[:60]} numbers"] = sum(array.size for array in arrays.values())
        colours = sum(_TO_RGB.fullmatch(str(key)) is not None for key in arrays)
        if 0 < colours < _MAX_COLOURS:
            facts["resolution"] = 4 << colours
    for name in SETTINGS:
        kept = tree.get(name)
        if isinstance(kept, PlainObject | dict):
            facts["settings"] = _shown(kept.state if isinstance(kept, PlainObject) else kept)
            break
    return facts


def _shown(value: Any) -> Any:
    """Return settings as JSON values; arrays by their values if few, else by their shape.

    After a thousand values "…" stands for the rest: a dict met along many ways counts every time.
    """
    left = _MAX_SHOWN

    def show(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            return "…"
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            items = list(value.items())[: max(0, left)]
            return {str(key)[:100]: show(item, depth + 1) for key, item in items}
        if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
            return [show(item, depth + 1) for item in value[: max(0, left)]]
        if isinstance(value, np.ndarray):
            return value.tolist() if value.size <= 16 else f"array {list(value.shape)}"
        if value is None or isinstance(value, bool | int | float):
            return value
        return str(value)[:200] if isinstance(value, str | bytes) else type(value).__name__

    return show(value, 0)
