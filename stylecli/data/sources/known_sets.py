"""Sets in a layout of their own: NVIDIA's zip and folder, CelebA, MNIST's idx files, CIFAR.

NVIDIA's: pictures with ``dataset.json``, as StyleGAN2-ADA and StyleGAN3 train on;
``metadata.jsonl``, which ``stylecli pack --out X.zip`` adds, brings authors and licences back.

CelebA: ``img_align_celeba`` with its lists of attributes and identities, which lie beside the
pictures' folder, or in ``Anno`` beside it. Attributes become vectors of 40 values, 0 or 1. The
pictures are 178 x 218 px; papers cut rows 57-185 and columns 25-153 out.

idx (MNIST, Fashion-MNIST): a magic number (0, 0, 8 = bytes, number of dimensions), the dimensions
as big-endian uint32, then the bytes; often gzipped. Sides that are no power of two are padded with
zeros, as StyleGAN's tools do: 28 px become 32 px.

CIFAR-10 and CIFAR-100: ``cifar-10-python.tar.gz``, or the folder inside it, of pickles, which are
read without running anything (``interop/pickles.py``). CIFAR-10: ``data_batch_1`` to
``data_batch_5``, ``test_batch``, ``batches.meta``; CIFAR-100: ``train``, ``test``, ``meta``. A row
of 3072 bytes is a picture: 1024 red, green, blue, row by row.
"""

import contextlib
import gzip
import hashlib
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.format import MAX_RESOLUTION
from stylecli.data.sources.base import AnnotatedSource, Source, common_folder, listing
from stylecli.data.sources.folders import (
    LABELS_NAME,
    METADATA_NAME,
    FolderFiles,
    ImageFolder,
    ZipFiles,
    ZipPictures,
)
from stylecli.data.sources.labels import (
    MAX_FILE_BYTES,
    ForeignJsonError,
    LabelTable,
    PictureNames,
    Values,
    align_labels,
    interpret_numbers,
    parse_label_json,
    read_labels,
)
from stylecli.errors import DataError, plural
from stylecli.files import parse_json
from stylecli.interop.pickles import MAX_BYTES, read_batch_pickle

FOLDER_NAME = "img_align_celeba"
_ATTRIBUTES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
_IDENTITIES = ("identity_CelebA.txt",)
_CROP_NOTE = (
    "these are CelebA's aligned pictures, 178 x 218 px: --transform celeba cuts the 128 px square "
    "that papers use"
)
_IMAGES = re.compile(r"(?P<set>.*)images(?P<dash>[-.])idx3-ubyte(?P<gz>\.gz)?")
_MAX_BYTES = 1 << 33
_DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor
_TRAINING = re.compile(r"data_batch_\d+|train")
_NAMES = {"batches.meta": "label_names", "meta": "fine_label_names"}
_MAX_TAR_BYTES = 1 << 30  # unpacked; the official ones have 186 MB
_CIFAR_FOLDERS = ("cifar-10-batches-py", "cifar-100-python")  # in the official tarballs
_MOST_BEFORE = 16  # folders and headers before the first file of a tarball
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
_MOST_HEADER = 1 << 20  # bytes of one of these
_SIDE = 32


def open_pictures(
    path: Path, *, own_labels: bool = True, include_generated: bool = False
) -> Source:
    """Open a folder or a zip of pictures, with the labels of its ``dataset.json`` if it has one.

    That file may lie in a folder around everything. One of another program is passed over, and that
    is noted; without ``own_labels`` nothing that is wrong with it matters. Raises DataError when
    there is no picture, and for labels that are spoilt.
    """
    files = ZipFiles(path) if path.is_file() else FolderFiles(path, include_generated)
    name = _find_beside(files, LABELS_NAME)
    if name is None:
        return _plain(path, files)
    where = f"{path}: {LABELS_NAME}"
    try:
        table = parse_label_json(_read(files, name, path), where, files.pictures)
    except ForeignJsonError as error:
        plain = _plain(path, files)
        if own_labels:
            said = str(error).removeprefix(f"{path}: ")
            plain.notes.append(f"{said}; it is ignored")
        return plain
    except DataError as error:
        if own_labels:
            raise DataError(f"{error}; or pack with --no-labels") from None
        table = None
    if table is not None and not _names_any(table, files.pictures):
        plain = _plain(path, files)
        shown = listing(table.names or [])
        plain.notes.append(f"{LABELS_NAME} labels none of the pictures, but {shown}")
        return plain
    source = _plain(path, files, classes=False)
    source.as_stored = True
    return _annotate(source, files, table if own_labels else None, path)


def _plain(
    path: Path, files: FolderFiles | ZipFiles, *, classes: bool = True
) -> ImageFolder | ZipPictures:
    if isinstance(files, ZipFiles):
        return ZipPictures(path, files, classes=classes)
    return ImageFolder(path, files, classes=classes)


def _names_any(table: LabelTable, pictures: Sequence[str]) -> bool:
    find = PictureNames(pictures).find
    return any(find(name) is not None for name in table.names or [])


def _find_beside(files: FolderFiles | ZipFiles, wanted: str) -> str | None:
    """Return the uppermost file of that name whose folder holds all pictures."""
    around = common_folder(files.pictures) + "/"
    found = [
        name
        for name in files.others
        if name.rpartition("/")[2] == wanted and f"/{around}".startswith(f"/{name}"[: -len(wanted)])
    ]
    return min(found, key=len, default=None)


def _read(files: FolderFiles | ZipFiles, name: str, path: Path) -> bytes:
    try:
        return files.read(name, MAX_FILE_BYTES)
    except DataError as error:
        raise DataError(f"{path}: {name} {error}") from None


def _annotate(
    source: Source, files: FolderFiles | ZipFiles, table: LabelTable | None, path: Path
) -> Source:
    """Give pictures their labels and what is known of them; say so when labels are incomplete."""
    where = f"{path}: {LABELS_NAME}"
    names = [source[index].name for index in range(len(source))]
    notes: list[str] = []
    metadata: dict[int, dict[str, Any]] = {}
    if (more := _find_beside(files, METADATA_NAME)) is not None:
        try:
            content = files.read(more, MAX_FILE_BYTES)
            metadata = _parse_metadata(content, names, METADATA_NAME)
        except DataError as error:  # other programs have files of that name
            notes.append(f"{error}; it is ignored")
    if table is None or table.names is None:
        return AnnotatedSource(source, None, notes=notes, metadata=metadata)
    find = PictureNames(names).find
    places = [find(name) for name in table.names]
    notes += table.notes
    if absent := [name for name, place in zip(table.names, places, strict=True) if place is None]:
        notes.append(
            f"{LABELS_NAME} has labels for {plural(len(absent), 'missing picture')}: "
            f"{listing(absent)}"
        )
    if missing := set(range(len(names))).difference(places):
        shown = listing(names[place] for place in sorted(missing)[:5])
        notes.append(
            f"{LABELS_NAME} has no label for {len(missing):,} of {plural(len(names), 'picture')} "
            f"({shown}), so its labels are not used: complete it, or give --labels"
        )
        return AnnotatedSource(source, None, notes=notes, metadata=metadata)
    try:
        values = align_labels(table, names, where)
    except DataError as error:
        raise DataError(f"{error}; or pack with --no-labels") from None
    return AnnotatedSource(source, values, table.class_names, notes=notes, metadata=metadata)


def _parse_metadata(content: bytes, names: Sequence[str], where: str) -> dict[int, dict[str, Any]]:
    """Read lines of {"name": picture, ...}; lines for other pictures are passed over."""
    find = PictureNames(names).find
    known: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content.splitlines(), 1):
        fields = parse_json(line, f"{where} line {number}")
        name = fields.pop("name", None)
        if not isinstance(name, str):
            raise DataError(f"cannot read {where} line {number}: it names no picture")
        place = find(name)
        if place is not None:
            known[place] = fields
    return known


def find_celeba(path: Path) -> Path | None:
    """Return the folder of aligned pictures that a path is or holds, as CelebA's, or None."""
    for folder in (path, path / FOLDER_NAME, path / "Img" / FOLDER_NAME):
        if folder.name == FOLDER_NAME and folder.is_dir():
            return folder
    return None


def open_celeba(path: Path, folder: Path, *, own_labels: bool = True) -> AnnotatedSource:
    """Open CelebA's pictures in ``folder`` with the lists that lie at ``path`` or beside it.

    Raises DataError when a list leaves a picture out; without ``own_labels``, that is a note for
    the identities, and the attributes are not read.
    """
    pictures = ImageFolder(folder, classes=False)
    names = [pictures[index].name for index in range(len(pictures))]
    places = [
        path,
        path / "Anno",
        folder.parent,
        folder.parent / "Anno",
        folder.parent.parent / "Anno",
    ]
    notes = [_CROP_NOTE] if _is_aligned_size(pictures) else []
    metadata: dict[int, dict[str, Any]] = {}
    if identities := _find(places, _IDENTITIES):
        try:
            table = read_labels(identities, names)
            numbers = (align_labels(table, names, identities) + table.first).tolist()
            metadata = {place: {"identity": who} for place, who in enumerate(numbers)}
        except DataError as error:
            if own_labels:
                raise DataError(f"{error}; or pack with --no-labels") from None
            notes.append(str(error))
    if own_labels and (attributes := _find(places, _ATTRIBUTES)):
        table = read_labels(attributes, names)
        values = align_labels(table, names, attributes)
        return AnnotatedSource(
            pictures, values, table.class_names, notes=[*notes, *table.notes], metadata=metadata
        )
    return AnnotatedSource(pictures, None, notes=notes, metadata=metadata)


def _find(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _is_aligned_size(pictures: ImageFolder) -> bool:
    try:
        with pictures[0].open() as picture:
            return picture.size == (178, 218)
    except DataError:
        return False  # it is skipped with its cause when its turn comes


@dataclass(frozen=True)
class IdxItem:
    """One picture of an idx file."""

    pixels: npt.NDArray[np.uint8]  # [H, W]
    name: str
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name and the picture's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Return the picture, padded with zeros to a square whose side is a power of two."""
        height, width = self.pixels.shape
        side = max(4, 1 << (max(height, width) - 1).bit_length())
        top, left = (side - height) // 2, (side - width) // 2
        padding = (top, side - height - top), (left, side - width - left)
        return Image.fromarray(np.pad(self.pixels, padding))


class IdxSource:
    """All pictures of the given idx files, one file after the other."""

    def __init__(self, path: Path, files: list[Path], *, own_labels: bool = True) -> None:
        self.path = path
        self._files = files
        self._images = [read_idx(file, dimensions=3) for file in files]
        if len({images.shape[1:] for images in self._images}) > 1:
            raise DataError(f"the idx files of {path} hold pictures of different sizes")
        self._starts = np.cumsum([0] + [len(images) for images in self._images])
        self.class_names: list[str] | None = None
        self.notes: list[str] = []
        self._labels: Values | None = None
        labels = [_find_labels(file) for file in files] if own_labels else [None]
        if None in labels:
            return
        read = [read_idx(found, dimensions=1) for found in labels if found]
        for file, images, found in zip(files, self._images, read, strict=True):
            if len(images) != len(found):
                raise DataError(
                    f"{file} holds {plural(len(images), 'picture')} but "
                    f"{plural(len(found), 'label')}"
                )
        table = interpret_numbers(np.concatenate(read), path)
        self._labels, self.notes = table.values, table.notes
        self.class_names = table.named_classes()

    @property
    def name(self) -> str:
        """The folder's name, or what stands before ``images`` in the single file's."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder.resolve().name

    def fingerprint(self) -> str:
        """Return a digest over the files' names and sizes."""
        parts = [f"{file.name} {file.stat().st_size}" for file in self._files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> IdxItem:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[part])
        label = None if self._labels is None else int(self._labels[index])
        return IdxItem(self._images[part][row], f"{self._files[part].name}#{row}", label)


def find_idx_files(path: Path) -> list[Path]:
    """Return the idx picture files at ``path``, a file or a folder: training set first."""
    candidates = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in candidates if file.is_file() and _IMAGES.fullmatch(file.name)]
    return sorted(found, key=lambda file: (not file.name.startswith("train"), file.name))


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of bytes with so many dimensions, gzipped or not.

    The sizes in its header are checked against the file's before memory is taken. Raises DataError
    when it is damaged or of another kind.
    """
    file_bytes = path.stat().st_size
    with open(path, "rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise DataError(f"{path} is not an idx file of bytes in {dimensions} dimensions")
            shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            largest = file_bytes * _DEFLATE_LIMIT if zipped else file_bytes - len(header)
            sides = shape[1:]
            if not 0 < size <= min(largest, _MAX_BYTES) or max(sides, default=1) > MAX_RESOLUTION:
                raise DataError(f"{path} should hold {shape} bytes, which its size rules out")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if len(data) != size:
        raise DataError(f"{path} does not hold the {shape} bytes of its header: get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find_labels(images: Path) -> Path | None:
    """Return the label file that belongs to a picture file, if it lies beside it."""
    match = _IMAGES.fullmatch(images.name)
    if match is None:
        return None
    stem = f"{match['set']}labels{match['dash']}idx1-ubyte"
    names = [stem + ".gz", stem] if match["gz"] else [stem, stem + ".gz"]
    return next(
        (images.with_name(name) for name in names if images.with_name(name).is_file()), None
    )


@dataclass(frozen=True)
class CifarPicture:
    """One picture of a batch."""

    pixels: npt.NDArray[np.uint8]  # [3072]
    name: str
    label: int

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the batch and the picture's number in it."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Return the picture, 32 x 32 px RGB."""
        planes = self.pixels.reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))


class CifarSource:
    """The training pictures, batch after batch, held in memory (150 MB).

    ``path`` is a tarball, the unpacked folder, or one batch in it (``test_batch``, to pack that).
    Raises DataError when a batch is damaged or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        contents = _read_tar(path) if _is_tarball(path) else _read_folder(path)
        meta = {name: content for name, content in contents.items() if name in _NAMES}
        batches = {name: content for name, content in contents.items() if name not in _NAMES}
        if path.is_dir() or _is_tarball(path):
            left = sorted(name for name in batches if not _TRAINING.fullmatch(name))
            batches = {name: batches[name] for name in sorted(batches) if name not in left}
            self.notes = [f"{name} is left out: unpack it and name it to take it" for name in left]
        else:
            self.notes = []
        if not contents and _is_tarball(path):
            raise DataError(
                f"{path} is called like CIFAR's and holds none of its batches: get it again"
            )
        if not batches:
            raise DataError(f"{path} holds no batch of CIFAR: expected data_batch_1 or train")
        self._batches = list(batches)
        read = [_read_batch(content, f"{path}: {name}") for name, content in batches.items()]
        self._pixels = [pixels for pixels, _ in read]
        self._labels = [labels for _, labels in read]
        self._starts = np.cumsum([0] + [len(labels) for labels in self._labels])
        highest = max(int(labels.max()) for labels in self._labels)
        self.class_names = _class_names(meta, path, highest)

    @property
    def name(self) -> str:
        """cifar-10 or cifar-100, by the number of classes."""
        return "cifar-100" if len(self.class_names) > 10 else "cifar-10"

    def fingerprint(self) -> str:
        """Return a digest over all labels and the first pixels of every batch."""
        digest = hashlib.sha256("\n".join([*self._batches, *self.class_names]).encode())
        for pixels, labels in zip(self._pixels, self._labels, strict=True):
            digest.update(labels.astype("<i8").tobytes())
            digest.update(pixels[:10].tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> CifarPicture:
        index = range(len(self))[index]
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[part])
        name = f"{self._batches[part]}#{row}"
        return CifarPicture(self._pixels[part][row], name, int(self._labels[part][row]))


def is_cifar(path: Path) -> bool:
    """Tell whether a path is a tarball, or a folder or file of CIFAR's batches."""
    if path.is_dir():
        return (path / "batches.meta").is_file() or (
            (path / "meta").is_file() and (path / "train").is_file()
        )
    beside = path.with_name("batches.meta").is_file() or path.with_name("meta").is_file()
    return _is_cifar_tarball(path) or (beside and _is_batch_name(path.name))


def _is_cifar_tarball(path: Path) -> bool:
    """Tell by its first file whether a tarball is CIFAR's, whatever folder it was made of."""
    if not _is_tarball(path):
        return False
    name = ""
    with contextlib.suppress(OSError, EOFError, zlib.error, tarfile.TarError), _open(path) as file:
        for _ in range(_MOST_BEFORE + 1):
            entry = tarfile.TarInfo.frombuf(file.read(512), "utf-8", "replace")
            name = entry.name.removeprefix("./")
            if entry.type in _EXTENSIONS and 0 <= entry.size <= _MOST_HEADER:
                file.read(-(-entry.size // 512) * 512)
            elif not entry.isdir():
                break
    folder, _, last = name.rpartition("/")
    return folder in _CIFAR_FOLDERS or _is_known(last)


def _is_tarball(path: Path) -> bool:
    """Tell by content whether a file is a tar archive, gzipped or not."""
    if not path.is_file():
        return False
    try:
        with _open(path) as file:
            return file.read(262)[257:] == b"ustar"
    except (OSError, EOFError, ValueError, zlib.error):
        return False


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    with open(path, "rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else open(path, "rb")


def _read_tar(path: Path) -> dict[str, bytes]:
    """Return the batches in a tarball by name, whatever folder they are in."""
    contents: dict[str, bytes] = {}
    total = 0
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                total += member.size
                if total > _MAX_TAR_BYTES:
                    raise DataError(f"{path} unpacks to over {_MAX_TAR_BYTES:,} bytes: no CIFAR")
                name = member.name.rpartition("/")[2]
                if member.isreg() and member.size <= MAX_BYTES and _is_known(name):
                    opened = archive.extractfile(member)
                    contents[name] = opened.read() if opened else b""
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise DataError(f"{path} is damaged or not CIFAR: {error}; get it again") from None
    return contents


def _read_folder(path: Path) -> dict[str, bytes]:
    folder = path if path.is_dir() else path.parent
    try:
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        if not path.is_dir():
            files = [file for file in files if file.name in _NAMES or file == path]
        return {
            file.name: file.read_bytes()
            for file in files
            if _is_known(file.name) and file.stat().st_size <= MAX_BYTES
        }
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _is_known(name: str) -> bool:
    return name in _NAMES or _is_batch_name(name)


def _is_batch_name(name: str) -> bool:
    return _TRAINING.fullmatch(name) is not None or name in ("test_batch", "test")


def _read_batch(content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return (pixels uint8 [N, 3072], labels int64 [N])."""
    batch = read_batch_pickle(content, where)
    pixels, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{where} holds no pixels: expected uint8 rows of {3 * _SIDE**2}")
    if not len(pixels) or pixels.shape[1] != 3 * _SIDE**2:
        raise DataError(f"{where} holds rows of {pixels.shape[1]} bytes: expected {3 * _SIDE**2}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise DataError(
            f"{where} does not have one label for each of its {plural(len(pixels), 'picture')}"
        )
    if not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise DataError(f"{where} holds labels that are not classes of CIFAR")
    return pixels, np.array(labels, np.int64)


def _class_names(meta: dict[str, bytes], path: Path, highest: int) -> list[str]:
    """Return the names in the meta file, else the classes' numbers."""
    for name, content in meta.items():
        names = read_batch_pickle(content, f"{path}: {name}").get(_NAMES[name])
        if isinstance(names, list) and highest < len(names) <= 1000:
            return [str(entry) for entry in names]
    return [str(label) for label in range(highest + 1)]
