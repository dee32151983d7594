"""Datasets of pictures that are not square: packed, read at every level, checked, refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.data.checking.inspection import Inspection
from stylecli.data.checking.near_duplicates import shrink
from stylecli.data.demo_faces import FaceArtist
from stylecli.data.exporting import export_nvidia
from stylecli.data.loader import BatchLoader
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import open_dataset
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError, UsageError
from stylecli.shapes import SQUARE, Grid


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 34x26 px, with a margin that a crop of 4:3 leaves out."""
    folder = tmp_path_factory.mktemp("wide") / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (24, 34, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("pyramid", [False, True])
def test_pixels_of_a_shape_are_those_of_the_picture(
    photos: Path, tmp_path: Path, pyramid: bool
) -> None:
    settings = PackSettings(base=Grid(3, 4), resolution=32, pyramid=pyramid)

    report = pack(find_source(photos), tmp_path / "d.lmdb", settings)
    dataset = open_dataset(tmp_path / "d.lmdb")

    assert (report.size, dataset.height, dataset.width) == ("32x24", 24, 32)
    inner = np.asarray(Image.open(photos / "1.png"))[:, 1:33].transpose(2, 0, 1)
    assert np.array_equal(dataset[1][0], inner)
    boxes = inner.reshape(3, 6, 4, 8, 4).mean(axis=(2, 4))
    assert np.array_equal(dataset.read([1], 2)[0], np.rint(boxes))
    assert dataset.read([0, 1], 3).shape == (2, 3, 3, 4)
    with pytest.raises(UsageError, match="32x24"):
        dataset.read([0], 4)


def test_the_loader_mirrors_left_and_right(photos: Path, tmp_path: Path) -> None:
    pack(find_source(photos), tmp_path / "d.lmdb", PackSettings(base=Grid(3, 4), resolution=32))
    dataset = open_dataset(tmp_path / "d.lmdb")
    loader = BatchLoader(dataset, seed=0, mirror=True)

    images = loader.next(8, 1)[0].numpy()

    known = dataset.read(range(3), 1)
    turned = 0
    for image in images:
        plain = (known == image).all(axis=(1, 2, 3)).any()
        turned += not plain
        assert plain or (known[..., ::-1] == image).all(axis=(1, 2, 3)).any()
    assert 0 < turned < 8


def test_the_fitting_size_of_a_shape_is_chosen(photos: Path, tmp_path: Path) -> None:
    report = pack(find_source(photos), tmp_path / "a.lmdb", PackSettings(base=Grid(4, 3)))
    assert report.size == "12x16"  # 24 rows reach 16, not 32

    padded = PackSettings(base=Grid(3, 4), transform="pad")
    assert pack(find_source(photos), tmp_path / "b.lmdb", padded).size == "64x48"

    boxed = PackSettings(base=Grid(4, 3), transform="letterbox", resolution=16)
    pack(find_source(photos), tmp_path / "c.lmdb", boxed)
    picture = open_dataset(tmp_path / "c.lmdb")[0][0]
    assert picture.shape == (3, 16, 12)
    assert not picture[:, :3].any()
    assert picture[:, 4:12].any(axis=(0, 2)).all()


def test_another_shape_is_refused_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    source, out = find_source(photos), tmp_path / "d.lmdb"
    pack(source, out, PackSettings(base=Grid(3, 4), resolution=32))

    with pytest.raises(DataError, match="other --shape"):
        pack(source, out, PackSettings(base=Grid(4, 3), resolution=32))
    with pytest.raises(DataError, match="other --shape"):
        pack(source, out, PackSettings(resolution=32))
    with pytest.raises(DataError, match="--shape 4:3, not 3:4"):
        pack(source, out, PackSettings(base=Grid(4, 3)), append=True)
    with pytest.raises(DataError, match=r"32x24.*square"):
        export_nvidia(open_dataset(out), tmp_path / "x.zip")
    with pytest.raises(UsageError, match="'wide' is for square"):
        PackSettings(base=Grid(3, 4), transform="wide")


def test_square_datasets_say_nothing_of_a_shape(photos: Path, tmp_path: Path) -> None:
    pack(find_source(photos), tmp_path / "d.lmdb", PackSettings(resolution=16))

    dataset = open_dataset(tmp_path / "d.lmdb")
    info = dataset.info

    assert info["version"] == 1
    assert "base" not in info
    assert "base" not in info["settings"]
    assert dataset.grid == SQUARE
    assert dataset.digest[:16] == "fae3468c7e134431"  # packed when all datasets were square


def test_check_proposes_the_shape_and_reads_it(photos: Path, tmp_path: Path) -> None:
    with Inspection(photos) as inspection:
        inspection.scan(workers=1)
        checked = inspection.report()
        facts, described = checked.facts, checked.rows
    pack(find_source(photos), tmp_path / "d.lmdb", PackSettings(base=Grid(5, 7), resolution=16))
    with Inspection(tmp_path / "d.lmdb") as inspection:
        inspection.scan(workers=1)
        inspection.compare()
        report = inspection.report(tmp_path / "check")

    assert facts["fitting_shape"] == "7:5"
    assert dict(described)["fitting shape"].endswith("a square 71%")
    assert not [problem for problem in report.problems if problem.severity == "error"]
    with Image.open(tmp_path / "check" / "mean.png") as mean:
        assert mean.width * 5 == mean.height * 7


def test_thumbnails_of_any_shape_keep_the_mean() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (2, 3, 48, 80), np.uint8)

    small = shrink(pictures)

    assert small.shape == (2, 3, 32, 32)
    assert np.allclose(small.mean(axis=(2, 3)), pictures.mean(axis=(2, 3)), atol=0.1)
    assert np.array_equal(shrink(np.full((1, 1, 3, 5), 7, np.uint8)), np.full((1, 1, 32, 32), 7))


def test_demo_faces_of_another_shape_have_more_background() -> None:
    pytest.importorskip("resvg_py")

    square, wide, tall = (
        FaceArtist(64, grid=grid)(3)[0] for grid in (SQUARE, Grid(3, 4), Grid(4, 3))
    )

    assert (square.shape, wide.shape, tall.shape) == ((3, 64, 64), (3, 48, 64), (3, 64, 48))
    middle = wide[:, :, 8:56].astype(float)  # the square, at three quarters of its size
    small = np.asarray(
        Image.fromarray(square.transpose(1, 2, 0)).resize((48, 48), Image.Resampling.BOX)
    )
    assert np.abs(middle - small.transpose(2, 0, 1)).mean() < 6
