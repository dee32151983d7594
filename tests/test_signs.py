"""Signs that a picture was generated: each on pictures in which its value is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stylecli import signs
from stylecli.data.alignment.detection import Detection
from stylecli.data.reader import open_dataset
from stylecli.errors import DataError
from stylecli.images import SOURCE_TYPE, save_png

RANDOM = np.random.default_rng(0)


def falling(exponent: float, side: int = 128) -> np.ndarray:
    """Return a grey picture whose power falls so, [side, side, 3]."""
    down, across = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    radius = np.hypot(down[:, None], across[None])
    radius[0, 0] = 1
    waves = np.exp(2j * np.pi * RANDOM.random(radius.shape)) * radius ** (-exponent / 2)
    plane = np.fft.irfft2(waves, (side, side))
    plane = 127 + plane / plane.std() * 20
    return np.repeat(plane.clip(0, 255)[..., None], 3, axis=2)


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_the_fall_of_a_spectrum_is_found(exponent: float) -> None:
    profile = signs.profile_of(falling(exponent))
    assert profile is not None
    found, fine = signs.describe_fall(profile)
    assert found == pytest.approx(exponent, abs=0.3)
    assert abs(fine) < 4


def test_too_much_fine_detail_is_found() -> None:
    picture = falling(2.0)
    stripes = 10 * np.cos(2 * np.pi * 0.42 * np.arange(128))[None, :, None]
    profile, other = signs.profile_of(picture), signs.profile_of(picture + stripes)
    assert profile is not None and other is not None
    assert signs.describe_fall(other)[1] > signs.describe_fall(profile)[1] + 2.5


def test_small_and_plain_pictures_have_no_surprises() -> None:
    assert signs.profile_of(np.zeros((31, 64, 3), np.uint8)) is None
    plain = signs.profile_of(np.zeros((32, 48, 1), np.uint8))
    assert plain is not None and np.isfinite(plain).all()


def test_a_spectrum_unlike_the_usual_ones_is_far() -> None:
    usual = signs.usual_of(np.array([signs.profile_of(falling(2.0)) for _ in range(20)]))
    like, unlike = signs.profile_of(falling(2.0)), signs.profile_of(falling(1.0))
    assert like is not None and unlike is not None
    assert usual.far(like) < 3 < usual.far(unlike)


class OneFace:
    name, min_face = "dlib", 1

    def __init__(self, points: Any) -> None:
        self.points = points

    def detect(self, image: Image.Image) -> list[Detection]:
        scale = image.width / 200
        points = tuple((x * scale, y * scale) for x, y in self.points)
        return [Detection((0, 0, 1, 1), points, 1.0)] if points else []

    def believes(self, score: float, upright_score: float) -> bool:
        return True


FIVE = ((70.0, 90.0), (130.0, 90.0), (100.0, 120.0), (80.0, 150.0), (120.0, 150.0))
SIXTY_EIGHT = tuple(
    [(0.0, 0.0)] * 36 + [(70.0, 90.0)] * 6 + [(130.0, 90.0)] * 6 + [(0.0, 0.0)] * 20
)


@pytest.mark.parametrize("points", [FIVE, SIXTY_EIGHT], ids=["5 points", "68 points"])
def test_both_sides_of_a_mirrored_face_are_alike(points: Any) -> None:
    half = np.kron(RANDOM.integers(0, 256, (20, 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    whole = np.concatenate([half, half[:, ::-1]], axis=1)
    mirrored = signs.compare_sides(Image.fromarray(whole), OneFace(points))
    assert mirrored is not None and min(mirrored.values()) > 0.9
    whole[:, 100:] = whole[::-1, 100:]
    other = signs.compare_sides(Image.fromarray(whole), OneFace(points))
    assert other is not None and max(other.values()) < 0.7


def test_a_face_is_compared_along_the_line_of_its_eyes() -> None:
    half = np.kron(RANDOM.integers(0, 256, (20, 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    whole = np.concatenate([half, half[:, ::-1]], axis=1)
    turned = Image.fromarray(np.rot90(whole).copy())  # counter-clockwise
    points = [(y, 200 - x) for x, y in FIVE]
    found = signs.compare_sides(turned, OneFace(points))
    assert found is not None and min(found.values()) > 0.9


def test_without_a_face_or_a_detector_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (200, 200), "red").save(tmp_path / "a.png")
    monkeypatch.setattr(signs, "installed_detector", lambda: "")
    assert "pip install" in signs.read_signs(tmp_path / "a.png")["face"]
    monkeypatch.setattr(signs, "installed_detector", lambda: "dlib")
    monkeypatch.setattr(signs, "load_detector", lambda name: OneFace(()))
    assert signs.read_signs(tmp_path / "a.png")["face"] == "no face is found"


def test_what_a_file_says_of_itself_is_read(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    save_png(tmp_path / "own.png", pixels, {"tool": "stylecli 1", "claim": "plausible"})
    own = signs.claimed_source(tmp_path / "own.png")
    assert "generated" in own and "plausible" in own
    packet = PngInfo()
    packet.add_itxt("XML:com.adobe.xmp", f'<x Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>')
    Image.fromarray(pixels).save(tmp_path / "other.png", pnginfo=packet)
    assert "trainedAlgorithmicMedia" in signs.claimed_source(tmp_path / "other.png")
    Image.fromarray(pixels).save(tmp_path / "x.jpg", xmp=f"<x>{SOURCE_TYPE}</x>".encode())
    assert "trainedAlgorithmicMedia" in signs.claimed_source(tmp_path / "x.jpg")
    Image.fromarray(pixels).save(tmp_path / "none.png")
    assert signs.claimed_source(tmp_path / "none.png") == "the file says nothing"


def test_the_nearest_training_pictures_are_found(tiny_lmdb: Path, tmp_path: Path) -> None:
    dataset = open_dataset(tiny_lmdb)
    pixels = dataset[5][0].transpose(1, 2, 0)
    near = signs.nearest_pictures(Image.fromarray(pixels), dataset, 3)
    assert near[0] == {"index": 5, "levels": 0.0} and near[1]["levels"] > 0
    assert len(near) == 3
    for size in ((1, 1), (1, 9), (9, 1)):
        assert len(signs.nearest_pictures(Image.new("RGB", size), dataset, 3)) == 3
    dataset.close()


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png"):
        signs.read_signs(tmp_path / "a.png")
