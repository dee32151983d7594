"""Which face detectors there are, which of them is taken, and dlib's as the FFHQ authors had it.

dlib's 68 points come from ``shape_predictor_68_face_landmarks.dat`` of the PyPI package
``face-recognition-models``, whose own import needs the retired ``pkg_resources`` and is avoided.
MTCNN, in a file of its own, is loaded when it is wanted: it alone needs torch.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli.data.alignment import DETECTORS
from stylecli.data.alignment.detection import INSTALL, Detection, Detector
from stylecli.errors import DataError, UsageError, WeightsError

DLIB_NOTICE = (
    "dlib's 68-point model was trained on iBUG 300-W, whose licence excludes commercial use; "
    "--detector mtcnn has no such limit"
)

MODEL = Path("models") / "shape_predictor_68_face_landmarks.dat"
MODEL_SHA256 = "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f"
MIN_FACE = 80  # px: the side of the window the detector slides over the picture
# Measured on 12 faces (two portraits turned by up to 45 degrees, half faces, three-quarter views)
# and eight pictures without: true faces score -0.21 or more in the picture, and the mean of that
# and of the score in their upright crop is 0.5 or more; that of false alarms is 0.28 or less. So
# the search begins below dlib's own threshold of 0, and the mean decides.
THRESHOLD = -0.25
BELIEVED_MEAN = 0.4


def is_installed(name: str) -> bool:
    """Tell whether a detector's packages are here, without importing them."""
    needed = {"dlib": ("dlib", "face_recognition_models"), "mtcnn": ("facenet_pytorch",)}[name]
    return all(find_spec(package) is not None for package in needed)


def choose_detector(name: str, instead: str = "give --landmarks FILE") -> str:
    """Return the detector to use; ``auto`` is dlib where installed, else mtcnn.

    Raises UsageError for an unknown name, DataError with the command that installs one, and what to
    do ``instead``.
    """
    if name not in DETECTORS:
        raise UsageError(f"unknown detector {name!r}: expected one of {', '.join(DETECTORS)}")
    if name != "auto":
        if not is_installed(name):
            raise DataError(f"the detector {name} is not installed: run {INSTALL[name]}")
        return name
    for choice in ("dlib", "mtcnn"):
        if is_installed(choice):
            return choice
    raise DataError(
        f"no face detector is installed: run {INSTALL['dlib']} (68 points, as FFHQ's authors "
        f"used), or {INSTALL['mtcnn']} (5 points, MIT licence), or {instead}"
    )


def load_detector(name: str) -> Detector:
    """Return a detector by its name, as ``choose_detector`` returns it."""
    if name == "dlib":
        return DlibDetector()
    from stylecli.data.alignment.mtcnn import MtcnnDetector

    return MtcnnDetector()


def installed_detector() -> str:
    """Return the detector that ``auto`` takes; "" where none is installed."""
    return next((name for name in ("dlib", "mtcnn") if is_installed(name)), "")


def boxes_of_faces(image: Image.Image, detector: str) -> list[tuple[float, float, float, float]]:
    """Return the boxes of the faces that a detector finds in an upright RGB picture, in px."""
    return [face.box for face in _loaded(detector).detect(image) if face.score > 0]


@cache
def _loaded(name: str) -> Detector:
    return load_detector(name)


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
