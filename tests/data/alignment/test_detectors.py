"""Which face detector is taken."""

from collections.abc import Callable

import pytest

from stylecli.data.alignment import detectors
from stylecli.data.alignment.detectors import choose_detector
from stylecli.errors import DataError, UsageError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *names: monkeypatch.setattr(detectors, "is_installed", names.__contains__)


def test_dlib_is_taken_before_mtcnn(installed: Callable[..., None]) -> None:
    installed("dlib", "mtcnn")
    assert choose_detector("auto") == "dlib"
    installed("mtcnn")
    assert choose_detector("auto") == "mtcnn"


def test_without_a_detector_the_commands_are_named(installed: Callable[..., None]) -> None:
    installed()
    for name, command in (
        ("auto", "pip install dlib-bin face-recognition-models"),
        ("dlib", "pip install dlib-bin face-recognition-models"),
        ("mtcnn", "pip install --no-deps facenet-pytorch==2.6.0"),
    ):
        with pytest.raises(DataError, match=command):
            choose_detector(name)


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(UsageError, match="'yolo': expected one of auto, dlib, mtcnn"):
        choose_detector("yolo")
