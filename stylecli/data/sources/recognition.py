"""Tell by content what kind of source lies at a path."""

import gzip
import zipfile
import zlib
from pathlib import Path

from stylecli.data.alignment.aligned_folder import AlignedFolder, is_aligned_folder
from stylecli.data.alignment.ffhq import open_published
from stylecli.data.format import DATA_FILE
from stylecli.data.lmdb_files import read_meta
from stylecli.data.pictures import picture_kind
from stylecli.data.sources.base import HEIF_SUFFIXES, SUFFIXES, Source
from stylecli.data.sources.folders import LABELS_NAME, is_hidden, is_picture, lies_beside, suffix_of
from stylecli.data.sources.known_sets import (
    CifarSource,
    IdxSource,
    find_celeba,
    find_idx_files,
    is_cifar,
    open_celeba,
    open_pictures,
)
from stylecli.data.sources.labels import label_source
from stylecli.data.sources.lmdb_pictures import (
    PackedSource,
    PictureLmdbs,
    find_lsun_databases,
    is_lmdb,
    is_ours,
    open_foreign_lmdb,
)
from stylecli.data.sources.tar_shards import expand_pattern, find_tars, is_tar, open_tars
from stylecli.data.sources.tfrecords import TFRecordPictures, find_tfrecords, is_tfrecords
from stylecli.errors import DataError
from stylecli.files import name_failed_download
from stylecli.workspace import check_there

_START_BYTES = 1024  # of a file, to tell what it is
_ARCHIVES = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
)
_TAR_TOOLS = {".gz": "gunzip", ".tgz": "gunzip", ".zst": "unzstd", ".bz2": "bunzip2", ".xz": "unxz"}
_MAX_WRAPPINGS = 4  # folders around folders that are looked through
KNOWN = (
    "a folder, zip or tar of pictures (NVIDIA's with dataset.json too, WebDataset's shards), "
    "TFRecords or an LMDB of pictures, MNIST's idx files, CIFAR's tarball, AFHQ or CelebA"
)


def find_source(
    path: Path,
    *,
    labels: Path | str | None = None,
    own_labels: bool = True,
    include_generated: bool = False,
) -> Source:
    """Recognise what lies at ``path``; ``labels`` is a file of labels to use instead of its own.

    Without ``own_labels``, and with ``labels``, nothing that is wrong with labels at ``path``
    matters. Pictures that this program made are left out of a folder that holds others, unless
    ``include_generated``. Raises DataError when there is nothing, nothing known, or something
    damaged, and when the labels do not cover every picture.
    """
    path, own_labels = Path(path), own_labels and labels is None
    try:
        if (shards := expand_pattern(path)) is not None:
            found: Source = open_tars(path, shards, own_labels=own_labels)
        elif path.is_dir():
            found = _open_folder(path, own_labels, include_generated)
        else:
            found = _open_file(path, own_labels)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return found if labels is None else label_source(found, Path(labels))


def _open_folder(path: Path, own_labels: bool, include_generated: bool) -> Source:
    known = _open_known_folder(path, own_labels)
    if known is None and (inner := _only_entry(path)) is not None:
        if inner.is_dir():
            known = _open_known_folder(inner, own_labels)
        elif inner.is_file():
            known = _open_container(inner, own_labels)
    if known is not None:
        return known
    try:
        return open_pictures(path, own_labels=own_labels, include_generated=include_generated)
    except DataError:
        if (path / DATA_FILE).is_file():
            read_meta(path / DATA_FILE)  # says that it is damaged
        raise


def _open_known_folder(path: Path, own_labels: bool) -> Source | None:
    """Open a folder that is more than pictures in sub-folders."""
    if is_lmdb(path):
        return _open_lmdb(path)
    if is_aligned_folder(path):
        return AlignedFolder(path)
    if (ffhq := open_published(path)) is not None:
        return ffhq
    if find_tfrecords(path):
        return TFRecordPictures(path, own_labels=own_labels)
    if tars := find_tars(path):
        return open_tars(path, tars, own_labels=own_labels)
    if files := find_idx_files(path):
        return IdxSource(path, files, own_labels=own_labels)
    if is_cifar(path):
        return CifarSource(path)
    if not (path / LABELS_NAME).is_file() and (celeba := find_celeba(path)):
        return open_celeba(path, celeba, own_labels=own_labels)
    databases, notes = find_lsun_databases(path)
    return PictureLmdbs(path, databases, notes) if databases else None


def _only_entry(path: Path) -> Path | None:
    """Return what a folder is only the wrapping of: its one folder or file, hidden ones aside.

    Texts may lie beside it; folders around folders are looked through.
    """
    for _ in range(_MAX_WRAPPINGS):
        entries = [entry for entry in path.iterdir() if not is_hidden(entry.name)]
        folders = [entry for entry in entries if entry.is_dir()]
        files = [entry.name for entry in entries if not entry.is_dir()]
        weighty = [name for name in files if is_picture(name) or not lies_beside(name)]
        if len(folders) + len(weighty) != 1:
            return None
        if weighty:
            return path / weighty[0]
        path = folders[0]
        if [entry for entry in path.iterdir() if not is_hidden(entry.name)][1:]:
            return path
    return None


def _open_file(path: Path, own_labels: bool) -> Source:
    check_there(path, KNOWN)
    start = b"no file"
    if path.is_file():
        if (found := _open_container(path, own_labels)) is not None:
            return found
        with open(path, "rb") as file:
            start = file.read(_START_BYTES)
    if cause := name_failed_download(start):
        raise DataError(f"{path} {cause}")
    if suffix_of(path.name) in SUFFIXES | HEIF_SUFFIXES or picture_kind(start):
        raise DataError(f"{path} is a single picture: name the folder it lies in")
    if path.suffix == ".tfrecords":
        raise DataError(f"{path} is damaged, or no TFRecord file: its first length does not fit")
    for signature, kind in _ARCHIVES:
        if start.startswith(signature) and (tool := _TAR_TOOLS.get(suffix_of(path.name))):
            raise DataError(
                f"{path} is {kind}, so its pictures cannot be read in place: run {tool} {path}, "
                "then name the .tar"
            )
        if start.startswith(signature):
            raise DataError(f"{path} is {kind}: unpack it and name the folder")
    raise DataError(f"{path} is not a source of pictures: expected {KNOWN}")


def _open_container(path: Path, own_labels: bool) -> Source | None:
    """Open a file that holds many pictures; None for any other."""
    if zipfile.is_zipfile(path) or _begins(path, b"PK\x03\x04"):
        return open_pictures(path, own_labels=own_labels)
    if is_lmdb(path):
        return _open_lmdb(path)
    if is_tfrecords(path):
        return TFRecordPictures(path, own_labels=own_labels)
    if is_cifar(path):
        return CifarSource(path)
    if is_tar(path):
        return open_tars(path, [path], own_labels=own_labels)
    if find_idx_files(path) or _begins(path, b"\0\0\x08\x03"):
        return IdxSource(path, [path], own_labels=own_labels)
    return None


def _open_lmdb(path: Path) -> Source:
    # Without a header it is an unfinished one, and open_dataset says what to do about it.
    if is_ours(path):
        return PackedSource(path if path.is_dir() else path.parent)
    return open_foreign_lmdb(path)


def _begins(path: Path, signature: bytes) -> bool:
    """Tell whether a file, unpacked if it is gzipped, begins so."""
    try:
        with open(path, "rb") as start:
            zipped = start.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as file:
            return file.read(len(signature)) == signature
    except (OSError, EOFError, zlib.error):
        return False
