"""Any foreign network file -> plain values, arrays and named objects, and what these say.

One allow-list serves every family: TensorFlow pickles of Progressive GAN, StyleGAN and StyleGAN2,
persistent modules of StyleGAN2-ADA and StyleGAN3, plain modules of R3GAN, and what ``torch.save``
writes. Source text inside a file is dropped unread.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.errors import NetworkError
from stylecli.interop.pickles import (
    Budget,
    Buildable,
    DamagedError,
    GlobalName,
    PickledArray,
    PlainDict,
    PlainObject,
    RefusedError,
    load_pickle,
    numpy_names,
    shown,
)
from stylecli.interop.torch_files import (
    MAGIC_PICKLE,
    PickledTensor,
    Storage,
    StorageKind,
    read_nested_storage,
    read_torch_stream,
    read_torch_zip,
    script_names,
    torch_names,
)
from stylecli.networks.config import NETWORK_NAMES

# ---- Any foreign network file -> plain values, arrays and named objects without behaviour.
#
# One allow-list serves the whole family: TensorFlow pickles of Progressive GAN, StyleGAN and
# StyleGAN2, persistent modules of StyleGAN2-ADA and StyleGAN3, plain modules of R3GAN, and what
# ``torch.save`` writes. Source text inside a file is dropped unread.

MAX_FILE_BYTES = 4 << 30
MAX_DEPTH = 100
SOURCE_TEXTS = frozenset(("build_module_src", "module_src"))
_R3GAN = {
    "training.networks": ("Generator", "Discriminator"),
    "R3GAN.Networks": (
        "Generator", "GeneratorStage", "GenerativeBasis", "UpsampleLayer", "Discriminator",
        "DiscriminatorStage", "DiscriminativeBasis", "DownsampleLayer", "ResidualBlock",
        "Convolution", "MultichannelLinear",
    ),
    "R3GAN.FusedOperators": ("BiasedActivation", "BiasedActivationCUDA",
                             "BiasedActivationReference"),
    "R3GAN.Resamplers": tuple(
        f"Interpolative{way}sampler{kind}"
        for way in ("Up", "Down") for kind in ("", "CUDA", "Reference")
    ),
    "torch.nn.modules.container": ("ModuleList", "Sequential"),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.linear": ("Linear",),
}  # fmt: skip


# Settings that people keep beside weights: classes of objects that hold values and do nothing.
_INERT_OBJECTS = {
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
}
_DICTS = {
    "dnnlib.util": "EasyDict", "easydict": "EasyDict", "collections": "OrderedDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
}  # fmt: skip
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_PLAIN_TYPES = ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")
_TORCH_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
                "uint8", "bool")  # fmt: skip


class TFNetwork(Buildable):
    """Stands for the ``Network`` of NVIDIA's TensorFlow programs."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def set_state(self, state: Any) -> None:
        """Take the state."""
        if not isinstance(state, dict):
            raise RefusedError("it holds a Network without a state")
        self.state = state


class PersistentModule:
    """Stands for a module of StyleGAN2-ADA or StyleGAN3: its class by name, and its attributes."""

    def __init__(self, meta: Any) -> None:
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise RefusedError("it holds a module in an unknown form")
        self.name = shown(meta.get("class_name"))
        self.version = meta.get("version")
        self.state: dict[str, Any] = meta["state"]


def read_foreign_tree(path: Path, *, torchscript: bool = False) -> Any:
    """Return what a foreign file holds: dicts, lists, tuples, numpy arrays, numbers and text.

    Objects become TFNetwork, PersistentModule or PlainObject; with ``torchscript`` so do the
    modules of a TorchScript program, whose text is not looked at. Needs at most about three times
    the file's size of memory plus 100 MB. Raises NetworkError for anything a network file does not
    need; no code in the file is run.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise NetworkError(
                f"{path} has {size:,} bytes: stylecli reads networks of at most 4 GiB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path} is not readable: {error}") from None
    return parse_foreign(content, path, torchscript=torchscript)


def parse_foreign(content: bytes, path: Path, *, torchscript: bool = False) -> Any:
    """Return what the bytes of a file hold, as ``read_foreign_tree`` does."""
    budget = Budget.of(len(content))
    try:
        return _Resolver(budget).resolve(_load(memoryview(content), budget, torchscript), 0)
    except RefusedError as refusal:
        raise NetworkError(f"cannot read {path}: {refusal}; nothing in it was run") from None
    except DamagedError as damage:
        raise NetworkError(f"{path} is damaged or not a network file: {damage}") from None


def _load(content: memoryview, budget: Budget, torchscript: bool) -> Any:
    if bytes(content[:4]) == b"PK\3\4":
        names = _network_names(budget)
        if torchscript:
            return read_torch_zip(content, script_names(names), budget, torchscript=True)
        return read_torch_zip(content, names, budget)
    if bytes(content[: len(MAGIC_PICKLE)]) == MAGIC_PICKLE:
        return read_torch_stream(content, _network_names(budget), budget)
    return load_pickle(content, _network_names(budget), budget)[0]


def _network_names(budget: Budget) -> dict[tuple[str, str], Any]:
    inner = torch_names()  # a storage inside a storage has no place

    def load_bytes(content: Any) -> Storage:
        return read_nested_storage(content, inner, budget)

    def as_object(name: str) -> GlobalName:
        return GlobalName(lambda *_: PlainObject(name))

    def dictionary(*items: Any) -> PlainDict:
        if items and items[0] not in ((), []):
            raise RefusedError("it fills a dict in an unexpected way")
        return PlainDict()

    def as_set(items: Any = ()) -> tuple[Any, ...]:
        budget.spend_opcodes(len(items) if isinstance(items, list | tuple) else 1)
        return tuple(items) if isinstance(items, list | tuple) else ()

    return {
        **numpy_names(budget),
        **torch_names(load_bytes),
        ("dnnlib.tflib.network", "Network"): GlobalName(TFNetwork),
        ("tfutil", "Network"): GlobalName(TFNetwork),
        ("network", "Network"): GlobalName(TFNetwork),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): GlobalName(PersistentModule),
        **{(module, name): GlobalName(dictionary) for module, name in _DICTS.items()},
        **{
            (module, name): GlobalName(as_set)
            for module in ("builtins", "__builtin__") for name in ("set", "frozenset")
        },
        **{(module, name): name for module in ("builtins", "__builtin__") for name in _PLAIN_TYPES},
        ("typing", "Any"): "Any",
        **{("torch", name): name for name in _TORCH_TYPES},
        **_setting_names(budget),
        **{
            (module, name): as_object(f"{module}.{name}")
            for classes in (_INERT_OBJECTS, _R3GAN)
            for module, names in classes.items()
            for name in names
        },
    }  # fmt: skip


def _setting_names(budget: Budget) -> dict[tuple[str, str], GlobalName]:
    """Return the stand-ins of values that settings hold: paths, counts and dates become plain."""

    def text_of(*parts: Any) -> str:
        words = [part for part in parts if isinstance(part, str)]
        budget.spend_text(sum(map(len, words)) * 4)
        return "/".join(words).replace("//", "/")

    def counter(counts: Any = (), *_: Any) -> PlainDict:
        if not isinstance(counts, dict):
            return PlainDict()
        budget.spend_opcodes(len(counts))
        return PlainDict(counts)

    def date(*parts: Any) -> str:
        return _date_text(parts[0] if parts else b"")

    def duration(*parts: Any) -> str:
        return " ".join(str(part) for part in parts if type(part) is int)[:100]

    return {
        **{(module, name): GlobalName(text_of)
           for module in ("pathlib", "pathlib._local") for name in _PATHS},
        ("torch.torch_version", "TorchVersion"): GlobalName(text_of),
        ("decimal", "Decimal"): GlobalName(text_of),
        ("collections", "Counter"): GlobalName(counter),
        ("collections", "defaultdict"): GlobalName(lambda *_: PlainDict()),
        ("collections", "deque"): GlobalName(lambda *_: []),
        **{("datetime", name): GlobalName(date) for name in ("datetime", "date", "time")},
        **{("datetime", name): GlobalName(duration) for name in ("timedelta", "timezone")},
    }  # fmt: skip


def _date_text(packed: Any) -> str:
    """Write the bytes in which dates are pickled as a date, a time or both."""
    content = bytes(packed[:10]) if isinstance(packed, bytes) else b""
    day = f"{int.from_bytes(content[:2])}-{content[2] & 0x7F:02d}-{content[3]:02d}" if (
        len(content) in (4, 10)) else ""  # fmt: skip
    rest = content[4:] if len(content) == 10 else content if len(content) == 6 else b""
    hours = f"{rest[0] & 0x7F:02d}:{rest[1]:02d}:{rest[2]:02d}" if rest else ""
    return f"{day} {hours}".strip()


class _Resolver:
    """Replaces stand-ins of arrays by arrays throughout; every shared value is visited once."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # what has an id in ``done`` must stay alive
        self.open: set[int] = set()

    def resolve(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, str | bytes | int | float):
            return value
        if isinstance(value, memoryview):  # a long text or byte string: source code, as a rule
            return None
        key = id(value)
        if key in self.done:
            return self.done[key]
        if depth > MAX_DEPTH or key in self.open:
            raise RefusedError("it is nested too deeply or holds itself")
        self.open.add(key)
        result = self._resolve(value, depth + 1)
        self.open.discard(key)
        self.done[key] = result
        self.kept.append(value)
        return result

    def _resolve(self, value: Any, depth: int) -> Any:
        match value:
            case PickledArray():
                if value.value is None:
                    raise RefusedError("it holds an array without data")
                return value.value
            case PickledTensor():
                return value.array(self.budget)
            case TFNetwork() | PersistentModule() | PlainObject():
                value.state = self._entries(value.state, depth)
                return value
            case dict():
                return self._entries(value, depth)
            case tuple() | list():
                return type(value)(self.resolve(item, depth) for item in value)
            case set():
                return tuple(sorted(value, key=repr))
            case Storage() | StorageKind() | GlobalName():
                return None  # torch keeps the class of a storage beside some tensors
        return value

    def _entries(self, items: dict[Any, Any], depth: int) -> dict[Any, Any]:
        return {
            key: None if key in SOURCE_TEXTS else self.resolve(item, depth)
            for key, item in items.items()
        }


# ---- What a foreign file says of its networks: resolution, parameters, settings.

Facts = dict[str, Any]
SETTINGS = ("args", "config", "cfg", "opt", "hparams", "hyper_parameters")  # keys people use
_UNTRAINED = ("lod", "dlatent_avg", "noise")  # TensorFlow variables that are not trained
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
    for name in NETWORK_NAMES:
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
    for name in NETWORK_NAMES:
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
