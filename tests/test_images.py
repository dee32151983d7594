"""Pictures: the conversion, sheets, and what a PNG says about itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylecli.errors import DataError, UsageError
from stylecli.images import (
    SOURCE_TYPE,
    encode_png,
    from_uint8,
    make_grid,
    read_provenance,
    save_png,
    to_uint8,
)


def test_conversion_truncates_and_clamps() -> None:
    levels = torch.tensor([-3.0, -1.0, -0.996, 0.0, 0.996, 1.0, 3.0])
    images = levels.view(1, 1, 1, 7)

    assert to_uint8(images).ravel().tolist() == [0, 0, 1, 128, 254, 255, 255]


def test_every_grey_level_survives_both_conversions() -> None:
    pictures = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)

    np.testing.assert_array_equal(to_uint8(from_uint8(pictures)), pictures)


def test_arrays_and_tensors_convert_alike() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())

    assert torch.equal(from_uint8(pictures), from_uint8(tensor))


def test_grid_places_cells_row_by_row_on_white() -> None:
    cells = [np.full((2, 3, 3), value, dtype=np.uint8) for value in (10, 20, 30)]

    sheet = make_grid(cells, 2, padding=1, scale=2)

    assert sheet.shape == (9, 13, 3)
    assert sheet[0, 0, 0] == 10 and sheet[3, 12, 0] == 20 and sheet[8, 5, 0] == 30
    assert (sheet[4] == 255).all() and (sheet[5:, 7:] == 255).all()


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot lay out"):
        make_grid([], 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_pixels_and_provenance(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    provenance = {"seeds": [1, 2], "note": "größer"}

    save_png(tmp_path / "a.png", picture, provenance)

    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)
    assert read_provenance(tmp_path / "a.png") == provenance


def test_only_generated_pictures_are_marked_as_such() -> None:
    picture = np.zeros((2, 2, 3), dtype=np.uint8)

    assert SOURCE_TYPE.encode() in encode_png(picture, {})
    assert SOURCE_TYPE.encode() not in encode_png(picture)


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    save_png(tmp_path / "plain.png", np.zeros((2, 2, 3), dtype=np.uint8), None)

    assert read_provenance(tmp_path / "plain.png") is None
    with pytest.raises(DataError, match="not a readable picture"):
        read_provenance(tmp_path / "text.png")
