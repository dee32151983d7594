"""Faces: from landmarks in a photograph to the square crop that FFHQ defined."""

from typing import Literal, get_args

DetectorName = Literal["auto", "dlib", "mtcnn"]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)
