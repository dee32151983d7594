"""CelebA's tree: attributes as vectors, identities, the hint at the usual crop."""

import pytest

from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from tests.data.sources.formats import picture_bytes

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


def test_lists_serve_as_label_files(celeba, tmp_path):
    (tmp_path / "who.txt").write_text("000001.jpg 2\n000002.jpg 1\n000003.jpg 1\n")
    source = find_source(celeba, labels=tmp_path / "who.txt")
    assert [item.label for item in source] == [2, 1, 1]


def test_an_incomplete_list_is_found_out(celeba):
    (celeba / "list_attr_celeba.txt").write_text(ATTRIBUTES.rsplit("\n", 2)[0])
    with pytest.raises(DataError, match=r"no label for 1 of 3 pictures \(000003.jpg\)"):
        find_source(celeba)
