"""NVIDIA's dataset.json, CelebA, MNIST's idx files, CIFAR: read as published, never trusted."""

import gzip
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes, python2_batch, write_cifar10, write_tar

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00000/img00000002.png"]


@pytest.fixture(params=["zip", "folder"])
def write(request, tmp_path):
    """A function that writes three pictures with a dataset.json and gives their source."""

    def write_and_find(labels, own_labels=True, **more):
        text = labels if isinstance(labels, str) else json.dumps({"labels": labels, **more})
        files = dict.fromkeys(NAMES, picture_bytes()) | {"dataset.json": text.encode()}
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return find_source(tmp_path / "set.zip", own_labels=own_labels)
        for name, content in files.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(content)
        return find_source(tmp_path / "set", own_labels=own_labels)

    return write_and_find


def labels_of(source):
    return [item.label for item in source]


def test_integers_are_classes(write):
    source = write([[NAMES[2], 0], [NAMES[0], 3], [NAMES[1], 1]])
    assert source.name == "set" and labels_of(source) == [3, 1, 0]
    assert source.class_names == ["0", "1", "2", "3"] and source.notes == []


def test_lists_are_vectors_even_where_they_are_one_hot(write):
    source = write([[name, [0, 1.0]] for name in NAMES])
    assert labels_of(source) == [(0.0, 1.0)] * 3 and source.class_names is None


def test_classes_may_be_named(write):
    source = write([[name, "cat"] for name in NAMES])
    assert source.class_names == ["cat"] and labels_of(source) == [0, 0, 0]
    named = write([[name, 0] for name in NAMES], class_names=["cat", "dog"])
    assert named.class_names == ["cat", "dog"]


def test_no_labels_are_none(write):
    assert labels_of(write(None)) == [None] * 3


def test_incomplete_labels_are_not_used_and_that_is_told(write):
    source = write([[NAMES[0], 1], ["gone.png", 0]])
    assert labels_of(source) == [None] * 3 and source.class_names is None
    assert "1 missing picture: gone.png" in source.notes[0]
    assert f"no label for 2 of 3 pictures ({NAMES[1]}, {NAMES[2]})" in source.notes[1]
    assert "its labels are not used" in source.notes[1]


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        ('{"labels": [["a.png", ', "not JSON"),
        ('{"labels": ' + "[" * 100_000, "nested too deeply"),
        ('{"labels": [["a.png", NaN]]}', "NaN"),
        ('{"labels": [["a.png", [1e999]]]}', "1e999"),
        ([["a.png", 0], ["b.png", [1.0]]], r"0 for a.png and \[1.0\] for b.png"),
        ([["a.png", [1]], ["b.png", [1, 2]]], "of different lengths"),
        ([["a.png", -1]], "holds the label -1"),
        ([["a.png", 10**30]], "expected classes from 0 to 99,999"),
        ([[name, place] for name in NAMES for place in range(2)], "two different labels"),
    ],
)
def test_malformed_labels_are_refused_with_a_cause(write, labels, cause):
    with pytest.raises(DataError, match=cause) as caught:
        write(labels)
    assert "--no-labels" in str(caught.value)
    assert labels_of(write(labels, own_labels=False)) == [None] * 3


@pytest.mark.parametrize(
    "text",
    [
        '{"info": {"version": "1.0"}, "images": [{"id": 0, "file_name": "a.png"}]}',  # COCO
        '{"name": "cats", "version": "1"}',
        '{"labels": ["cat", "dog"]}',
        "[]",
        "{",
        "<!doctype html>",
        "[" * 100_000,
    ],
)
def test_a_dataset_json_of_another_program_never_blocks(write, text):
    source = write(text)
    assert labels_of(source) == [None] * 3
    (note,) = source.notes
    assert note.startswith("dataset.json") and "ignored" in note
    assert write(text, own_labels=False).notes == []


def test_classes_of_folders_stay_beside_a_dataset_json_of_another_program(tmp_path):
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(picture_bytes())
    for text in ('{"images": []}', '{"labels": [["cat", 0], ["dog", 1]]}', '{"labels": [1, 0]}'):
        (tmp_path / "dataset.json").write_text(text)
        source = find_source(tmp_path)
        assert source.class_names == ["cat", "dog"] and "dataset.json" in source.notes[0]


def test_metadata_of_another_program_is_left_alone(write, tmp_path):
    write([[name, 0] for name in NAMES])
    folder = tmp_path / "set"
    if folder.is_dir():
        (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n')
        source = find_source(folder)
        assert labels_of(source) == [0, 0, 0] and "metadata.jsonl" in source.notes[0]


@pytest.mark.parametrize("around", ["set/", "./", "./data/set/", "/root/"])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_folder_around_everything_changes_nothing(tmp_path, kind, around):
    pictures = [f"{place}/img{place}.png" for place in ("00000", "00001")]
    labels = json.dumps({"labels": [[pictures[0], 1], [pictures[1], 0]]}).encode()
    files = {
        **{around + name: picture_bytes() for name in pictures},
        around + "dataset.json": labels,
        "__MACOSX/" + around + "._dataset.json": b"\0",
        "__MACOSX/._img.png": b"\0",
        "readme.txt": b"hello",
    }
    path = write_files(tmp_path, kind, files)
    source = find_source(path)
    assert labels_of(source) == [1, 0]
    assert source.notes == ["not read, because they are not pictures: 1 .txt"]
    (tmp_path / "labels.csv").write_text(f"{pictures[0]},0\n{pictures[1]},1\n")
    assert labels_of(find_source(path, labels=tmp_path / "labels.csv")) == [0, 1]


def test_names_that_an_outer_folder_also_has_are_those_beside_the_file(tmp_path):
    files = dict.fromkeys(["set/1.png", "set/x/1.png"], picture_bytes())
    labels = {"labels": [["1.png", 0], ["x/1.png", 1]]}
    path = write_files(tmp_path, "zip", {**files, "set/dataset.json": json.dumps(labels).encode()})
    assert labels_of(find_source(path)) == [0, 1]


def write_files(folder, kind, files):
    """Write files by name into a zip or a folder, and return its path."""
    if kind == "zip":
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return folder / "all.zip"
    for name, content in files.items():
        path = folder / "all" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "all"


ATTRIBUTES = """3
Bald Smiling Young
000001.jpg -1  1  1
000002.jpg  1 -1 -1
000003.jpg -1 -1 -1
"""


@pytest.fixture
def celeba(tmp_path):
    """A folder with three aligned pictures."""
    (tmp_path / "img_align_celeba").mkdir()
    for number in (1, 2, 3):
        content = picture_bytes(size=(178, 218), kind="jpeg")
        (tmp_path / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("place", [".", "Anno"])
def test_attributes_become_vectors_of_0_and_1(celeba, place):
    (celeba / place).mkdir(exist_ok=True)
    (celeba / place / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    source = find_source(celeba)
    assert [item.label for item in source] == [(0, 1, 1), (1, 0, 0), (0, 0, 0)]
    assert any("Bald, Smiling, Young" in note for note in source.notes)


def test_identities_become_metadata(celeba):
    (celeba / "identity_CelebA.txt").write_text("000001.jpg 2880\n000002.jpg 7\n000003.jpg 7\n")
    source = find_source(celeba / "img_align_celeba")
    assert source[0].metadata == {"source": "000001.jpg", "identity": 2880}
    assert source[0].label is None


def test_the_usual_crop_is_suggested(celeba):
    assert "--transform celeba" in find_source(celeba).notes[0]
    (celeba / "img_align_celeba" / "000001.jpg").write_bytes(b"damaged")  # its size is unknown
    assert find_source(celeba).notes == []


def test_lists_serve_as_label_files(celeba, tmp_path):
    (tmp_path / "who.txt").write_text("000001.jpg 2\n000002.jpg 0\n000003.jpg 0\n")
    source = find_source(celeba, labels=tmp_path / "who.txt")
    assert [item.label for item in source] == [2, 0, 0]


def test_lists_that_leave_pictures_out_do_not_stop_without_labels(celeba):
    (celeba / "list_attr_celeba.txt").write_text("1\nBald\n000001.jpg 1\n")
    (celeba / "identity_CelebA.txt").write_text("000001.jpg 1\n")
    with pytest.raises(DataError, match=r"no label for 2 of 3.*--no-labels"):
        find_source(celeba)
    assert find_source(celeba, own_labels=False)[0].label is None


def test_identities_are_kept_as_they_are_counted(celeba):
    (celeba / "identity_CelebA.txt").write_text("000001.jpg 1\n000002.jpg 2\n000003.jpg 2\n")
    assert [item.metadata["identity"] for item in find_source(celeba)] == [1, 2, 2]


def test_an_incomplete_list_is_found_out(celeba):
    (celeba / "list_attr_celeba.txt").write_text(ATTRIBUTES.rsplit("\n", 2)[0])
    with pytest.raises(DataError, match=r"no label for 1 of 3 pictures \(000003.jpg\)"):
        find_source(celeba)


def write_idx(path, array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_set(folder, name, values, suffix=".gz"):
    """Write 6 x 6 pictures of the given values, labelled by them."""
    values = np.array(values)
    pictures = np.broadcast_to(values[:, None, None], (len(values), 6, 6))
    write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", pictures)
    write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", values)


def test_a_folder_gives_the_training_set_and_then_the_test_set(tmp_path):
    write_set(tmp_path, "t10k", [3])
    write_set(tmp_path, "train", [0, 2], suffix="")
    source = find_source(tmp_path)
    assert [(item.name, item.label) for item in map(source.__getitem__, range(3))] == [
        ("train-images-idx3-ubyte#0", 0),
        ("train-images-idx3-ubyte#1", 2),
        ("t10k-images-idx3-ubyte.gz#0", 3),
    ]
    assert len(source) == 3 and source.class_names == ["0", "1", "2", "3"]


def test_one_file_brings_its_labels(tmp_path):
    write_set(tmp_path, "train", [1])
    write_set(tmp_path, "t10k", [0, 5])
    source = find_source(tmp_path / "t10k-images-idx3-ubyte.gz")
    assert len(source) == 2 and source[1].label == 5


def test_pictures_without_labels_have_none(tmp_path):
    write_set(tmp_path, "train", [1])
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    source = find_source(tmp_path)
    assert source.class_names is None and source[0].label is None


def test_pictures_are_padded_with_zeros_to_a_power_of_two(tmp_path):
    write_set(tmp_path, "train", [9])
    pixels = np.asarray(find_source(tmp_path)[0].open())
    assert np.array_equal(pixels, np.pad(np.full((6, 6), 9), 1))


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("count", [3, 2**31])
def test_a_lying_header_is_found_out(tmp_path, suffix, count):
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    content = struct.pack(">4B3I", 0, 0, 8, 3, count, 6, 6) + bytes(2 * 36)
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        find_source(path)


def test_a_truncated_file_is_found_out(tmp_path):
    write_set(tmp_path, "train", range(50))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is damaged"):
        find_source(path)


def test_refuses_labels_of_another_number(tmp_path):
    write_set(tmp_path, "train", [1, 2])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(3))
    with pytest.raises(DataError, match="2 pictures but 3 labels"):
        find_source(tmp_path)


META = "cifar-100-python/meta"


def test_cifar10_gives_its_training_batches_in_order(tmp_path):
    pixels = write_cifar10(tmp_path / "cifar-10-python.tar.gz")
    source = find_source(tmp_path / "cifar-10-python.tar.gz")
    assert (source.name, len(source), source[3].label) == ("cifar-10", 10, 1)
    assert source[3].name == "data_batch_2#1" and source.class_names[3] == "class 3"
    expected = pixels[3].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(np.asarray(source[3].open()), expected)
    assert "test_batch is left out" in source.notes[0]


def test_the_unpacked_folder_gives_the_same(tmp_path):
    write_cifar10(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "cifar-10-batches-py"
    assert find_source(folder).fingerprint() == find_source(tmp_path / "a.tar.gz").fingerprint()
    assert find_source(folder / "test_batch")[1].name == "test_batch#1"


def test_a_tarball_of_another_folder_is_cifar_too(tmp_path):
    write_cifar10(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:  # folders stand first in it
        archive.add(tmp_path / "cifar-10-batches-py", "./mine/batches")
    assert find_source(tmp_path / "b.tar").name == "cifar-10"


def test_cifar100_takes_its_fine_labels(tmp_path):
    names = {b"fine_label_names": [b"apple", b"bee", b"cup"], b"coarse_label_names": [b"thing"]}
    batch = python2_batch(np.zeros((2, 3072), np.uint8), [2, 0], b"fine_labels")
    files = {META: pickle.dumps(names, protocol=2), "cifar-100-python/train": batch}
    write_tar(tmp_path / "cifar-100-python.tar.gz", files)
    source = find_source(tmp_path / "cifar-100-python.tar.gz")
    assert source[0].label == 2 and source.class_names == ["apple", "bee", "cup"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_batches_that_python3_wrote_are_read(tmp_path, protocol):
    batch = {b"data": np.full((1, 3072), 7, np.uint8), b"labels": [4]}
    files = {"data_batch_1": pickle.dumps(batch, protocol=protocol)}
    write_tar(tmp_path / "a.tar.gz", files)
    source = find_source(tmp_path / "a.tar.gz")
    assert source[0].label == 4 and source[0].open().getpixel((0, 0)) == (7, 7, 7)


class Harmful:
    """Would make a folder if it were unpickled the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_pickle_is_run(tmp_path):
    content = pickle.dumps({b"data": Harmful(str(tmp_path / "made"))}, protocol=2)
    write_tar(tmp_path / "a.tar.gz", {"data_batch_1": content})
    with pytest.raises(DataError, match=r"names posix.mkdir; nothing in it was run"):
        find_source(tmp_path / "a.tar.gz")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("batch", "cause"),
    [
        ({b"labels": [0]}, "holds no pixels"),
        ({b"data": np.zeros((1, 100), np.uint8), b"labels": [0]}, "rows of 100 bytes"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "one label for each"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, "not classes of CIFAR"),
    ],
)
def test_refuses_other_batches_with_a_cause(tmp_path, batch, cause):
    write_tar(tmp_path / "a.tar.gz", {"data_batch_1": pickle.dumps(batch, protocol=2)})
    with pytest.raises(DataError, match=cause):
        find_source(tmp_path / "a.tar.gz")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    header = tarfile.TarInfo("data_batch_1")
    header.size = 2 << 30
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20)))
    with pytest.raises(DataError, match="unpacks to over"):
        find_source(tmp_path / "a.tar.gz")
