"""MTCNN's parts: suppression of boxes, crops beyond the picture, and weights that are not right."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch

from stylecli.data.alignment import mtcnn
from stylecli.data.alignment.mtcnn import OutputNet, ProposalNet, RefinementNet, suppressed
from stylecli.errors import DataError, WeightsError


def test_of_overlapping_boxes_the_best_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40]], float)
    assert suppressed(boxes, np.array([0.7, 0.9, 0.8]), 0.5).tolist() == [1, 2]


def test_a_box_within_another_goes_only_by_its_own_area() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 2, 6, 6]], float)
    scores = np.array([0.9, 0.8])
    assert suppressed(boxes, scores, 0.7).tolist() == [0, 1]
    assert suppressed(boxes, scores, 0.7, of_smaller=True).tolist() == [0]


def test_no_boxes_are_no_error() -> None:
    assert suppressed(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_the_proposal_network_looks_at_every_second_place() -> None:
    scores, offsets = ProposalNet()(torch.zeros(1, 3, 12 + 2 * 4, 12 + 2 * 6))
    assert scores.shape == (1, 5, 7) and offsets.shape == (1, 4, 5, 7)


def test_the_other_networks_take_their_windows() -> None:
    scores, offsets = RefinementNet()(torch.zeros(2, 3, 24, 24))
    assert scores.shape == (2,) and offsets.shape == (2, 4)
    scores, offsets, points = OutputNet()(torch.zeros(2, 3, 48, 48))
    assert scores.shape == (2,) and offsets.shape == (2, 4) and points.shape == (2, 2, 5)


def test_beyond_the_picture_lies_grey() -> None:
    picture = torch.ones(1, 3, 8, 8)
    boxes = np.array([[-4, 0, 4, 8], [20, 20, 28, 28], [2, 2, 2, 2]], float)
    crops = mtcnn._crops(picture, boxes, 4)
    assert crops[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert crops[1].sum() == 0
    assert crops[2].mean() == 1  # without extent: at least a pixel


def fake_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have ``facenet_pytorch`` found in a folder, with three empty files of weights."""
    data = folder / "data"
    data.mkdir()
    for name in mtcnn.WEIGHTS:
        (data / name).write_bytes(b"")
    spec = ModuleSpec("facenet_pytorch", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: spec)
    mtcnn._networks.cache_clear()
    return data


def test_weights_of_another_digest_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"pnet.pt has SHA-256 e3b0c442.*expected a2a71925"):
        mtcnn.MtcnnDetector()


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake_package(tmp_path, monkeypatch) / "pnet.pt").unlink()
    with pytest.raises(WeightsError, match="pip install --no-deps facenet-pytorch"):
        mtcnn.MtcnnDetector()


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    mtcnn._networks.cache_clear()
    with pytest.raises(DataError, match="pip install --no-deps facenet-pytorch"):
        mtcnn.MtcnnDetector()
