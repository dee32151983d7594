"""Find faces in one photograph: at the right size, turned if need be, with a second look.

The second look: is the face found again, in the same place, in its own upright crop? A false alarm
is not found again, or hardly. The points of a strongly tilted face are found better: dlib's fit
drifts beyond about 35 degrees, by up to 0.44 of the crop's side on a portrait turned by 45 degrees,
and by at most 0.07 after a second look. Where both looks agree the first one's points stay, so that
upright faces keep exactly the points of FFHQ's recipe.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.alignment.geometry import align_face, face_quad
from stylecli.errors import DataError

INSTALL = {
    "dlib": "pip install dlib-bin face-recognition-models",
    "mtcnn": "pip install --no-deps facenet-pytorch==2.6.0",  # its own needs an old torch
}
Points = tuple[tuple[float, float], ...]

# Phone photographs that lost their EXIF orientation lie on a side, seldom upside down.
TURNS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_180,
)

CROP_SIDE = 384  # px: at 256 px the points of faces with glasses wandered from look to look
AGREEMENT = 0.12  # mean shift of the crop's corners by its side; two looks at good points differ
# by 0.10 at most (two portraits, turned by up to 30 degrees), at bad ones by 0.14 or more
LOOKS = 4
TILTS = (30.0, -30.0)  # degrees, tried where the upright crop shows no sure face

Float64 = npt.NDArray[np.float64]

SEARCHED_SIDE = 1600  # px of the long side that a photograph is reduced to for the search
MAX_SEARCHED_SIDE = 3200  # px: more only where small faces are wanted
FACE_OF_CROP = 0.4  # a detector's box is at least about this part of FFHQ's crop


@dataclass(frozen=True)
class Detection:
    """A face: box (x0, y0, x1, y1) and 68 or 5 points (x, y) in pixels of the upright picture."""

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float  # how sure the detector is, on its own scale


class Detector(Protocol):
    """Anything that finds faces in a picture."""

    @property
    def name(self) -> str:
        """What ``--detector`` calls it."""
        ...

    @property
    def min_face(self) -> int:
        """Side in pixels of the smallest face box it finds."""
        ...

    def detect(self, image: Image.Image) -> list[Detection]:
        """Return the faces of an upright RGB picture, in its pixels, false alarms included."""
        ...

    def believes(self, score: float, upright_score: float) -> bool:
        """Tell a true face from a false alarm by its scores in the picture and in its own crop."""
        ...


def scaled(face: Detection, x: float, y: float) -> Detection:
    """Return a face as it lies in a picture x times as wide and y times as high.

    Coordinates name a pixel by its centre, so that half a pixel is added before scaling.
    """

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return (point[0] + 0.5) * x - 0.5, (point[1] + 0.5) * y - 0.5

    return Detection(
        (*place(face.box[:2]), *place(face.box[2:])), tuple(map(place, face.landmarks)), face.score
    )


def turned_back(face: Detection, turn: Image.Transpose, size: tuple[int, int]) -> Detection:
    """Return a face of a picture that was turned, as it lies in the picture of ``size``."""
    right, bottom = size[0] - 1, size[1] - 1

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        if turn == Image.Transpose.ROTATE_90:
            return right - y, x
        if turn == Image.Transpose.ROTATE_270:
            return y, bottom - x
        return right - x, bottom - y

    first, second = place(face.box[:2]), place(face.box[2:])
    box = (
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[0], second[0]),
        max(first[1], second[1]),
    )
    landmarks: Points = tuple(map(place, face.landmarks))
    return Detection(box, landmarks, face.score)


def rotated_back(face: Detection, degrees: float, side: int) -> Detection:
    """Return a face of a square picture that was rotated counter-clockwise, as it lay before.

    Its box keeps its size and moves with its centre.
    """
    middle = (side - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point[0] - middle, point[1] - middle
        return middle + cosine * x - sine * y, middle + sine * x + cosine * y

    x0, y0, x1, y1 = face.box
    x, y = place(((x0 + x1) / 2, (y0 + y1) / 2))
    width, height = (x1 - x0) / 2, (y1 - y0) / 2
    box = (x - width, y - height, x + width, y + height)
    return Detection(box, tuple(map(place, face.landmarks)), face.score)


def confirm(detector: Detector, image: Image.Image, face: Detection) -> Detection | None:
    """Return the face with points that a second look agrees with, or None for a false alarm.

    ``image`` is the upright RGB picture that the face's pixels count in.
    """
    first_score = face.score
    for _ in range(LOOKS):
        try:
            quad = face_quad(face.landmarks)
            crop = align_face(
                image,
                face.landmarks,
                output_size=CROP_SIDE,
                transform_size=2 * CROP_SIDE,
                padding=False,
            )
        except DataError:  # points that make no square, or none within the picture
            return None
        again = _central(detector.detect(crop))
        sure = again is not None and detector.believes(first_score, again.score)
        if not sure:
            again = _tilted(detector, crop, again)
        if again is None:
            return None
        seen = _in_picture(again, quad)
        side = float(np.hypot(*(quad[3] - quad[0])))
        shift = np.hypot(*(face_quad(seen.landmarks) - quad).T).mean() / side
        if shift <= AGREEMENT:
            return face if sure else None
        face = seen
    return None


def _tilted(detector: Detector, crop: Image.Image, upright: Detection | None) -> Detection | None:
    """Return the surest face at the centre of the crop, upright or tilted, in the crop's pixels."""
    best = upright
    for degrees in TILTS:
        turned = crop.rotate(degrees, Image.Resampling.BICUBIC)
        face = _central(detector.detect(turned))
        if face is not None and (best is None or face.score > best.score):
            best = rotated_back(face, degrees, CROP_SIDE)
    return best


def _central(faces: list[Detection]) -> Detection | None:
    """Return the surest face whose box holds the crop's centre."""
    middle = CROP_SIDE / 2
    holding = [
        face
        for face in faces
        if face.box[0] <= middle <= face.box[2] and face.box[1] <= middle <= face.box[3]
    ]
    return max(holding, key=lambda face: face.score, default=None)


def _in_picture(face: Detection, quad: Float64) -> Detection:
    """Take a face of the crop to the picture. ``quad`` [4, 2] is the crop's square in it."""
    right, down = (quad[3] - quad[0]) / CROP_SIDE, (quad[1] - quad[0]) / CROP_SIDE

    def place(points: npt.ArrayLike) -> Float64:
        u, v = (np.asarray(points, np.float64) + 0.5).T  # pixels are named by their centres
        places: Float64 = quad[0] + u[:, None] * right + v[:, None] * down
        return places

    x0, y0, x1, y1 = face.box
    ((x, y),) = place([((x0 + x1) / 2, (y0 + y1) / 2)]).tolist()
    half = (x1 - x0) / 2 * float(np.hypot(*right))
    landmarks = tuple((float(x), float(y)) for x, y in place(face.landmarks))
    return Detection((x - half, y - half, x + half, y + half), landmarks, face.score)


def search_faces(detector: Detector, image: Image.Image, *, min_crop: float) -> list[Detection]:
    """Return the faces of an upright RGB picture of any size, in its pixels, left to right.

    ``min_crop`` is the side in pixels of the smallest crop that is wanted; it decides how closely
    the picture is searched. Where no face is found the picture is turned by 90, 270 and 180
    degrees. What a second look does not find again is left out.
    """
    size = searched_size(image.size, detector.min_face, min_crop)
    searched = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
    found = _confirmed(detector, searched, detector.detect(searched))
    for turn in TURNS:
        if found:
            break
        turned = detector.detect(searched.transpose(turn))
        found = _confirmed(detector, searched, [turned_back(face, turn, size) for face in turned])
    x, y = image.width / size[0], image.height / size[1]
    return sorted((scaled(face, x, y) for face in found), key=lambda face: face.box)


def searched_size(size: tuple[int, int], min_face: int, min_crop: float) -> tuple[int, int]:
    """Return the size at which a picture is searched for faces.

    The long side becomes at most 1600 px. Where the smallest face that is wanted, one whose crop
    has a side of ``min_crop`` px, would then be smaller than ``min_face``, what the detector
    finds, the picture stays larger or is enlarged: up to twice its size, and to 3200 px.
    """
    long_side = max(size)
    scale = min(1.0, SEARCHED_SIDE / long_side)
    needed = min_face / (FACE_OF_CROP * max(min_crop, 1.0))
    scale = max(scale, min(needed, 2.0, MAX_SEARCHED_SIDE / long_side))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _confirmed(detector: Detector, image: Image.Image, faces: list[Detection]) -> list[Detection]:
    seen = [confirm(detector, image, face) for face in faces]
    return [face for face in seen if face is not None]
