"""A second look: is the face found again, in the same place, in its own upright crop?

A false alarm is not found again, or hardly. The points of a strongly tilted face are found better:
dlib's fit drifts beyond about 35 degrees, by up to 0.44 of the crop's side on a portrait turned by
45 degrees, and by at most 0.07 after a second look. Where both looks agree the first one's points
stay, so that upright faces keep exactly the points of FFHQ's recipe.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.alignment.detection import Detection, Detector
from stylecli.data.alignment.geometry import align_face, face_quad
from stylecli.data.alignment.moves import rotated_back
from stylecli.errors import DataError

CROP_SIDE = 384  # px: at 256 px the points of faces with glasses wandered from look to look
AGREEMENT = 0.12  # mean shift of the crop's corners by its side; two looks at good points differ
# by 0.10 at most (two portraits, turned by up to 30 degrees), at bad ones by 0.14 or more
LOOKS = 4
TILTS = (30.0, -30.0)  # degrees, tried where the upright crop shows no sure face

Float64 = npt.NDArray[np.float64]


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
