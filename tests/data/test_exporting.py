"""The zip for NVIDIA's programs: their layout, and back without loss."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylecli.data.exporting import export_nvidia
from stylecli.data.reader import open_dataset
from stylecli.data.sources.recognition import find_source
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError


@pytest.fixture
def write(tmp_path):
    """A function that writes three pictures with the given labels and gives the dataset."""

    def write_dataset(labels, channels=3, **settings):
        path = tmp_path / "set.lmdb"
        rng = np.random.default_rng(0)
        with DatasetWriter(path, resolution=8, channels=channels, **settings) as writer:
            for number, label in enumerate(labels):
                pixels = rng.integers(0, 256, (channels, 8, 8), dtype=np.uint8)
                writer.add(pixels, label, {"author": f"author {number}"})
        return open_dataset(path)

    return write_dataset


def test_writes_the_layout_that_the_programs_read(write, tmp_path):
    report = export_nvidia(write([1, 0, 1]), tmp_path / "set.zip")
    assert (report.count, report.label_dim) == (3, 2)
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert names == [f"00000/img0000000{number}.png" for number in range(3)]
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels == [[names[0], 1], [names[1], 0], [names[2], 1]]
        content = archive.read(names[0])
    assert len(content) > 3 * 64  # not compressed
    assert Image.open(io.BytesIO(content)).mode == "RGB"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        ([2, 0, 1], {"class_names": ["cat", "dog", "wild", "none yet"]}),
        ([(0.5, 0.25), (1, 0), (0, 1)], {}),
        ([None, None, None], {}),
    ],
    ids=["classes", "vectors", "none"],
)
def test_reading_it_back_gives_the_same(write, tmp_path, channels, labels, settings):
    dataset = write(labels, channels, **settings)
    export_nvidia(dataset, tmp_path / "set.zip")
    source = find_source(tmp_path / "set.zip")
    assert [item.label for item in source] == labels
    assert source.class_names == settings.get("class_names")
    for index, item in enumerate(source):
        pixels = np.asarray(item.open()).reshape(8, 8, channels).transpose(2, 0, 1)
        assert np.array_equal(pixels, dataset[index][0])
        assert item.metadata["author"] == f"author {index}"


def test_the_same_dataset_gives_the_same_bytes(write, tmp_path):
    dataset = write([0, 1, 2])
    for name in ("a.zip", "b.zip"):
        export_nvidia(dataset, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_replaces_only_when_told(write, tmp_path):
    (tmp_path / "a.zip").write_text("someone's")
    with pytest.raises(DataError, match="or --force to replace it"):
        export_nvidia(write([0, 1, 2]), tmp_path / "a.zip")
    assert export_nvidia(write([0, 1, 2], force=True), tmp_path / "a.zip", force=True).count == 3


def test_stopping_leaves_nothing(write, tmp_path):
    def stop(done, total, note=""):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_nvidia(write([0, 1, 2]), tmp_path / "a.zip", progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"set.lmdb"}


def test_transparency_has_no_room(write, tmp_path):
    with pytest.raises(DataError, match="has 4 channels"):
        export_nvidia(write([0, 1, 2], channels=4), tmp_path / "a.zip")
