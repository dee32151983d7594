"""What a face detector is, what it finds, and how each is installed."""

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

INSTALL = {
    "dlib": "pip install dlib-bin face-recognition-models",
    "mtcnn": "pip install --no-deps facenet-pytorch==2.6.0",  # its own needs an old torch
}
Points = tuple[tuple[float, float], ...]


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
