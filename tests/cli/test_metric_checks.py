"""What ``stylecli metrics`` says before hours of work, and of weights that nobody published."""

import signal
import subprocess
import sys
import types

import pytest
import typer
from typer.testing import CliRunner

from stylecli import weights
from stylecli.checkpoint import save_network
from stylecli.cli import classifier_source, metric_checks, metric_ranks, metric_results, metrics
from stylecli.cli.output import Output
from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.metrics import MetricResult, classifier_training
from stylecli.networks.bundle import new_network


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    app = typer.Typer()
    app.command()(metrics.command)
    return lambda *words: CliRunner().invoke(app, [*words, "--device", "cpu"])


@pytest.fixture
def larger(tmp_path, tiny_lmdb):
    """A network of 64 px, larger than the dataset."""
    path = tmp_path / "larger.safetensors"
    save_network(path, new_network("f", resolution=64, fmap_base=64, fmap_max=8, z_dim=8, w_dim=8,
                                   mapping_layers=2, mapping_fmaps=8))  # fmt: skip
    return path


def test_an_unknown_metric_is_said_before_anything_is_looked_for(run):
    result = run("nonsense")
    assert isinstance(result.exception, UsageError) and "'nonsense'" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("kid", "ls"), DataError, "the network 64 px"),
        (("ls", "--psi", "nan"), UsageError, "psi nan is out of range"),
        (("ls", "--precision", "fp16"), UsageError, "precision 'fp16' is unknown"),
    ],
)
def test_no_classifier_is_trained_for_what_will_be_refused(
    run, larger, tiny_lmdb, monkeypatch, words, error, message
):
    trained = []
    monkeypatch.setattr(classifier_source.ClassifierSource, "_train", lambda *a: trained.append(a))
    result = run(*words, "--train-classifiers", "--network", str(larger), "--data", str(tiny_lmdb))
    assert isinstance(result.exception, error) and message in str(result.exception)
    assert not trained


def test_reals_that_are_reduced_are_warned_of(tiny_lmdb, capsys):
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(tiny_lmdb)
    small = new_network("f", resolution=dataset.resolution // 2, fmap_base=64, fmap_max=8,
                        z_dim=8, w_dim=8, mapping_layers=2, mapping_fmaps=8)  # fmt: skip
    metric_checks.check_network(["diversity"], small, dataset, 1.0, "cpu", 4, Output())
    assert f"are reduced to {dataset.resolution // 2} px" in capsys.readouterr().err


def test_weights_that_nobody_published_are_warned_of(capsys):
    stand_in = weights.find_feature_network("efficientnet-lite0").files[0].sha256
    facts = [("fid@9", "inception-2015-12-05", "b" * 64),
             ("kid@efficientnet-lite0", "efficientnet-lite0", stand_in)]  # fmt: skip
    results = [
        MetricResult(name, 1.0, definition={"features": network, "features_sha256": sha256})
        for name, network, sha256 in facts
    ]
    metric_checks.warn_of_weights(results, Output(quiet=True))
    said = capsys.readouterr().err
    assert "bbbbbbbbbbbb" in said and "fid@9 may compare" in said and "kid@" not in said


def test_an_interrupt_while_modules_load_leaves_no_process_behind(monkeypatch):
    started = []

    def start(rank, world):
        waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        started.append(waiting)
        signal.raise_signal(signal.SIGINT)
        return waiting

    monkeypatch.setattr(metric_ranks, "_start", start)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(KeyboardInterrupt), metric_ranks.sharing_ranks(2, "cpu"):
        pass
    assert started[0].poll() is not None


def test_an_interrupt_before_the_first_classifier_claims_none(tmp_path, tiny_lmdb, monkeypatch):
    from stylecli.data.reader import open_dataset

    def stop(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_training, "train_classifiers", stop)
    dataset = open_dataset(tiny_lmdb)
    table = tmp_path / "table.csv"
    table.write_text("n,half\n" + "".join(f"{i},{i % 2}\n" for i in range(len(dataset))))
    source = classifier_source.ClassifierSource(None, True, table)
    with pytest.raises(Interrupted, match="none is finished"):
        source.obtain(["ls"], dataset, dataset.resolution, "cpu", Output(quiet=True))


def test_a_narrow_terminal_has_what_a_number_says_below_it(monkeypatch):
    results = [MetricResult("kid@efficientnet-lite0", 0.25, 0.5),
               MetricResult("fid@9", None, skipped="word " * 60)]  # fmt: skip
    wide = metric_results.result_lines(Output(), results)
    assert len(wide) == 3
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(metric_results, "sys", types.SimpleNamespace(stdout=_Terminal()))
    narrow = metric_results.result_lines(Output(), results)
    assert max(map(len, narrow)) <= 80
    assert narrow[1].startswith("kid@efficientnet-lite0  0.2500") and narrow[2].startswith(
        "  ×1000"
    )
    assert " ".join(" ".join(narrow).split()).count("word") == 60


class _Terminal:
    def isatty(self):
        return True
