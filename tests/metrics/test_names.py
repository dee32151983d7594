"""``stylecli metrics NAME`` for every name, with weights that a formula makes and no download."""

import functools
import json

import numpy as np
import pytest
import torch
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from stylecli import weights
from stylecli.cache_folder import CACHE_VARIABLE
from stylecli.checkpoint import save_network
from stylecli.cli import metrics
from stylecli.cli.weights import app as weights_app
from stylecli.features import efficientnet, inception, vgg16
from stylecli.metrics import evaluation
from stylecli.networks.model import new_network
from tests.metrics.all_metrics import OF_ANY, made, quick_networks

COUNT = 12  # pictures a side
STAND_IN = "efficientnet-lite0"


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cache(tmp_path_factory, patched):
    """A cache that ``weights add`` has filled with the weights of quick networks."""
    folder = tmp_path_factory.mktemp("names")
    patched.setenv(CACHE_VARIABLE, str(folder / "cache"))
    patched.setattr(weights, "_package_file", lambda network: None)
    quick_networks(patched)
    state = made(inception.tensor_shapes())
    torch.save(
        {name: torch.from_numpy(value) for name, value in state.items()}, folder / "inception.pth"
    )
    for name, shapes in (("lpips", vgg16.lpips_shapes()), ("vgg16", vgg16.tensor_shapes()),
                         ("stand_in", efficientnet.tensor_shapes())):  # fmt: skip
        save_file(made(shapes), folder / f"{name}.safetensors")
    for path in sorted(folder.glob("*.*")):
        assert CliRunner().invoke(weights_app, ["add", str(path)]).exit_code == 0
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def place(cache, patched):
    """A 32 px network and 20 pictures; feature networks are opened once for all tests."""
    from stylecli.data.writer import DatasetWriter

    network = new_network("f", seed=0, resolution=32, fmap_base=64, fmap_max=8, z_dim=8, w_dim=8,
                          mapping_layers=2, mapping_fmaps=8)  # fmt: skip
    for layer in network.G_ema.synthesis.layers:
        layer.noise_strength.data.fill_(0.1)  # even fields, normalised, would be rounding errors
    save_network(cache / "tiny.safetensors", network)
    random = np.random.default_rng(0)
    with DatasetWriter(cache / "tiny.lmdb", resolution=32, channels=3) as writer:
        for _ in range(20):
            writer.add(random.integers(0, 256, (3, 8, 8), np.uint8).repeat(4, 1).repeat(4, 2))
    opened = functools.cache(evaluation.open_extractors)
    patched.setattr(
        evaluation, "open_extractors", lambda views, device: opened(tuple(views), device)
    )
    return cache


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(place / "cache"))
    app = typer.Typer()
    app.command()(metrics.command)

    def measured(*words):
        given = [*words, "--samples", str(COUNT), "--data", str(place / "tiny.lmdb"),
                 "--network", str(place / "tiny.safetensors"), "--device", "cpu",
                 "--json"]  # fmt: skip
        done = CliRunner().invoke(app, given)
        assert done.exit_code in (0, 3), done.exception
        return done.exit_code, json.loads(done.stdout)["results"]

    return measured


def results_of(name):
    """Return what the results of a name are called with COUNT pictures and every network here."""
    base, _, network = name.partition("@")
    base = base.replace("50k3", "").replace("50k", "")
    kinds = [base]
    if base.startswith("pr"):
        kinds = [base.replace("pr", kind) for kind in ("precision", "recall")]
    elif base == "ppl":
        kinds = ["ppl_wfull"]
    elif base == "diversity":
        network = STAND_IN
    return [f"{kind}@{network or COUNT}" for kind in kinds]


def groups_apart():
    """Return OF_ANY in groups whose results have names of their own: fid and fid50k are apart."""
    groups = []
    for name in (name for name in OF_ANY if not name.startswith("ls")):
        for group in groups:
            if not {*results_of(name)} & {one for other in group for one in results_of(other)}:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


@pytest.mark.parametrize("names", groups_apart(), ids=lambda names: names[0])
def test_every_name_gives_its_number_its_name_and_its_definition(run, names):
    code, results = run(*names)
    asked = [(name, result) for name in names for result in results_of(name)]
    assert code == 0 and [result["name"] for result in results] == [one for _, one in asked]
    for (name, _), result in zip(asked, results, strict=True):
        assert np.isfinite(result["value"]) and result["meaning"]
        stated = result["definition"]
        assert result["note"] is None
        assert len(stated["features_sha256"]) == (0 if name == "swd" else 64)  # no weights
        assert stated["resize"] and stated["seed"] == 0
        assert stated.get("fakes", stated.get("pairs")) == COUNT
        if name.startswith("fid"):
            assert stated["ddof"] == (0 if name == "fid50k_full" else 1)
        if "_full" in name:
            assert stated["reals"] == 20
        assert ("PIL" in stated["resize"]) == ("-clean" in name)


def test_separability_says_which_classifiers_it_needs(run):
    code, results = run("ls", "ls_z", "ls_w")
    assert code == 3 and all("--train-classifiers" in result["skipped"] for result in results)
    assert {result["name"] for result in results} <= {"ls_z", "ls_w"}


def test_without_weights_every_name_says_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "empty"))
    code, results = run(*OF_ANY)  # without Inception, fid and kid are one result
    assert code == 3 and len(results) >= 30
    (swd,) = (result for result in results if result["name"].startswith("swd"))
    assert swd["value"] > 0  # it needs none
    for result in results:
        if result is swd:
            continue
        assert result["value"] is None
        assert "run: " in result["skipped"] or "--train-classifiers" in result["skipped"]


@pytest.mark.slow
def test_the_batch_moves_numbers_by_rounding_only(run):
    words = ("fid", "kid", "is", "pr", "diversity", "--no-cache")
    (_, one), (_, other) = run(*words, "--batch", "1"), run(*words, "--batch", "7")
    assert [result["name"] for result in one] == [result["name"] for result in other]
    for a, b in zip(one, other, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-3, abs=1e-6)


def test_features_in_16_bits_say_so_in_every_name(run):
    _, exact = run("fid", "kid", "pr", "is")
    code, rough = run("fid", "kid", "pr", "is", "diversity", "--precision", "bf16", "--force")
    assert code == 0
    assert [result["name"] for result in rough] == [
        *(f"{result['name']}-bf16" for result in exact), f"diversity@{STAND_IN}"
    ]  # fmt: skip
    for one, other in zip(exact, rough[:-1], strict=True):
        assert one["definition"]["features_precision"] == "float32"
        assert other["definition"]["features_precision"] == "bf16"
    assert rough[-1]["definition"]["features_precision"] == "float32"
    assert rough[0]["value"] != exact[0]["value"]  # of features of its own, not the cache's
    assert rough[0]["value"] == pytest.approx(exact[0]["value"], rel=0.2)
