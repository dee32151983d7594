"""LMDB files: damage is found before it is mapped; how much room a dataset takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stylecli.data.lmdb_files import (
    check_pages,
    check_room,
    check_whole,
    pad_file,
    picture_bytes,
    read_meta,
)
from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path):
    """Sixty small pictures with metadata of many lengths, so that the tree has branches."""
    rng = np.random.default_rng(0)
    path = tmp_path / "sixty.lmdb"
    with DatasetWriter(path, resolution=16, channels=3, class_names=["a", "b"]) as writer:
        for index in range(60):
            pixels = rng.integers(0, 256, (3, 16, 16), dtype=np.uint8)
            writer.add(pixels, index % 2, {"author": "somebody " * index})
    return path


def test_a_whole_file_passes(path):
    file = path / "data.mdb"
    check_pages(file)
    assert read_meta(file).file_bytes <= file.stat().st_size


@pytest.mark.parametrize("left", [-1, -4096, -40960, 5000, 4096, 100])
def test_a_file_cut_short_is_refused_not_a_bus_error(path, left):
    file = path / "data.mdb"
    os.truncate(file, file.stat().st_size + left if left < 0 else left)
    with pytest.raises(DataError, match=r"was cut short|not a readable dataset"):
        open_dataset(path)


def test_pages_that_were_never_written_are_filled_in(path):
    file = path / "data.mdb"
    os.truncate(file, file.stat().st_size - 4096)
    pad_file(file)
    check_whole(file)


def test_every_page_that_leads_astray_is_found(path):
    file = path / "data.mdb"
    whole = file.read_bytes()
    meta = read_meta(file)
    root = meta.main.root * meta.page_bytes
    for place, value in ((0, 9), (10, 2), (12, 0), (14, 0), (16, 0xFFF0), (18, 3)):
        spoilt = bytearray(whole)
        spoilt[root + place : root + place + 2] = value.to_bytes(2, "little")
        file.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"is damaged: page \d+ "):
            check_pages(file)


def test_no_spoilt_byte_leads_a_reader_out_of_the_file(path, tmp_path):
    """In a process of its own, which a crash would end with a signal."""
    (tmp_path / "scratch").mkdir()
    script = HERE / "hostile_bytes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(tmp_path / "scratch"), "400", "1"],
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"ended by {done.returncode} at {done.stderr[-2000:]}"
    assert 200 < int(done.stdout) < 400


@pytest.mark.parametrize(
    ("channels", "resolution", "pyramid"), [(3, 128, False), (1, 64, False), (3, 64, True)]
)
def test_agrees_with_what_raw_pictures_take(tmp_path, channels, resolution, pyramid):
    shape = (channels, resolution, resolution)
    with DatasetWriter(
        tmp_path / "a.lmdb", resolution=resolution, channels=channels, pyramid=pyramid
    ) as writer:
        for value in range(200):
            writer.add(np.full(shape, value, np.uint8), 0, {"source": f"{value:05}.png"})
        levels = writer.levels
    taken = (tmp_path / "a.lmdb" / "data.mdb").stat().st_size
    assert 0.95 < taken / (200 * picture_bytes(channels, resolution**2, levels=levels)) < 1.1


def test_refuses_only_what_is_known_not_to_fit(tmp_path):
    assert check_room(tmp_path, 10**18, is_exact=False) > 0
    with pytest.raises(DataError, match=r"need 1,000,000 TB, but .* are free"):
        check_room(tmp_path / "not" / "there", 10**18, is_exact=True)
