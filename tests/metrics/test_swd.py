"""The sliced Wasserstein distance is what a plain computation in float64 gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylecli.data.reader import open_dataset
from stylecli.errors import UsageError
from stylecli.features.extractors import PYRAMID, View, open_extractors
from stylecli.features.resizing import laplacian_pyramid, level_sizes
from stylecli.metrics import sliced_wasserstein
from stylecli.metrics.evaluation import compare, evaluate
from stylecli.metrics.picture_sets import FolderPictures
from stylecli.metrics.planning import plan, plan_sets
from stylecli.metrics.swd import SWD, Patches
from stylecli.networks.registry import make_config

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256.0


def pictures(count: int, seed: int, side: int = 32) -> Any:
    """Return smooth noise: patches of neighbouring pixels that depend on each other."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 3, side // 4, side // 4))
    fine = random.integers(-20, 21, (count, 3, side, side))
    return np.clip(small.repeat(4, 2).repeat(4, 3) + fine, 0, 255).astype(np.uint8)


def kept(given: Any, batch: int = 2) -> Any:
    extract = open_extractors([View(PYRAMID)], torch.device("cpu"))[PYRAMID].extract
    patches = Patches(len(given))
    for start in range(0, len(given), batch):
        patches.update(extract(given[start : start + batch]), start)
    return patches.compute()


def smooth(plane: Any) -> Any:
    """Return the plane [h, w] weighed by Burt and Adelson's kernel, borders mirrored."""
    padded = np.pad(plane, 2, mode="reflect")
    height, width = plane.shape
    return np.array([[(padded[y : y + 5, x : x + 5] * KERNEL).sum() for x in range(width)]
                     for y in range(height)])  # fmt: skip


def levels_by_hand(picture: Any) -> list[Any]:
    """Return [3, 32, 32] and [3, 16, 16] of a picture of 32 px."""
    fine, coarse = [], []
    for plane in picture.astype(np.float64):
        small = smooth(plane)[::2, ::2]
        spread = np.zeros_like(plane)
        spread[::2, ::2] = small
        fine.append(plane - 4 * smooth(spread))
        coarse.append(small)
    return [np.array(fine), np.array(coarse)]


def patches_by_hand(given: Any) -> list[Any]:
    """Return [N * 128, 3, 7, 7] of both levels: random places that depend on the number."""
    found: list[Any] = [[], []]
    for number, picture in enumerate(given):
        random = np.random.Generator(np.random.Philox(key=[1 << 33, number]))
        for place, level in enumerate(levels_by_hand(picture)):
            side = level.shape[1]
            y, x = random.integers(side - 6, size=128), random.integers(side - 6, size=128)
            found[place] += [level[:, b : b + 7, a : a + 7] for a, b in zip(x, y, strict=True)]
    return [np.array(one) for one in found]


def test_the_distance_is_that_of_a_plain_computation() -> None:
    real, fake = pictures(3, 0), pictures(3, 1)
    random = np.random.Generator(np.random.Philox(key=[5, (1 << 33) - 1]))
    directions = random.standard_normal((512, 147))
    distances = []
    for a, b in zip(patches_by_hand(real), patches_by_hand(fake), strict=True):
        rows = []
        for side in (a, b):
            mean, deviation = side.mean(axis=(0, 2, 3)), side.std(axis=(0, 2, 3))
            spread = (side - mean[:, None, None]) / deviation[:, None, None]
            rows.append(spread.reshape(len(side), 147))
        of_level = [
            np.abs(np.sort(rows[0] @ d) - np.sort(rows[1] @ d)).mean() / np.linalg.norm(d)
            for d in directions
        ]
        distances.append(1000 * np.mean(of_level))

    [(value, spread)], facts = SWD.score(None, kept(real), kept(fake), 5)  # type: ignore[arg-type]
    assert list(facts["levels"].values()) == pytest.approx(distances, rel=1e-4)
    assert value == pytest.approx(np.mean(distances), rel=1e-4) and spread is None
    assert list(facts["levels"]) == ["32 x 32 px", "16 x 16 px"]


def test_no_batch_changes_a_bit() -> None:
    given = pictures(7, 0)
    one = kept(given, 1)
    assert np.array_equal(one, kept(given, 3)) and np.array_equal(one, kept(given, 7))
    assert len({row[2:9].tobytes() for row in kept(given[[0] * 5])}) == 5  # not one place for all


def test_the_same_set_is_at_no_distance_and_others_are_the_farther_the_less_alike() -> None:
    given, striped = pictures(6, 0), pictures(6, 0) // 4 + np.uint8(190) * (np.arange(32) % 2)
    given, rough = kept(given), kept(striped.astype(np.uint8))
    alike = kept(pictures(6, 1))
    same, near, far = (SWD.score(None, given, other, 0)[0][0][0]  # type: ignore[arg-type]
                       for other in (given, alike, rough))  # fmt: skip
    assert same == 0 and 0 < near < far


def test_sets_of_different_counts_are_compared_by_their_quantiles() -> None:
    random = np.random.default_rng(0)
    a, b, directions = (random.normal(size=(n, 5)) for n in (4, 6, 9))
    repeated = np.mean([  # 12 of each: every row three times, and twice
        np.abs(np.sort((a @ d).repeat(3)) - np.sort((b @ d).repeat(2))).mean() for d in directions
    ])  # fmt: skip
    assert sliced_wasserstein(a, b, directions) == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "directions"),
    [((3, 4), (3, 5), (2, 4)), ((3, 4), (3, 4), (2, 5)), ((3,), (3, 4), (2, 4))],
)
def test_rows_that_do_not_fit_are_refused(a: Any, b: Any, directions: Any) -> None:
    with pytest.raises(UsageError):
        sliced_wasserstein(np.ones(a), np.ones(b), np.ones(directions))


def test_the_levels_of_a_pyramid_make_the_picture_again() -> None:
    x = torch.from_numpy(pictures(2, 0, side=64)[:, :, :, :48])
    levels = laplacian_pyramid(x)
    assert [tuple(level.shape[2:]) for level in levels] == [(64, 48), (32, 24)]
    for level, plane in zip(levels, levels_by_hand(pictures(2, 0)[0]), strict=True):
        assert level.dtype == torch.float32 and plane.ndim == 3
    fine, coarse = laplacian_pyramid(torch.from_numpy(pictures(1, 0)))
    (by_hand, small) = levels_by_hand(pictures(1, 0)[0])
    assert np.allclose(fine[0], by_hand, atol=1e-3) and np.allclose(coarse[0], small, atol=1e-3)


def test_levels_go_down_to_16_px() -> None:
    assert [height for height, _ in level_sizes(1024, 1024)] == [1024, 512, 256, 128, 64, 32, 16]
    assert level_sizes(16, 16) == [(16, 16)] and level_sizes(36, 32) == [(36, 32), (18, 16)]
    assert level_sizes(50, 64) == [(50, 64), (25, 32)]  # 25 has no half


def test_pictures_that_have_no_level_in_common_are_refused() -> None:
    (task,) = plan_sets(["swd"], None, measured=9, reference=9, sizes=("32 x 32 px", "64 x 64 px"))
    assert "32 x 32 px and 64 x 64 px" in str(task.skipped)
    (task,) = plan_sets(["swd"], None, measured=9, reference=9, sizes=("8 x 9 to 20 x 30 px",) * 2)
    assert "8 x 9 to 20 x 30 px" in str(task.skipped)
    small = make_config("f", resolution=8)
    (one,) = plan(["swd"], None, dataset_size=9, config=small, gpu=False)
    assert "8 x 8 px" in str(one.skipped)
    with pytest.raises(UsageError, match="8 x 8 px"):
        kept(pictures(2, 0, side=8))


def test_the_count_is_in_the_name_and_at_most_the_papers() -> None:
    names = []
    for samples, gpu in ((None, False), (None, True), (50, False), (20_000, False)):
        (task,) = plan(["swd"], samples, dataset_size=60_000, config=make_config("f"), gpu=gpu,
                       precision="bf16")  # fmt: skip
        names.append(task.name)
        assert not task.skipped
    assert names == ["swd@1000", "swd@16384", "swd@50", "swd@16384"]


def test_it_is_measured_of_a_network(tiny_network: Any, tiny_lmdb: Path) -> None:
    how: dict[str, Any] = {"samples": 6, "device": "cpu", "cache": False}
    dataset = open_dataset(tiny_lmdb)
    (one,) = evaluate(["swd"], tiny_network, dataset, batch=4, **how)
    (other,) = evaluate(["swd"], tiny_network, dataset, batch=6, **how)
    assert one.value is not None and one.value == pytest.approx(other.value, rel=1e-3)
    assert one.name == "swd@6" and not one.higher_is_better
    assert one.definition["features"] == PYRAMID
    assert list(one.definition["levels"]) == ["16 x 16 px"]


def test_it_compares_folders_of_one_size(tmp_path: Path) -> None:
    for number, picture in enumerate(pictures(20, 0)):
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / f"{number:02}.png")
    folder = FolderPictures(tmp_path)
    (same,) = compare(["swd"], folder, folder, device="cpu", cache=False)
    assert same.name == "swd@20" and same.value == 0.0
    Image.new("RGB", (48, 32)).save(tmp_path / "19.png")  # none of the few whose size is known
    folder = FolderPictures(tmp_path)
    assert folder.sizes == "32 x 32 px"
    (mixed,) = compare(["swd"], folder, folder, device="cpu", cache=False)
    assert mixed.value is None and "48 x 32 px" in str(mixed.skipped)
