"""Packing: sizes chosen, bad pictures skipped and named, the same work not done twice."""

import numpy as np
import pytest
from PIL import Image

from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import choose_recipe, pack
from stylecli.data.preparation import Skipped
from stylecli.data.reader import open_dataset
from stylecli.data.sources.folders import ImageFolder
from stylecli.errors import DataError, UsageError


@pytest.fixture
def photos(tmp_path):
    """Three pictures in two classes; the shorter sides are 16, 20 and 40 px."""
    sizes = {"cat/1.png": (16, 30), "dog/1.png": (20, 20), "dog/2.png": (50, 40)}
    for number, (name, size) in enumerate(sizes.items()):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 100, 200)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def out(tmp_path):
    """Where datasets go."""
    return tmp_path / "out.lmdb"


def spoil(photos):
    """Truncate one picture and make another mere text."""
    whole = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(whole).save(photos / "cat" / "2.png")
    content = (photos / "cat" / "2.png").read_bytes()
    (photos / "cat" / "2.png").write_bytes(content[:1500])
    (photos / "dog" / "3.jpg").write_text("no picture")


def test_takes_the_power_of_two_within_the_median_picture(photos, out):
    report = pack(ImageFolder(photos), out)
    assert (report.resolution, report.channels, report.count) == (16, 3, 3)
    assert report.classes == {"cat": 1, "dog": 2}
    assert open_dataset(out).read(range(3))[:, :, 0, 0].tolist() == [
        [0, 100, 200], [1, 100, 200], [2, 100, 200],
    ]  # fmt: skip


def test_grey_pictures_make_a_grey_dataset(tmp_path, out):
    (tmp_path / "grey").mkdir()
    Image.new("L", (8, 8), 7).save(tmp_path / "grey" / "a.png")
    assert pack(ImageFolder(tmp_path / "grey"), out).channels == 1


def test_skips_and_names_unusable_pictures(photos, out):
    spoil(photos)
    report = pack(ImageFolder(photos), out, PackSettings(resolution=16))
    assert report.count == 3 and report.classes == {"cat": 1, "dog": 2}
    assert [skipped.name for skipped in report.skipped] == ["cat/2.png", "dog/3.jpg"]
    assert report.skipped[0].cause.startswith("cannot be decoded: ")
    assert report.skipped[1] == Skipped("dog/3.jpg", "is not a picture of a known kind")


def test_strict_stops_and_leaves_nothing(photos, out):
    spoil(photos)
    with pytest.raises(DataError, match=r"cat/2.png cannot be decoded: .* without --strict"):
        pack(ImageFolder(photos), out, strict=True)
    assert not out.exists()


def test_oversized_pictures_are_skipped(photos, out, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # 50 x 40 px exceed twice that
    (skipped,) = pack(ImageFolder(photos), out).skipped
    assert skipped.name == "dog/2.png" and skipped.cause.startswith("is too large")


def test_counts_enlarged_pictures(photos, out):
    report = pack(ImageFolder(photos), out, PackSettings(resolution=32, enlarge=True))
    assert (report.enlarged, report.skipped) == (2, [])


def test_pictures_that_are_too_small_are_skipped(photos, out):
    report = pack(ImageFolder(photos), out, PackSettings(resolution=32))
    assert report.count == 1
    assert report.causes == {"is too small": 2}


def test_the_same_again_does_nothing_and_other_settings_need_force(photos, out):
    made = pack(ImageFolder(photos), out).digest
    again = pack(ImageFolder(photos), out, PackSettings(resolution=16))  # what was chosen before
    assert again.was_there and again.digest == made
    with pytest.raises(DataError, match="was made with another resolution, codec"):
        pack(ImageFolder(photos), out, PackSettings(resolution=8, codec="png"))
    assert pack(ImageFolder(photos), out, PackSettings(resolution=8), force=True).resolution == 8


def test_new_pictures_are_noticed(photos, out):
    pack(ImageFolder(photos), out)
    Image.new("RGB", (20, 20)).save(photos / "dog" / "4.png")
    with pytest.raises(DataError, match="another set of pictures"):
        pack(ImageFolder(photos), out)


def test_takes_pictures_spread_over_the_source(photos, out):
    report = pack(ImageFolder(photos), out, PackSettings(max_images=2))
    sources = [open_dataset(out).metadata(index)["source"] for index in range(report.count)]
    assert sources == ["cat/1.png", "dog/1.png"]


def test_leaves_labels_out_when_asked(photos, out):
    assert pack(ImageFolder(photos), out, PackSettings(labels=False)).classes == {}
    assert open_dataset(out).labels is None


def test_refuses_a_source_without_a_usable_picture(tmp_path, out):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"no picture of bad can be used: a.png is not a picture"):
        pack(ImageFolder(tmp_path / "bad"), out)


def test_reports_progress_to_the_end(photos, out):
    seen = []
    pack(ImageFolder(photos), out, progress=lambda done, total, note="": seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "wrong",
    [{"resolution": 100}, {"resolution": 2048}, {"channels": 2}, {"filter": "nearest"},
     {"codec": "jpeg"}, {"max_images": 0}],
)  # fmt: skip
def test_refuses_settings_by_name(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", " ")):
        PackSettings(**wrong)


def test_a_size_is_chosen_for_pictures_as_they_are_turned(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # 48 x 64 px as stored, 64 x 48 seen
    for number in range(3):
        Image.new("RGB", (48, 64), (number, 0, 0)).save(tmp_path / f"{number}.jpg", exif=exif)
    for upright, resolution in ((False, 32), (True, 64)):
        settings = PackSettings(transform="wide", exif=upright)
        chosen = choose_recipe(ImageFolder(tmp_path), range(3), settings).resolution
        assert chosen == resolution
