"""The recipe of ``prepare-ffhq`` without the command: what it does, and what it tells."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment.geometry import TWICE, crop_quad, face_quad
from stylecli.data.alignment.prepare_ffhq import Request, prepare_ffhq
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError
from stylecli.progress import Progress, silent
from tests.data.alignment.face_points import face_at


class Teller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.works: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def warn(self, text: str) -> None:
        self.told.append(text)

    @contextmanager
    def progress(self, title: str, unit: str = "") -> Iterator[Progress]:
        self.works.append(title)
        yield silent


def request_of(tmp_path: Path, points: object) -> Request:
    """Return what to ask for: two photographs, one with a face at given points."""
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(tmp_path / "photos" / name)
    (tmp_path / "points.json").write_text(json.dumps({"a.png": points}))
    return Request(
        tmp_path / "photos", 16, "auto", tmp_path / "points.json", False, None, False, True, True,
        "all", None, "size", None, 1, False, tmp_path / "aligned" / "p", tmp_path / "p.lmdb",
    )  # fmt: skip


def test_photographs_become_a_folder_and_a_dataset(tmp_path: Path) -> None:
    teller = Teller()
    points = [[float(x), float(y)] for x, y in face_at(45, 40)]

    outcome = prepare_ffhq(request_of(tmp_path, points), None, "p", teller)

    assert (outcome.photographs, outcome.faces, outcome.pictures) == (2, 1, 1)
    assert [each["name"] for each in outcome.skipped] == ["b.png"]
    assert open_dataset(tmp_path / "p.lmdb").digest == outcome.digest
    assert teller.works == ["aligning", "drawing contact sheets", "packing"]
    assert "1 picture was skipped" in teller.told[0]


def test_without_a_face_it_names_a_cause_and_leaves_no_dataset(tmp_path: Path) -> None:
    teller = Teller()
    with pytest.raises(DataError, match="no usable face"):
        prepare_ffhq(request_of(tmp_path, []), None, "p", teller)

    assert not (tmp_path / "p.lmdb").exists()


def test_own_photographs_are_sampled_at_twice_the_square_from_the_first_on(tmp_path: Path) -> None:
    points = [[float(x), float(y)] for x, y in face_at(45, 40)]
    request = request_of(tmp_path, points)

    prepare_ffhq(request, None, "p", Teller())
    described = json.loads((request.folder / "alignment.json").read_text())
    assert described["transform_size"] == TWICE
    photo = Image.open(tmp_path / "photos" / "a.png")
    expected = crop_quad(photo, face_quad(points), output_size=16, transform_size=None)
    (made,) = request.folder.glob("images16x16/*/*.png")
    assert Image.open(made).tobytes() == expected.tobytes()

    # A folder that an earlier version began goes on in its way.
    old = replace(request, folder=tmp_path / "aligned" / "old", dataset=None)
    old.folder.mkdir()
    described |= {"transform_size": 64, "source": old.origin}
    (old.folder / "alignment.json").write_text(json.dumps(described))
    prepare_ffhq(old, None, "old", Teller())
    expected = crop_quad(photo, face_quad(points), output_size=16, transform_size=64)
    (made,) = old.folder.glob("images16x16/*/*.png")
    assert Image.open(made).tobytes() == expected.tobytes()
