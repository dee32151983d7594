"""Networks and datasets on the Hugging Face hub: addresses, the cache, what comes down and goes up.

``hub:owner/name`` names a network wherever a network is named, ``hub:datasets/owner/name`` a
dataset. All talking is done through ``huggingface_hub`` (the extra ``hub``), with its tokens: none
is ever read, printed or kept here. What comes down is one file, of a known kind and size, whose
hash the hub has stated before; its name there decides about no path here. A network is kept in
``hub/`` of the cache folder and used from there without asking again, until ``stylecli hub pull``.
"""

import contextlib
import hashlib
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stylecli import __version__
from stylecli.cache_folder import CACHE_VARIABLE, cache_folder, keep_private, private_folder, whose
from stylecli.errors import DataError, NetworkError, StyleCLIError, UsageError, plural
from stylecli.files import OwnerLock, read_json, room_for, write_json
from stylecli.progress import Progress, format_bytes, silent

PREFIX = "hub:"
NETWORK_FILE = "network.safetensors"  # as push calls it
DATASET_FILE = "data.mdb"
_SITE = "https://huggingface.co/"
_FOLDER, _RECORD, _HEADS = "hub", "record.json", "heads.json"
_ADDRESS = re.compile(
    r"(?P<kind>datasets/)?(?P<owner>[A-Za-z0-9][\w.-]{0,95})/(?P<name>[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][\w./-]{0,99}))?(?::(?P<file>[^:]{1,250}))?",
    re.ASCII,
)
_FILE = re.compile(r"[A-Za-z0-9_][\w.+=-]*(/[A-Za-z0-9_][\w.+=-]*){0,8}", re.ASCII)
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".model")
_MOST_BYTES = {"network": 8 << 30, "dataset": 1 << 40}
_CHUNK = 1 << 20
_ATTEMPTS = 3  # of a connection that breaks
_TIMEOUT_SECONDS = 30.0
_SECRET = re.compile(r"hf_\w+|Bearer\s+\S+|(?<=://)[^/@\s]+@", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """A repository on the hub, at a revision, and a file of it."""

    owner: str
    name: str
    kind: str = "network"  # or dataset
    revision: str | None = None  # a branch, a tag or a commit; None: the main branch
    file: str | None = None  # None: the usual one

    @property
    def repository(self) -> str:
        """How the hub calls it."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{kind}{self.repository}{revision}{f':{self.file}' if self.file else ''}"

    @property
    def error(self) -> type[StyleCLIError]:
        """What is raised where it cannot be used."""
        return DataError if self.kind == "dataset" else NetworkError


@dataclass(frozen=True)
class Remote:
    """A file on the hub, as the hub describes it before it is fetched."""

    address: Address
    commit: str  # 40 hex digits
    file: str
    size: int  # bytes
    sha256: str | None  # of large files
    blob: str | None  # git's SHA-1, of small ones


@dataclass(frozen=True)
class Record:
    """What the cache knows of a network; written as JSON beside it."""

    address: str
    endpoint: str
    commit: str
    file: str
    size: int
    sha256: str
    path: str = ""  # of the file here; not in the JSON


def is_address(path: Path | str) -> bool:
    """Tell whether a path is an address on the hub and no file or folder here."""
    text = path.as_posix() if isinstance(path, Path) else path
    return text.startswith(PREFIX) and not os.path.lexists(text)


def parse_address(text: Path | str) -> Address:
    """Return what an address names; raise UsageError for one that cannot be read.

    ``hub:`` may be missing, and the hub's own page may be given.
    """
    text = text.as_posix() if isinstance(text, Path) else text
    plain = text.removeprefix(PREFIX).removeprefix(_SITE).rstrip("/")
    found = _ADDRESS.fullmatch(plain)
    parts = (found["owner"], found["name"]) if found else ("..", "..")
    strange = any(".." in part or "--" in part or part[-1:] in "-." for part in parts)
    if found is None or strange or ".." in (found["revision"] or ""):
        raise UsageError(
            f"cannot read {_SECRET.sub('***', text)!r} as an address on the hub: expected "
            "OWNER/NAME, or datasets/OWNER/NAME, then @REVISION and :FILE where they matter"
        )
    kind = "dataset" if found["kind"] else "network"
    if found["file"] is not None and not _is_plain(found["file"]):
        raise UsageError(f"{found['file']!r} is no name of a file that is taken from the hub")
    return Address(found["owner"], found["name"], kind, found["revision"], found["file"])


def _is_plain(file: str) -> bool:
    """Tell whether a name on the hub is harmless wherever it is written or printed."""
    return bool(_FILE.fullmatch(file)) and ".." not in file and len(file) <= 250


def dataset_folder(path: Path) -> Path | None:
    """Return the folder of the dataset that a path, or its ``data.mdb``, names; None for others."""
    home = path.parent if path.name == DATASET_FILE else path
    return home if (home / DATASET_FILE).is_file() else None


# ---- the cache


def find_cached(address: Address) -> Record | None:
    """Return the network of an address where the cache has it, undamaged; None where it does not.

    Raises NetworkError for a file that is not the one that was fetched, or not this user's own.
    """
    repository = _repository_folder(address)
    heads = _read(repository / _HEADS)
    head = address.revision or "main"
    commit = head if _COMMIT.fullmatch(head) else heads.get(head)
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        return None
    folder = repository / _place(commit, address.file)
    values, path = _read(folder / _RECORD), folder / _local_name(address)
    kinds = {item.name: int if item.name == "size" else str for item in fields(Record)}
    if any(not isinstance(values.get(name), kinds[name]) for name in kinds if name != "path"):
        return None
    if not path.is_file():
        return None
    for each in (path, folder / _RECORD):
        if reason := whose(each):
            raise NetworkError(
                f"{each} is not loaded, because {reason}: run chmod -R go-w {folder} if the files "
                f"are yours, or set {CACHE_VARIABLE} to a folder of your own"
            )
    record = Record(**{name: values[name] for name in kinds if name != "path"}, path=str(path))
    if path.stat().st_size != record.size or _sha256(path) != record.sha256:
        raise NetworkError(
            f"{path} is not the file that was fetched: run stylecli hub pull {address} --force"
        )
    return record


def name_of(path: Path) -> str | None:
    """Return the address, with its commit, of a file that the cache has from the hub; else None."""
    with contextlib.suppress(ValueError, RuntimeError, OSError):
        if len(path.resolve().relative_to((cache_folder() / _FOLDER).resolve()).parts) == 3:
            values = _read(path.parent / _RECORD)
            with contextlib.suppress(UsageError):
                address = parse_address(str(values.get("address")))
                if path.name == _local_name(address) and not whose(path):
                    return str(Address(address.owner, address.name, address.kind,
                                       str(values.get("commit")), address.file))  # fmt: skip
    return None


def open_network(address: Address, progress: Progress = silent) -> Record:
    """Return the network of an address from the cache; fetch it first where it is not there."""
    return find_cached(address) or pull_network(address, progress=progress)


def pull_network(address: Address, *, force: bool = False, progress: Progress = silent) -> Record:
    """Bring what the hub has at an address now into the cache, where it is not there already.

    Raises NetworkError where the hub cannot be reached or refuses, holds no network that is taken,
    or sends another file than it said. What has come by then is kept and continued.
    """
    remote = look_up(address)
    repository = _repository_folder(address)
    pinned = Address(address.owner, address.name, address.kind, remote.commit, address.file)
    known = None if force else find_cached(pinned)
    if known is None:
        private_folder(_FOLDER)
        folder = repository / _place(remote.commit, address.file)
        for each in (repository, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = OwnerLock(folder)
        try:
            path = folder / _local_name(address)
            sha256 = receive(remote, path, progress)
            keep_private(path)
            record = Record(str(address), _endpoint(), remote.commit, remote.file, remote.size,
                            sha256, str(path))  # fmt: skip
            write_json(folder / _RECORD, {**asdict(record), "path": None})
            keep_private(folder / _RECORD)
        finally:
            lock.release()
        known = record
    heads = _read(repository / _HEADS) | {address.revision or "main": remote.commit}
    write_json(repository / _HEADS, heads)
    keep_private(repository / _HEADS)
    return known


def _repository_folder(address: Address) -> Path:
    # Names on the hub differ by case, which some disks do not.
    key = f"{_endpoint()} {address.kind} {address.repository}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return cache_folder() / _FOLDER / f"{address.owner}--{address.name}-{digest}"


def _place(commit: str, file: str | None) -> str:
    chosen = f"-{hashlib.sha256(file.encode()).hexdigest()[:8]}" if file else ""
    return commit[:16] + chosen


def _local_name(address: Address) -> str:
    return f"{address.name}.safetensors"


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, DataError):
        if not whose(path):
            values: dict[str, Any] = read_json(path)
            return values
    return {}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- the hub


def _server() -> str:
    return (os.environ.get("HF_ENDPOINT") or _SITE).rstrip("/")


def _endpoint() -> str:
    """Return the server's address as it may be shown and kept: without a password in it."""
    return _SECRET.sub("", _server())


def _library() -> Any:
    """Return ``huggingface_hub``; raise UsageError where it is not installed.

    It neither draws bars nor logs, and says of this machine no more than the hub needs.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is imported
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise UsageError(
            "the hub needs the package huggingface_hub: pip install 'stylecli[hub]'"
        ) from None
    with contextlib.suppress(Exception):  # HF_HUB_DISABLE_PROGRESS_BARS may forbid it, with a word
        disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    return huggingface_hub


def _api() -> Any:
    return _library().HfApi(_server(), library_name="stylecli", library_version=__version__)


def look_up(address: Address) -> Remote:
    """Ask the hub which file an address means: its commit, size and hash.

    Raises NetworkError, or DataError for a dataset: no such repository or no right to it, no file
    of the kind, or one of an impossible size; UsageError without ``huggingface_hub``.
    """
    api = _api()
    with _explained(address):
        info = api.repo_info(
            address.repository, repo_type=_repo_type(address), revision=address.revision,
            files_metadata=True, timeout=_TIMEOUT_SECONDS,
        )  # fmt: skip
        commit, siblings = str(info.sha), list(info.siblings or ())
        names = [str(each.rfilename) for each in siblings]
    file = _choose(address, names)
    with _explained(address):
        found = siblings[names.index(file)]
        large = found.lfs
        size = int(large.size if large is not None else found.size)
        sha256 = str(large.sha256).lower() if large is not None else None
        blob = str(found.blob_id).lower() if found.blob_id else None
    stated = _SHA256.fullmatch(sha256) if sha256 is not None else _COMMIT.fullmatch(blob or "")
    if not _COMMIT.fullmatch(commit) or not stated:
        raise address.error(f"the hub states no hash of {file} in {address}: it is not fetched")
    most = _MOST_BYTES[address.kind]
    if not 0 < size <= most:
        raise address.error(
            f"{file} of {address} has {plural(size, 'byte')}: no {address.kind} is empty or over "
            f"{format_bytes(most)}"
        )
    return Remote(address, commit, file, size, sha256, blob)


def _choose(address: Address, names: list[str]) -> str:
    """Return the file that is meant; raise an error that says what is there instead."""
    suffix = ".mdb" if address.kind == "dataset" else ".safetensors"
    usual = DATASET_FILE if address.kind == "dataset" else NETWORK_FILE
    taken = sorted(name for name in names if name.endswith(suffix) and _is_plain(name))
    if address.file is not None:
        if address.file in taken:
            return address.file
        near = f"it has {', '.join(taken[:5])}" if taken else f"it has no {suffix} file"
        raise address.error(f"{address} has no file {address.file} of that kind: {near}")
    if usual in taken:
        return usual
    if len(taken) == 1:
        return taken[0]
    if taken:
        raise address.error(
            f"{address} has {plural(len(taken), 'file')} of the kind {suffix}: name one, such as "
            f"{address}:{taken[0]}"
        )
    pickles = [name for name in names if name.lower().endswith(_PICKLES) and _is_plain(name)]
    if pickles and address.kind == "network":
        raise address.error(
            f"{address} has no .safetensors file, only {plural(len(pickles), 'pickle')} such as "
            f"{pickles[0]}: pickles are not taken from the hub; download it yourself, then run "
            "stylecli convert"
        )
    strange = sum(name.endswith(suffix) for name in names)
    why = "names that are not taken" if strange else "nothing else"
    raise address.error(
        f"{address} has no {suffix} file that stylecli reads: {plural(len(names), 'file')}, "
        f"{why if names else 'it is empty'}"
    )


def receive(remote: Remote, path: Path, progress: Progress = silent) -> str:
    """Fetch a file to ``path``, continue what came of it before, and return its SHA-256.

    The file gets its name once it has the size and the hash that the hub stated; another one is
    removed. ``progress`` counts megabytes. Raises NetworkError or DataError.
    """
    part = path.with_name(f"{(remote.sha256 or remote.blob or '')[:16]}.part")
    for attempt in range(_ATTEMPTS):
        try:
            with room_for(path, remote.size - _size(part)):
                _receive(remote, part, progress)
            break
        except StyleCLIError:
            raise
        except Exception as error:
            if attempt + 1 == _ATTEMPTS or not _may_pass(error):
                kept = _size(part)
                more = f"; {format_bytes(kept)} are kept: run the same command to continue"
                with _explained(remote.address, more if kept else ""):
                    raise
        time.sleep(0.5 * 2**attempt)
    sha256 = _sha256(part)
    right = sha256 == remote.sha256 if remote.sha256 else _blob_hash(part) == remote.blob
    if not right:
        part.unlink()
        raise remote.address.error(
            f"{remote.file} of {remote.address} came with SHA-256 {sha256[:16]}..., not with the "
            "hash that the hub states: it is not kept; run the same command to start over"
        )
    part.replace(path)
    return sha256


def _receive(remote: Remote, part: Path, progress: Progress) -> None:
    """Add what is missing to ``part``; raise OSError where the connection ends too early."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    have = _size(part)
    if have > remote.size:
        part.unlink()
        have = 0
    if have == remote.size:
        return
    headers = build_hf_headers(library_name="stylecli", library_version=__version__)
    headers["Accept-Encoding"] = "identity"
    if have:
        headers["Range"] = f"bytes={have}-"
    url = hf_hub_url(remote.address.repository, remote.file, revision=remote.commit,
                     repo_type=_repo_type(remote.address), endpoint=_server())  # fmt: skip
    # Redirected to another host, the session leaves out the token.
    with get_session().stream(
        "GET", url, headers=headers, timeout=_TIMEOUT_SECONDS, follow_redirects=True
    ) as response:
        hf_raise_for_status(response)
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        have = have if response.status_code == 206 and start and int(start[1]) == have else 0
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            for chunk in response.iter_bytes():  # as they come, so that none is lost
                have += len(chunk)
                if have > remote.size:
                    file.truncate(0)
                    raise remote.address.error(
                        f"{remote.file} of {remote.address} does not end at the stated size, "
                        f"{format_bytes(remote.size)}: it is not kept"
                    )
                file.write(chunk)
                progress(have / 1e6, remote.size / 1e6)
    if have < remote.size:
        raise ConnectionError(f"it ended after {have:,} of {plural(remote.size, 'byte')}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _blob_hash(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Pushed:
    """What a repository has after a push."""

    address: str
    page: str
    commit: str
    files: Mapping[str, str]  # name -> SHA-256 of the content


def require_login(address: Address) -> None:
    """Raise NetworkError or DataError where there is no token, without which nothing is written."""
    if _library().get_token() is None:
        raise address.error(
            f"nobody is logged in to the hub, so {address} cannot be written: run hf auth login, "
            "or set HF_TOKEN"
        )


def push(
    address: Address, files: Mapping[str, Path], *, private: bool = False, message: str
) -> Pushed:
    """Put files into a repository, which is made where it is missing, as one commit.

    What the hub has already is not sent again, so the same push continues one that broke off.
    Afterwards the hub is asked for the hashes of all of them. Raises NetworkError or DataError: not
    logged in, no right to write, the hub not reached, or another file there than here.
    """
    require_login(address)
    library = _library()
    digests = {name: _sha256(path) for name, path in files.items()}
    with _explained(address, "; nothing was published: run the same command to continue"):
        api, kind = _api(), _repo_type(address)
        api.create_repo(address.repository, repo_type=kind, private=private or None, exist_ok=True)
        api.create_commit(
            address.repository,
            [library.CommitOperationAdd(name, str(path)) for name, path in files.items()],
            commit_message=message, repo_type=kind, revision=address.revision,
        )  # fmt: skip
        info = api.repo_info(address.repository, repo_type=kind, revision=address.revision,
                             files_metadata=True, timeout=_TIMEOUT_SECONDS)  # fmt: skip
        there = {each.rfilename: each for each in info.siblings or ()}
        commit = str(info.sha)
    for name, path in files.items():
        found = there.get(name)
        if found is not None and found.lfs is not None:
            same = found.lfs.sha256 == digests[name]
        else:
            same = found is not None and found.blob_id == _blob_hash(path)
        if not same:
            raise address.error(
                f"{name} of {address} is another file on the hub than here: run the same command "
                "again"
            )
    kind = "datasets/" if address.kind == "dataset" else ""
    return Pushed(str(address), f"{_endpoint()}/{kind}{address.repository}", commit, digests)


def _repo_type(address: Address) -> str:
    return "dataset" if address.kind == "dataset" else "model"


def _may_pass(error: BaseException) -> bool:
    """Tell whether another attempt may succeed: the connection broke, or the hub is busy."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return bool(status >= 500 or status == 429)
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, ConnectionError) or library.startswith(("httpx", "httpcore"))


@contextlib.contextmanager
def _explained(address: Address, more: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with the hub into one sentence without a token.

    Answers come from strangers, so the library may raise anything while it reads them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library about itself
            yield
    except (StyleCLIError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise address.error(_sentence(address, error) + more) from None


def _sentence(address: Address, error: BaseException) -> str:
    from huggingface_hub import errors

    while isinstance(error, RuntimeError) and error.__cause__ is not None:  # by its threads
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{address} cannot be reached: HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{address} is gated: accept its terms on {_endpoint()}/{address.repository}, then run "
            "hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{address.repository} has no revision {address.revision or 'main'} on the hub"
    if status == 403:
        return (
            f"the hub refuses {address}: the token here has no right to it; run hf auth login with "
            "one that has"
        )
    if status == 401 and not isinstance(error, errors.RepositoryNotFoundError):
        return "the hub does not accept the token of this machine: run hf auth login"
    if status in (401, 404):
        return (
            f"the hub shows no {address.kind} {address.repository}: check the name, or run hf auth "
            "login where it is private"
        )
    if status is not None:
        return f"the hub answered {address} with HTTP {status}: try again later"
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, ConnectionError | TimeoutError) or library.startswith(
        ("httpx", "httpcore")
    ):
        why = _SECRET.sub("***", str(error).partition("\n")[0])[:120] or type(error).__name__
        return (
            f"the hub at {_endpoint()} cannot be reached ({why}): check the connection, then run "
            "the same command again"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{address} cannot be fetched: {error.strerror}"
    return f"the hub's answer about {address} cannot be used ({type(error).__name__})"
