"""The cache of feature networks: where it is, what is in it, whether that is still whole.

One folder holds them, ``$STYLECLI_CACHE`` or ``~/.cache/stylecli``: ``weights/<name>.safetensors``
beside ``weights/<name>.json``, which records the file they were read from and its SHA-256. The
folder is the user's own: made for nobody else, and what others own or may write is not loaded.
Nothing is downloaded unasked: a network comes from a package that is installed, from a file that
``stylecli weights add`` was given, or from ``stylecli weights fetch``.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.errors import DataError, StyleCLIError, UsageError, WeightsError
from stylecli.feature_networks import NETWORKS as NETWORKS  # known as weights.NETWORKS too
from stylecli.feature_networks import FeatureNetwork
from stylecli.files import read_json, replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CACHE_VARIABLE = "STYLECLI_CACHE"
_FOLDER = "weights"


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


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``$STYLECLI_CACHE`` or the default.

    A user without a home folder, as in some containers, has it among the temporary files.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser() if given.startswith("~") else Path(given)
    try:
        return Path.home() / ".cache" / "stylecli"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"stylecli-{os.getuid()}"


def private_folder(name: str) -> Path:
    """Return a folder of the cache, made where it is missing, for this user alone (mode 0700).

    Raises OSError where that cannot be, RuntimeError where there is no home folder.
    """
    folder = cache_folder() / name
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not whose(folder) and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def keep_private(path: Path) -> None:
    """Let nobody else read or write a file of the cache, whatever the umask."""
    path.chmod(0o600)


def whose(path: Path) -> str:
    """Say why a file of the cache, or its folder, is not this user's own; empty where it is.

    What somebody else can write is code that a GPU runs, or numbers that others believe: it is not
    loaded. What root owns is trusted, as root is. Raises OSError where there is no such file.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps profiles apart
        return ""
    for each in (path, path.parent) if path.is_file() else (path,):
        state = each.stat()
        if state.st_uid not in (os.geteuid(), 0):
            return f"{each} belongs to another user"
        if state.st_mode & 0o022:
            return f"{each} can be written by others"
    return ""


def _check_own(path: Path) -> None:
    if reason := whose(path):
        raise WeightsError(
            f"{path} is not loaded, because {reason}: run chmod -R go-w {path.parent} if the files "
            f"are yours, or set {CACHE_VARIABLE} to a folder of your own"
        )


def find_feature_network(name: str) -> FeatureNetwork:
    """Return the registry's entry; raise UsageError for a name that is not in it."""
    if name not in NETWORKS:
        raise UsageError(f"feature network {name!r} is unknown: expected {', '.join(NETWORKS)}")
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
    """Hash the cached weights of ``name`` anew and return their record, None if there are none.

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
