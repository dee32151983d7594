"""Folders: order, classes, and files that are no pictures."""

import os

import pytest
from PIL import Image

from stylecli.data.sources.folder import ImageFolder
from stylecli.errors import DataError


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
    assert note.startswith("1 pictures lie outside the 2 sub-folders (a.png), so these are not")


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
