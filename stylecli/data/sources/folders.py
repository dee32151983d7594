"""Pictures in a folder or in a zip: which names are pictures, which folders are splits or classes.

A zip is read in place: nothing is unpacked to the disk. The directory at its end is read once;
after that an item knows where its bytes lie. The sizes in the directory are limits.
Files that are left out because of their names are counted and named, with what to do about them.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from stylecli.data.pictures import (
    INSTALL_HEIF,
    START_BYTES,
    open_picture,
    picture_kind,
    reads_heif,
)
from stylecli.data.sources.base import (
    HEIF_SUFFIXES,
    MAX_PICTURE_BYTES,
    SUFFIXES,
    listing,
    printable,
    read_stored,
)
from stylecli.errors import DataError, plural
from stylecli.files import read_json

# Pictures that are not read: they can be converted.
FOREIGN = frozenset(
    ".jxl .jxr .wdp .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 "
    ".raf .raw .pef .srw .x3f .svg .svgz .eps .ai .psb .xcf .kra .exr .hdr .dcm .fits .bpg".split()
)
_PACKED = frozenset(".zip .tar .tgz .gz .bz2 .xz .7z .rar .tfrecord .tfrecords .mdb".split())
# What lies beside pictures without being one: texts, tables, numbers, what systems leave.
_BESIDE = frozenset(
    ".txt .md .rst .json .jsonl .csv .tsv .xml .html .htm .yaml .yml .toml .npy .npz .labels .log "
    ".ini .db .pdf .py .sh .md5 .sha256 .url .nfo .bib .lock".split()
)
_NAMES_BESIDE = frozenset({"license", "licence", "readme", "copying", "notice", "authors"})
_FOLDERS = 4  # shown
_LOOKED_INTO = 1000  # of the files left out: what they start with is read
# FFHQ and NVIDIA's tools file pictures by number in folders of five digits: these are no classes.
_NUMBERED = re.compile(r"\d{5}")
LABELS_NAME = "dataset.json"  # of NVIDIA's tools
METADATA_NAME = "metadata.jsonl"
TRAIN = frozenset({"train", "training"})
SPLITS = TRAIN | {"val", "valid", "validation", "test", "testing"}


_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., bytes of name, bytes of extra field
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Arrangement:
    """Pictures in order, with the classes that their folders are."""

    names: list[str]
    labels: list[int] | None = None
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def is_picture(name: str) -> bool:
    """Tell whether a name with forward slashes is that of a picture that is not hidden."""
    suffix = suffix_of(name)
    return (suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and reads_heif())) and not is_hidden(
        name
    )


def is_foreign(name: str) -> bool:
    """Tell whether a name is that of a picture of a kind that is not read here."""
    suffix = suffix_of(name)
    return suffix in FOREIGN or (suffix in HEIF_SUFFIXES and not reads_heif())


def plain_name(name: str) -> str:
    """Return the name of an entry in an archive as one that leads nowhere else."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def is_hidden(name: str) -> bool:
    """Tell whether a name, or a folder in it, is hidden or made by an archiver for itself."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def lies_beside(name: str) -> bool:
    """Tell whether a name is that of a text, a table or the like, as they lie beside pictures."""
    stem = os.path.splitext(name.rpartition("/")[2])[0].lower()
    return suffix_of(name) in _BESIDE or stem in _NAMES_BESIDE


def suffix_of(name: str) -> str:
    """Return the suffix of a name with forward slashes, in lower case."""
    return os.path.splitext(name.rpartition("/")[2])[1].lower()


def arrange(names: Iterable[str]) -> Arrangement:
    """Sort pictures by the bytes of their paths and find the classes among their folders.

    A single folder around everything counts for nothing. Of folders that are splits (train, val,
    test) only the training set is taken. What is then first in every path is the class, if there
    are several and not all are numbers of five digits.
    """
    names = sorted(names, key=os.fsencode)
    notes: list[str] = []
    depth = 0
    while True:
        folders = {_folder(name, depth) for name in names}
        if folders <= SPLITS and folders & TRAIN and len(folders) > 1:
            kept = [name for name in names if _folder(name, depth) in TRAIN]
            others = ", ".join(sorted(folder for folder in folders - TRAIN if folder))
            left = len(names) - len(kept)
            counted = plural(left, "picture")
            notes.append(
                f"{counted} in {others} {'is' if left == 1 else 'are'} left out: name that folder "
                f"to take {'it' if left == 1 else 'them'}"
            )
            names, depth = kept, depth + 1
        elif len(folders) == 1 and None not in folders:
            depth += 1
        else:
            break
    classes = sorted((folder for folder in folders if folder is not None), key=os.fsencode)
    if len(classes) < 2 or set(classes) <= SPLITS or all(map(_NUMBERED.fullmatch, classes)):
        return Arrangement(names, notes=notes)
    if None in folders:
        outside = [name for name in names if _folder(name, depth) is None]
        counted = plural(len(outside), "picture is", "pictures are")
        notes.append(
            f"{counted} outside the sub-folders ({listing(outside)}), so the sub-folders are not "
            f"used as classes: move the pictures, or give --labels"
        )
        return Arrangement(names, notes=notes)
    numbers = {folder: label for label, folder in enumerate(classes)}
    labels = [numbers[_folder(name, depth) or ""] for name in names]
    return Arrangement(names, labels, [printable(folder) for folder in classes], notes)


def _folder(name: str, depth: int) -> str | None:
    """Return a path's part at ``depth``, or None when that is the file itself."""
    parts = name.split("/", depth + 1)
    return parts[depth] if len(parts) > depth + 1 else None


@dataclass(frozen=True)
class PictureFile:
    """One picture file of a folder."""

    path: Path
    name: str  # below the folder, with forward slashes
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the file's name below its folder."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the file; only its header is read. Raises DataError with the cause."""
        try:
            is_file = stat.S_ISREG(self.path.stat().st_mode)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        if not is_file:  # opening a pipe would wait for ever
            raise DataError("is not a regular file")
        return open_picture(self.path)


class ImageFolder:
    """The pictures of a folder in the order of their paths' bytes, the same in every locale.

    When every picture lies in a sub-folder, the first-level sub-folders are the classes (unless
    ``classes`` is off), with the exceptions that ``arrange`` knows. Raises DataError when
    there is no picture.
    """

    as_stored = False  # set for the sets of NVIDIA's tools

    def __init__(
        self, path: Path, files: "FolderFiles | None" = None, *, classes: bool = True
    ) -> None:
        self.path = path
        files = files or FolderFiles(path)
        found = _arranged(path, files, classes)
        self._names, self._labels = found.names, found.labels
        self.class_names, self.notes = found.class_names, found.notes
        if files.unreadable:
            self.notes.append(
                f"{plural(len(files.unreadable), 'unreadable folder')} left out: "
                f"{listing(files.unreadable)}"
            )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return printable(self.path.resolve().name)

    def fingerprint(self) -> str:
        """Return a digest over every picture's name and size in bytes."""
        digest = hashlib.sha256()
        for name in self._names:
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                size = -1  # a dangling link: it is skipped with its cause when it is opened
            digest.update(os.fsencode(name) + b"\0%d\0" % size)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> PictureFile:
        name = self._names[index]
        label = None if self._labels is None else self._labels[index]
        return PictureFile(self.path / name, printable(name), label)


class FolderFiles:
    """The names of the files in a folder and its sub-folders, with forward slashes.

    Links to folders are followed, each folder once, so that a circle of links ends. Hidden files
    and folders are no part of it.
    """

    def __init__(self, path: Path, include_generated: bool = False) -> None:
        self.path = path
        self.pictures: list[str] = []
        self.others: list[str] = []
        self.hidden: list[str] = []  # pictures
        marked: list[str] = []  # folders that this program filled
        failed: list[OSError] = []
        seen: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(path, followlinks=True, onerror=failed.append):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            below = os.path.relpath(folder, path).replace(os.sep, "/")
            prefix = "" if below == "." else below + "/"
            if is_own_folder(Path(folder), names):
                marked.append(prefix)
            for name in names:
                if not is_hidden(name):
                    kind = self.pictures if is_picture(name) else self.others
                    kind.append(prefix + name)
                elif is_picture(name.lstrip(".")) and not name.startswith("._"):
                    self.hidden.append(prefix + name)
        self.unreadable = [str(error.filename) for error in failed]
        self.generated: list[str] = []
        if not include_generated:
            self.generated, self.pictures = split_generated(path, self.pictures, marked)

    def read(self, name: str, most: int) -> bytes:
        """Return a file's content. Raises DataError when it has over ``most`` bytes."""
        file = self.path / name
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                raise DataError("is not a regular file")
            if file.stat().st_size > most:
                raise DataError(f"is too large: it has over {most >> 20} MiB")
            return file.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None

    def start(self, name: str) -> bytes:
        """Return what a file starts with; nothing where it cannot be read."""
        return start_of(self.path / name)


# Files that say that this program filled a folder, and what they hold when it did.
_MARKERS = {
    "check.json": "tool", "run.json": "stylecli", "demo.json": "stylecli",
    "alignment.json": "transform_size",
}  # fmt: skip


def is_own_folder(folder: Path, names: Iterable[str]) -> bool:
    """Tell whether one of the files in a folder says that this program filled it."""
    for name in names:
        if name in _MARKERS:
            with contextlib.suppress(DataError, OSError):
                if _MARKERS[name] in read_json(folder / name):
                    return True
    return False


def split_generated(
    path: Path, names: list[str], marked: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return (pictures that this program made, all others) of those below a folder.

    ``marked`` are the folders, each with a slash at its end, that say so of all they hold. Nothing
    counts as made where the folder itself was filled by the program, or holds nothing else.
    """
    from stylecli.images import is_own

    if "" in marked:
        return [], names
    own = {
        name
        for name in names
        if any(name.startswith(folder) for folder in marked) or is_own(path / name)
    }
    direct = [name for name in names if "/" not in name]
    if (direct and own.issuperset(direct)) or (own.issuperset(names) and not marked):
        return [], names
    return [name for name in names if name in own], [name for name in names if name not in own]


def describe_generated(generated: Sequence[str]) -> list[str]:
    """Say how many pictures of this program are left out, by folder, and how to take them."""
    if not generated:
        return []
    folders = Counter(name.rpartition("/")[0] or "." for name in generated)
    shown = [f"{count:,} in {printable(name)}" for name, count in folders.most_common(_FOLDERS)]
    more = ", ..." if len(folders) > _FOLDERS else ""
    counted = plural(len(generated), "picture")
    return [
        f"{counted} made by stylecli left out ({', '.join(shown)}{more}): --include-generated "
        "takes them, or name that folder"
    ]


def start_of(file: Path) -> bytes:
    """Return what a file starts with; nothing where it cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for ever
            return b""
        with open(file, "rb") as opened:
            return opened.read(START_BYTES)
    except OSError:
        return b""


def describe_left_out(names: Iterable[str], start: Callable[[str], bytes]) -> list[str]:
    """Say how many files are left out for their names, which, and what to do; nothing for none.

    Texts, tables and the like are expected beside pictures, and only counted. ``start`` gives what
    a file starts with.
    """
    names = sorted(names)
    left = [name for name in names if not lies_beside(name)]
    notes = []
    if left:
        kinds = {name: picture_kind(start(name)) for name in left[:_LOOKED_INTO]}
        # What is inside counts, not the suffix.
        renamed = [n for n in left if kinds.get(n, "") not in ("", _usual_kind(n))]
        known = set(renamed)
        heif = [n for n in left if suffix_of(n) in HEIF_SUFFIXES and n not in known]
        foreign = [n for n in left if suffix_of(n) in FOREIGN and n not in known]
        packed = [n for n in left if suffix_of(n) in _PACKED and n not in known]
        known |= {*heif, *foreign, *packed}
        inside = " or ".join(sorted({kinds[name] for name in renamed}))
        suffixes = " or ".join(sorted({_suffix_for(kinds[name]) for name in renamed}))
        groups = (
            (heif, f"{INSTALL_HEIF}, or convert to JPEG"),
            (foreign, "convert to JPEG or PNG"),
            (renamed, f"{inside} inside: rename to {suffixes}"),
            (packed, "pack each by its own name, or unpack it"),
            ([name for name in left if name not in known], "no pictures by their names"),
        )
        parts = [f"{_by_kind(group)} ({listing(group)}: {what})" for group, what in groups if group]
        counted = plural(len(left), "file is left out for its", "files are left out for their")
        notes.append(f"{counted} suffix: {', '.join(parts)}")
    if beside := [name for name in names if lies_beside(name)]:
        notes.append(f"not read, because they are not pictures: {_by_kind(beside)}")
    return notes


def _usual_kind(name: str) -> str:
    """Return what a file begins like that is read for what its suffix says: raw ones like TIFF."""
    suffix = suffix_of(name)
    return "HEIC" if suffix in HEIF_SUFFIXES else "TIFF" if suffix in FOREIGN else ""


def _by_kind(names: Iterable[str]) -> str:
    """Count files by suffix: "11 .heic, 2 .mov"."""
    kinds = Counter(suffix_of(name) or "without suffix" for name in names)
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())


def _suffix_for(kind: str) -> str:
    return {"JPEG": ".jpg", "TIFF": ".tif", "JPEG 2000": ".jp2", "PNM": ".ppm"}.get(
        kind, f".{kind.lower()}"
    )


def _arranged(path: Path, files: "FolderFiles | ZipFiles", classes: bool) -> Arrangement:
    """Return the pictures of ``files`` in order. Raises DataError when there are none."""
    read = {LABELS_NAME, METADATA_NAME}  # by whoever opens the folder
    others = [name for name in files.others if name.rpartition("/")[2] not in read]
    left_out = describe_left_out(others, files.start)
    if isinstance(files, FolderFiles):
        left_out += describe_generated(files.generated)
        if files.hidden:
            left_out.append(f"hidden and not read: {_by_kind(files.hidden)}")
    if not files.pictures:
        more = f" ({'; '.join(left_out)})" if left_out else ""
        raise DataError(
            f"{path} holds no picture{more}: expected files such as .png, .jpg or .webp"
        )
    if classes:
        found = arrange(files.pictures)
    else:
        found = Arrangement(sorted(files.pictures, key=os.fsencode))
    found.notes.extend(left_out)
    return found


@dataclass(frozen=True)
class ZipMember:
    """Where the bytes of one file lie in a zip."""

    archive: Path
    offset: int  # of its local header
    stored_bytes: int
    unpacked_bytes: int
    method: int
    crc: int

    def read(self, most: int = MAX_PICTURE_BYTES) -> bytes:
        """Return the content. Raises DataError when it is damaged or has over ``most`` bytes."""
        if max(self.unpacked_bytes, self.stored_bytes) > most:
            raise DataError(f"is too large: it unpacks to {self.unpacked_bytes:,} bytes")
        content = self._unpack(self.unpacked_bytes)
        if len(content) != self.unpacked_bytes:
            raise DataError("is damaged: its size differs from the one in the zip's directory")
        return content

    def start(self) -> bytes:
        """Return what the content starts with; nothing where it cannot be read."""
        try:
            return self._unpack(START_BYTES)
        except DataError:
            return b""

    def _unpack(self, size: int) -> bytes:
        header = read_stored(self.archive, self.offset, _LOCAL_HEADER.size)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise DataError("is not where the zip's directory lists it")
        entry = zipfile.ZipInfo()
        entry.compress_type, entry.CRC = self.method, self.crc
        entry.compress_size, entry.file_size = self.stored_bytes, self.unpacked_bytes
        try:
            with open(self.archive, "rb") as file:
                file.seek(self.offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
                with zipfile.ZipExtFile(file, "r", entry) as member:
                    return member.read(size)  # checks the CRC-32 where the member ends
        except NotImplementedError:
            raise DataError(
                f"is compressed by method {self.method}, which stylecli does not read: unpack the "
                f"zip and name the folder"
            ) from None
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}") from None
        except zipfile.BadZipFile:
            raise DataError("is damaged: its checksum is wrong") from None
        except Exception as error:  # damaged streams raise nearly anything
            raise DataError(f"is damaged: {error or type(error).__name__}") from None


@dataclass(frozen=True)
class ZipPicture:
    """One picture inside a zip."""

    member: ZipMember
    name: str
    label: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the picture's name in the zip."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the picture by its content. Raises DataError with the cause."""
        return open_picture(io.BytesIO(self.member.read()))


class ZipPictures:
    """The pictures of a zip in the order of their names' bytes; folders may be classes.

    ``files`` is its directory. Raises DataError when it holds no picture.
    """

    as_stored = False  # set for the sets of NVIDIA's tools

    def __init__(self, path: Path, files: "ZipFiles", *, classes: bool = True) -> None:
        self.path, self._members = path, files.members
        found = _arranged(path, files, classes)
        self._names, self._labels = found.names, found.labels
        self.class_names, self.notes = found.class_names, found.notes

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return printable(self.path.resolve().stem)

    def fingerprint(self) -> str:
        """Return a digest over every picture's name, size and CRC-32."""
        digest = hashlib.sha256()
        for name in self._names:
            member = self._members[name]
            digest.update(f"{name}\0{member.unpacked_bytes}\0{member.crc}\0".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> ZipPicture:
        name = self._names[index]
        label = None if self._labels is None else self._labels[index]
        return ZipPicture(self._members[name], name, label)


class ZipFiles:
    """The names of the files in a zip, with forward slashes, and where their bytes lie.

    Raises DataError when it is no zip, is damaged, or holds encrypted files.
    """

    def __init__(self, path: Path) -> None:
        self.members = read_directory(path)
        seen = [name for name in self.members if not is_hidden(name)]
        self.pictures = [name for name in seen if is_picture(name)]
        self.others = [name for name in seen if not is_picture(name)]

    def read(self, name: str, most: int) -> bytes:
        """Return a file's content. Raises DataError when it has over ``most`` bytes."""
        return self.members[name].read(most)

    def start(self, name: str) -> bytes:
        """Return what a file starts with; nothing where it cannot be read."""
        return self.members[name].start()


def read_directory(path: Path) -> dict[str, ZipMember]:
    """Return the files of a zip by name, with forward slashes; of two equal names the later one.

    Raises DataError when it is no zip, is damaged, or holds encrypted files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged directories raise nearly anything
        raise DataError(
            f"{path} is not a readable zip: {error or type(error).__name__}; get it again"
        ) from None
    members = {}
    for entry in entries:
        name = plain_name(entry.filename)
        if entry.filename.endswith(("/", "\\")) or not name:
            continue
        if entry.flag_bits & _ENCRYPTED:
            raise DataError(
                f"{path} is encrypted ({printable(name)[:80]}): unpack it with its password, "
                "then name the folder"
            )
        members[printable(name)] = ZipMember(
            path,
            entry.header_offset,
            entry.compress_size,
            entry.file_size,
            entry.compress_type,
            entry.CRC,
        )
    return members
