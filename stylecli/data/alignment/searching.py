"""Search one photograph for faces: at the right size, turned if need be, with a second look."""

from PIL import Image

from stylecli.data.alignment.detection import Detection, Detector
from stylecli.data.alignment.moves import TURNS, scaled, turned_back
from stylecli.data.alignment.second_look import confirm

SEARCHED_SIDE = 1600  # px of the long side that a photograph is reduced to for the search
MAX_SEARCHED_SIDE = 3200  # px: more only where small faces are wanted
FACE_OF_CROP = 0.4  # a detector's box is at least about this part of FFHQ's crop


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
