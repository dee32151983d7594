"""Pictures: the conversion, sheets, and what a PNG says about itself."""

import io
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylecli.errors import DataError, UsageError
from stylecli.images import (
    SOURCE_TYPE,
    Beside,
    Canvas,
    check_size,
    encode_picture,
    encode_png,
    enlarge,
    from_uint8,
    make_grid,
    read_provenance,
    resize,
    save_picture,
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


PROVENANCE = {"command": "generate", "settings": {"seeds": "1,4-7", "note": '<größer> & "so"'}}


def _picture(channels: int = 3) -> np.ndarray:
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    return np.broadcast_to(ramp[:, None, None], (32, 24, channels)).copy()


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp"])
def test_every_format_carries_its_record_and_the_mark(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"

    save_picture(path, _picture(), PROVENANCE)

    assert read_provenance(path) == PROVENANCE
    assert SOURCE_TYPE.encode() in path.read_bytes()
    with Image.open(path) as image:
        assert image.size == (24, 32)
        assert np.abs(np.asarray(image).astype(int) - _picture()).max() <= 6


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_of_full_quality_keeps_every_pixel(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, channels), dtype=np.uint8)

    save_picture(tmp_path / "a.webp", picture, quality=100)

    with Image.open(tmp_path / "a.webp") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert read_provenance(tmp_path / "a.webp") is None


def test_less_quality_is_less_file() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sizes = [len(encode_picture(picture, format="jpeg", quality=q)) for q in (20, 95)]

    assert sizes[0] < sizes[1] / 2


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="JPEG cannot hold transparency"):
        encode_picture(_picture(4), format="jpeg")
    with pytest.raises(UsageError, match="does not end like a picture"):
        save_picture(tmp_path / "a.bmp", _picture())
    with pytest.raises(UsageError, match="quality 101 is out of range"):
        encode_picture(_picture(), format="webp", quality=101)
    with pytest.raises(UsageError, match="at most 65,000"):
        encode_picture(_picture(), {"seeds": "1," * 50_000}, format="jpeg")
    with pytest.raises(UsageError, match="20000 x 100 pixels do not fit into a webp file"):
        check_size("webp", 100, 20_000)
    with pytest.raises(UsageError, match="too large to be opened again"):
        check_size("png", 20_000, 20_000)


def test_no_memory_is_asked_for_pictures_that_nobody_can_open() -> None:
    """One address of explore, or one option, would end the process, or the machine."""
    picture = _picture()
    for enlarged in (
        lambda: enlarge(picture, 1_000),
        lambda: make_grid([picture], 1, scale=1_000),
        lambda: Canvas(99_999, 99_999).lay_out([picture]),
        lambda: Canvas(60_000, 1, crop=True).lay_out([picture]),  # 60,000 high before it is cut
    ):
        with pytest.raises(UsageError, match="too large to be opened again"):
            enlarged()


@pytest.mark.parametrize("pixels", [False, True])
def test_a_canvas_keeps_the_shape_of_pictures(pixels: bool) -> None:
    ramp = np.zeros((8, 8, 3), np.uint8)
    ramp[:, 4:] = 200

    wide = Canvas(64, 32, pixels=pixels).lay_out([ramp])
    full = Canvas(64, 32, crop=True, pixels=pixels).lay_out([ramp])

    assert wide.shape == full.shape == (32, 64, 3)
    assert (wide[:, :16] == 100).all() and (wide[:, 48:] == 100).all()
    assert (wide[:, 16:28] <= 10).all() and (wide[:, 36:48] >= 190).all()
    assert (full[:, :24] <= 10).all() and (full[:, 40:] >= 190).all()
    steps = len(np.unique(wide[16, 16:48, 0]))
    assert steps == 2 if pixels else steps > 4  # whole pixels, or smooth


def test_cells_on_a_canvas_do_not_shine_into_each_other() -> None:
    cells = [np.full((8, 8, 1), level, np.uint8) for level in (0, 255)]

    assert set(np.unique(Canvas(90, 45).lay_out(cells, 2))) == {0, 255}


def test_shrinking_averages_what_it_covers() -> None:
    board = np.indices((32, 32)).sum(axis=0) % 2 * np.uint8(255)

    small = resize(board[:, :, None].astype(np.uint8), 8, 4)

    assert small.shape == (8, 4, 1)
    assert np.abs(small[2:-2, 1:-1].astype(int) - 127).max() <= 2


def test_pngs_are_written_quickly_and_no_larger() -> None:
    noise = np.random.default_rng(0)
    slope = np.add.outer(np.arange(128), np.arange(128)) / 2  # as a photograph: smooth, with noise
    picture = (slope[:, :, None] + noise.integers(0, 3, (128, 128, 3))).astype(np.uint8)
    content = encode_png(picture)

    usual = io.BytesIO()
    Image.fromarray(picture).save(usual, "PNG", compress_level=6)
    assert len(content) < 1.1 * len(usual.getvalue())
    assert (content[37:41], content[41:43]) == (b"IDAT", zlib.compress(b"", 1)[:2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), picture)


def test_pictures_are_written_beside_the_drawing_and_told_in_order() -> None:
    told, done, threads = [], [], set()
    first = threading.Event()

    def write(number: int) -> None:
        threads.add(threading.current_thread().name)
        if number == 0:
            assert first.wait(10)  # the others overtake it where there are several threads
        done.append(number)

    with Beside(lambda: told.append(len(done))) as beside:
        beside(write, 0)
        assert not told  # the caller goes on
        first.set()
        for number in range(1, 40):
            beside(write, number)
            assert number - len(told) < 2 * 8 + 1  # few wait
    assert sorted(done) == list(range(40)) and len(told) == 40
    assert all(name.startswith("stylecli-writer") for name in threads)


def test_what_fails_beside_is_raised_and_ends_the_work() -> None:
    told, done = [], []

    def write(number: int) -> None:
        if number == 1:
            raise OSError(28, "full")
        done.append(number)

    with pytest.raises(OSError, match="full"), Beside(lambda: told.append(1)) as beside:
        for number in range(1000):
            beside(write, number)
    assert len(told) == 1 and len(done) < 40


def test_ctrl_c_lets_the_pictures_that_are_drawn_be_written() -> None:
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt), Beside(lambda: told.append(1)) as beside:
        for _ in range(3):
            beside(time.sleep, 0.01)
        raise KeyboardInterrupt
    assert len(told) == 3
