"""Packing: sizes chosen, bad pictures skipped and named, the same work not done twice."""

import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from stylecli.data import writer
from stylecli.data.exporting import export_nvidia
from stylecli.data.format import image_key
from stylecli.data.loader import BatchLoader
from stylecli.data.pack_settings import PackSettings, choose_recipe
from stylecli.data.packing import pack
from stylecli.data.preparation import Skipped
from stylecli.data.reader import open_dataset
from stylecli.data.sources.folders import ImageFolder
from stylecli.data.sources.lmdb_pictures import PackedSource
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.files import LOCK_FILE


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
    assert report.skipped[0].cause == "is cut short: copy it again"
    assert report.skipped[1] == Skipped("dog/3.jpg", "is not a picture of a known kind")


def test_strict_stops_and_leaves_nothing(photos, out):
    spoil(photos)
    with pytest.raises(DataError, match=r"cat/2.png is cut short: .*; .* without --strict"):
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
    with pytest.raises(DataError, match="was made with other --resolution, --codec"):
        pack(ImageFolder(photos), out, PackSettings(resolution=8, codec="png"))
    assert pack(ImageFolder(photos), out, PackSettings(resolution=8), force=True).resolution == 8


def test_new_pictures_are_noticed(photos, out):
    pack(ImageFolder(photos), out)
    Image.new("RGB", (20, 20)).save(photos / "dog" / "4.png")
    with pytest.raises(DataError, match="other pictures"):
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
    with pytest.raises(DataError, match=r"no usable picture in bad: a.png is not a picture"):
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
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", ".")):
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


def make(folder, pictures, size=16):
    """Write pictures of plain grey: {name: value}."""
    for name, value in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (value, 0, 0)).save(path)
    return ImageFolder(folder)


@pytest.fixture
def animals(tmp_path):
    """A dataset of three pictures: two cats, one dog."""
    pets = make(tmp_path / "pets", {"cat/1.png": 1, "cat/2.png": 2, "dog/3.png": 3})
    return pack(pets, tmp_path / "out.lmdb").path


@pytest.fixture
def more(tmp_path):
    """Three more, one of which is there already, of a known class and a new one."""
    return make(tmp_path / "more", {"ant/4.png": 4, "dog/5.png": 5, "dog/6.png": 3})


def values(path):
    return open_dataset(path).read(range(len(open_dataset(path))))[:, 0, 0, 0].tolist()


def test_classes_are_merged_by_name_and_known_pictures_left_out(animals, more):
    report = pack(more, animals, append=True)
    assert (report.count, report.added) == (5, 2)
    assert report.classes == {"cat": 2, "dog": 2, "ant": 1}
    assert report.causes == {"is already in the dataset": 1}
    assert values(animals) == [1, 2, 3, 4, 5]
    assert open_dataset(animals).labels.tolist() == [0, 0, 1, 2, 1]


def test_the_digest_is_that_of_all_pictures_packed_at_once(tmp_path, animals, more):
    together = make(tmp_path / "all", {f"{n}/{n}.png": n for n in (1, 2, 3, 4, 5)})
    assert pack(more, animals, append=True).digest == pack(together, tmp_path / "b.lmdb").digest


def test_the_same_addition_again_adds_nothing(animals, more):
    first = pack(more, animals, append=True)
    (animals / LOCK_FILE).write_text("12345")  # as a kill just before its end leaves it
    again = pack(more, animals, append=True)
    assert not (animals / LOCK_FILE).exists()
    assert again.was_there and not first.was_there
    assert (again.added, again.skipped, again.digest) == (2, first.skipped, first.digest)


def test_a_source_that_has_grown_gives_its_new_pictures_only(tmp_path, animals):
    pets = make(tmp_path / "pets", {"dog/9.png": 9})
    assert pack(pets, animals, append=True).added == 1
    assert values(animals) == [1, 2, 3, 9]


def test_new_classes_without_a_picture_are_dropped(tmp_path, animals):
    again = make(tmp_path / "again", {"cow/1.png": 1, "elk/2.png": 2})
    before = open_dataset(animals).info
    report = pack(again, animals, append=True)
    assert (report.added, report.classes) == (0, {"cat": 2, "dog": 1})
    for field in ("count", "class_names", "label_dim", "digest"):
        assert open_dataset(animals).info[field] == before[field]
    assert pack(again, animals, append=True).was_there
    mixed = make(tmp_path / "mixed", {"cow/1.png": 1, "elk/7.png": 7, "fox/2.png": 2})
    assert pack(mixed, animals, append=True).classes == {"cat": 2, "dog": 1, "elk": 1}
    dataset = open_dataset(animals)
    assert dataset.labels.tolist() == [0, 0, 1, 2]
    assert dataset.item_label(3) == (2).to_bytes(8, "little")


def test_a_known_picture_under_another_label_is_called_so(tmp_path, animals):
    relabelled = make(tmp_path / "relabelled", {"cat/3.png": 3, "dog/8.png": 8})
    (left_out,) = pack(relabelled, animals, append=True).skipped
    assert left_out.cause == (
        "has the same pixels as an earlier picture but another label: dog/3.png"
    )


def test_an_interrupted_addition_leaves_the_dataset_as_it_was_and_goes_on(
    animals, more, monkeypatch
):
    monkeypatch.setattr(writer, "BATCH_ITEMS", 1)
    digest = open_dataset(animals).digest

    def stop(done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped at picture 2 of 3"):
        pack(more, animals, append=True, progress=stop)
    assert (open_dataset(animals).digest, values(animals)) == (digest, [1, 2, 3])
    seen = []

    def note_packed(done, total, note=""):
        if not note.startswith("checking"):
            seen.append(done)

    pack(more, animals, append=True, progress=note_packed)
    assert seen == [2, 3] and values(animals) == [1, 2, 3, 4, 5]


def test_another_addition_drops_an_unfinished_one_only_by_force(
    tmp_path, animals, more, monkeypatch
):
    monkeypatch.setattr(writer, "BATCH_ITEMS", 1)

    def stop(done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        pack(more, animals, append=True, progress=stop)
    other = make(tmp_path / "other", {"cat/7.png": 7, "dog/8.png": 8})
    with pytest.raises(DataError, match="has an unfinished addition of more: run that command"):
        pack(other, animals, append=True)
    assert pack(other, animals, append=True, force=True).count == 5
    assert values(animals) == [1, 2, 3, 7, 8]


def test_strict_takes_an_addition_back(tmp_path, animals, more):
    (tmp_path / "more" / "dog" / "9.png").write_text("no picture")
    with pytest.raises(DataError, match=r"dog/9.png is not a picture"):
        pack(ImageFolder(tmp_path / "more"), animals, append=True, strict=True)
    assert values(animals) == [1, 2, 3]
    assert pack(more, animals, append=True).added == 2


def test_who_has_it_open_reads_on(tmp_path):
    """Another process adds, so much that what this one has mapped (10 MB) does not suffice."""
    pets = make(tmp_path / "pets", {"cat/1.png": 1, "cat/2.png": 2, "dog/3.png": 3}, size=64)
    animals = pack(pets, tmp_path / "out.lmdb").path
    reader = open_dataset(animals)
    rng = np.random.default_rng(0)
    for number in range(800):
        path = tmp_path / "many" / f"{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, compress_level=0)
    script = (
        "from pathlib import Path; import sys\n"
        "from stylecli.data.packing import pack\n"
        "from stylecli.data.sources.folders import ImageFolder\n"
        "print(pack(ImageFolder(Path(sys.argv[1])), sys.argv[2], append=True, workers=1).count)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "many"), str(animals)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "803\n"
    assert reader.read([2])[0, 0, 0, 0] == 3
    assert (len(reader), reader.labels.tolist()) == (3, [0, 0, 1])
    reader.close()
    assert len(open_dataset(animals)) == 803


def test_settings_come_from_the_dataset(tmp_path):
    first = make(tmp_path / "first", {"1.png": 1}, size=64)
    second = make(tmp_path / "second", {"2.png": 2}, size=64)
    settings = PackSettings(resolution=16, filter="box", codec="png", pyramid=True)
    animals = pack(first, tmp_path / "out.lmdb", settings).path
    assert (pack(second, animals, append=True).resolution, values(animals)) == (16, [1, 2])
    info = open_dataset(animals).info
    assert (info["codec"], info["additions"][0]["settings"]["filter"]) == ("png", "box")
    with pytest.raises(DataError, match="packed with --filter box, not bicubic: leave that option"):
        pack(second, animals, PackSettings(filter="bicubic"), append=True)
    with pytest.raises(DataError, match="packed with --resolution 16, not 32"):
        pack(second, animals, PackSettings(resolution=32), append=True)


def test_refuses_to_mix_labelled_and_unlabelled_pictures(tmp_path, animals, more):
    plain = make(tmp_path / "plain", {"7.png": 7})
    with pytest.raises(
        DataError, match=r"out.lmdb has labels and the pictures of plain would have"
    ):
        pack(plain, animals, append=True)
    unlabelled = pack(plain, tmp_path / "plain.lmdb").path
    with pytest.raises(DataError, match="has no labels and more has: add --no-labels"):
        pack(more, unlabelled, append=True)
    assert pack(more, unlabelled, PackSettings(labels=False), append=True).count == 4


def test_needs_a_dataset_to_add_to(tmp_path, more):
    with pytest.raises(DataError, match=r"none.lmdb does not exist"):
        pack(more, tmp_path / "none.lmdb", append=True)


def test_a_dataset_that_is_open_here_is_not_added_to(animals, more):
    reader = open_dataset(animals)
    with pytest.raises(DataError, match="is open for reading in this program: close it"):
        pack(more, animals, append=True)
    assert len(reader.read([0])) == 1


def change_pixel(path, index):
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as txn:
        pixels = bytearray(txn.get(image_key(index)))
        pixels[0] ^= 4
        txn.put(image_key(index), bytes(pixels))


def test_nothing_is_added_to_pictures_that_changed(animals, more):
    change_pixel(animals, 1)
    with pytest.raises(DataError, match=r"picture 1 of .*out.lmdb has changed"):
        pack(more, animals, append=True)
    assert len(open_dataset(animals)) == 3


def test_a_copy_leaves_out_and_names_pictures_that_changed(tmp_path, animals):
    change_pixel(animals, 1)
    report = pack(PackedSource(animals), tmp_path / "copy.lmdb")
    assert [skipped.name for skipped in report.skipped] == ["cat/2.png"]
    assert "has changed" in report.skipped[0].cause
    assert values(report.path) == [1, 3]
    with pytest.raises(DataError, match="has changed"):
        pack(PackedSource(animals), tmp_path / "strict.lmdb", strict=True)


def test_an_export_and_training_stop_at_a_picture_that_changed(tmp_path, animals):
    change_pixel(animals, 1)
    with pytest.raises(DataError, match="picture 1 of"):
        export_nvidia(open_dataset(animals), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    with pytest.raises(DataError, match="picture 1 of"):
        BatchLoader(open_dataset(animals), seed=0).next(3)


def photographs_on_their_side(folder: Path) -> Path:
    folder.mkdir()
    exif = Image.Exif()
    exif[274] = 6
    for number in range(3):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste((number, 0, 0), (0, 0, 64, 20))
        picture.save(folder / f"{number}.png", exif=exif)
    return folder


def test_photographs_are_packed_upright_and_nvidias_as_stored(tmp_path: Path) -> None:
    folder = photographs_on_their_side(tmp_path / "photos")
    pack(find_source(folder), tmp_path / "a.lmdb", PackSettings(resolution=64))
    pack(find_source(folder), tmp_path / "b.lmdb", PackSettings(resolution=64, exif=False))
    upright, stored = (open_dataset(tmp_path / name) for name in ("a.lmdb", "b.lmdb"))
    assert upright.info["settings"]["exif"] is True and stored.info["settings"]["exif"] is False
    assert np.array_equal(np.rot90(stored[0][0], -1, (1, 2)), upright[0][0])
    (folder / "dataset.json").write_text('{"labels": [["0.png", 0], ["1.png", 1], ["2.png", 1]]}')
    pack(find_source(folder), tmp_path / "c.lmdb", PackSettings(resolution=64))
    nvidia = open_dataset(tmp_path / "c.lmdb")
    assert nvidia.info["settings"]["exif"] is False
    assert np.array_equal(nvidia[0][0], stored[0][0])


def test_a_dataset_from_before_upright_was_the_default_is_found_made(tmp_path: Path) -> None:
    folder = photographs_on_their_side(tmp_path / "photos")
    out = tmp_path / "old.lmdb"
    old = pack(find_source(folder), out, PackSettings(resolution=64, exif=False))
    again = pack(find_source(folder), out, PackSettings(resolution=64))
    assert again.was_there and again.digest == old.digest
    repacked = pack(find_source(folder), out, PackSettings(resolution=64), force=True)
    assert repacked.digest != old.digest
