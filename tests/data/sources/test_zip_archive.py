"""Zips of pictures: read in place, classes from folders, damage told by name."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes


def write_zip(path, files, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_gives_pictures_with_their_folders_as_classes(tmp_path, method):
    files = {
        "pets/dog/b.png": picture_bytes((9, 9, 9)),
        "pets/cat/a.jpg": picture_bytes(kind="jpeg"),
        "pets/readme.txt": b"no picture",
        "__MACOSX/pets/cat/._a.jpg": b"no picture",
    }
    source = find_source(write_zip(tmp_path / "pets.zip", files, method))
    assert (source.name, source.class_names) == ("pets", ["cat", "dog"])
    assert [(item.name, item.label) for item in source] == [("pets/cat/a.jpg", 0),
                                                            ("pets/dog/b.png", 1)]  # fmt: skip
    assert source[1].open().getpixel((0, 0)) == (9, 9, 9)


def test_items_travel_to_other_processes(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    assert pickle.loads(pickle.dumps(find_source(path)[0])).open().size == (8, 8)


def test_names_that_would_leave_a_folder_are_left_alone(tmp_path):
    files = {"../../a.png": picture_bytes(), "/b.png": picture_bytes(), "c\\d.png": picture_bytes()}
    source = find_source(write_zip(tmp_path / "a.zip", files))
    assert [item.name for item in source] == ["b.png", "c/d.png"]


def test_a_damaged_picture_is_refused_and_the_others_are_not(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes(), "b.png": picture_bytes()})
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    source = find_source(path)
    with pytest.raises(DataError, match="is damaged: size or checksum"):
        source[0].open()
    assert source[1].open().size == (8, 8)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    zeros = Image.fromarray(np.zeros((1000, 1000), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.bmp", "w") as file:
            zeros.save(file, "bmp")
    content = (tmp_path / "a.zip").read_bytes()
    directory = content.rindex(b"PK\x01\x02")
    lie = content[: directory + 24] + struct.pack("<I", 50) + content[directory + 28 :]
    (tmp_path / "a.zip").write_bytes(lie)
    with pytest.raises(DataError, match="is damaged"):
        find_source(tmp_path / "a.zip")[0].open()


def test_a_member_that_says_it_is_huge_is_not_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    content = path.read_bytes()
    directory = content.rindex(b"PK\x01\x02")
    path.write_bytes(
        content[: directory + 24] + struct.pack("<I", 2**31) + content[directory + 28 :]
    )
    with pytest.raises(DataError, match="is too large: it unpacks to 2,147,483,648 bytes"):
        find_source(path)[0].open()


def test_encrypted_zips_are_refused_with_a_hint(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is encrypted \(a.png\): unpack it with its password"):
        find_source(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_named(tmp_path, method):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()}, method)
    with pytest.raises(DataError, match=f"by method {method}: expected stored or deflated"):
        find_source(path)[0].open()


def test_a_truncated_zip_is_found_out(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not a readable zip"):
        find_source(path)


def test_a_zip_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        find_source(write_zip(tmp_path / "a.zip", {"a.txt": b""}))
