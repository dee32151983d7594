"""A paper's numbers beside what is measured: values, marks, and why they differ."""

import pytest

from stylecli.errors import UsageError
from stylecli.metrics import NAMES
from stylecli.metrics.published import PAPERS, compare_with_paper, find_paper
from stylecli.metrics.tasks import MetricResult, is_published


def measured(name, value, **definition):
    return MetricResult(name, value, definition=definition)


def test_the_readmes_values_of_stylegan_are_these():
    """As printed by the README of the official repository."""
    values = {one.name: one.readme for one in PAPERS["stylegan"].numbers}
    assert values == {
        "fid50k": 4.4159, "ppl_zfull-crop": 664.8854, "ppl_wfull-crop": 233.3059,
        "ppl_zend-crop": 666.1057, "ppl_wend-crop": 197.2266, "ls_z": 165.0106, "ls_w": 3.7447,
    }  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
def test_a_paper_asks_for_its_own_definitions(paper):
    assert set(paper.names) <= set(NAMES)
    for name in paper.names:  # path lengths of this paper are cropped and of 100,000 pairs
        assert name.startswith("ls") or is_published(name) or name.endswith("-crop")
        assert not name.startswith("ppl") or paper.samples[name] == 100_000


def test_unchecked_values_of_the_table_are_marked():
    rows = {row[0]: row for row in compare_with_paper(PAPERS["stylegan"], [], 1024)}
    assert rows["fid50k"][3] == "4.4" and rows["ppl_wfull-crop"][3] == "234*"
    assert rows["ppl_zend-crop"][3] == "-" and "not measured" in rows["ls_w"][4]


def test_a_difference_has_its_reasons():
    results = [
        measured("fid50k", 8.8318, fakes=50_000, reals=50_000),
        measured("ppl_wfull-crop@1000", 200.0, pairs=1000),
        measured("ls_w@own-classifiers", 9.0, fakes=200_000, classifiers="own"),
        measured("ls_z", None),
    ]
    rows = {row[0]: row[4] for row in compare_with_paper(PAPERS["stylegan"], results, 1024)}
    assert rows["fid50k"].startswith("+100.0 %")
    assert rows["ppl_wfull-crop"] == "1000 of 100000 samples"
    assert rows["ls_w"] == "own classifiers" and "not measured" in rows["ls_z"]
    (small,) = [row[4] for row in compare_with_paper(PAPERS["stylegan"], results, 32)
                if row[0] == "fid50k"]  # fmt: skip
    assert small == "32 px, not 1024"


def test_an_unknown_paper_is_refused():
    with pytest.raises(UsageError, match="'stylegan9': expected stylegan"):
        find_paper("stylegan9")
