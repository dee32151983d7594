"""StyleGAN's TFRecords: pixels, levels, labels, checksums, and every kind of damage found."""

import gzip
import zlib

import numpy as np
import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.data.sources.tfrecords import crc32c, masked_crc32c
from stylecli.errors import DataError
from tests.data.sources import formats
from tests.data.sources.formats import (
    encoded_example,
    example,
    picture_bytes,
    record,
    write_tfrecords,
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),  # the check value of the Rocksoft model
        (bytes(32), 0x8A9136AA),  # RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_gives_the_published_values(data, expected):
    assert crc32c(data) == expected


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 191, 64 * 7 + 3, 5000])
def test_any_length_is_right(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == formats.crc32c(data)


def test_parts_of_a_long_message_are_joined_rightly():
    data = np.random.default_rng(0).bytes(64 * 5000)  # more than one chunk of look-ups
    assert crc32c(memoryview(data)) == formats.crc32c(data)


def test_the_mask_rotates_and_adds():
    assert masked_crc32c(b"12345678") == formats.masked(b"12345678")


@pytest.fixture
def pictures():
    """Three RGB pictures of 8 px."""
    return np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)


@pytest.fixture
def pyramid(tmp_path, pictures):
    """A folder with levels of 4 and 8 px."""
    write_tfrecords(tmp_path / "faces" / "faces-r02.tfrecords", pictures[:, :, :4, :4])
    write_tfrecords(tmp_path / "faces" / "faces-r03.tfrecords", pictures)
    return tmp_path / "faces"


def opened(source):
    return np.stack([np.asarray(source[index].open()) for index in range(len(source))])


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_gives_its_highest_level(pyramid, pictures, packed):
    write_tfrecords(pyramid / "faces-r03.tfrecords", pictures, packed)
    source = find_source(pyramid)
    assert source.name == "faces" and source[1].name == "faces-r03.tfrecords#1"
    assert np.array_equal(opened(source), pictures.transpose(0, 2, 3, 1))


def test_a_file_gives_its_own_level(pyramid):
    assert find_source(pyramid / "faces-r02.tfrecords")[0].open().size == (4, 4)


def test_grey_pictures_stay_grey(tmp_path, pictures):
    write_tfrecords(tmp_path / "mnist.tfrecords", pictures[:, :1])
    assert find_source(tmp_path / "mnist.tfrecords")[0].open().mode == "L"


def test_one_hot_labels_are_classes(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.eye(4, dtype=np.float32)[[3, 0, 1]])
    source = find_source(pyramid)
    assert [source[index].label for index in range(3)] == [3, 0, 1]
    assert source.class_names == ["0", "1", "2", "3"] and "4 classes" in source.notes[0]


def test_other_labels_are_vectors(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.array([[0.5, 1], [1, 1], [0, 0]], np.float32))
    assert find_source(pyramid)[0].label == (0.5, 1.0)


def test_labels_without_columns_are_none(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.zeros((3, 0), np.float32))
    assert find_source(pyramid)[0].label is None


def test_refuses_labels_of_another_number(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.zeros((2, 5), np.float32))
    with pytest.raises(DataError, match="2 labels for 3 pictures"):
        find_source(pyramid)


def test_a_changed_pixel_is_found_out(pyramid):
    path = pyramid / "faces-r03.tfrecords"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    source = find_source(pyramid)
    with pytest.raises(DataError, match="checksum is wrong"):
        source[0].open()
    assert source[1].open().size == (8, 8)


def test_a_changed_length_is_found_out(pyramid):
    path = pyramid / "faces-r03.tfrecords"
    content = path.read_bytes()
    second = len(content) // 3
    path.write_bytes(content[:second] + b"\xff" * 4 + content[second + 4 :])
    with pytest.raises(DataError, match=r"length of record 1 .* does not fit its checksum"):
        find_source(pyramid)


def test_a_file_cut_short_is_found_out(pyramid):
    path = pyramid / "faces-r03.tfrecords"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match="ends within record 2"):
        find_source(pyramid)


@pytest.mark.parametrize(
    "data",
    [
        example(np.zeros((2, 4, 4), np.uint8)),  # neither grey nor RGB
        example(np.zeros((3, 4, 4), np.uint8)).replace(b"shape", b"shade"),
        example(np.zeros((3, 4, 4), np.uint8))[:-1] + b"\x09",  # not as many bytes as that
        b"\xff" * 30,
        b"\x0d\0\0\0\0",  # a number of four bytes where features are expected
        b"\x0a\x7f",  # a field that runs out of the record
        b"\x0b\0",  # a kind of field that nobody writes any more
    ],
)
def test_other_records_are_refused_with_a_cause(tmp_path, data):
    (tmp_path / "a.tfrecords").write_bytes(record(data))
    with pytest.raises(DataError, match="record"):
        find_source(tmp_path / "a.tfrecords")[0].open()


def test_several_pyramids_in_a_folder_are_told_apart(pyramid, pictures):
    write_tfrecords(pyramid / "cats-r03.tfrecords", pictures)
    with pytest.raises(DataError, match=r"several pyramids \(cats, faces\)"):
        find_source(pyramid)


def records(count, name=b"image/encoded", kind="jpeg", first=0, **more):
    """Return records with encoded pictures that are as red as their number."""
    return b"".join(
        record(
            encoded_example(
                {b"image/format": b"?", name: picture_bytes((number, 0, 0), kind=kind)}
                | {key.encode(): value(number) for key, value in more.items()}
            )
        )
        for number in range(first, first + count)
    )


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
@pytest.mark.parametrize("name", [b"img", b"data", b"image/encoded", b"any"])
def test_encoded_pictures_are_found_by_what_they_are(tmp_path, name, kind):
    (tmp_path / "x-r03.tfrecords").write_bytes(records(2, name, kind))
    source = find_source(tmp_path)
    assert len(source) == 2 and source[1].open().size == (8, 8)


def test_shards_are_one_set_in_order(tmp_path):
    for shard in range(3):
        path = tmp_path / "cats" / f"train-0000{shard}-of-00004"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(records(2, first=2 * shard, kind="png"))
    (tmp_path / "cats" / "validation-00000-of-00001").write_bytes(records(1))
    source = find_source(tmp_path / "cats")
    reds = [source[index].open().getpixel((0, 0))[0] for index in range(len(source))]
    assert source.name == "cats" and reds == [0, 1, 2, 3, 4, 5]
    assert source[3].name == "train-00001-of-00004#1"
    assert "validation-00000-of-00001" in source.notes[0] and "1 of 4 shards" in source.notes[1]
    assert len(find_source(tmp_path / "cats" / "validation-00000-of-00001")) == 1


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord-00000-of-00001", "a-train.tfrecords"])
def test_other_names_are_known_too(tmp_path, name):
    (tmp_path / name).write_bytes(records(1))
    assert len(find_source(tmp_path)) == 1


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zlib.compress,
        lambda content: b"".join(
            gzip.compress(content[part : part + 100]) for part in range(0, len(content), 100)
        ),
    ],
)
def test_compressed_files_are_read(tmp_path, pack):
    (tmp_path / "a-r03.tfrecords.gz").write_bytes(pack(records(3, kind="png")))
    source = find_source(tmp_path)
    assert [item.open().getpixel((0, 0))[0] for item in source] == [0, 1, 2]
    (tmp_path / "a-r03.tfrecords.gz").write_bytes(pack(records(3))[:-5])
    with pytest.raises(DataError, match=r"cut short|damaged"):
        find_source(tmp_path)


def test_classes_in_the_records_are_labels(tmp_path):
    (tmp_path / "a.tfrecords").write_bytes(
        records(3, **{"image/class/label": lambda number: number + 1, "image/height": lambda n: 8})
    )
    source = find_source(tmp_path / "a.tfrecords")
    assert [item.label for item in source] == [0, 1, 2] and source.class_names == ["1", "2", "3"]
    assert "counted from 1" in source.notes[0]
    unlabelled = find_source(tmp_path / "a.tfrecords", own_labels=False)
    assert unlabelled[0].label is None and unlabelled.fingerprint() != source.fingerprint()


def test_records_of_another_kind_are_named_not_called_damaged(tmp_path):
    (tmp_path / "a.tfrecords").write_bytes(record(encoded_example({b"text": b"hello", b"n": 1})))
    with pytest.raises(DataError, match=r"of another kind: .* n, text: expected") as caught:
        find_source(tmp_path)
    assert "damaged" not in str(caught.value)


def test_several_sets_in_a_folder_are_told_apart(tmp_path):
    for name in ("cats-00000-of-00001", "dogs-00000-of-00001"):
        (tmp_path / name).write_bytes(records(1))
    with pytest.raises(DataError, match=r"several sets of TFRecords \(cats, dogs\)"):
        find_source(tmp_path)


def test_labels_of_another_number_do_not_stop_without_labels(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.zeros((2, 5), np.float32))
    assert find_source(pyramid, own_labels=False)[0].label is None


def test_an_empty_list_of_labels_is_refused(pyramid):
    with open(pyramid / "faces-rxx.labels", "wb") as file:
        np.save(file, np.zeros(0, np.float32))
    with pytest.raises(DataError, match="no labels"):
        find_source(pyramid)


@pytest.mark.parametrize("size", [0x178, 0x9C78, 0x8B1F])
def test_a_length_that_begins_like_a_compressed_file_is_a_length(tmp_path, size):
    records = (
        encoded_example({b"img": picture_bytes() + bytes(filled)})
        for filled in range(size - 140, size)
    )
    data = next(data for data in records if len(data) == size)
    (tmp_path / "a.tfrecords").write_bytes(record(data))
    assert len(find_source(tmp_path / "a.tfrecords")) == 1


def test_classes_that_count_from_0_have_their_numbers_as_names(tmp_path):
    (tmp_path / "a.tfrecords").write_bytes(records(2, label=lambda number: number))
    assert find_source(tmp_path).class_names == ["0", "1"]
