"""Folders and zips: order, classes, files that are no pictures, damage told by name."""

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from stylecli.data.sources.folders import ImageFolder, describe_left_out
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from stylecli.images import save_picture
from stylecli.metrics.picture_sets import FolderPictures
from tests.data.sources.formats import picture_bytes


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return ImageFolder(folder)


def listed(source):
    return [(item.name, item.label) for item in source]


def test_sub_folders_are_classes_in_the_order_of_their_bytes(tmp_path):
    source = fill(tmp_path, "dog/b.png", "Wolf/a.png", "dog/more/a.png", "cat/1.png")
    assert source.class_names == ["Wolf", "cat", "dog"]
    assert listed(source) == [
        ("Wolf/a.png", 0), ("cat/1.png", 1), ("dog/b.png", 2), ("dog/more/a.png", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "cat/1.png", "dog/1.png"),  # not all lie in sub-folders
        ("photos/1.png", "photos/2.png"),  # one sub-folder tells nothing apart
        ("00000/00001.png", "01000/01000.png"),  # numbered, as in FFHQ
    ],
)
def test_other_layouts_have_no_classes(tmp_path, names):
    source = fill(tmp_path, *names)
    assert source.class_names is None
    assert [item.label for item in source] == [None] * len(names)


def test_hidden_and_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    assert listed(fill(tmp_path, ".hidden.png", ".cache/a.png", "a.png")) == [("a.png", None)]


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
    before = fill(tmp_path, "a.png").fingerprint()
    assert ImageFolder(tmp_path).fingerprint() == before
    assert fill(tmp_path, "b.png").fingerprint() != before


def test_names_that_are_not_utf8_can_be_told(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    try:
        os.rename(os.fsencode(tmp_path / "a.png"), os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (item,) = ImageFolder(tmp_path)
    assert item.name == "\N{REPLACEMENT CHARACTER}.png"
    with item.open() as picture:
        assert picture.size == (4, 4)


def test_refuses_a_folder_without_pictures(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        ImageFolder(tmp_path)


def test_a_single_folder_around_the_classes_counts_for_nothing(tmp_path):
    source = fill(tmp_path, "data/photos/cat/1.png", "data/photos/dog/1.png")
    assert source.class_names == ["cat", "dog"] and source[0].name == "data/photos/cat/1.png"


def test_of_splits_the_training_set_is_taken_and_the_rest_is_told(tmp_path):
    names = [f"{split}/{kind}/1.png" for split in ("train", "val") for kind in ("cat", "wild")]
    source = fill(tmp_path, *names)  # as AFHQ comes
    assert listed(source) == [("train/cat/1.png", 0), ("train/wild/1.png", 1)]
    assert source.notes == ["2 pictures in val are left out: name that folder to take them"]


def test_pictures_outside_the_classes_are_told(tmp_path):
    (note,) = fill(tmp_path, "a.png", "cat/1.png", "dog/1.png").notes
    assert note.startswith("1 picture is outside the sub-folders (a.png)")


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    fill(tmp_path / "elsewhere", "1.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    assert listed(ImageFolder(tmp_path / "photos")) == [("linked/1.png", None)]


def test_pipes_and_dangling_links_are_refused_with_a_cause(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("gone.png")
    pipe, link = ImageFolder(tmp_path)
    with pytest.raises(DataError, match="is not a regular file"):
        pipe.open()
    with pytest.raises(DataError, match="No such file"):
        link.open()


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


def test_names_that_would_leave_a_folder_stay_within(tmp_path):
    files = {"../../a.png": picture_bytes(), "/b.png": picture_bytes(), "c\\d.png": picture_bytes()}
    source = find_source(write_zip(tmp_path / "a.zip", files))
    assert [item.name for item in source] == ["a.png", "b.png", "c/d.png"]


def test_a_stream_that_does_not_unpack_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", picture_bytes(kind="bmp"))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[35:39] = b"\xff" * 4  # behind the header and the name: a block of no known type
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged: .*invalid block type"):
        find_source(tmp_path / "a.zip")[0].open()


def test_a_damaged_picture_is_refused_and_the_others_are_not(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes(), "b.png": picture_bytes()})
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    source = find_source(path)
    with pytest.raises(DataError, match="is damaged: its checksum"):
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
def test_other_compressions_are_read(tmp_path, method):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()}, method)
    assert find_source(path)[0].open().size == (8, 8)


def test_a_compression_that_is_not_read_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 10] = 98
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"method 98.*unpack"):
        find_source(path)[0].open()


def test_an_entry_without_a_name_is_passed_over(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes(), "./": b""})
    nameless = zipfile.ZipInfo("x")
    nameless.filename = ""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(nameless, b"no")
    assert len(find_source(path)) == 1


LEFT_OUT = {
    "a.jpg": picture_bytes(kind="jpeg"),
    "phone.HEIC": b"\0\0\0\x18ftypheic",
    "new.jxl": b"\xff\x0a",
    "raw.DNG": b"II*\0",
    "photo.jpg.1": picture_bytes(kind="jpeg"),
    "scan": picture_bytes(),
    "more.zip": b"PK",
    "readme": b"text",
    "LICENSE.txt": b"text",
    ".hidden.raw": b"",
}


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_files_left_out_for_their_names_are_counted_and_named(tmp_path, kind, without_heif):
    if kind == "zip":
        source = find_source(write_zip(tmp_path / "a.zip", LEFT_OUT))
    else:
        for name, content in LEFT_OUT.items():
            (tmp_path / name).write_bytes(content)
        source = find_source(tmp_path)
    assert len(source) == 1
    note, beside = source.notes[:2]
    assert note.startswith("6 files are left out")
    assert "1 .heic (phone.HEIC: pip install 'stylecli[heif]', or convert" in note
    assert "1 .jxl, 1 .dng (new.jxl, raw.DNG: convert" in note
    assert "(photo.jpg.1, scan: JPEG or PNG inside: rename to .jpg or .png)" in note
    assert "1 .zip (more.zip: pack" in note and "readme" not in note and "hidden" not in note
    assert beside.startswith("not read, because they are not pictures: 1 ")


def test_a_folder_of_nothing_but_other_files_names_them(tmp_path, without_heif):
    (tmp_path / "a.heic").touch()
    (tmp_path / "b.heic").touch()
    with pytest.raises(DataError, match=r"holds no .*2 .heic .a.heic, b.heic: pip"):
        find_source(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # is not waited for
    with pytest.raises(DataError, match="3 files"):
        find_source(tmp_path)


def test_a_truncated_zip_is_found_out(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": picture_bytes()})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not a readable zip"):
        find_source(path)


def test_a_zip_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        find_source(write_zip(tmp_path / "a.zip", {"a.txt": b""}))


def test_a_left_out_file_that_holds_a_known_kind_needs_another_name_only(tmp_path):
    for name in ("photo.HEIC", "photo.jxl", "photo"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    (note,) = describe_left_out(
        ["photo.HEIC", "photo.jxl", "photo"], lambda n: (tmp_path / n).read_bytes()
    )
    assert note.startswith("3 files are left out")
    assert "rename to .jpg" in note and "convert" not in note


def test_our_own_pictures_are_left_out_of_a_larger_folder_alone(tmp_path):
    """By what the files and folders hold: names decide nothing."""
    for name in ("a/1.png", "b/2.png", "check/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture_bytes())
    made = np.zeros((8, 8, 3), np.uint8)
    for name in ("a/fakes.png", "out/x.jpg", "out/y.webp"):
        (tmp_path / "out").mkdir(exist_ok=True)
        save_picture(tmp_path / name, made, {"tool": "stylecli 0"})
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "check.json").write_text('{"tool": "stylecli 0"}')
    (tmp_path / "seen" / "mean.png").write_bytes(picture_bytes())

    source = find_source(tmp_path)
    assert [item.name for item in source] == ["a/1.png", "b/2.png", "check/3.png"]
    (note,) = [note for note in source.notes if "made by stylecli" in note]
    assert note.startswith("4 pictures made by stylecli left out (2 in out, 1 in ")
    assert "--include-generated" in note
    assert len(find_source(tmp_path, include_generated=True)) == 7
    assert len(find_source(tmp_path / "out")) == 2  # named itself
    assert len(find_source(tmp_path / "seen")) == 1
    assert len(FolderPictures(tmp_path)) == 7  # metrics measure it all


def test_hidden_pictures_are_counted(tmp_path):
    for name in ("1.png", ".2.png", "._1.png"):
        (tmp_path / name).write_bytes(picture_bytes())
    assert find_source(tmp_path).notes == ["hidden and not read: 1 .png"]


def test_heic_is_read_where_its_reader_is_installed_and_told_of_elsewhere(tmp_path, request):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (32, 16), "red")).save(tmp_path / "IMG_1.HEIC")
    (tmp_path / "2.png").write_bytes(picture_bytes())
    source = find_source(tmp_path)
    assert [item.name for item in source] == ["2.png", "IMG_1.HEIC"]
    with source[1].open() as picture:
        assert picture.size == (32, 16) and picture.convert("RGB").getpixel((3, 3))[0] > 200
    (tmp_path / "IMG_1.HEIC").rename(tmp_path / "renamed.jpg")
    with find_source(tmp_path)[1].open() as picture:
        assert picture.size == (32, 16)
    request.getfixturevalue("without_heif")
    with pytest.raises(DataError, match=r"is HEIC: run pip install 'stylecli\[heif\]'"):
        find_source(tmp_path)[1].open()


def test_avif_needs_no_extra(tmp_path):
    Image.new("RGB", (32, 16), "red").save(tmp_path / "1.avif")
    with find_source(tmp_path)[0].open() as picture:
        assert picture.size == (32, 16)
