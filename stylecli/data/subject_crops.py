"""Where the square of a picture goes that is cut out towards its subject: faces, else what stands
out.

The square is as large as the shorter side, so it only moves along the longer one. With faces it
holds all of them, or the largest where they are too far apart. Without, it goes where edges and
colours unlike the picture's rim are, and stays in the middle where nothing is.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Profile = npt.NDArray[np.float64]

Face = tuple[float, float, float, float]  # left, top, right, bottom in px
FaceFinder = Callable[[Image.Image], Sequence[Face]]

SEARCHED_SIDE = 640  # px of the longer side: a detector finds a face of an eighth of that
_LOOKED_AT = 96  # px of the longer side, for what stands out
_EDGES = 2.0  # weight of edges beside colours
_CENTRE = 0.25  # how much of what stands out in the middle a place at the end must have more
_SQUARE = 1.05  # pictures of sides more alike than this have no room to move


def square_towards_subject(
    picture: Image.Image, faces: FaceFinder | None = None
) -> tuple[float, float]:
    """Return the centre (x, y) of the square, each a share from 0 to 1 of the picture's side.

    ``picture`` is upright RGB of any size; ``faces`` finds faces in such a picture.
    """
    width, height = picture.size
    if max(width, height) <= _SQUARE * min(width, height):
        return 0.5, 0.5
    found = list(faces(picture)) if faces is not None else []
    ends = 0 if width > height else 1  # the axis to move along
    spans = [(face[ends] / max(width, height), face[ends + 2] / max(width, height), _area(face))
             for face in found]  # fmt: skip
    window = min(width, height) / max(width, height)
    place = _of_faces(spans, window) if spans else _of_contrast(picture, window)
    place = min(max(place, window / 2), 1 - window / 2)
    return (place, 0.5) if ends == 0 else (0.5, place)


def _area(face: Face) -> float:
    return (face[2] - face[0]) * (face[3] - face[1])


def _of_faces(spans: Sequence[tuple[float, float, float]], window: float) -> float:
    """Return the middle of all faces (start, end, area) if they fit, else of the largest."""
    start, end = min(span[0] for span in spans), max(span[1] for span in spans)
    if end - start > window:
        start, end, _ = max(spans, key=lambda span: span[2])
    return (start + end) / 2


def _of_contrast(picture: Image.Image, window: float) -> float:
    """Return the middle of the window that holds most of what stands out."""
    import numpy as np

    scale = _LOOKED_AT / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    levels = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float64)
    if picture.height > picture.width:
        levels = levels.transpose(1, 0, 2)
    profile = _standing_out(levels)  # [L] along the longer side
    length = max(1, min(len(profile), round(window * len(profile))))
    sums = np.convolve(profile, np.ones(length), "valid")
    if sums.max() <= 0:
        return 0.5
    places = (np.arange(len(sums)) + length / 2) / len(profile)
    away = np.abs(places - 0.5) / max(0.5 - window / 2, 1e-6)
    best = int(np.argmax(sums / sums.max() - _CENTRE * away))
    return float(places[best])


def _standing_out(levels: "npt.NDArray[np.float64]") -> "Profile":
    """Return how much each column of [H, W, 3] stands out: colour unlike the rim, and edges."""
    import numpy as np

    rim: Any = np.concatenate([levels[0], levels[-1]])
    colour = np.linalg.norm(levels - np.median(rim, axis=0), axis=2)
    grey = levels.mean(axis=2)
    edges = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    edges += np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    total: Profile = (colour + _EDGES * edges).sum(axis=0)
    total -= total.min()
    return total
