"""The demo's faces: the same everywhere, labelled truly, credited."""

import builtins
from importlib.util import find_spec

import numpy as np
import pytest

from stylecli.data.demo_faces import (
    DYED_SHARE,
    ROLL_DEGREES,
    FaceArtist,
    Looks,
    make_demo_dataset,
)
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError

INSTALLED = all(find_spec(name) for name in ("dicebear", "dicebear_styles", "resvg_py"))
needs_faces = pytest.mark.skipif(not INSTALLED, reason="the demo extra is not installed")

LOOKS_OF_SEED_7 = {
    "skin_tone": 0.0763,
    "hair_tone": 0.7799,
    "skin": "#f4c0a2",
    "hair": "#d7b570",
    "background": "#bde2c8",
    "background_hue": 0.3809,
    "roll_degrees": -0.09,
    "shift": [0.0004, 0.015],
    "scale": 0.9958,
}


def colour_of(code):
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])


@needs_faces
def test_a_face_is_what_its_attributes_and_values_say():
    for seed in range(5):
        pixels, attributes, values = FaceArtist(64)(seed)
        background, face = colour_of(values["background"]), colour_of(values["skin"])
        assert np.abs(pixels[:, 1, 63] - background).max() <= 2 or attributes["hair"] == "spiky"
        nose = pixels[:, 34:40, 28:36].reshape(3, -1).T.astype(int)  # the middle of the face
        assert np.abs(nose - face).max(axis=1).min() <= 2
        assert (attributes["hair_colour"] == "dyed") == (values["hair_tone"] is None)
        tilt = attributes["tilt"]
        assert (tilt == "upright") == (abs(values["roll_degrees"]) <= 3)
        assert tilt == "upright" or (tilt == "right") == (values["roll_degrees"] > 0)


@needs_faces
def test_a_head_that_tilts_right_lies_right_of_its_chin():
    """The hair's centre against the picture's, over faces that tilt far to each side."""
    artist, offsets = FaceArtist(64), {"left": [], "right": []}
    for seed in range(200):
        looks = Looks.draw(seed)
        if abs(looks.roll_degrees) > 9 and abs(looks.shift[0]) < 0.02:
            pixels = artist(seed)[0].astype(int)
            sky = np.abs(pixels - np.array(looks.background)[:, None, None]).max(axis=0) < 8
            columns = np.nonzero(~sky[:24].all(axis=0))[0]
            offsets["right" if looks.roll_degrees > 0 else "left"].append(columns.mean() - 31.5)
    assert len(offsets["left"]) > 3 and len(offsets["right"]) > 3
    assert np.mean(offsets["left"]) + 2 < np.mean(offsets["right"])


def test_colours_are_continuous_and_every_class_is_met():
    looks = [Looks.draw(seed) for seed in range(2000)]
    tones = np.sort([one.skin_tone for one in looks])
    assert np.diff(tones).max() < 0.01
    dyed = np.mean([one.hair_tone is None for one in looks])
    assert abs(dyed - DYED_SHARE) < 0.03
    assert abs(np.std([one.roll_degrees for one in looks]) - ROLL_DEGREES) < 0.5
    for name, least in (("skin", 6), ("hair_colour", 7), ("background", 6), ("tilt", 3)):
        assert len({one.names()[name] for one in looks}) == least


def test_the_looks_of_a_seed_never_change():
    assert Looks.draw(7).values() == LOOKS_OF_SEED_7


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
    assert dataset.metadata(2)["values"] == Looks.draw(2).values()
    assert dataset.metadata(2)["licence"] == dataset.info["licence"] == "CC BY 4.0"
    assert np.array_equal(dataset[2][0], FaceArtist(16)(2)[0])
    written = (path / "data.mdb").stat().st_mtime_ns
    assert make_demo_dataset(path, count=3, resolution=16) == path
    assert (path / "data.mdb").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="demo's pictures"):
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
