"""One photograph as the picture that a network would draw: aligned, and of its size.

The face is found and cut out as ``prepare-ffhq`` does it. A mask, a picture of its own or the
photograph's transparency, goes the same way, so that it stays on its pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from stylecli.data.alignment.detection import Detection, search_faces
from stylecli.data.alignment.detectors import choose_detector, installed_detector, load_detector
from stylecli.data.alignment.geometry import SUPERSAMPLING, align_face, face_quad, face_square
from stylecli.data.pictures import (
    TARGETS,
    WHITE,
    check_kind,
    lay_over,
    name_cause,
    open_picture,
    quiet,
    read_header,
)
from stylecli.data.preparation import DecodeSettings, decode_pixels, place
from stylecli.errors import DataError, UsageError, plural
from stylecli.shapes import Size

_LEAST_CROP = 64  # px: the side of the smallest square around a face that is looked for
_UNALIGNED = 0.12  # mean shift of the square's corners by its side, beyond which a face is off:
# an aligned face that is found again is off by 0.10 at most (see detection.AGREEMENT)
_LEAST_SEARCHED = 128  # px: in smaller pictures no detector finds a face


class NoFaceError(DataError):
    """A photograph in which no face is found; ``advice`` says what to do."""

    def __init__(
        self, path: Path,
        advice: str = "for other subjects, and for faces that are aligned already, add --no-align",
    ) -> None:  # fmt: skip
        super().__init__(f"no face found in {path}: {advice}")


@dataclass(frozen=True)
class Portrait:
    """A picture at a network's size, what of it counts, and what is to be said of it."""

    picture: npt.NDArray[np.uint8]  # [H, W, C]
    mask: npt.NDArray[np.float32] | None  # [H, W] in [0, 1]; None: all of it
    notes: tuple[str, ...] = ()


def read_portrait(
    path: Path,
    size: int | tuple[int, int],
    channels: int = 3,
    *,
    align: bool = True,
    detector: str = "auto",
    mask: Path | None = None,
) -> Portrait:
    """Return a photograph as a picture of ``size`` px on a side, or of a height and a width.

    ``align`` cuts its largest face out as in FFHQ, which makes squares: for other shapes the
    largest central piece is taken, and a note says so. A photograph that has ``size`` already and
    shows no face is taken as it is, which a note says. Without ``align`` the central square is
    taken, and a note says where a face in it looks unaligned. In ``mask``, a picture as large as
    the photograph, white counts and black does not; without one, what is transparent does not
    count. Raises DataError, with the name of the file, for what cannot be used, NoFaceError where
    no face is found.
    """
    height, width = (size, size) if isinstance(size, int) else size
    photo, opaque = open_photo(path)
    weights = opaque if mask is None else _read_mask(mask, photo.size)
    notes: list[str] = []
    face = None
    if align and height != width:
        align = False
        if photo.size != (width, height):
            notes.append(
                f"{path} is not aligned, which makes squares: of {width}x{height} px, the largest "
                "piece in its middle is taken"
            )
    elif align:
        face, others = _find_face(photo, path, detector, width)
        if others:
            notes.append(f"{path} shows {plural(others + 1, 'face')}: the largest is taken")
        if face is None:
            seen = "" if width < _LEAST_SEARCHED else ": no face is found in it"
            notes.append(f"{path} has this network's size and is taken as it is{seen}")
    if face is not None:
        photo, weights = _aligned(photo, weights, face, path, width)
    else:
        box = place("center-crop", photo.size, (width, height), (width, height)).box
        photo, weights = photo.crop(box), None if weights is None else weights.crop(box)
        if not align and height == width:
            notes += _look_for_unaligned(photo, path, detector)
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
        if weights is not None:
            weights = weights.resize((width, height), Image.Resampling.BOX)
    kept = None
    if weights is not None:
        kept = np.asarray(weights, np.float32) / np.float32(255)
        if kept.max() < 0.5:
            if mask is None:
                raise DataError(f"{path} is transparent wherever it is looked at: fill it first")
            raise DataError(f"the mask of {path} leaves nothing to look at: white is what counts")
    pixels = np.asarray(photo.convert(TARGETS[channels]))
    return Portrait(pixels.reshape(height, width, channels), kept, tuple(notes))


def read_small(path: Path, size: Size, channels: int = 3) -> Portrait:
    """Return a small picture as it is, of which a network that draws ``size`` makes a large one.

    A grey one for a network of colours stays grey, [h, w, 1], which a note says. Raises DataError,
    with the name of the file, for what cannot be used: also for transparency, under which anything
    may be, and for a size of which the network's is no whole multiple.
    """
    photo, opacity = open_photo(path)
    try:
        shrink_factor(Size(photo.height, photo.width), size)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None
    if opacity is not None:
        raise DataError(
            f"{path} has transparent parts, under which anything may be: lay it over a colour first"
        )
    bands = photo.split()
    notes: tuple[str, ...] = ()
    if all(band.tobytes() == bands[0].tobytes() for band in bands) and channels > 1:
        channels, notes = 1, (f"{path} is grey: the colours of the faces are guessed",)
    pixels = np.asarray(photo.convert(TARGETS[channels]))
    return Portrait(pixels.reshape(photo.height, photo.width, channels), None, notes)


def shrink_factor(small: Size, drawn: Size) -> int:
    """Return how often a picture is shrunk from what a network draws; raise UsageError if never."""
    factor = drawn.height // small.height
    if factor >= 2 and min(small) >= 2 and small == (drawn.height // factor, drawn.width // factor):
        if drawn == (small.height * factor, small.width * factor):
            return factor
    sizes = [
        f"{drawn.width // by}x{drawn.height // by}"
        for by in range(2, min(drawn) // 2 + 1)
        if drawn.height % by == 0 and drawn.width % by == 0
    ]
    smaller = small.height < drawn.height and small.width < drawn.width
    what = "no whole fraction of" if smaller else "no smaller than"
    raise UsageError(
        f"{small.width}x{small.height} px is {what} the {drawn.width}x{drawn.height} px that this "
        f"network draws: give {', '.join(sizes[:5])} px"
    )


def check_picture(picture: npt.NDArray[np.uint8], size: tuple[int, int], channels: int) -> Portrait:
    """Return a picture as it is; raise UsageError unless it is uint8 [*size, channels]."""
    if picture.dtype != np.uint8 or picture.shape != (*size, channels):
        raise UsageError(
            f"a picture is {picture.dtype} {list(picture.shape)}: this network draws uint8 "
            f"{[*size, channels]}"
        )
    return Portrait(picture, None)


def open_photo(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Return a photograph as RGB over white, upright, and its opacity [L] where it has any."""
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {wrong}: give a photograph")
    try:
        with open_picture(path) as opened, quiet():
            header = read_header(opened, upright=True)
            check_kind(header)
            picture, _ = decode_pixels(opened, header, DecodeSettings(channels=4))
    except Exception as error:  # decoders raise anything on damaged files
        raise DataError(f"{path} {name_cause(error)}") from None
    opacity = picture.getchannel("A")
    low, _ = opacity.getextrema()
    return lay_over(picture, WHITE), opacity if low != 255 else None


def _read_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    picture, opacity = open_photo(path)
    if picture.size != size:
        raise DataError(
            f"the mask {path} has {picture.width} x {picture.height} px and its photograph "
            f"{size[0]} x {size[1]} px: expected the same"
        )
    white = picture.convert("L")
    if opacity is None:
        return white
    return ImageChops.subtract(white, ImageChops.invert(opacity))  # what is not there is black


def _find_face(
    photo: Image.Image, path: Path, detector: str, size: int
) -> tuple[Detection | None, int]:
    """Return the largest face and how many others there are.

    None where there is none and the picture has ``size`` already: then it was made for a network.
    In small ones no detector finds any, so none is needed.
    """
    fits = photo.size == (size, size)
    if fits and size < _LEAST_SEARCHED:
        return None, 0
    chosen = choose_detector(detector, f"take it as it is: stylecli project {path} --no-align")
    faces = search_faces(load_detector(chosen), photo, min_crop=max(_LEAST_CROP, size / 2))
    if not faces and not fits:
        raise NoFaceError(path)
    if not faces:
        return None, 0
    return max(faces, key=lambda face: face_square(face.landmarks).side), len(faces) - 1


def _aligned(
    photo: Image.Image, weights: Image.Image | None, face: Detection, path: Path, size: int
) -> tuple[Image.Image, Image.Image | None]:
    def cut(picture: Image.Image, padding: bool) -> Image.Image:
        return align_face(
            picture, face.landmarks, output_size=size, transform_size=SUPERSAMPLING * size,
            padding=padding,
        )  # fmt: skip

    try:
        return cut(photo, True), None if weights is None else cut(weights, False).convert("L")
    except DataError as error:
        raise DataError(f"the face in {path} cannot be aligned: {error}") from None


def _look_for_unaligned(photo: Image.Image, path: Path, detector: str) -> list[str]:
    """Return a sentence where a square picture shows a face that is not aligned."""
    name = installed_detector() if detector == "auto" else detector
    if not name or photo.width < _LEAST_SEARCHED:
        return []
    faces = search_faces(load_detector(name), photo, min_crop=photo.width / 2)
    if not faces:
        return []
    side = float(photo.width)
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) - 0.5
    off = min(
        float(np.hypot(*(face_quad(face.landmarks) - corners).T).mean()) / side for face in faces
    )
    if off <= _UNALIGNED:
        return []
    return [
        f"the face in {path} looks unaligned, by {100 * off:.0f} % of the picture's side: "
        f"matches are better without --no-align"
    ]
