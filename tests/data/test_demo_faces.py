"""The demo's faces: the same everywhere, labelled truly, credited."""

import builtins
from importlib.util import find_spec

import numpy as np
import pytest

from stylecli.data.demo_faces import FaceArtist, make_demo_dataset
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError

INSTALLED = all(find_spec(name) for name in ("dicebear", "dicebear_styles", "resvg_py"))
needs_faces = pytest.mark.skipif(not INSTALLED, reason="the demo extra is not installed")


@needs_faces
def test_a_face_is_what_its_attributes_say():
    pixels, attributes = FaceArtist(32)(1)
    assert attributes["hair_colour"] == "blond" and attributes["eyes"] == "wide"
    red, green, blue = pixels[:, 3, 16].astype(int)  # the hair, above the forehead
    assert red > green > blue + 50
    assert pixels[:, 0, 0].tolist() == [0xB6, 0xE3, 0xF4]  # the background


@needs_faces
def test_short_training_gets_open_eyes_and_visible_mouths():
    easy, hard = FaceArtist(8), FaceArtist(8, all_styles=True)
    drawn = [easy(seed)[1] for seed in range(20)]
    assert {face["eyes"] for face in drawn} == {"wide"}
    assert {face["mouth"] for face in drawn} <= {"agape", "angry", "laugh"}
    assert len({hard(seed)[1]["eyes"] for seed in range(20)}) > 2


@needs_faces
def test_the_dataset_credits_the_artist_and_is_made_once(tmp_path):
    path = make_demo_dataset(tmp_path / "demo.lmdb", count=3, resolution=16)
    dataset = open_dataset(path)
    assert dataset.metadata(2)["author"] == dataset.info["author"] == "Johan Melin"
    assert dataset.metadata(2)["licence"] == dataset.info["licence"] == "CC BY 4.0"
    assert np.array_equal(dataset[2][0], FaceArtist(16)(2)[0])
    written = (path / "data.mdb").stat().st_mtime_ns
    assert make_demo_dataset(path, count=3, resolution=16) == path
    assert (path / "data.mdb").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="holds other pictures than the demo's"):
        make_demo_dataset(path, count=4, resolution=16)


def test_names_the_extra_that_is_missing(monkeypatch):
    real_import = builtins.__import__

    def without_dicebear(name, *args, **kwargs):
        if name == "dicebear":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_dicebear)
    with pytest.raises(DataError, match=r"package 'dicebear': run pip install 'stylecli\[demo\]'"):
        FaceArtist()
