"""Two sets of pictures against each other, packed or loose."""

import os

import numpy as np
import pytest
from PIL import Image

from stylecli.data.reader import open_dataset
from stylecli.errors import DataError
from stylecli.metrics.evaluation import compare
from stylecli.metrics.picture_sets import FolderPictures, choose, open_set

KID = "kid@efficientnet-lite0"


@pytest.fixture
def folder(tmp_path, tiny_lmdb):
    """The pictures of the packed dataset as loose files."""
    path = tmp_path / "loose"
    path.mkdir()
    for number, (picture, _) in enumerate(open_dataset(tiny_lmdb)):
        Image.fromarray(picture.transpose(1, 2, 0)).save(path / f"{number:03d}.png")
    return path


def measure(names, a, b, **options):
    return compare(names, open_set(a), open_set(b), device="cpu", **options)


def test_a_damaged_first_picture_is_named_when_it_is_read_not_before(folder):
    (folder / "000.png").write_text("no picture")
    assert open_set(folder).sizes == "16 x 16 px"
    with pytest.raises(DataError, match=r"000\.png"):
        open_set(folder).read(np.array([0]))


def test_files_left_out_are_noted_and_a_dataset_json_does_not_block(folder, tiny_lmdb):
    (folder / "phone.HEIC").touch()
    (folder / "dataset.json").write_text('{"labels": [["')
    (note,) = open_set(folder).notes
    assert "1 file is left out" in note and "phone.HEIC" in note
    assert open_set(tiny_lmdb).notes == []


def test_a_folder_is_the_dataset_that_was_packed_from_it(filled_cache, folder, tiny_lmdb):
    fid, kid, precision, recall = measure(
        ["fid@efficientnet-lite0", KID, "pr"], folder, tiny_lmdb, samples=24
    )
    assert fid.value == pytest.approx(0, abs=1e-6)
    assert (precision.value, recall.value) == (1.0, 1.0)
    assert kid.definition["fakes"] == kid.definition["reals"] == 24
    assert fid.definition["measured_digest"] and fid.definition["dataset_sizes"] == "16 x 16 px"


def test_pictures_of_other_sizes_go_to_the_network_as_they_are(filled_cache, folder):
    Image.new("L", (40, 20), 128).save(folder / "004.png")
    (read,) = FolderPictures(folder).read(np.array([4]))
    assert read.shape == (1, 3, 20, 40) and (read == 128).all()
    shapes = [part.shape for part in FolderPictures(folder).read(np.arange(3, 7))]
    assert shapes == [(1, 3, 16, 16), (1, 3, 20, 40), (2, 3, 16, 16)]
    assert measure([KID], folder, folder)[0].value is not None


def test_what_a_metric_looks_at_does_not_depend_on_the_others(filled_cache, folder):
    names, samples = [KID, "diversity"], {"kid": 20, "diversity": 8}
    together = measure(names, folder, folder, samples=samples, cache=False)
    alone = [measure([name], folder, folder, samples=samples, cache=False)[0] for name in names]
    for one, other in zip(together, alone, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
        assert one.definition == other.definition
        assert one.definition["measured_chosen"] == "the same random ones every time"


def test_another_picture_is_another_digest(folder):
    before = FolderPictures(folder).digest
    assert FolderPictures(folder).digest == before
    Image.new("RGB", (16, 16)).save(folder / "004.png")
    assert FolderPictures(folder).digest != before


def test_pixels_changed_in_place_are_noticed_where_size_and_time_stay(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    picture = tmp_path / "linked" / "a.bmp"
    Image.new("RGB", (16, 16), "red").save(picture)
    (folder / "more").symlink_to(tmp_path / "linked")
    before, facts = FolderPictures(folder), picture.stat()
    assert len(before) == 25 and before.digest
    Image.new("RGB", (16, 16), "blue").save(picture)
    os.utime(picture, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = picture.stat()
    assert (now.st_size, now.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert FolderPictures(folder).digest != before.digest


def test_a_picture_that_cannot_be_read_is_named(filled_cache, folder):
    (folder / "007.png").write_bytes(b"no picture")
    (result,) = measure([KID], folder, folder)
    assert result.value is None and "picture 007.png of" in result.skipped
    Image.new("RGB", (4, 30)).save(folder / "007.png")
    with pytest.raises(DataError, match="is 4 x 30 px: expected at least 8 px"):
        FolderPictures(folder).read(np.array([7]))


def test_published_definitions_take_the_first_pictures_and_others_random_ones():
    numbers, which = choose(3, 10, first=True)
    assert list(numbers) == [0, 1, 2] and which == "the first"
    numbers, which = choose(3, 10, first=False)
    assert list(numbers) != [0, 1, 2] and list(numbers) == list(choose(3, 10, first=False)[0])
    assert choose(10, 10, first=False)[1] == "all"
