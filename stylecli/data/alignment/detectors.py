"""Which face detectors there are and which of them is taken."""

from importlib.util import find_spec
from typing import Literal, get_args

from stylecli.data.alignment.detection import INSTALL, Detector
from stylecli.errors import DataError, UsageError

DetectorName = Literal["auto", "dlib", "mtcnn"]
DLIB_NOTICE = (
    "dlib's 68-point model was trained on iBUG 300-W, whose licence excludes commercial use; "
    "--detector mtcnn has no such limit"
)


def is_installed(name: str) -> bool:
    """Tell whether a detector's packages are here, without importing them."""
    needed = {"dlib": ("dlib", "face_recognition_models"), "mtcnn": ("facenet_pytorch",)}[name]
    return all(find_spec(package) is not None for package in needed)


def choose_detector(name: str) -> str:
    """Return the detector to use; ``auto`` is dlib where installed, else mtcnn.

    Raises UsageError for an unknown name, DataError with the command that installs one.
    """
    if name not in get_args(DetectorName):
        raise UsageError(f"detector {name!r} is not one of {', '.join(get_args(DetectorName))}")
    if name != "auto":
        if not is_installed(name):
            raise DataError(f"the detector {name} is not installed: run {INSTALL[name]}")
        return name
    for choice in ("dlib", "mtcnn"):
        if is_installed(choice):
            return choice
    raise DataError(
        f"no face detector is installed: run {INSTALL['dlib']} (68 points, as FFHQ's authors "
        f"used), or {INSTALL['mtcnn']} (5 points, MIT licence), or give --landmarks FILE"
    )


def load_detector(name: str) -> Detector:
    """Return a detector by its name, as ``choose_detector`` returns it."""
    if name == "dlib":
        from stylecli.data.alignment.dlib_faces import DlibDetector

        return DlibDetector()
    from stylecli.data.alignment.mtcnn import MtcnnDetector

    return MtcnnDetector()
