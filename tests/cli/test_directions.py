"""``stylecli directions``, and ``--edit`` of the drawing commands: files, records, refusals."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli.app import app
from stylecli.images import read_provenance
from stylecli.latents.directions import read_directions, write_directions
from stylecli.metrics import classifier_training
from stylecli.metrics.classifier_training import ClassifierRecipe, network_config
from stylecli.metrics.classifiers import (
    AttributeClassifier,
    AttributeClassifiers,
    new_classifier_network,
    save_classifiers,
)
from stylecli.networks.headers import network_digest
from tests.conftest import FIXTURES
from tests.latents.test_directions import directions_of

Run = Callable[..., Result]
FOLDER = Path("out/tiny")
SMALL = ClassifierRecipe(resolution=16, fmap_base=32, fmap_max=4, images=80, batch=8)
LIGHTNESS = 0.15  # of the tiny network's pictures, about


@pytest.fixture
def run(tiny_network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder with the tiny network and its directions."""
    monkeypatch.chdir(tmp_path)
    stylecli.save_network("tiny.safetensors", tiny_network)
    own = directions_of(tiny_network, network_digest("tiny.safetensors"))
    write_directions(FOLDER / "directions.safetensors", own)

    def invoke(command: str) -> Result:
        network = (
            []
            if "--network" in command or "--help" in command
            else ["--network", "tiny.safetensors"]
        )
        return CliRunner().invoke(app, [*shlex.split(command), *network])

    return invoke


def test_a_record_recreates_an_edited_picture(run: Run) -> None:
    assert run("generate --seeds 3 --edit smile:2,c1.3:-3 --out a").exit_code == 0
    assert run("generate --seeds 3 --out plain").exit_code == 0
    made = Path("a/seed0003.png")
    record = read_provenance(made)
    assert record is not None
    assert record["settings"]["edit"] == "smile:+2,c1.3:-3"
    assert record["inputs"]["directions"]["sha256"] == network_digest(
        FOLDER / "directions.safetensors"
    )

    again = stylecli.info(made)["again"]
    assert run(f"{again.removeprefix('stylecli ')} --out b").exit_code == 0

    assert Path("b/seed0003.png").read_bytes() == made.read_bytes()
    assert Path("plain/seed0003.png").read_bytes() != made.read_bytes()


def test_saved_styles_are_the_edited_ones(run: Run) -> None:
    run("generate --seeds 0-1 --edit pose@4-5:1.5 --save-ws w.npz --out a")
    run("generate --ws w.npz --out b")

    for row in range(2):
        edited, saved = Path(f"a/seed000{row}.png"), Path(f"b/row000{row}.png")
        assert pixels(edited) == pixels(saved)
    refused = run("generate --seeds 0 --edit c1.3:1 --save-ws v.npz --out c")
    assert refused.exit_code == 2
    assert "--save-ws" in refused.stderr


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("mix --rows 1 --cols 1 --styles coarse", "mix-coarse.png"),
        ("interpolate --seeds 0-1 --seconds 0.1 --format gif", "interpolation.gif"),
    ],
)
def test_every_drawing_command_takes_edits(run: Run, command: str, file: str) -> None:
    assert run(f"{command} --edit smile:4 --out a").exit_code == 0
    assert run(f"{command} --out b").exit_code == 0

    assert Path("a", file).read_bytes() != Path("b", file).read_bytes()


def test_a_list_of_names_methods_and_layers(run: Run) -> None:
    result = run("directions list")

    assert result.stderr == "directions: out/tiny/directions.safetensors\n"
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["smile", "labels", "all", "0.5", "90", "%"]
    assert [line[:3] for line in lines[2:]] == [
        ["pose", "sefa", "coarse"],
        ["c1.3", "channels", "1"],
    ]
    assert max(map(len, result.stdout.splitlines())) <= 80
    document = json.loads(run("directions list --json").stdout)
    assert [row["layers"] for row in document["directions"]] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3],
        [1],
    ]
    assert document["sha256"] == network_digest("tiny.safetensors")


def test_info_describes_the_file(run: Run) -> None:
    facts = stylecli.info(FOLDER / "directions.safetensors")

    assert facts["what"] == "directions"
    assert facts["network is"] == "here, unchanged"
    assert facts["directions"] == {"smile": "labels", "pose": "sefa", "c1.3": "channels"}


def test_find_adds_to_the_file_and_is_not_repeated(run: Run) -> None:
    result = run("directions find --count 2 --quiet")

    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "out/tiny/directions.safetensors"
    assert [line.split()[0] for line in lines[2:4]] == ["sefa.1", "sefa.2"]
    kept = read_directions(FOLDER / "directions.safetensors")
    assert {"smile", "sefa.1", "sefa-coarse.2"} <= set(kept.by_name)
    assert "found before: sefa.1" in run("directions find --count 2").stderr
    assert run("directions find --count 1").exit_code == 0  # the same, and fewer
    components = "directions find --method ganspace --count 2 --samples"
    assert run(f"{components} 200").exit_code == 0
    refused = run(f"{components} 300")
    told = "out/tiny/directions.safetensors has another 'pca.1': give --force"
    assert (refused.exit_code, told in refused.stderr) == (2, True)
    assert run(f"{components} 300 --force").exit_code == 0
    other = run(
        "directions find --method ganspace --count 2 --samples 200 --directions o.safetensors"
    )
    assert other.exit_code == 0, other.stderr
    assert list(read_directions(Path("o.safetensors")).by_name) == ["pca.1", "pca.2"]


def test_labels_come_from_classifiers_trained_on_a_dataset(
    run: Run, tiny_lmdb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # classifiers stay in the cache, where other tests of this dataset would find them
    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier_training, "default_recipe", lambda side: SMALL)
    monkeypatch.setattr(AttributeClassifier, "recognises", property(lambda one: True))
    monkeypatch.setattr(AttributeClassifiers, "classify", see_lightness)

    result = run(
        f"directions find --method labels --train-classifiers --data {tiny_lmdb} --samples 120 "
        "--label kind=class:a/b --quiet"
    )

    assert result.exit_code == 0, result.stderr
    shown = json.loads(run("directions list --json --quiet").stdout)["directions"][-1]
    assert shown["name"] == "kind"
    assert shown["label"] == "kind=class:a/b"
    assert shown["changes"].keys() == {"class"}
    assert len(shown["settings"]["classifiers"]) == 64


def see_lightness(classifiers: AttributeClassifiers, images: Any) -> Any:
    """Stand in for what so short a training does not learn: a is light, b dark."""
    light = torch.sigmoid(40 * (images.mean(dim=(1, 2, 3)) - LIGHTNESS))
    return {"class": torch.stack([light, 1 - light, 0 * light], dim=1)}


def test_a_label_of_which_no_face_is_found_ends_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AttributeClassifiers, "classify", see_lightness)
    network = new_classifier_network(network_config(SMALL, 3), 0)
    one = AttributeClassifier("class", ("a", "b", "c"), network)
    save_classifiers("c.safetensors", AttributeClassifiers([one]))

    result = run(
        "directions find --method labels --classifiers c.safetensors --samples 60 "
        "--label rare=class:c/b"
    )

    assert result.exit_code == 2
    assert "rare" in result.stderr


@pytest.mark.parametrize(
    "file",
    ["stylegan1_labels_G_D_Gs.pkl", "stylegan2_stylegan3_snapshot.pkl", "stylegan3_r_snapshot.pkl",
     "rosinality_stylegan2.pt", "lucidrains_stylegan2.pt", "progan_stylegan_repo_G_D_Gs.pkl",
     "r3gan_labels_snapshot.pkl"],
)  # fmt: skip
def test_files_of_every_family(run: Run, file: str) -> None:
    """SeFa finds directions, and pictures move along them."""
    path = FIXTURES / "official" / file
    found = run(f"directions find --network {path} --count 1 --quiet")
    assert found.exit_code == 0, found.stderr

    for edit in ("", "--edit sefa.1:3"):
        drawn = run(f"generate --network {path} --seeds 1 {edit} --out d{len(edit)} --quiet")
        assert drawn.exit_code == 0, drawn.stderr

    assert pixels(Path("d0/seed0001.png")) != pixels(Path("d15/seed0001.png"))


def test_show_draws_a_strip_with_a_record_that_recreates_it(run: Run) -> None:
    for words in ("smile@coarse --seeds 1-2", "smile pose --seeds 5", "c1.3"):
        result = run(f"directions show {words} --strengths=-1,0,2 --scale 1 --out a.png --force")
        assert result.stdout == "a.png\n", result.stderr
        again = stylecli.info("a.png")["again"]

        assert run(f"{again.removeprefix('stylecli ')} --out b.png --force").exit_code == 0

        assert Path("b.png").read_bytes() == Path("a.png").read_bytes()
    sheet = pixels_of(Path("a.png"))
    assert sheet.shape[1] > 3 * 16  # columns beside their names


def pixels_of(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def test_show_writes_a_video_that_comes_back(run: Run) -> None:
    result = run(
        "directions show smile --seeds 1 --strengths=-2,2 --seconds 0.4 --fps 20 --out v.gif"
    )

    assert result.exit_code == 0, result.stderr
    with Image.open("v.gif") as clip:
        assert clip.n_frames == 8  # type: ignore[attr-defined]
    assert "--strengths=-2,2" in stylecli.info("v.gif")["again"]


def test_apply_moves_seeds_and_saved_styles(run: Run) -> None:
    run("generate --seeds 4 --save-ws w.npz --out plain")
    result = run("directions apply smile:2,pose:-1 4 w.npz --out e")

    names = ("4-edited", "w-edited")
    assert result.stdout.split() == [f"e/{n}.{end}" for n in names for end in ("png", "npz")]
    run("generate --seeds 4 --edit smile:2,pose:-1 --out g")
    run("generate --ws e/4-edited.npz --out s")
    drawn = pixels(Path("g/seed0004.png"))
    assert [pixels(Path(p)) for p in ("e/4-edited.png", "s/row0000.png")] == [drawn, drawn]
    again = stylecli.info("e/w-edited.png")["again"]
    assert shlex.split(again)[:6] == [
        "stylecli",
        "directions",
        "apply",
        "smile:+2,pose:-1",
        "4",
        "w.npz",
    ]
    alone = run("directions apply c1.3:2 4 --out e2")
    assert alone.stdout.split() == ["e2/4-edited.png"]


REFUSALS = [
    ("directions find --method sfea", 2, "Did you mean 'sefa'"),
    ("directions find --samples 10", 2, "--samples"),
    ("directions find --method labels --count 3", 2, "--count"),
    ("directions find --keep smile", 2, "--keep"),
    ("directions find --layers 9", 2, "layers 0-5"),
    ("directions find --train-classifiers", 2, "--method sefa"),
    ("directions find --method labels", 2, "--train-classifiers"),
    ("directions find --method labels --fit lda", 2, "svm"),
    ("directions find --method labels --classifiers none", 3, "does not exist"),
    ("directions find --method ganspace --count 9 --samples 50", 2, "9 components"),
    ("directions find --method ganspace --activations 6", 2, "0 to 5"),
    ("directions list --directions none.safetensors", 3, "does not exist"),
    ("directions list --network shipped --directions out/tiny/directions.safetensors", 3,
     "another"),
    ("directions show smlie", 2, "Did you mean 'smile'"),
    ("directions show smile --strengths a", 2, "strengths"),
    ("directions show smile pose --out v.mp4", 2, "one direction"),
    ("directions show smile --fps 3", 2, "NAME.mp4"),
    ("directions show smile --face 1 --seeds 2", 2, "exclude"),
    ("directions show smile --face none.jpg", 3, "does not exist"),
    ("directions apply smile 3", 2, "has no strength"),
    ("directions apply smile:1 none.npz", 3, "does not exist"),
    ("generate --edit smile", 2, "has no strength"),
    ("generate --edit smile:two", 2, "has no strength"),
    ("generate --edit smlie:1", 2, "Did you mean 'smile'"),
    ("generate --edit smile@9:1", 2, "layers 0-5"),
    ("generate --directions d.safetensors", 2, "--edit"),
    ("generate --edit smile:1 --directions none.safetensors", 3, "does not exist"),
    ("generate --edit smile:1 --directions tiny.safetensors", 3, "holds no directions"),
    ("generate --edit smile:1 --network shipped --directions out/tiny/directions.safetensors", 3,
     "another network"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "words"), REFUSALS)
def test_refusals(run: Run, command: str, code: int, words: str) -> None:
    result = run(command)

    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith("network: ")]
    assert len(said) == 1
