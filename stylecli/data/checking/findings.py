"""What a check finds: what is noted of each picture, its sums, and problems with what fixes them.

What is noted of a picture is found in worker processes, so it is small, picklable and needs no
torch. Of the sums, digests and thumbnails (1 KiB a picture) go to a temporary file, which is mapped
when duplicates are looked for; one byte a picture stays in memory.
"""

import functools
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.checking.near_duplicates import THUMBNAIL_SIDE, shrink, to_grey
from stylecli.data.format import DIGEST_BYTES, box_mean, pixel_digest
from stylecli.data.pictures import (
    check_kind,
    draft,
    finish,
    name_cause,
    quiet,
    read_header,
    simplify,
    turn_upright,
)
from stylecli.data.sources.base import Item, Label
from stylecli.shapes import Grid, fitting_grid

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_NAMES = 100  # pictures named per problem; the count says how many there are

Pixels = npt.NDArray[np.uint8]

SMALL_SIDE = 128  # px: a source's pictures are judged and averaged at this size
# Grey levels; see the traits.
_BLANK_RANGE = 4
_DARK_MAXIMUM = 32
_GREY_SPREAD = 2
_BAR_RANGE = 12  # compression leaves that much in a plain bar
_BAR_STEP = 24
_BAR_LEAST, _BAR_MOST = 0.03, 0.45  # of the side
_BAR_WIDTH, _BAR_ENDS = 0.6, 0.5  # of the columns change where a bar ends; of those at its ends

_RECORD = np.dtype(
    [("digest", "u1", DIGEST_BYTES), ("thumbnail", "u1", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))]
)
ASPECTS = ((1.5, "wide"), (1.05, "slightly wide"), (0.95, "square"), (0.67, "slightly tall"))
_UNSEEN, _SEEN, _PLAIN = 0, 1, 2  # plain: nothing to compare by its looks


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong or worth knowing, and the command or flag that fixes it.

    An ``error`` is damage, or stops packing or training; a ``warning`` costs quality; a ``note``
    is a choice the user may want to make otherwise.
    """

    severity: Severity
    kind: str  # a short name for programs
    text: str
    fix: str  # "" where the text says what to do
    count: int = 1  # pictures concerned, where it is about pictures
    names: list[str] = field(default_factory=list)  # the first of them
    pack: tuple[str, ...] = ()  # options of pack that are advised, such as "--channels 1"
    train: tuple[str, ...] = ()  # the same of train

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}" + (f": {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class CheckReport:
    """Everything a check found. ``rows`` are facts for people, ``facts`` the same for programs."""

    path: str
    kind: str  # "dataset" or "source"
    name: str
    complete: bool  # all pictures were looked at
    rows: list[tuple[str, str]]
    facts: dict[str, Any]
    problems: list[Problem]  # worst first
    next: str = ""  # the one command that does all that is advised; "" where none is ready
    files: list[str] = field(default_factory=list)  # pictures and JSON that were written

    @property
    def usable(self) -> bool:
        """Whether nothing was found that is damaged or would stop training."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {**asdict(self), "rows": dict(self.rows), "usable": self.usable}


def worst_first(problems: list[Problem]) -> list[Problem]:
    """Sort problems: errors, warnings, notes; within each, as they were found."""
    return sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity))


@dataclass(frozen=True)
class Measured:
    """One picture. ``thumbnail`` is grey, 32 x 32 px; ``traits`` say what stands out.

    blank: one colour; dark: nothing brighter than an eighth; grey: three equal channels; opaque:
    alpha without use; bars: plain borders on opposite sides; rotated: EXIF turns it; profile:
    colours in another space than sRGB; transparent: alpha that would be filled.
    """

    index: int
    digest: bytes
    thumbnail: bytes
    size: tuple[int, int]  # width, height, px; upright
    mode: str
    format: str
    traits: tuple[str, ...] = ()
    label: Label | None = None


@dataclass(frozen=True)
class Fault:
    """A picture that is damaged or cannot be used."""

    index: int
    kind: str  # "pixels", "metadata", "label", "level", "unusable"
    cause: str


@dataclass
class Findings:
    """What a worker hands back for some pictures."""

    measured: list[Measured] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    looked_at: int = 0
    total: npt.NDArray[np.float64] | Pixels | None = None  # sum of the pictures, [C, H, W]
    stored_digests: bytes = b""  # of a dataset, 32 bytes each, zeros where one is missing


def list_traits(pixels: Pixels, whole: Pixels | None = None) -> list[tuple[str, ...]]:
    """Return what stands out in each of the pictures uint8 [B, C, H, W].

    ``whole`` are the pictures before they were cut to a square, where that is another thing.
    """
    whole = pixels if whole is None else whole
    thumbnails = shrink(pixels)
    spread = np.ptp(pixels[:, :3].reshape(len(pixels), min(3, pixels.shape[1]), -1), axis=2)
    found: dict[str, npt.NDArray[np.bool_]] = {"blank": spread.max(axis=1) <= _BLANK_RANGE}
    found["dark"] = (thumbnails.max(axis=(1, 2, 3)) < _DARK_MAXIMUM) & ~found["blank"]
    if pixels.shape[1] >= 3:
        seen = shrink(whole)  # colour may lie beside the square
        between = np.ptp(seen[:, :3].astype(np.int16), axis=1)
        found["grey"] = between.max(axis=(1, 2)) <= _GREY_SPREAD
    if pixels.shape[1] == 4:
        found["opaque"] = pixels[:, 3].min(axis=(1, 2)) == 255
    grey = to_grey(whole)
    found["bars"] = (_has_bars(grey) | _has_bars(grey.transpose(0, 2, 1))) & ~found["blank"]
    return [
        tuple(name for name, holds in found.items() if holds[row]) for row in range(len(pixels))
    ]


def measure_pixels(
    indices: list[int], pixels: Pixels, mode: str, codec: str, labels: list[Label | None]
) -> Iterator[Measured]:
    """Yield the measures of a dataset's pictures uint8 [B, C, H, W]."""
    height, width = pixels.shape[-2:]
    thumbnails = np.rint(to_grey(shrink(pixels))).astype(np.uint8)
    small = box_mean(pixels, max(0, (width // SMALL_SIDE).bit_length() - 1))
    for row, traits in enumerate(list_traits(small)):
        yield Measured(
            index=indices[row],
            digest=pixel_digest(pixels[row].tobytes()),
            thumbnail=thumbnails[row].tobytes(),
            size=(width, height),
            mode=mode,
            format=codec,
            traits=traits,
            label=labels[row],
        )


def measure_item(entry: tuple[int, Item], upright: bool = True) -> tuple[Measured, Pixels] | Fault:
    """Decode one picture of a source; return its measures and its central square.

    ``upright`` is whether it is turned as its EXIF tag says. The square is uint8
    [3 or 4, 128, 128], alpha only where there is some. Never raises for a picture: what cannot be
    used is a ``Fault`` with its cause.
    """
    index, item = entry
    with quiet():
        try:
            with item.open() as picture:
                return _measure(index, item, picture, upright)
        except Exception as error:  # items and decoders raise anything on damaged files
            return Fault(index, "unusable", name_cause(error))


def bury(entry: tuple[int, Item], cause: str) -> tuple[Measured, Pixels] | Fault:
    """Return the fault of a picture that brought its process down."""
    return Fault(entry[0], "unusable", f"ended the process that decoded it ({cause})")


def _measure(
    index: int, item: Item, picture: Image.Image, upright: bool
) -> tuple[Measured, Pixels]:
    header = read_header(picture, upright=upright)
    check_kind(header)
    traits = []
    if header.orientation != 1:
        traits.append("rotated")
    if header.profile and _is_foreign(header.profile, picture):
        traits.append("profile")
    draft(picture, min(header.size) / SMALL_SIDE)
    picture.load()  # to the end, which finds truncated files
    plain = turn_upright(simplify(picture, header), header)
    digest = pixel_digest(repr((header.upright_size, plain.mode)).encode() + plain.tobytes())
    if plain.mode == "RGBA" and np.asarray(plain.getchannel("A")).min() < 255:
        traits.append("transparent")
    square, whole = _square(plain), _small(plain, plain.size, (0, 0))
    (others,) = list_traits(square[None], whole[None])
    thumbnail = np.rint(to_grey(shrink(square[None]))).astype(np.uint8)
    measured = Measured(
        index=index,
        digest=digest,
        thumbnail=thumbnail.tobytes(),
        size=header.upright_size,
        mode=header.mode,
        format=header.kind or "pixels",
        # Pictures stored as grey are grey; only colour pictures can be so by mistake.
        traits=(*traits, *(t for t in others if t != "grey" or not header.is_grey)),
        label=item.label,
    )
    return measured, square


def _square(picture: Image.Image) -> Pixels:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return _small(picture, (side, side), (left, top))


def _small(picture: Image.Image, size: tuple[int, int], corner: tuple[int, int]) -> Pixels:
    """Return a region at 128 x 128 px, RGB over white: uint8 [3, 128, 128]."""
    box = (*corner, corner[0] + size[0], corner[1] + size[1])
    region = picture.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BOX, box=box)
    return np.asarray(finish(region, 3)[0]).transpose(2, 0, 1)


def _is_foreign(profile: bytes, picture: Image.Image) -> bool:
    """Tell whether a profile would change the colours of a picture."""
    swatch = Image.new("RGB", (2, 1), (200, 60, 30))
    swatch.putpixel((1, 0), (30, 90, 200))
    if picture.mode not in ("RGB", "RGBA"):
        return picture.mode in ("CMYK", "LAB")
    converted, note = finish(swatch, 3, profile=profile)
    return bool(note) or converted.tobytes() != swatch.tobytes()


def _has_bars(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell which pictures [B, H, W] have plain bars of one level above and below."""
    side = grey.shape[1]
    plain = np.ptp(grey, axis=2) <= _BAR_RANGE  # [B, rows]
    above = np.argmin(plain, axis=1)  # rows before the first that is not plain
    below = np.argmin(plain[:, ::-1], axis=1)
    least, most = max(2, round(_BAR_LEAST * side)), _BAR_MOST * side
    likely: npt.NDArray[np.bool_] = (np.minimum(above, below) >= least) & (
        np.maximum(above, below) <= most
    )
    likely &= np.abs(grey[:, 0].mean(axis=1) - grey[:, -1].mean(axis=1)) <= _BAR_RANGE
    for row in np.flatnonzero(likely):
        level = grey[row, 0].mean()
        edges = grey[row, above[row] + 1], grey[row, side - below[row] - 2]
        likely[row] = all(_crosses(np.abs(edge - level) > _BAR_STEP) for edge in edges)
    return likely


def _crosses(differs: npt.NDArray[np.bool_]) -> bool:
    """Tell whether what follows a bar goes from end to end, as things in a picture seldom do."""
    end = max(1, len(differs) // 10)
    parts = (differs, _BAR_WIDTH), (differs[:end], _BAR_ENDS), (differs[-end:], _BAR_ENDS)
    return all(part.mean() >= share for part, share in parts)


@dataclass
class Extreme:
    """The smallest or the largest picture."""

    index: int
    size: tuple[int, int]


@dataclass
class Tally:
    """Sums over the pictures seen so far. Use as a context: it owns a temporary file."""

    count: int  # pictures there are
    looked_at: int = 0
    sides: Counter[int] = field(default_factory=Counter)  # shorter side, px
    aspects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # height, width, px
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    traits: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)  # trait or fault -> some indices
    causes: dict[int, str] = field(default_factory=dict)  # of those faults
    faults: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    unlabelled: int = 0
    smallest: Extreme | None = None
    largest: Extreme | None = None
    total: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # closed by close()
        self._seen = bytearray(self.count)

    def add(self, findings: Findings) -> None:
        """Add what a worker found."""
        self.looked_at += findings.looked_at
        for fault in findings.faults:
            self._add_fault(fault)
        for measured in findings.measured:
            self._add_picture(measured)
        if findings.total is not None:
            if self.total is None:
                self.total = np.zeros(findings.total.shape)
            self.total += findings.total

    @property
    def usable(self) -> int:
        """Pictures that could be measured."""
        return self.modes.total()

    @functools.cached_property
    def fitting_grid(self) -> Grid:
        """The grid whose shape keeps most of all pictures, once all are seen."""
        return fitting_grid(self.sizes)

    def mean(self) -> npt.NDArray[np.uint8] | None:
        """Return the mean picture, uint8 [C, H, W], if there is any."""
        if self.total is None or not self.usable:
            return None
        return np.rint(self.total / self.usable).astype(np.uint8)

    def thumbnails(self) -> npt.NDArray[np.uint8]:
        """Return the grey thumbnails [N, 32, 32], mapped from the file."""
        thumbnails: npt.NDArray[np.uint8] = self._records()["thumbnail"]
        return thumbnails

    def exact_groups(self) -> list[list[int]]:
        """Return groups of pictures with equal digests, each sorted, in order of the first."""
        seen = np.flatnonzero(np.frombuffer(bytes(self._seen), np.uint8))
        if len(seen) < 2:
            return []
        digests = np.array(self._records()["digest"][seen])
        starts = digests[:, :8].copy().view("<u8")[:, 0]
        order = np.argsort(starts, kind="stable")
        again = starts[order[1:]] == starts[order[:-1]]
        doubtful = order[np.flatnonzero(np.append(again, False) | np.append(False, again))]
        groups: dict[bytes, list[int]] = {}
        for place in np.sort(doubtful):
            groups.setdefault(digests[place].tobytes(), []).append(int(seen[place]))
        return [group for group in groups.values() if len(group) > 1]

    def measured(self) -> npt.NDArray[np.int64]:
        """Return the indices of the pictures that could be measured."""
        return np.flatnonzero(np.frombuffer(bytes(self._seen), np.uint8) != _UNSEEN)

    def comparable(self, exact: list[list[int]]) -> npt.NDArray[np.int64]:
        """Return the pictures to compare by their looks: not plain, and one of each equal ones."""
        seen = np.frombuffer(bytes(self._seen), np.uint8) == _SEEN
        seen[[index for group in exact for index in group[1:]]] = False
        return np.flatnonzero(seen)

    def close(self) -> None:
        """Let the temporary file go."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _records(self) -> Any:
        self._file.truncate(self.count * _RECORD.itemsize)
        return np.memmap(self._file, dtype=_RECORD, mode="r", shape=(self.count,))

    def _add_fault(self, fault: Fault) -> None:
        self.faults[fault.kind] += 1
        self._remember(fault.kind, fault.index)
        if fault.index in self.examples[fault.kind]:
            self.causes.setdefault(fault.index, fault.cause)

    def _add_picture(self, picture: Measured) -> None:
        width, height = picture.size
        self.sides[min(picture.size)] += 1
        self.aspects[_name_aspect(width / height)] += 1
        self.sizes[height, width] += 1
        self.modes[picture.mode] += 1
        self.formats[picture.format] += 1
        for trait in picture.traits:
            self.traits[trait] += 1
            self._remember(trait, picture.index)
        if isinstance(picture.label, int):
            self.classes[picture.label] += 1
        elif picture.label is None:
            self.unlabelled += 1
            self._remember("unlabelled", picture.index)
        if self.smallest is None or min(picture.size) < min(self.smallest.size):
            self.smallest = Extreme(picture.index, picture.size)
        if self.largest is None or min(picture.size) > min(self.largest.size):
            self.largest = Extreme(picture.index, picture.size)
        self._seen[picture.index] = _PLAIN if "blank" in picture.traits else _SEEN
        self._file.seek(picture.index * _RECORD.itemsize)
        self._file.write(picture.digest + picture.thumbnail)

    def _remember(self, name: str, index: int) -> None:
        known = self.examples.setdefault(name, [])
        if len(known) < MAX_NAMES:
            known.append(index)


def _name_aspect(ratio: float) -> str:
    return next((name for least, name in ASPECTS if ratio >= least), "tall")
