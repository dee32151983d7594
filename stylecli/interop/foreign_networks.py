"""Foreign network files: which family a file is of, under which licence, and how to convert it.

    tree of plain values  ->  Family  ->  ForeignNetworks (configuration and arrays, our names)

Families that are recognised and not run yet are described all the same (``describe_foreign``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecli.errors import NetworkError
from stylecli.interop.converted import ForeignNetworks
from stylecli.interop.foreign_tree import PersistentModule, TFNetwork, read_foreign_tree
from stylecli.interop.huangzh13 import convert_huangzh13
from stylecli.interop.rosinality import convert_rosinality
from stylecli.interop.stand_ins import PlainObject
from stylecli.interop.tf_stylegan1 import convert_tf_triple
from stylecli.interop.tree_facts import child_modules, persistent_facts, plain_facts, tf_facts

_NVIDIA_BY_NC = "CC BY-NC 4.0 (NVIDIA); check the source if somebody else trained it"
_NVIDIA_OTHER = "NVIDIA's own are for non-commercial use; check the source if others trained it"
_UNKNOWN = "not in the file: whoever trained it decides; the program {program} is {licence}"


@dataclass(frozen=True)
class Family:
    """A kind of network file: what it is called, what is known of rights, what we can do."""

    name: str
    licence: str
    facts: Callable[[Any], dict[str, Any]]
    convert: Callable[[Any, str], ForeignNetworks] | None = None  # (tree, file name)


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
)
_LUCIDRAINS = Family(
    "StyleGAN2 (lucidrains/stylegan2-pytorch)",
    _UNKNOWN.format(program="lucidrains/stylegan2-pytorch", licence="MIT"),
    plain_facts,
)
_R3GAN = Family(
    "R3GAN", _UNKNOWN.format(program="brownvc/R3GAN", licence="mixed"), persistent_facts
)
_ADA = Family("StyleGAN2 (stylegan2-ada-pytorch)", _NVIDIA_OTHER, persistent_facts)
_STYLEGAN3 = {
    kind: Family(f"StyleGAN3-{kind}", _NVIDIA_OTHER, persistent_facts) for kind in ("T", "R")
}
_TF = {
    "G_style": Family("StyleGAN (NVIDIA, TensorFlow)", _NVIDIA_BY_NC, tf_facts, convert_tf_triple),
    "G_paper": Family("Progressive GAN (NVIDIA, TensorFlow)", _NVIDIA_BY_NC, tf_facts,
                      convert_tf_triple),
    "G_main": Family("StyleGAN2 (NVIDIA, TensorFlow)", _NVIDIA_OTHER, tf_facts),
}  # fmt: skip

# The second net: converters check what they take, and tests and the fuzzer call them without it.
_UNFORESEEN = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


def read_foreign_networks(path: Path) -> ForeignNetworks:
    """Read a foreign file and convert its networks, without running anything in it.

    Raises NetworkError for contents that are no network, families that are recognised and not run
    yet, and settings that our networks do not have.
    """
    tree = read_foreign_tree(path)
    family = recognise(tree, path)
    if family.convert is None:
        raise NetworkError(
            f"{path} holds a network of the family {family.name}: it is recognised and described "
            f"by stylecli info, running it comes later"
        )
    try:
        networks = family.convert(tree, path.name)
    except NetworkError as error:
        raise NetworkError(f"{path} ({family.name}) is not converted: {error}") from None
    except _UNFORESEEN as error:
        raise NetworkError(f"{path} ({family.name}) is damaged: {error}") from None
    networks.info = {
        "source": path.name,
        "source_family": family.name,
        "source_licence": family.licence,
        **networks.info,
    }
    return networks


def describe_foreign(path: Path) -> dict[str, Any]:
    """Return the family of a foreign file, its licence and its facts; run nothing in it."""
    tree = read_foreign_tree(path)
    family = recognise(tree, path)
    try:
        facts = family.facts(tree)
    except _UNFORESEEN as error:
        raise NetworkError(f"{path} ({family.name}) is damaged: {error}") from None
    return {
        "family": family.name,
        "drawn by this version": family.convert is not None,
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
            "a file of stylecli, StyleGAN, Progressive GAN, StyleGAN2 or StyleGAN3"
        )
    return family


def _of_tf(tree: Any) -> Family | None:
    if len(tree) != 3 or not all(isinstance(network, TFNetwork) for network in tree):
        return None
    build = tree[0].state.get("build_func_name")
    return _TF.get(build) if isinstance(build, str) else None


def _of_objects(tree: dict[Any, Any]) -> Family | None:
    G = tree.get("G_ema", tree.get("G"))
    if isinstance(G, PlainObject) and G.name == "training.networks.Generator":
        return _R3GAN
    if not isinstance(G, PersistentModule):
        return None
    children = child_modules(child_modules(G).get("synthesis"))
    if not children:
        return None
    if "input" not in children:
        return _ADA
    settings = G.state.get("_init_kwargs")
    radial = isinstance(settings, dict) and settings.get("use_radial_filters") is True
    return _STYLEGAN3["R" if radial else "T"]


def _of_names(tree: dict[Any, Any]) -> Family | None:
    if "GAN" in tree and "version" in tree:
        return _LUCIDRAINS
    inner = next((tree[key] for key in ("g_running", "g_ema") if key in tree), tree)
    if not isinstance(inner, dict):
        return None
    names = {str(name).removeprefix("module.") for name in inner}
    for sign, family in (
        ("generator.progression.0.conv1.input", _ROSINALITY_1),
        ("g_synthesis.init_block.epi1.style_mod.lin.weight", _HUANGZH13),
        ("final_block.dense1.weight", _HUANGZH13),
        ("conv1.conv.modulation.weight", _ROSINALITY_2),
    ):
        if sign in names:
            return family
    return None


def _outline(tree: Any) -> str:
    if isinstance(tree, dict):
        keys = ", ".join(str(key)[:40] for key in list(tree)[:3])
        return f"a dict of {len(tree)} entries that begins with {keys}" if tree else "an empty dict"
    return f"of type {type(tree).__name__}"
