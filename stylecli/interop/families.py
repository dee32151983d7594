"""Foreign network files: of which family, under which licence, how to read and how to write them.

    tree of plain values  ->  unwrap  ->  Family  ->  ForeignNetworks (configuration and arrays,
    our names)

People save the same network in many wrappings: under a key, behind the prefixes that DataParallel
and torch.compile leave, beside counters and settings. ``unwrap`` takes all of that off.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.errors import NetworkError, UsageError, plural
from stylecli.interop.conversion import Arrays, ForeignNetworks
from stylecli.interop.huangzh13 import convert_huangzh13
from stylecli.interop.lucidrains import convert_lucidrains
from stylecli.interop.official_pytorch import (
    convert_snapshot,
    convert_stylegan3,
    has_flat_settings,
    write_nvidia,
)
from stylecli.interop.pickles import PlainObject
from stylecli.interop.r3gan import GENERATOR, convert_r3gan, r3gan_facts
from stylecli.interop.rosinality import convert_rosinality
from stylecli.interop.rosinality_stylegan2 import (
    AVERAGE,
    convert_rosinality2,
    rosinality2_arguments,
    write_rosinality2,
)
from stylecli.interop.tf_stylegan1 import convert_tf_discriminator, convert_tf_triple
from stylecli.interop.tf_stylegan2 import convert_tf_stylegan2
from stylecli.interop.trees import (
    SETTINGS,
    PersistentModule,
    TFNetwork,
    child_modules,
    persistent_facts,
    plain_facts,
    read_foreign_tree,
    tf_facts,
)
from stylecli.networks.config import NetworkConfig
from stylecli.networks.stylegan2_config import StyleGAN2Config
from stylecli.networks.stylegan3_config import StyleGAN3Config

_NVIDIA_BY_NC = "CC BY-NC 4.0 (NVIDIA); check the source if somebody else trained it"
_NVIDIA_OTHER = "NVIDIA's own are for non-commercial use; check the source if others trained it"
_UNKNOWN = "not in the file: ask whoever trained it; the program {program} is {licence}"


@dataclass(frozen=True)
class Family:
    """A kind of network file: what it is called, what is known of rights, what we can do."""

    name: str
    licence: str
    facts: Callable[[Any], dict[str, Any]]
    convert: Callable[[Any, str], ForeignNetworks]  # (tree, file name)


_ROSINALITY_1 = Family(
    "StyleGAN (rosinality/style-based-gan-pytorch)",
    _UNKNOWN.format(program="rosinality/style-based-gan-pytorch", licence="MIT"),
    plain_facts,
    convert_rosinality,
)
_HUANGZH13 = Family(
    "StyleGAN (huangzh13/StyleGAN.pytorch)",
    _UNKNOWN.format(program="huangzh13/StyleGAN.pytorch", licence="CC BY-NC 4.0"),
    plain_facts,
    convert_huangzh13,
)
_ROSINALITY_2 = Family(
    "StyleGAN2 (rosinality/stylegan2-pytorch)",
    _UNKNOWN.format(program="rosinality/stylegan2-pytorch", licence="MIT and NVIDIA's"),
    plain_facts,
    convert_rosinality2,
)
_LUCIDRAINS = Family(
    "StyleGAN2 (lucidrains/stylegan2-pytorch)",
    _UNKNOWN.format(program="lucidrains/stylegan2-pytorch", licence="MIT"),
    plain_facts,
    convert_lucidrains,
)
_R3GAN = Family(
    "R3GAN (brownvc/R3GAN)",
    "not in the file: ask whoever trained it; the program brownvc/R3GAN has no licence file, and "
    "parts of it derive from StyleGAN3, which is non-commercial",
    r3gan_facts,
    convert_r3gan,
)
_STYLEGAN2 = {
    repository: Family(
        f"StyleGAN2 (NVIDIA, {repository})", _NVIDIA_OTHER, persistent_facts, convert_snapshot
    )
    for repository in ("stylegan2-ada-pytorch", "stylegan3")
}
_STYLEGAN3 = {
    kind: Family(
        f"StyleGAN3-{kind} (NVIDIA, stylegan3)", _NVIDIA_OTHER, persistent_facts, convert_stylegan3
    )
    for kind in ("T", "R")
}
_TF = {
    "G_style": Family("StyleGAN (NVIDIA, TensorFlow)", _NVIDIA_BY_NC, tf_facts, convert_tf_triple),
    "G_paper": Family("Progressive GAN (NVIDIA, TensorFlow)", _NVIDIA_BY_NC, tf_facts,
                      convert_tf_triple),
    "G_main": Family("StyleGAN2 (NVIDIA, TensorFlow)", _NVIDIA_OTHER, tf_facts,
                     convert_tf_stylegan2),
}  # fmt: skip

# One tensor's name by which the state dict of each network is found, wherever it lies.
_GENERATORS = {
    "generator.progression.0.conv1.input": _ROSINALITY_1,
    "g_synthesis.init_block.epi1.style_mod.lin.weight": _HUANGZH13,
    "conv1.conv.modulation.weight": _ROSINALITY_2,
}
_DISCRIMINATORS = {
    "linear.linear.weight_orig": _ROSINALITY_1,
    "final_block.dense1.weight": _HUANGZH13,
    "final_linear.0.weight": _ROSINALITY_2,
}
# What PyTorch's wrappers put into names, at any place and in any order.
_WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module")
)
# Words in the keys above an average of weights; the counter is that of torch's AveragedModel.
_AVERAGES = frozenset(("ema", "running", "averaged", "average", "avg", "swa", "shadow", "gs"))
_AVERAGE_COUNTER = "n_averaged"
_BESIDE = (AVERAGE, "ada_aug_p")  # what rosinality's programs keep beside their networks
_DEEPEST, _MOST_DICTS = 3, 200  # levels and dicts that are looked into
_MOST_COPIES = 8  # networks of a kind in one dict

# The second net: converters check what they take, and tests and the fuzzer call them without it.
_UNFORESEEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


def read_foreign_networks(path: Path) -> ForeignNetworks:
    """Read a foreign file and convert its networks, without running anything in it.

    Raises NetworkError for contents that are no network, and for settings that our networks do not
    have.
    """
    tree = unwrap(read_foreign_tree(path), path)
    family = recognise(tree, path)
    try:
        networks = family.convert(tree, path.name)
    except NetworkError as error:
        raise NetworkError(f"cannot convert {path} ({family.name}): {error}") from None
    except _UNFORESEEN as error:
        raise NetworkError(f"{path} ({family.name}) is damaged: {error}") from None
    networks.info = {
        "source": path.name,
        "source_family": family.name,
        "source_licence": family.licence,
        **networks.info,
    }
    return networks


def read_foreign_classifier(path: Path) -> ForeignNetworks:
    """Read a file that holds one discriminator-like network, under ``D``: an official classifier.

    Raises NetworkError for anything else.
    """
    tree = read_foreign_tree(path)
    if not isinstance(tree, TFNetwork):
        raise NetworkError(f"{path} is not one network: expected a published classifier")
    try:
        return convert_tf_discriminator(tree)
    except NetworkError as error:
        raise NetworkError(f"{path} is not an attribute classifier: {error}") from None


def describe_foreign(path: Path) -> dict[str, Any]:
    """Return the family of a foreign file, its licence and its facts; run nothing in it."""
    tree = unwrap(read_foreign_tree(path), path)
    family = recognise(tree, path)
    try:
        facts = family.facts(tree)
    except _UNFORESEEN as error:
        raise NetworkError(f"{path} ({family.name}) is damaged: {error}") from None
    return {
        "family": family.name,
        "licence": family.licence,
        **facts,
    }


def recognise(tree: Any, path: Path) -> Family:
    """Return the family of what a file holds; raise NetworkError for anything unknown."""
    family = _of_tf(tree) if isinstance(tree, tuple | list) else None
    if isinstance(tree, dict):
        family = _of_objects(tree) or _of_names(tree)
    if family is None:
        raise NetworkError(
            f"{path} holds no network that this version knows (it is {_outline(tree)}): expected "
            "a file of stylecli, StyleGAN, Progressive GAN, StyleGAN2, StyleGAN3 or R3GAN"
        )
    return family


def _of_tf(tree: Any) -> Family | None:
    if len(tree) != 3 or not all(isinstance(network, TFNetwork) for network in tree):
        return None
    build = tree[0].state.get("build_func_name")
    return _TF.get(build) if isinstance(build, str) else None


def _of_objects(tree: dict[Any, Any]) -> Family | None:
    G = tree.get("G_ema", tree.get("G"))
    if isinstance(G, PlainObject) and G.name == GENERATOR:
        return _R3GAN
    if not isinstance(G, PersistentModule):
        return None
    children = child_modules(child_modules(G).get("synthesis"))
    if not children:
        return None
    if "input" not in children:
        return _STYLEGAN2["stylegan3" if has_flat_settings(G) else "stylegan2-ada-pytorch"]
    settings = G.state.get("_init_kwargs")
    radial = isinstance(settings, dict) and settings.get("use_radial_filters") is True
    return _STYLEGAN3["R" if radial else "T"]


def _of_names(tree: dict[Any, Any]) -> Family | None:
    if "GAN" in tree and "version" in tree:
        return _LUCIDRAINS
    keys = ("g_running", "g_ema", "generator", "discriminator")
    inner = next((tree[key] for key in keys if key in tree), tree)
    if not isinstance(inner, dict):
        return None
    signs = {**_GENERATORS, **_DISCRIMINATORS}
    return next((family for sign, family in signs.items() if sign in inner), None)


@dataclass(frozen=True)
class _Part:
    """The state dict of one network, and the words of the keys and prefix that led to it."""

    role: str  # "g_running" for an average, "generator" or "discriminator"
    family: Family
    arrays: Arrays
    where: str


def unwrap(tree: Any, path: Path) -> Any:
    """Return what a file holds in the form that its own program writes, without wrappings.

    State dicts come back as {g_running, generator, discriminator} or, where one stands alone and
    bare, as itself; their names have no wrapper's prefix, and counters are gone. What is recognised
    in no way comes back as it is. Raises NetworkError where two networks could be meant.
    """
    if isinstance(tree, PersistentModule):
        return {"G_ema": tree}
    if not isinstance(tree, dict) or _of_objects(tree):
        return tree
    if _of_names(tree) is _LUCIDRAINS:
        return tree
    parts: dict[str, _Part] = {}
    for part in _parts(tree, path):
        first = parts.setdefault(part.role, part)
        if first is part or part.role == "discriminator" or _same(first.arrays, part.arrays):
            continue  # an average of a discriminator is nothing that is drawn or trained on
        raise NetworkError(
            f"{path} holds two networks, at {_shown_key(first.where)} and "
            f"{_shown_key(part.where)}: save one of them alone"
        )
    if not parts:
        inner = next(
            (value for value in tree.values() if isinstance(value, PersistentModule)), None
        )
        return tree if inner is None else {"G_ema": inner}
    if len(parts) == 1 and not (only := next(iter(parts.values()))).where:
        return only.arrays
    settings = {key: tree[key] for key in (*SETTINGS, *_BESIDE) if key in tree}
    return {role: part.arrays for role, part in parts.items()} | settings


def _parts(tree: dict[Any, Any], path: Path) -> Iterator[_Part]:
    """Yield every network's state dict in nested dicts, each dict once."""
    waiting: list[tuple[dict[Any, Any], str, int]] = [(tree, "", 0)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_DICTS:
        inner, where, depth = waiting.pop(0)
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        yield from _parts_here(inner, where, path)
        waiting += [
            (value, f"{where}{key}.", depth + 1)
            for key, value in inner.items()
            if isinstance(value, dict) and isinstance(key, str) and depth < _DEEPEST
        ]


def _same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def _parts_here(inner: dict[Any, Any], where: str, path: Path) -> Iterator[_Part]:
    arrays: Arrays = {}
    for name, value in inner.items():
        if isinstance(name, str) and isinstance(value, np.ndarray):
            bare = ".".join(word for word in name.split(".") if word not in _WRAPPERS)
            if bare in arrays:
                raise NetworkError(f"{path} names the tensor {_shown_key(bare)} twice")
            arrays[bare] = value
    for signs, generates in ((_GENERATORS, True), (_DISCRIMINATORS, False)):
        for sign, family in signs.items():
            # A stranger's file may have any number: each costs a look at all names.
            found = [name for name in arrays if name == sign or name.endswith("." + sign)]
            for name in found[:_MOST_COPIES]:
                prefix = name[: -len(sign)]
                words = set(re.split(r"[^a-z0-9]+", (where + prefix).lower()))
                average = bool(words & _AVERAGES) or _AVERAGE_COUNTER in inner
                role = "g_running" if average else "generator"
                own = {
                    other[len(prefix) :]: array
                    for other, array in arrays.items()
                    if other.startswith(prefix) and not _is_counter(other, array)
                }
                yield _Part(role if generates else "discriminator", family, own, where + prefix)


def _is_counter(name: str, array: Any) -> bool:
    return array.size <= 1 and (array.dtype.kind in "iub" or "." not in name)


def _shown_key(where: str) -> str:
    return repr(where[:80].rstrip(".")) if where else "the top"


def _outline(tree: Any) -> str:
    if isinstance(tree, dict):
        keys = ", ".join(str(key)[:40] for key in list(tree)[:3])
        return (
            f"a dict of {plural(len(tree), 'entry', 'entries')} that starts with {keys}"
            if tree
            else "an empty dict"
        )
    return f"of type {type(tree).__name__}"


# ---- the inverse: our networks as other programs name them

LAYOUTS = ("nvidia", "rosinality")


def write_state_dict(
    name: str, arrays: Arrays, config: NetworkConfig, layout: str
) -> tuple[Arrays, dict[str, Any]]:
    """Return a network's state dict, and what builds its module there.

    ``name`` is G_ema, G or D, ``arrays`` its state dict here. Raises UsageError for a family, or a
    switch of one, that the other program does not have.
    """
    if not config.grid.is_usual:
        raise UsageError(
            f"layout {layout} is for programs that draw square pictures, and this network draws "
            f"{config.size} px: stylecli export onnx writes it for others"
        )
    if layout == "rosinality" and isinstance(config, StyleGAN2Config):
        return write_rosinality2(name, arrays, config), rosinality2_arguments(name, config)
    if layout == "nvidia" and isinstance(config, StyleGAN2Config | StyleGAN3Config):
        return write_nvidia(name, arrays, config)
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: expected {' or '.join(LAYOUTS)}")
    of = "StyleGAN2 and StyleGAN3" if layout == "nvidia" else "StyleGAN2"
    raise UsageError(
        f"a network of configuration {config.preset!r} has no place in layout {layout}, which is "
        f"for {of}: stylecli convert writes any network as safetensors"
    )
