"""Tell by content what kind of source lies at a path."""

import gzip
import zipfile
import zlib
from pathlib import Path

from stylecli.data.alignment.aligned_folder import AlignedFolder, is_aligned_folder
from stylecli.data.alignment.published import open_published
from stylecli.data.database_file import read_meta
from stylecli.data.layout import DATA_FILE
from stylecli.data.sources import known_sets
from stylecli.data.sources.base import Source
from stylecli.data.sources.folders import SUFFIXES, ImageFolder
from stylecli.data.sources.known_sets import (
    CifarSource,
    IdxSource,
    find_celeba,
    find_idx_files,
    is_cifar,
    open_celeba,
)
from stylecli.data.sources.labels import label_source
from stylecli.data.sources.lmdb_pictures import (
    LsunLmdbs,
    PackedSource,
    find_lsun_databases,
    index_lmdb,
    is_lmdb,
    open_foreign_lmdb,
)
from stylecli.data.sources.tfrecords import TFRecordPyramid, find_tfrecords, is_tfrecords
from stylecli.errors import DataError
from stylecli.workspace import describe_unfinished

KNOWN = (
    "a folder or zip of pictures (NVIDIA's with dataset.json too), StyleGAN TFRecords, an LMDB of "
    "stylecli, rosinality or LSUN, MNIST's idx files, CIFAR's tarball, AFHQ or CelebA"
)
_OUR_KEYS = (b"_meta", b"_labels")


def find_source(path: Path, *, labels: Path | str | None = None) -> Source:
    """Recognise what lies at ``path``; ``labels`` is a file of labels to use instead of its own.

    Raises DataError when there is nothing, nothing known, or something damaged, and when the labels
    do not cover every picture.
    """
    path = Path(path)
    try:
        found = _open_folder(path) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return found if labels is None else label_source(found, Path(labels))


def _open_folder(path: Path) -> Source:
    if is_lmdb(path):
        return _open_lmdb(path)
    if is_aligned_folder(path):
        return AlignedFolder(path)
    if (ffhq := open_published(path)) is not None:
        return ffhq
    if find_tfrecords(path):
        return TFRecordPyramid(path)
    if files := find_idx_files(path):
        return IdxSource(path, files)
    if is_cifar(path):
        return CifarSource(path)
    if (path / known_sets.LABELS_NAME).is_file():
        return known_sets.open_folder(path)
    if celeba := find_celeba(path):
        return open_celeba(path, celeba)
    databases, notes = find_lsun_databases(path)
    if databases:
        return LsunLmdbs(path, databases, notes)
    try:
        return ImageFolder(path)
    except DataError:
        if (path / DATA_FILE).is_file():
            read_meta(path / DATA_FILE)  # says that it is damaged
        raise


def _open_file(path: Path) -> Source:
    if not path.exists():
        raise DataError(describe_unfinished(path) or f"{path} does not exist: expected {KNOWN}")
    if path.is_file():
        if zipfile.is_zipfile(path) or _begins(path, b"PK\x03\x04"):
            return known_sets.open_zip(path)
        if is_lmdb(path):
            return _open_lmdb(path)
        if is_tfrecords(path):
            return TFRecordPyramid(path)
        if is_cifar(path):
            return CifarSource(path)
        if find_idx_files(path) or _begins(path, b"\0\0\x08\x03"):
            return IdxSource(path, [path])
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path} is a single picture: name the folder it lies in")
    if path.suffix == ".tfrecords":
        raise DataError(f"{path} is damaged, or no TFRecord file: its first length does not fit")
    raise DataError(f"{path} is no source of pictures: expected {KNOWN}")


def _open_lmdb(path: Path) -> Source:
    start = index_lmdb(path, first_page_only=True)
    # Without a header it is an unfinished one, and open_dataset says what to do about it.
    ours = any(key in _OUR_KEYS or (len(key) == 10 and key[:2] == b"d/") for key in start.keys)
    if ours:
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
