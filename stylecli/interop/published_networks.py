"""Networks that others published and training can start from: names, addresses, licences.

All addresses are unverified: none could be tried when this table was written. Some were written
from memory, or formed by the pattern of other addresses, and may be wrong. We know no hashes of the
files either. So nothing is fetched unless a user gives the address, and what was fetched is read,
without running anything in it, before it is kept.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stylecli.cache_folder import keep_private, private_folder
from stylecli.errors import DataError, NetworkError, UsageError, WeightsError, unknown_name
from stylecli.files import read_json, write_json
from stylecli.interop.families import describe_foreign
from stylecli.progress import Progress, silent
from stylecli.weights import download, file_sha256

_FOLDER = "networks"
NVIDIA_LICENCE = "NVIDIA's, non-commercial"


@dataclass(frozen=True)
class PublishedNetwork:
    """A network to start from."""

    name: str
    family: str  # as --config calls it
    resolution: int  # px
    shows: str  # what it was trained on
    licence: str
    address: str
    verified: bool = False  # whether the file behind the address was seen here


_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
_SOURCES = _ADA + "transfer-learning-source-nets/"
_S3 = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files/"


def _table() -> Iterator[PublishedNetwork]:
    for name, side, shows, file in (
        ("ffhq256", 256, "faces (FFHQ)", "ffhq-res256-mirror-paper256-noaug.pkl"),
        ("ffhq512", 512, "faces (FFHQ)", "ffhq-res512-mirror-stylegan2-noaug.pkl"),
        ("ffhq1024", 1024, "faces (FFHQ)", "ffhq-res1024-mirror-stylegan2-noaug.pkl"),
        ("celebahq256", 256, "faces (CelebA-HQ)",
         "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl"),
        ("lsundog256", 256, "dogs (LSUN)", "lsundog-res256-paper256-kimg100000-noaug.pkl"),
    ):  # fmt: skip
        yield PublishedNetwork(name, "stylegan2", side, shows, NVIDIA_LICENCE, _SOURCES + file)
    for name, side, shows in (
        ("metfaces", 1024, "faces in art (MetFaces)"), ("afhqcat", 512, "cats (AFHQ)"),
        ("afhqdog", 512, "dogs (AFHQ)"), ("afhqwild", 512, "wild animals (AFHQ)"),
        ("cifar10", 32, "CIFAR-10, by class"), ("brecahad", 512, "tissue (BreCaHAD)"),
    ):  # fmt: skip
        yield PublishedNetwork(name, "stylegan2", side, shows, NVIDIA_LICENCE, f"{_ADA}{name}.pkl")
    for kind in ("t", "r"):
        for data, side, shows in (
            ("ffhq", 1024, "faces (FFHQ)"), ("ffhqu", 1024, "faces, unaligned (FFHQ-U)"),
            ("ffhqu", 256, "faces, unaligned (FFHQ-U)"),
            ("metfaces", 1024, "faces in art (MetFaces)"),
            ("metfacesu", 1024, "faces in art, unaligned (MetFaces-U)"),
            ("afhqv2", 512, "animals (AFHQ v2)"),
        ):  # fmt: skip
            name = f"stylegan3-{kind}-{data}-{side}"
            address = f"{_S3}{name}x{side}.pkl"
            yield PublishedNetwork(name, f"stylegan3-{kind}", side, shows, NVIDIA_LICENCE, address)


PUBLISHED: Mapping[str, PublishedNetwork] = {network.name: network for network in _table()}


def find_published(name: str) -> PublishedNetwork:
    """Return a row of the table; raise UsageError for a name that is not in it."""
    if name not in PUBLISHED:
        raise UsageError(unknown_name("published network", name, PUBLISHED))
    return PUBLISHED[name]


def fetch_network(name: str, *, url: str | None = None, progress: Progress = silent) -> Path:
    """Download a published network into the cache and return its file; continue where it broke off.

    What came from another address is never continued; a file gets its name once it was checked, and
    is not fetched again from the same address. Raises WeightsError without a ``url`` for an address
    that was not checked, where the server fails, and for a file that holds another network, which
    is kept as ``.rejected``.
    """
    network = find_published(name)
    if url is None and not network.verified:
        raise WeightsError(
            f"the address of {name} is unverified and may be wrong, and we know no hash of the "
            f"file: if you trust it, run stylecli weights fetch {name} --url {network.address}"
        )
    address = url or network.address
    folder = private_folder(_FOLDER)
    path, record = folder / f"{name}.pkl", folder / f"{name}.json"
    if _is_from(address, path, record):
        return path
    fetched = folder / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}.pkl"
    download(address, fetched, sha256="", progress=progress)
    keep_private(fetched)
    _check(fetched, network)
    record.unlink(missing_ok=True)  # it must not speak of the file that comes
    digest = file_sha256(fetched)
    fetched.replace(path)
    write_json(record, {"address": address, "sha256": digest})
    keep_private(record)
    return path


def _is_from(address: str, path: Path, record: Path) -> bool:
    """Tell whether a file is here that came from this address, as it was when it was checked."""
    try:
        return bool(read_json(record) == {"address": address, "sha256": file_sha256(path)})
    except (OSError, DataError):  # it is fetched, then
        return False


def _check(path: Path, network: PublishedNetwork) -> None:
    """Put a file aside, and raise WeightsError, unless it holds what the table says."""
    try:
        facts = describe_foreign(path)
    except NetworkError as error:
        raise _rejected(path, network, str(error)) from None
    found = (str(facts["family"]).split(" ")[0].lower(), facts.get("resolution"))
    if found != (network.family.lower(), network.resolution):
        why = f"it holds {found[0]} at {found[1]} px: expected {network.family} at "
        raise _rejected(path, network, f"{why}{network.resolution}")


def _rejected(path: Path, network: PublishedNetwork, why: str) -> WeightsError:
    aside = path.with_name(f"{network.name}.pkl.rejected")
    path.replace(aside)
    return WeightsError(f"{aside.name} is not used, {why}: give another --url")
