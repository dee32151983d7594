"""Faces by dlib: its frontal detector and its 68 points, as the FFHQ authors had them.

The points come from ``shape_predictor_68_face_landmarks.dat`` of the PyPI package
``face-recognition-models``, whose own import needs the retired ``pkg_resources`` and is avoided.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli.data.alignment.detection import INSTALL, Detection
from stylecli.errors import DataError, WeightsError

MODEL = Path("models") / "shape_predictor_68_face_landmarks.dat"
MODEL_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
MIN_FACE = 80  # px: the side of the window the detector slides over the picture
# Measured on 12 faces (two portraits turned by up to 45 degrees, half faces, three-quarter views)
# and eight pictures without: true faces score -0.21 or more in the picture, and the mean of that
# and of the score in their upright crop is 0.5 or more; that of false alarms is 0.28 or less. So
# the search begins below dlib's own threshold of 0, and the mean decides.
THRESHOLD = -0.25
BELIEVED_MEAN = 0.4


class DlibDetector:
    """Finds faces with the 68 points of the iBUG 300-W scheme."""

    name = "dlib"
    points = 68
    min_face = MIN_FACE

    def __init__(self) -> None:
        self._find, self._predict, self._rectangle = _models()

    def detect(self, image: Image.Image) -> list[Detection]:
        """Return the faces of an RGB picture, the surest first."""
        pixels = np.asarray(image.convert("RGB"))
        rectangles, scores, _ = self._find.run(pixels, 0, THRESHOLD)  # 0: enlarging is not its job
        return [
            Detection(
                box=(
                    float(rectangle.left()),
                    float(rectangle.top()),
                    float(rectangle.right()),
                    float(rectangle.bottom()),
                ),
                landmarks=tuple(
                    (float(point.x), float(point.y))
                    for point in self._predict(pixels, rectangle).parts()
                ),
                score=float(score),
            )
            for rectangle, score in zip(rectangles, scores, strict=True)
        ]

    def believes(self, score: float, upright_score: float) -> bool:
        """Tell a true face from a false alarm by its scores in the picture and in its own crop."""
        return (score + upright_score) / 2 >= BELIEVED_MEAN


@cache
def _models() -> tuple[Any, Any, Any]:
    """Return dlib's (detector, predictor, rectangle), loaded once per process (0.7 s)."""
    package = find_spec("face_recognition_models")
    if find_spec("dlib") is None or package is None or package.origin is None:
        raise DataError(f"the detector dlib is not installed: run {INSTALL['dlib']}")
    import dlib

    path = Path(package.origin).parent / MODEL
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error}): run {INSTALL['dlib']}") from None
    if found != MODEL_SHA256:
        raise WeightsError(
            f"{path} has SHA-256 {found[:16]}..., expected {MODEL_SHA256[:16]}...: "
            f"run {INSTALL['dlib']}"
        )
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path)), dlib.rectangle
