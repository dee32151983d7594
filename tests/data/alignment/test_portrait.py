"""One photograph as a network's picture: aligned, masked, refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.data.alignment import portrait
from stylecli.data.alignment.detection import Detection
from stylecli.data.alignment.portrait import read_portrait, read_small, shrink_factor
from stylecli.errors import DataError, UsageError
from stylecli.shapes import Size

POINTS = ((40.0, 40.0), (60.0, 40.0), (50.0, 50.0), (42.0, 60.0), (58.0, 60.0))


def save(path: Path, size: tuple[int, int] = (100, 100), mode: str = "RGB") -> Path:
    random = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = random.integers(0, 256, (size[1], size[0], channels), np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
        pixels[:, : size[0] // 2, 3] = 0
    Image.fromarray(pixels.squeeze()).save(path)
    return path


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> list[Detection]:
    """What the detector finds; empty unless filled."""
    found: list[Detection] = []
    monkeypatch.setattr(portrait, "choose_detector", lambda *_: "dlib")
    monkeypatch.setattr(portrait, "installed_detector", lambda: "dlib")
    monkeypatch.setattr(portrait, "load_detector", lambda name: None)
    monkeypatch.setattr(portrait, "search_faces", lambda *_, min_crop: found)
    return found


def face(factor: float = 1.0) -> Detection:
    points = tuple((50 + (x - 50) * factor, 50 + (y - 50) * factor) for x, y in POINTS)
    return Detection((0, 0, 100, 100), points, 1.0)


def test_the_largest_face_is_cut_out(tmp_path: Path, faces: list[Detection]) -> None:
    path = save(tmp_path / "a.png")
    faces.append(face(0.5))
    (alone,) = [read_portrait(path, 16)]
    assert alone.picture.shape == (16, 16, 3) and alone.mask is None and not alone.notes
    faces.append(face(1.5))
    both = read_portrait(path, 16)
    assert (both.picture != alone.picture).any() and "2 faces" in both.notes[0]
    assert read_portrait(path, 16, 1).picture.shape == (16, 16, 1)


def test_the_central_square_is_taken_without_alignment(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", (60, 40))
    with Image.open(path) as picture:
        wanted = picture.crop((10, 0, 50, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    assert (read_portrait(path, 16, align=False).picture == np.asarray(wanted)).all()


def test_a_face_that_is_not_aligned_is_told(tmp_path: Path, faces: list[Detection]) -> None:
    path = save(tmp_path / "a.png", (200, 200))
    faces.append(Detection((0, 0, 1, 1), tuple((2 * x, 2 * y) for x, y in face(1.25).landmarks), 1))
    off = read_portrait(path, 16, align=False)
    assert not off.notes
    faces[0] = face()  # half as large, in a corner
    assert "unaligned" in read_portrait(path, 16, align=False).notes[0]


def test_transparency_and_masks_say_what_counts(tmp_path: Path, faces: list[Detection]) -> None:
    clear = save(tmp_path / "a.png", mode="RGBA")
    mask = read_portrait(clear, 16, align=False).mask
    assert mask is not None and mask[:, :8].max() == 0 and mask[:, 8:].min() == 1
    faces.append(face())
    turned = read_portrait(clear, 16).mask  # cut out with its pixels; nothing counts outside
    assert turned is not None and turned[8, 3] == 0 and turned[8, 12] == 1
    plain, white = save(tmp_path / "b.png"), tmp_path / "mask.png"
    Image.fromarray(np.full((100, 100), 255, np.uint8)).save(white)
    given = read_portrait(plain, 16, align=False, mask=white).mask
    assert given is not None and given.min() == 1
    # A white shape on nothing, as programs for drawing save it: what is not there is black.
    shape = np.zeros((100, 100, 4), np.uint8)
    shape[:, 50:] = 255
    Image.fromarray(shape).save(white)
    given = read_portrait(plain, 16, align=False, mask=white).mask
    assert given is not None and given[:, :8].max() == 0 and given[:, 8:].min() == 1
    Image.fromarray(np.zeros((100, 100), np.uint8)).save(white)
    with pytest.raises(DataError, match="nothing"):
        read_portrait(plain, 16, align=False, mask=white)
    with pytest.raises(DataError, match="10 x 10"):
        read_portrait(plain, 16, align=False, mask=save(tmp_path / "c.png", (10, 10)))
    Image.fromarray(np.zeros((100, 100, 4), np.uint8)).save(clear)
    with pytest.raises(DataError, match="transparent"):  # nobody gave a mask
        read_portrait(clear, 16, align=False)
    with pytest.raises(DataError, match="is a folder"):
        read_portrait(tmp_path, 16)


@pytest.mark.parametrize("size", [16, 140])
def test_a_picture_of_the_network_s_size_without_a_face_is_taken_as_it_is(
    tmp_path: Path, faces: list[Detection], size: int
) -> None:
    path = save(tmp_path / "a.png", (size, size))
    found = read_portrait(path, size)
    with Image.open(path) as picture:
        assert (found.picture == np.asarray(picture)).all()
    assert "taken as it is" in found.notes[0]
    assert ("no face" in found.notes[0]) == (size > 100)  # said only where one was looked for
    with pytest.raises(DataError, match="no face"):
        read_portrait(path, size + 1)
    if size > 100:  # in smaller ones none is looked for, and no detector is needed
        faces.append(face())
        assert (read_portrait(path, size).picture != found.picture).any()


def test_without_a_detector_small_pictures_of_the_right_size_still_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylecli.data.alignment.detectors.is_installed", lambda name: False)
    path = save(tmp_path / "a.png", (16, 16))
    assert read_portrait(path, 16).notes
    with pytest.raises(DataError, match=r"installed.*stylecli project .*a\.png --no-align"):
        read_portrait(path, 17)


def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, faces: list[Detection], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"no face found in .*a\.png.*--no-align"):
        read_portrait(path, 16)
    with pytest.raises(DataError, match="does not exist"):
        read_portrait(tmp_path / "none.png", 16)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg"):
        read_portrait(tmp_path / "text.jpg", 16)
    frames = [Image.new("L", (20, 20), grey) for grey in (0, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        read_portrait(tmp_path / "film.gif", 16, align=False)
    monkeypatch.setattr("stylecli.data.pictures.max_pixels", lambda: 5000)
    with pytest.raises(DataError, match="too large"):
        read_portrait(path, 16, align=False)


@pytest.mark.parametrize(
    ("small", "drawn", "factor"),
    [((8, 8), (32, 32), 4), ((6, 8), (24, 32), 4), ((16, 16), (32, 32), 2), ((2, 2), (32, 32), 16)],
)
def test_a_small_picture_is_a_whole_fraction_of_a_large_one(
    small: tuple[int, int], drawn: tuple[int, int], factor: int
) -> None:
    assert shrink_factor(Size(*small), Size(*drawn)) == factor


@pytest.mark.parametrize(
    ("small", "drawn"),
    [((32, 32), (32, 32)), ((64, 64), (32, 32)), ((1, 1), (32, 32)), ((8, 6), (24, 32)),
     ((5, 5), (32, 32)), ((9, 9), (32, 32))],
)  # fmt: skip
def test_other_sizes_are_refused_with_those_that_fit(
    small: tuple[int, int], drawn: tuple[int, int]
) -> None:
    with pytest.raises(UsageError, match=f"{drawn[1] // 2}x{drawn[0] // 2}"):
        shrink_factor(Size(*small), Size(*drawn))


def test_a_small_picture_is_read_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "small.png", (8, 8))
    read = read_small(path, Size(32, 32))
    with Image.open(path) as picture:
        assert (read.picture == np.asarray(picture.convert("RGB"))).all() and not read.notes
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "grey.png")
    grey = read_small(tmp_path / "grey.png", Size(32, 32))
    assert grey.picture.shape == (8, 8, 1) and "grey" in grey.notes[0]
    assert not read_small(tmp_path / "grey.png", Size(32, 32), 1).notes
