"""What a source is: anything that lists items which decode themselves when asked.

A new kind of source is a class of this shape and a row in ``recognition.py``. Items are small and
can be pickled (a path and an offset, never an open file), so that decoding may happen in other
processes.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from stylecli.data.pictures import open_picture, picture_kind
from stylecli.errors import DataError

if TYPE_CHECKING:  # items travel to worker processes, which load no numpy for them
    from stylecli.data.sources.labels import Values

SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .tga "
    ".jp2 .j2k .jpx .avif .avifs .qoi .pcx .sgi .psd .dds .ico".split()
)
# Read with pillow-heif, the extra "heif"; AVIF is Pillow's own since 11.3.
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".heics", ".hif"})
_SHOWN = 4  # names given as examples in a sentence

Label = int | tuple[float, ...]  # a class, or a vector: one value per attribute


MAX_PICTURE_BYTES = 1 << 29


class Item(Protocol):
    """One picture of a source, not yet decoded."""

    @property
    def name(self) -> str:
        """Where it lies within its source."""
        ...

    @property
    def label(self) -> Label | None:
        """Its class or its vector, if the source is labelled."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What the dataset should remember of it: source, author, licence."""
        ...

    def open(self) -> Image.Image:
        """Open the picture; its pixels may be decoded later. Raises DataError with the cause."""
        ...


class Source(Protocol):
    """A list of pictures in a fixed order."""

    @property
    def name(self) -> str:
        """What a dataset made of it is called."""
        ...

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes that labels count through, or None when there are none."""
        ...

    @property
    def notes(self) -> list[str]:
        """Sentences the user should read before packing: labels left out, lossy pictures."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of what the source holds, by names and sizes, without decoding it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


def spread(source: Source, count: int | None) -> Sequence[int]:
    """Return the indices of ``count`` items spread evenly over the source (None or more: all)."""
    total = len(source)
    if count is None or count >= total:
        return range(total)
    return [place * total // count for place in range(count)]


@dataclass(frozen=True)
class AnnotatedItem:
    """A picture with another label, and more known of it."""

    item: Item
    label: Label | None
    more: dict[str, Any]

    @property
    def name(self) -> str:
        """Where it lies within its source."""
        return self.item.name

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what its source knows, and what was added."""
        return {**self.item.metadata, **self.more}

    def open(self) -> Image.Image:
        """Open the picture. Raises DataError with the cause."""
        return self.item.open()


class AnnotatedSource:
    """A source whose labels, metadata and notes come from files beside or inside it."""

    def __init__(
        self,
        source: Source,
        values: "Values | None",
        class_names: list[str] | None = None,
        *,
        notes: Sequence[str] = (),
        metadata: dict[int, dict[str, Any]] | None = None,
    ) -> None:
        self._source, self._values = source, values
        self._metadata = metadata or {}
        if values is not None and values.ndim == 1 and class_names is None:
            class_names = [str(label) for label in range(int(values.max()) + 1)]
        self.class_names = class_names
        self.notes = [*source.notes, *notes]

    @property
    def bare(self) -> Source:
        """The same pictures without what was added."""
        return self._source

    @property
    def name(self) -> str:
        """The source's own name."""
        return self._source.name

    def fingerprint(self) -> str:
        """Return a digest over the source's and over the labels."""
        digest = hashlib.sha256(self._source.fingerprint().encode())
        if self._values is not None:
            digest.update(f"{self._values.shape}{self.class_names}".encode())
            digest.update(self._values.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> AnnotatedItem:
        item = self._source[index]
        label: Label | None = None
        if self._values is not None:
            value = self._values[index].tolist()
            label = value if isinstance(value, int) else tuple(value)
        return AnnotatedItem(item, label, self._metadata.get(index, {}))


def pictures_fingerprint(source: Source) -> str:
    """Return a digest of what pictures a source holds, whatever labels they were given."""
    while isinstance(source, AnnotatedSource):
        source = source.bare
    return source.fingerprint()


def keeps_as_stored(source: Source) -> bool:
    """Whether a source's pictures are taken as they are stored, whatever EXIF says of them.

    So are those of NVIDIA's tools, which never look at it.
    """
    while isinstance(source, AnnotatedSource):
        source = source.bare
    return bool(getattr(source, "as_stored", False))


@dataclass(frozen=True)
class StoredPicture:
    """One encoded picture inside a file."""

    file: Path
    offset: int
    size: int
    name: str
    label: Label | None

    @property
    def metadata(self) -> dict[str, Any]:
        """Return its name in the file."""
        return {"source": self.name}

    def open(self) -> Image.Image:
        """Open the picture by its content. Raises DataError with the cause."""
        if self.size > MAX_PICTURE_BYTES:
            raise DataError(f"is too large: {self.size:,} bytes")
        return open_picture(io.BytesIO(read_stored(self.file, self.offset, self.size)))


def read_stored(file: Path, offset: int, size: int) -> bytes:
    """Return ``size`` bytes of a file. Raises DataError when they are not there any more."""
    try:
        with open(file, "rb") as opened:
            opened.seek(offset)
            content = opened.read(size)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    if len(content) != size:
        raise DataError(f"cannot be read: {file.name} was cut short")
    return content


def printable(name: str) -> str:
    """Make a file name that is not UTF-8 fit for JSON."""
    return os.fsencode(name).decode("utf-8", "replace")


def common_folder(names: Sequence[str]) -> str:
    """Return the folder around all names, with forward slashes, or "" when there is none."""
    if not names:
        return ""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "/".join(part for part, _ in same)


def is_lossy(start: bytes) -> bool:
    """Tell whether a picture that begins so has lost something when it was stored."""
    kind = picture_kind(start)
    return kind in ("JPEG", "AVIF", "HEIC") or (kind == "WebP" and start[12:16] != b"VP8L")


def listing(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Return the first names, and that there are more, for a sentence."""
    names = list(names)
    more = ", ..." if len(names) > shown else ""
    return ", ".join(printable(name)[:80] for name in names[:shown]) + more
