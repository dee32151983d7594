"""Sample sheets on a page: few enough, small enough, and nothing lost where nothing must be."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.report.run_sheets import (
    choose_evenly,
    prepare_sheets,
    recompress,
    whole_enlargement,
)
from tests.report.made_runs import save_sheet


def test_the_first_the_last_and_the_best_are_among_the_chosen() -> None:
    chosen = choose_evenly(range(0, 1000, 10), {370}, 8)

    assert len(chosen) <= 8 and {0, 370, 990} <= set(chosen)
    assert chosen == sorted(chosen)


def test_few_sheets_stay_as_they_are() -> None:
    assert choose_evenly([0, 5, 9], {5}, 8) == [0, 5, 9]


def test_an_enlargement_is_undone_without_loss(tmp_path: Path) -> None:
    save_sheet(tmp_path / "a.png", 32)

    content, lossy = recompress(tmp_path / "a.png", 100_000)
    with Image.open(tmp_path / "a.png") as before, Image.open(io.BytesIO(content)) as after:
        assert after.size == (32, 32) and not lossy
        assert np.array_equal(np.asarray(after.resize(before.size, 0)), np.asarray(before))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_enlargement_is_recognised(scale: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, size=(16, 16, 3), dtype=np.uint8)

    assert whole_enlargement(picture.repeat(scale, axis=0).repeat(scale, axis=1)) == scale


def test_a_large_sheet_becomes_a_small_jpeg(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1500).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (1500, 1))] * 3, axis=-1)).save(tmp_path / "a.png")

    content, lossy = recompress(tmp_path / "a.png", 60_000)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG" and image.size == (1024, 1024)
    assert lossy and len(content) < 60_000


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(tmp_path / "a.png")

    content, _ = recompress(tmp_path / "a.png", 100_000)
    with Image.open(io.BytesIO(content)) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_page_says_what_was_left_out(tmp_path: Path) -> None:
    for nimg in range(10):
        save_sheet(tmp_path / f"{nimg}.png", 16)
    (tmp_path / "9.png").write_bytes(b"torn")

    sheets = prepare_sheets([(nimg, tmp_path / f"{nimg}.png") for nimg in range(10)], count=4)
    assert len(sheets.pictures) == len(sheets.nimg) == 3
    assert "4 of 10 sheets" in sheets.note and "1 could not be read" in sheets.note


def test_noise_too_is_brought_to_its_share(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(1024, 1024, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", compress_level=1)

    assert len(recompress(tmp_path / "a.png", 60_000)[0]) <= 60_000
