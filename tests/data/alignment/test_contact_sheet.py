"""Contact sheets: how many pages, how large, and what stands where a picture cannot be read."""

from pathlib import Path

import pytest
from PIL import Image

from stylecli.data.alignment import prepare_ffhq
from stylecli.data.alignment.prepare_ffhq import FRAME, GAP, PICTURE, Cell, write_contact_sheets

INSIDE = (GAP + PICTURE // 2, GAP + PICTURE // 2)


@pytest.fixture
def red(tmp_path: Path) -> Cell:
    Image.new("RGB", (300, 300), "red").save(tmp_path / "red.png")
    return Cell(tmp_path / "red.png", ("0", "red.png"))


def test_a_page_is_as_large_as_its_pictures_need(tmp_path: Path, red: Cell) -> None:
    (page,) = write_contact_sheets(tmp_path, "sheet", [red] * 3)
    with Image.open(page) as sheet:
        assert sheet.width == 3 * (PICTURE + GAP) + GAP and sheet.height < 2 * PICTURE
        assert sheet.getpixel(INSIDE) == (255, 0, 0)


def test_pages_that_are_too_many_are_removed(tmp_path: Path, red: Cell) -> None:
    assert len(write_contact_sheets(tmp_path, "sheet", [red] * 49)) == 2
    write_contact_sheets(tmp_path, "sheet", [red])
    assert [path.name for path in tmp_path.glob("sheet-*")] == ["sheet-00.png"]
    write_contact_sheets(tmp_path, "sheet", [])
    assert list(tmp_path.glob("sheet-*")) == []


def test_of_very_many_pictures_some_are_shown(
    tmp_path: Path, red: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_ffhq, "MAX_PAGES", 1)
    missing = Cell(tmp_path / "no.png", ())
    (page,) = write_contact_sheets(tmp_path, "sheet", [red, missing] * 48)
    with Image.open(page) as sheet:  # every second one: the red
        assert sheet.getpixel((INSIDE[0] + PICTURE + GAP, INSIDE[1])) == (255, 0, 0)


def test_what_cannot_be_read_leaves_its_place_grey(tmp_path: Path) -> None:
    cells = [Cell(tmp_path / "no.png", ("\N{SNOWMAN}" * 200, "is missing"))]
    (page,) = write_contact_sheets(tmp_path, "sheet", cells)
    with Image.open(page) as sheet:
        assert sheet.getpixel(INSIDE) == FRAME
