"""What is noted of every picture: a digest, a thumbnail, and what stands out about it.

Everything here runs in worker processes, so it is small, picklable and without torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from stylecli.data import colours, decoding
from stylecli.data.checking.perceptual_hash import shrink, to_grey
from stylecli.data.layout import pixel_digest
from stylecli.data.pyramid import box_mean
from stylecli.data.sources.base import Item, Label

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


@dataclass(frozen=True)
class Measured:
    """One picture. ``thumbnail`` is grey, 32 x 32 px; ``traits`` say what stands out.

    blank: one colour; dark: nothing brighter than an eighth; grey: three equal channels; opaque:
    alpha without use; bars: plain borders on opposite sides; rotated: EXIF says it lies on its
    side; profile: colours in another space than sRGB; transparent: alpha that would be filled.
    """

    index: int
    digest: bytes
    thumbnail: bytes
    size: tuple[int, int]  # width, height, px
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
    total: npt.NDArray[np.float64] | Pixels | None = None  # sum of the pictures, [C, S, S]
    stored_digests: bytes = b""  # of a dataset, 32 bytes each, zeros where one is missing


def list_traits(pixels: Pixels, whole: Pixels | None = None) -> list[tuple[str, ...]]:
    """Return what stands out in each of the pictures uint8 [B, C, S, S].

    ``whole`` are the pictures before they were cut to a square, where that is another thing.
    """
    whole = pixels if whole is None else whole
    thumbnails = shrink(pixels)
    spread = np.ptp(pixels[:, :3].reshape(len(pixels), min(3, pixels.shape[1]), -1), axis=2)
    found: dict[str, npt.NDArray[np.bool_]] = {"blank": spread.max(axis=1) <= _BLANK_RANGE}
    found["dark"] = (thumbnails.max(axis=(1, 2, 3)) < _DARK_MAXIMUM) & ~found["blank"]
    if pixels.shape[1] >= 3:
        between = np.ptp(thumbnails[:, :3].astype(np.int16), axis=1)
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
    """Yield the measures of a dataset's pictures uint8 [B, C, R, R]."""
    side = pixels.shape[-1]
    thumbnails = np.rint(to_grey(shrink(pixels))).astype(np.uint8)
    small = box_mean(pixels, max(0, (side // SMALL_SIDE).bit_length() - 1))
    for row, traits in enumerate(list_traits(small)):
        yield Measured(
            index=indices[row],
            digest=pixel_digest(pixels[row].tobytes()),
            thumbnail=thumbnails[row].tobytes(),
            size=(side, side),
            mode=mode,
            format=codec,
            traits=traits,
            label=labels[row],
        )


def measure_item(entry: tuple[int, Item]) -> tuple[Measured, Pixels] | Fault:
    """Decode one picture of a source; return its measures and its central square.

    The square is uint8 [3 or 4, 128, 128], alpha only where there is some. Never raises for a
    picture: what cannot be used is a ``Fault`` with its cause.
    """
    index, item = entry
    with decoding.quiet():
        try:
            with item.open() as picture:
                return _measure(index, item, picture)
        except Exception as error:  # items and decoders raise anything on damaged files
            return Fault(index, "unusable", decoding.name_cause(error))


def bury(entry: tuple[int, Item], cause: str) -> tuple[Measured, Pixels] | Fault:
    """Return the fault of a picture that brought its process down."""
    return Fault(entry[0], "unusable", f"ended the process that decoded it ({cause})")


def _measure(index: int, item: Item, picture: Image.Image) -> tuple[Measured, Pixels]:
    header = decoding.read_header(picture)
    decoding.check_kind(header)
    traits = []
    if decoding.read_exif(picture).get(ExifTags.Base.Orientation, 1) != 1:
        traits.append("rotated")
    if header.profile and _is_foreign(header.profile, picture):
        traits.append("profile")
    decoding.draft(picture, min(header.size) / SMALL_SIDE)
    picture.load()  # to the end, which finds truncated files
    plain = colours.simplify(picture, header)
    digest = pixel_digest(repr((header.size, plain.mode)).encode() + plain.tobytes())
    if plain.mode == "RGBA" and np.asarray(plain.getchannel("A")).min() < 255:
        traits.append("transparent")
    square, whole = _square(plain), _small(plain, plain.size, (0, 0))
    (others,) = list_traits(square[None], whole[None])
    thumbnail = np.rint(to_grey(shrink(square[None]))).astype(np.uint8)
    measured = Measured(
        index=index,
        digest=digest,
        thumbnail=thumbnail.tobytes(),
        size=header.size,
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
    return np.asarray(colours.finish(region, 3)[0]).transpose(2, 0, 1)


def _is_foreign(profile: bytes, picture: Image.Image) -> bool:
    """Tell whether a profile would change the colours of a picture."""
    swatch = Image.new("RGB", (2, 1), (200, 60, 30))
    swatch.putpixel((1, 0), (30, 90, 200))
    if picture.mode not in ("RGB", "RGBA"):
        return picture.mode in ("CMYK", "LAB")
    converted, note = colours.finish(swatch, 3, profile=profile)
    return bool(note) or converted.tobytes() != swatch.tobytes()


def _has_bars(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell which pictures [B, S, S] have plain bars of one level above and below."""
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
