"""Two sets of pictures against each other, packed or loose."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import open_dataset
from stylecli.data.sources.recognition import find_source
from stylecli.errors import DataError
from stylecli.images import over_white
from stylecli.metrics.evaluation import compare
from stylecli.metrics.picture_sets import (
    DatasetPictures,
    FolderPictures,
    agree_on_colours,
    as_colour,
    choose,
    describe_differences,
    open_set,
)
from tests.data.profiles import linear_grey_profile, wide_gamut_profile

KID = "kid@efficientnet-lite0"


@pytest.fixture
def folder(tmp_path, tiny_lmdb):
    """The pictures of the packed dataset as loose files."""
    path = tmp_path / "loose"
    path.mkdir()
    for number, (picture, _) in enumerate(open_dataset(tiny_lmdb)):
        Image.fromarray(picture.transpose(1, 2, 0)).save(path / f"{number:03d}.png")
    return path


def measure(names, a, b, **options):
    return compare(names, open_set(a), open_set(b), device="cpu", **options)


def test_a_damaged_first_picture_is_named_when_it_is_read_not_before(folder):
    (folder / "000.png").write_text("no picture")
    assert open_set(folder).sizes == "16 x 16 px"
    with pytest.raises(DataError, match=r"000\.png"):
        open_set(folder).read(np.array([0]))


def test_files_left_out_are_noted_and_a_dataset_json_does_not_block(folder, tiny_lmdb):
    (folder / "phone.jxl").touch()
    (folder / "dataset.json").write_text('{"labels": [["')
    (note,) = open_set(folder).notes
    assert "1 file is left out" in note and "phone.jxl" in note
    assert open_set(tiny_lmdb).notes == []


def test_a_folder_is_the_dataset_that_was_packed_from_it(filled_cache, folder, tiny_lmdb):
    fid, kid, precision, recall = measure(
        ["fid@efficientnet-lite0", KID, "pr"], folder, tiny_lmdb, samples=24
    )
    assert fid.value == pytest.approx(0, abs=1e-6)
    assert (precision.value, recall.value) == (1.0, 1.0)
    assert kid.definition["fakes"] == kid.definition["reals"] == 24
    assert fid.definition["measured_digest"] and fid.definition["dataset_sizes"] == "16 x 16 px"


def test_pictures_of_other_sizes_go_to_the_network_as_they_are(filled_cache, folder):
    Image.new("L", (40, 20), 128).save(folder / "004.png")
    (read,) = FolderPictures(folder).read(np.array([4]))
    assert read.shape == (1, 3, 20, 40) and (read == 128).all()
    shapes = [part.shape for part in FolderPictures(folder).read(np.arange(3, 7))]
    assert shapes == [(1, 3, 16, 16), (1, 3, 20, 40), (2, 3, 16, 16)]
    assert measure([KID], folder, folder)[0].value is not None


def test_what_a_metric_looks_at_does_not_depend_on_the_others(filled_cache, folder):
    names, samples = [KID, "diversity"], {"kid": 12, "diversity": 5}
    together = measure(names, folder, folder, samples=samples, cache=False)
    alone = [measure([name], folder, folder, samples=samples, cache=False)[0] for name in names]
    for one, other in zip(together, alone, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
        assert one.definition == other.definition
        assert one.definition["measured_chosen"] == "the same random ones every time"


def test_another_picture_is_another_digest(folder):
    before = FolderPictures(folder).digest
    assert FolderPictures(folder).digest == before
    Image.new("RGB", (16, 16)).save(folder / "004.png")
    assert FolderPictures(folder).digest != before


def test_pixels_changed_in_place_are_noticed_where_size_and_time_stay(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    picture = tmp_path / "linked" / "a.bmp"
    Image.new("RGB", (16, 16), "red").save(picture)
    (folder / "more").symlink_to(tmp_path / "linked")
    before, facts = FolderPictures(folder), picture.stat()
    assert len(before) == 25 and before.digest
    Image.new("RGB", (16, 16), "blue").save(picture)
    os.utime(picture, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    now = picture.stat()
    assert (now.st_size, now.st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert FolderPictures(folder).digest != before.digest


def test_a_picture_that_cannot_be_read_is_named(filled_cache, folder):
    (folder / "007.png").write_bytes(b"no picture")
    (result,) = measure([KID], folder, folder)
    assert result.value is None and "picture 007.png of" in result.skipped
    Image.new("RGB", (4, 30)).save(folder / "007.png")
    with pytest.raises(DataError, match="is 4 x 30 px: expected at least 8 px"):
        FolderPictures(folder).read(np.array([7]))


def test_published_definitions_take_the_first_pictures_and_others_random_ones():
    numbers, which = choose(3, 10, first=True)
    assert list(numbers) == [0, 1, 2] and which == "the first"
    numbers, which = choose(3, 10, first=False)
    assert list(numbers) != [0, 1, 2] and list(numbers) == list(choose(3, 10, first=False)[0])
    assert choose(10, 10, first=False)[1] == "all"


def deep_png(path, pixels):
    """Write 16-bit grey."""
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)


@pytest.fixture
def strange(tmp_path):
    """Square pictures of 16 px of every kind: profiles, alpha, palettes, EXIF, deep grey."""
    path = tmp_path / "strange"
    path.mkdir()
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[274] = 6
    for number in range(3):
        pixels = random.integers(0, 256, (16, 16, 4), np.uint8)
        colour, clear = Image.fromarray(pixels[..., :3].copy()), Image.fromarray(pixels)
        colour.save(path / f"{number}-profile.png", icc_profile=wide_gamut_profile())
        clear.save(path / f"{number}-alpha.png", icc_profile=wide_gamut_profile())
        colour.save(path / f"{number}-turned.jpg", exif=exif, quality=95)
        colour.convert("P").save(path / f"{number}-palette.png", transparency=3)
        colour.convert("CMYK").save(path / f"{number}-cmyk.tiff")
        colour.convert("L").save(path / f"{number}-grey.png", icc_profile=linear_grey_profile())
        deep_png(path / f"{number}-deep.png", pixels)
    return path


RECIPES = [
    {}, {"icc": "ignore"}, {"exif": True}, {"channels": 1}, {"channels": 1, "icc": "ignore"},
    {"channels": 4}, {"background": (10, 200, 30)}, {"channels": 4, "background": (0, 0, 0)},
    {"channels": 1, "background": (0, 0, 0), "exif": True},
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_dataset_and_its_own_sources_are_the_same_pictures(strange, tmp_path, recipe, reverse):
    pack(
        find_source(strange), tmp_path / "d.lmdb", PackSettings(16, keep_duplicates=True, **recipe)
    )
    pair = open_set(strange), open_set(tmp_path / "d.lmdb")
    one, other = agree_on_colours(*(pair[::-1] if reverse else pair))
    numbers = np.arange(len(one))
    assert len(one) == len(other) == 21
    assert (np.concatenate(one.read(numbers)) == np.concatenate(other.read(numbers))).all()
    assert describe_differences(one, other) == ""


def test_a_dataset_packed_from_another_is_the_same_pictures_in_grey_or_without_alpha(
    strange, tmp_path
):
    pack(find_source(strange), tmp_path / "a.lmdb", PackSettings(16, 4, background=(0, 0, 0)))
    source = open_set(tmp_path / "a.lmdb")
    for name, recipe in (("b", {"channels": 1}), ("c", {"background": (9, 99, 200)})):
        out = tmp_path / f"{name}.lmdb"
        pack(find_source(tmp_path / "a.lmdb"), out, PackSettings(16, **{"channels": 3, **recipe}))
        one, other = agree_on_colours(source, open_set(out))
        numbers = np.arange(len(one))
        assert (one.read(numbers)[0] == other.read(numbers)[0]).all()


def test_the_distance_of_a_dataset_to_its_own_sources_is_none(filled_cache, strange, tmp_path):
    out = tmp_path / "d.lmdb"
    pack(find_source(strange), out, PackSettings(16, 4, exif=True, background=(0, 0, 0)))
    (result,) = measure(["fid@efficientnet-lite0"], strange, out, samples=21)
    assert result.value == pytest.approx(0, abs=1e-6)
    assert result.definition["decoded"] == {
        "channels": 4, "exif": True, "icc": "convert", "background": [0, 0, 0],
    }  # fmt: skip


def test_other_differences_of_recipes_are_one_sentence(strange, tmp_path):
    a, b = tmp_path / "a.lmdb", tmp_path / "b.lmdb"
    pack(find_source(strange), a, PackSettings(16, filter="box", icc="ignore"))
    pack(find_source(strange), b, PackSettings(8, transform="stretch", icc="ignore"))
    told = describe_differences(*agree_on_colours(open_set(a), open_set(b)))
    for word in ("resolution 16 and 8", "transform center-crop and stretch", "filter box and "):
        assert word in told
    assert "icc" not in told and "width" not in told
    told = describe_differences(*agree_on_colours(open_set(strange), open_set(b)))
    assert "16 x 16 px and 8 x 8 px" in told and "stretch, lanczos" in told
    same = open_set(a)
    assert describe_differences(*agree_on_colours(same, same)) == ""


def test_sizes_are_those_of_pictures_all_over_the_set(folder):
    Image.new("RGB", (40, 20)).save(folder / "zz.png")
    for number in range(24, 40):
        Image.new("RGB", (16, 16)).save(folder / f"{number:03d}.png")
    Image.new("RGB", (12, 12)).save(folder / "000.png")
    assert open_set(folder).sizes == "12 x 12 to 16 x 16 px"


def test_alpha_of_generated_pictures_is_laid_over_the_datasets_background(strange, tmp_path):
    pack(find_source(strange), tmp_path / "d.lmdb", PackSettings(16, 4, background=(0, 0, 0)))
    pictures = DatasetPictures(open_dataset(tmp_path / "d.lmdb"), 16)
    stored = pictures.dataset.read(np.arange(4))
    assert (pictures.read(np.arange(4))[0] == as_colour(stored, (0, 0, 0))).all()
    assert (as_colour(stored, (0, 0, 0)) != as_colour(stored)).any()
    assert (
        pictures.digest
        != DatasetPictures(pictures.dataset, 16, how=FolderPictures(strange).settings).digest
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_and_pictures_become_colour_alike(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (2, channels, 8, 8), np.uint8)
    images = over_white(torch.from_numpy(pixels).float() / 127.5 - 1)
    assert np.abs((images.numpy() + 1) * 127.5 - as_colour(pixels)).max() <= 1
