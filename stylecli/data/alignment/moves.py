"""Where a found face lies after its picture was resized or turned."""

import math

from PIL import Image

from stylecli.data.alignment.detection import Detection, Points

# Phone photographs that lost their EXIF orientation lie on a side, seldom upside down.
TURNS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_180,
)


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
