"""The room a dataset takes is known before it is written."""

import numpy as np
import pytest

from stylecli.data.estimating import check_room, format_bytes, picture_bytes
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError


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
    assert 0.95 < taken / (200 * picture_bytes(channels, resolution, levels=levels)) < 1.1


def test_refuses_only_what_is_known_not_to_fit(tmp_path):
    assert check_room(tmp_path, 10**18, is_exact=False) > 0
    with pytest.raises(DataError, match=r"need 1e\+06 TB, but .* are free"):
        check_room(tmp_path / "not" / "there", 10**18, is_exact=True)


def test_writes_bytes_the_short_way():
    shown = [format_bytes(count) for count in (512, 3400, 999_700, 12_345_678, 1.5e12)]
    assert shown == ["512 B", "3.4 kB", "1 MB", "12.3 MB", "1.5 TB"]
