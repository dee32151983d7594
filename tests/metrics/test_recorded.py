"""Every metric still gives the numbers that were recorded: with and without cache, on two ranks.

Recorded on 30 November 2026 on a CPU with AVX2, before metrics were given a file each; swd a day
later, when it was new.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylecli.cache_folder import CACHE_VARIABLE
from tests.metrics import all_metrics

RECORDED: dict[str, tuple[float, float | None]] = {
    "fid@12": (90.92928408693246, None),
    "kid@12": (0.4548187474856073, 0.07523582155448745),
    "is@12": (1.0002026251690697, 0.0004289865723528083),
    "precision@12": (0.16666666666666666, None),
    "recall@12": (1.0, None),
    "fid-clean@12": (63.46894042483821, None),
    "kid-clean@12": (0.33714219890749314, 0.06456271678876128),
    "fid_full@12": (85.63682605348284, None),
    "kid_full@12": (0.4337459207789058, 0.0768262844770487),
    "precision_full@12": (0.25, None),
    "recall_full@12": (1.0, None),
    "fid-clean_full@12": (58.62192402758198, None),
    "kid-clean_full@12": (0.31335842590628477, 0.06732795542267377),
    "fid@efficientnet-lite0": (76.30207933139341, None),
    "kid@efficientnet-lite0": (0.13086384443081386, 0.11670223619468),
    "is@efficientnet-lite0": (1.0029382137687999, 0.005885963342196643),
    "precision@efficientnet-lite0": (0.5, None),
    "recall@efficientnet-lite0": (0.9166666666666666, None),
    "swd@12": (158.82247157729586, None),
    "diversity@efficientnet-lite0": (1.0679600448424902, None),
    "ppl_wfull@12": (25.702814869058937, None),
    "ppl_zfull@12": (71.64591835362444, None),
    "ppl_zend@12": (77.40118196375434, None),
    "ppl_wend@12": (29.434281086556286, None),
    "ppl_zfull-crop@12": (71.60351316315428, None),
    "ppl_zend-crop@12": (85.23358422385385, None),
    "ppl_wfull-crop@12": (26.222737078048414, None),
    "ppl_wend-crop@12": (32.23653422719982, None),
    "ppl_zfull-crop-ada@12": (71.60351316315428, None),
    "ppl_zend-crop-ada@12": (85.23358422385385, None),
    "ppl_wfull-crop-ada@12": (26.222737078048414, None),
    "ppl_wend-crop-ada@12": (32.23653422719982, None),
    "ls_z@own-classifiers": (1.087524261427004, None),
    "ls_w@own-classifiers": (1.156033897391614, None),
    "fid@12-bf16-psi0.7": (69.45240862335619, None),
    "precision@12-bf16-psi0.7": (0.25, None),
    "recall@12-bf16-psi0.7": (1.0, None),
    "sets fid@12": (1.748691241249861, None),
    "sets kid@12": (-0.0002680548625909207, 0.003928282809174466),
    "sets is@12": (1.000055154584747, 0.00011037949658489471),
    "sets precision@12": (0.8333333333333334, None),
    "sets recall@12": (0.9166666666666666, None),
    "sets fid-clean@12": (1.8946968693224795, None),
    "sets kid-clean@12": (0.0002912758633657386, 0.005011748790186759),
    "sets fid_full@12": (1.880043112724688, None),
    "sets kid_full@12": (0.0016153414611781792, 0.006146518459447072),
    "sets precision_full@12": (0.8333333333333334, None),
    "sets recall_full@12": (0.95, None),
    "sets fid-clean_full@12": (2.2667177474051474, None),
    "sets kid-clean_full@12": (0.003239594434205113, 0.00806247468410939),
    "sets fid@efficientnet-lite0": (67.38122982192533, None),
    "sets kid@efficientnet-lite0": (-0.016151135611275437, 0.08803131284621599),
    "sets is@efficientnet-lite0": (1.0026215766218256, 0.005577779079243825),
    "sets precision@efficientnet-lite0": (0.8333333333333334, None),
    "sets recall@efficientnet-lite0": (0.9166666666666666, None),
    "sets swd@12": (72.4577604698692, None),
    "sets diversity@efficientnet-lite0": (0.9975256389061212, None),
}
# test_names.py measures every name too
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recorded")]
# Another CPU's float32 moves single pixels by a grey level, and numbers of 12 pictures by this.
NEAR = 2e-3
RECORDED |= {  # later programs' names of the same paths
    name.replace("ppl", "ppl2"): value
    for name, value in RECORDED.items()
    if name.startswith("ppl") and "crop" not in name
}
SHARE = 1 / all_metrics.COUNT  # of one picture, in precision and recall


@contextlib.contextmanager
def narrow_networks(folder: Path) -> Iterator[None]:
    """Measure with the weights of a folder, of narrow networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        all_metrics.quick_networks(patch)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What a first measurement with narrow networks finds, and the folder with its cache."""
    folder = tmp_path_factory.mktemp("narrow")
    with narrow_networks(folder):
        all_metrics.make_inputs(folder)
        return folder, all_metrics.measure_all(folder, all_metrics.FEW)


def test_every_metric_gives_the_recorded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    all_metrics.narrow_vgg16(monkeypatch)
    all_metrics.make_inputs(tmp_path)
    measured = all_metrics.measure_all(tmp_path)
    assert set(measured) == set(RECORDED)
    for name, (value, std) in measured.items():
        recorded, spread = RECORDED[name]
        near = SHARE if "precision" in name or "recall" in name else 1e-5
        assert value == pytest.approx(recorded, rel=NEAR, abs=near), name
        assert (std is None) == (spread is None), name
        assert (std or 0.0) == pytest.approx(spread or 0.0, rel=NEAR, abs=near), name


@pytest.mark.parametrize("cache", [True, False])
def test_the_cache_changes_no_digit(first: tuple[Path, dict[str, Any]], cache: bool) -> None:
    folder, measured = first
    with narrow_networks(folder):
        again = all_metrics.measure_all(folder, all_metrics.FEW, cache=cache)
    assert again == measured and len(again) == 20


def test_two_ranks_change_no_digit(first: tuple[Path, dict[str, Any]]) -> None:
    folder, measured = first
    ranks = [
        subprocess.Popen(
            [sys.executable, all_metrics.__file__, str(folder), str(rank), "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    try:
        printed = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    shared = json.loads(printed[0])
    assert shared == {name: measured[name] for name in shared} and len(shared) == 20
