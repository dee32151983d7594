"""Adding to a dataset: classes merged, nothing twice, readable all the while."""

import subprocess
import sys

import lmdb
import numpy as np
import pytest
from PIL import Image

from stylecli.data import batching
from stylecli.data.exporting import export_nvidia
from stylecli.data.format import image_key
from stylecli.data.loader import BatchLoader
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import open_dataset
from stylecli.data.sources.folders import ImageFolder
from stylecli.data.sources.lmdb_pictures import PackedSource
from stylecli.errors import DataError, Interrupted


def make(folder, pictures, size=16):
    """Write pictures of plain grey: {name: value}."""
    for name, value in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (value, 0, 0)).save(path)
    return ImageFolder(folder)


@pytest.fixture
def out(tmp_path):
    """A dataset of three pictures: two cats, one dog."""
    pets = make(tmp_path / "pets", {"cat/1.png": 1, "cat/2.png": 2, "dog/3.png": 3})
    return pack(pets, tmp_path / "out.lmdb").path


@pytest.fixture
def more(tmp_path):
    """Three more, one of which is there already, of a known class and a new one."""
    return make(tmp_path / "more", {"ant/4.png": 4, "dog/5.png": 5, "dog/6.png": 3})


def values(path):
    return open_dataset(path).read(range(len(open_dataset(path))))[:, 0, 0, 0].tolist()


def test_classes_are_merged_by_name_and_known_pictures_left_out(out, more):
    report = pack(more, out, append=True)
    assert (report.count, report.added) == (5, 2)
    assert report.classes == {"cat": 2, "dog": 2, "ant": 1}
    assert report.causes == {"is in the dataset already": 1}
    assert values(out) == [1, 2, 3, 4, 5]
    assert open_dataset(out).labels.tolist() == [0, 0, 1, 2, 1]


def test_the_digest_is_that_of_all_pictures_packed_at_once(tmp_path, out, more):
    together = make(tmp_path / "all", {f"{n}/{n}.png": n for n in (1, 2, 3, 4, 5)})
    assert pack(more, out, append=True).digest == pack(together, tmp_path / "b.lmdb").digest


def test_the_same_addition_again_adds_nothing(out, more):
    first = pack(more, out, append=True)
    again = pack(more, out, append=True)
    assert again.was_there and not first.was_there
    assert (again.added, again.skipped, again.digest) == (2, first.skipped, first.digest)


def test_a_source_that_has_grown_gives_its_new_pictures_only(tmp_path, out):
    pets = make(tmp_path / "pets", {"dog/9.png": 9})
    assert pack(pets, out, append=True).added == 1
    assert values(out) == [1, 2, 3, 9]


def test_new_classes_without_a_picture_are_dropped(tmp_path, out):
    again = make(tmp_path / "again", {"cow/1.png": 1, "elk/2.png": 2})
    before = open_dataset(out).info
    report = pack(again, out, append=True)
    assert (report.added, report.classes) == (0, {"cat": 2, "dog": 1})
    for field in ("count", "class_names", "label_dim", "digest"):
        assert open_dataset(out).info[field] == before[field]
    assert pack(again, out, append=True).was_there
    mixed = make(tmp_path / "mixed", {"cow/1.png": 1, "elk/7.png": 7, "fox/2.png": 2})
    assert pack(mixed, out, append=True).classes == {"cat": 2, "dog": 1, "elk": 1}
    dataset = open_dataset(out)
    assert dataset.labels.tolist() == [0, 0, 1, 2]
    assert dataset.item_label(3) == (2).to_bytes(8, "little")


def test_a_known_picture_under_another_label_is_called_so(tmp_path, out):
    relabelled = make(tmp_path / "relabelled", {"cat/3.png": 3, "dog/8.png": 8})
    (left_out,) = pack(relabelled, out, append=True).skipped
    assert left_out.cause == (
        "has the same pixels and another label than an earlier one: dog/3.png"
    )


def test_an_interrupted_addition_leaves_the_dataset_as_it_was_and_goes_on(out, more, monkeypatch):
    monkeypatch.setattr(batching, "BATCH_ITEMS", 1)
    digest = open_dataset(out).digest

    def stop(done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped at picture 2 of 3"):
        pack(more, out, append=True, progress=stop)
    assert (open_dataset(out).digest, values(out)) == (digest, [1, 2, 3])
    seen = []

    def note_packed(done, total, note=""):
        if not note.startswith("checking"):
            seen.append(done)

    pack(more, out, append=True, progress=note_packed)
    assert seen == [2, 3] and values(out) == [1, 2, 3, 4, 5]


def test_another_addition_drops_an_unfinished_one_only_by_force(tmp_path, out, more, monkeypatch):
    monkeypatch.setattr(batching, "BATCH_ITEMS", 1)

    def stop(done, total, note=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        pack(more, out, append=True, progress=stop)
    other = make(tmp_path / "other", {"cat/7.png": 7, "dog/8.png": 8})
    with pytest.raises(DataError, match="has an unfinished addition of more: run that command"):
        pack(other, out, append=True)
    assert pack(other, out, append=True, force=True).count == 5
    assert values(out) == [1, 2, 3, 7, 8]


def test_strict_takes_an_addition_back(tmp_path, out, more):
    (tmp_path / "more" / "dog" / "9.png").write_text("no picture")
    with pytest.raises(DataError, match=r"dog/9.png is not a picture"):
        pack(ImageFolder(tmp_path / "more"), out, append=True, strict=True)
    assert values(out) == [1, 2, 3]
    assert pack(more, out, append=True).added == 2


def test_who_has_it_open_reads_on(tmp_path):
    """Another process adds, so much that what this one has mapped (10 MB) does not suffice."""
    pets = make(tmp_path / "pets", {"cat/1.png": 1, "cat/2.png": 2, "dog/3.png": 3}, size=64)
    out = pack(pets, tmp_path / "out.lmdb").path
    reader = open_dataset(out)
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
    command = [sys.executable, "-c", script, str(tmp_path / "many"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "803\n"
    assert reader.read([2])[0, 0, 0, 0] == 3
    assert (len(reader), reader.labels.tolist()) == (3, [0, 0, 1])
    reader.close()
    assert len(open_dataset(out)) == 803


def test_settings_come_from_the_dataset(tmp_path):
    first = make(tmp_path / "first", {"1.png": 1}, size=64)
    second = make(tmp_path / "second", {"2.png": 2}, size=64)
    settings = PackSettings(resolution=16, filter="box", codec="png", pyramid=True)
    out = pack(first, tmp_path / "out.lmdb", settings).path
    assert (pack(second, out, append=True).resolution, values(out)) == (16, [1, 2])
    info = open_dataset(out).info
    assert (info["codec"], info["additions"][0]["settings"]["filter"]) == ("png", "box")
    with pytest.raises(DataError, match="packed with filter box, not bicubic: leave that option"):
        pack(second, out, PackSettings(filter="bicubic"), append=True)
    with pytest.raises(DataError, match="packed with resolution 16, not 32"):
        pack(second, out, PackSettings(resolution=32), append=True)


def test_refuses_to_mix_labelled_and_unlabelled_pictures(tmp_path, out, more):
    plain = make(tmp_path / "plain", {"7.png": 7})
    with pytest.raises(
        DataError, match=r"out.lmdb has labels and the pictures of plain would have"
    ):
        pack(plain, out, append=True)
    unlabelled = pack(plain, tmp_path / "plain.lmdb").path
    with pytest.raises(DataError, match="has no labels and more has: add --no-labels"):
        pack(more, unlabelled, append=True)
    assert pack(more, unlabelled, PackSettings(labels=False), append=True).count == 4


def test_needs_a_dataset_to_add_to(tmp_path, more):
    with pytest.raises(DataError, match=r"none.lmdb does not exist"):
        pack(more, tmp_path / "none.lmdb", append=True)


def test_a_dataset_that_is_open_here_is_not_added_to(out, more):
    reader = open_dataset(out)
    with pytest.raises(DataError, match="is open for reading in this program: close it"):
        pack(more, out, append=True)
    assert len(reader.read([0])) == 1


def change_pixel(path, index):
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as txn:
        pixels = bytearray(txn.get(image_key(index)))
        pixels[0] ^= 4
        txn.put(image_key(index), bytes(pixels))


def test_nothing_is_added_to_pictures_that_changed(out, more):
    change_pixel(out, 1)
    with pytest.raises(DataError, match=r"picture 1 of .*out.lmdb has changed"):
        pack(more, out, append=True)
    assert len(open_dataset(out)) == 3


def test_a_copy_leaves_out_and_names_pictures_that_changed(tmp_path, out):
    change_pixel(out, 1)
    report = pack(PackedSource(out), tmp_path / "copy.lmdb")
    assert [skipped.name for skipped in report.skipped] == ["cat/2.png"]
    assert "has changed" in report.skipped[0].cause
    assert values(report.path) == [1, 3]
    with pytest.raises(DataError, match="has changed"):
        pack(PackedSource(out), tmp_path / "strict.lmdb", strict=True)


def test_an_export_and_training_stop_at_a_picture_that_changed(tmp_path, out):
    change_pixel(out, 1)
    with pytest.raises(DataError, match="picture 1 of"):
        export_nvidia(open_dataset(out), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    with pytest.raises(DataError, match="picture 1 of"):
        BatchLoader(open_dataset(out), seed=0).next(3)
