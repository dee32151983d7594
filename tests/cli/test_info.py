"""``stylecli info``: pictures tell how they were made, and the told command makes them again."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner, Result

from stylecli import weights
from stylecli.checkpoint import read_tensors, write_tensors
from stylecli.cli import generate, info, interpolate, mix
from stylecli.cli.app import app
from stylecli.errors import DataError, ExitCode, StyleCLIError
from stylecli.images import read_provenance, save_png
from stylecli.saved_ws import save_ws
from tests.conftest import FIXTURES
from tests.interop.foreign_files import ada_snapshot, torch_file

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command("generate")(generate.command)
    app.command("mix")(mix.command)
    app.command("interpolate")(interpolate.command)
    app.command("info")(info.command)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "command",
    [
        "generate --seeds 3 --psi -0.5 --noise-mode random --scale 2",
        "generate --seeds 0-2,9 --grid --columns 2 --noise-seed 4",
        "mix --rows 2 --cols 7,9 --styles fine",
        "interpolate --seeds 4-6 --seconds 0.2 --no-loop --space z",
    ],
)
def test_the_told_command_makes_the_same_bytes(run: Run, command: str) -> None:
    words = [*command.split(), "--network", "tiny.safetensors", "--quiet", "--out"]
    (first,) = run(*words, "first").stdout.split()

    told = json.loads(run("info", first, "--json").stdout)["again"]
    (again,) = run(*shlex.split(told)[1:], "--out", "again").stdout.split()

    assert Path(again).read_bytes() == Path(first).read_bytes()


def test_a_strangers_record_cannot_forge_lines_or_end_info(run: Run) -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    forged = {"file": "a\nagain  \x1b[31mother", "sha256": "0"}
    save_png("forged.png", picture, {"command": "generate", "network": forged})
    save_png("odd.png", picture, {"command": "x", "network": {"file": [1]}, "settings": [2]})

    lines = run("info", "forged.png").stdout.splitlines()

    assert sum(line.startswith("again") for line in lines) == 1
    assert all(line.isprintable() for line in lines)
    assert run("info", "odd.png").exit_code == 0


def _marked(name: str, **record: Any) -> str:
    """Write a picture with a record that says it was drawn by a network of no file."""
    network = {"file": "gone.safetensors", "sha256": "0" * 64}
    made = {"tool": "stylecli 0.1.0", "command": "generate", "network": network,
            "settings": {"seeds": "0", "psi": 0.7}}  # fmt: skip
    save_png(name, np.zeros((2, 2, 3), np.uint8), {**made, **record})
    return name


@pytest.mark.parametrize(
    "record",
    [
        {"arguments": ["--out", "/tmp/x", "--force"]},
        {"arguments": ["fakes", "--force"], "command": "figures"},
        {"settings": {"seeds": "0", "out=/tmp/x": True, "force": True}},
        {"settings": {"out": "/tmp/x", "--out": "x", "-out": "x", "save-ws": "x", "save_ws": "x"}},
        {"settings": {"psi": True, "out": "x"}},
        {"settings": {"seeds": ["--force"], "psi": {"--out": 1}}},
        {"settings": {"seeds": "--force", "center": "--out=x"}},
        {"settings": {"labels --force": True, "loop --out x": False}},
        {"network": {"file": "--out=/tmp/x", "sha256": "0" * 64}},
        {"command": ["generate"]},
        {"command": "weights", "arguments": ["fetch"]},
        {"command": "train"},
    ],
)
def test_the_told_command_draws_and_nothing_else(run: Run, record: dict[str, Any]) -> None:
    told = json.loads(run("info", _marked("a.png", **record), "--json").stdout)

    words = shlex.split(told.get("again", "stylecli generate"))
    assert words[:2] in (["stylecli", "generate"], ["stylecli", "figures"])
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    assert set(given) <= {"--network", "--seeds", "--psi", "--center"}
    assert not any(word.startswith("--psi") for word in words if record.get("psi") is True)


def test_a_record_cannot_stand_in_for_what_info_finds(run: Run) -> None:
    claims = {"what": "network", "file": "/etc/hostname", "made by": "me", "again": "rm -r x",
              "network is": "here, unchanged", "record": {"what": "x"},
              "size": "1 x 1"}  # fmt: skip
    name = _marked("a.png", **claims, settings={"what": "run", "file": "b", "seeds": "0"})

    told = json.loads(run("info", name, "--json").stdout)
    lines = run("info", name).stdout.splitlines()

    assert (told["what"], told["file"], told["size"]) == ("picture", name, "2 x 2 RGB")
    assert told["network is"].startswith("not here") and told["again"].startswith("stylecli gen")
    assert told["record"]["made by"] == "stylecli 0.1.0, a generated picture"
    for finding in ("what", "file", "size", "network is", "again"):
        assert sum(line.split("  ")[0] == finding for line in lines) == 1


@pytest.mark.parametrize("kind", ["outside", "above", "proc", "pipe", "device", "folder", "small"])
def test_only_plain_files_of_this_folder_are_hashed(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    outside = Path("elsewhere.safetensors").resolve()
    outside.write_bytes(bytes(1000))
    Path("sub").mkdir()
    Path("sub/small").write_bytes(b"x")
    os.mkfifo("pipe")
    monkeypatch.chdir("sub")
    file = {
        "outside": str(outside), "above": f"../{outside.name}", "proc": "/proc/self/pagemap",
        "pipe": "pipe", "device": "/dev/zero", "folder": ".", "small": "small",
    }[kind]  # fmt: skip
    os.mkfifo("pipe")
    monkeypatch.setattr(weights, "file_sha256", lambda path: pytest.fail(f"hashed {path}"))

    name = _marked("a.png", network={"file": file, "sha256": "0" * 64})

    assert "not here" in json.loads(run("info", name, "--json").stdout)["network is"]


@pytest.mark.parametrize("digest", ["0", 5, None, ["0" * 64], "G" * 64, "0" * 65])
def test_what_is_no_digest_has_nothing_hashed(
    run: Run, monkeypatch: pytest.MonkeyPatch, digest: Any
) -> None:
    monkeypatch.setattr(weights, "file_sha256", lambda path: pytest.fail(f"hashed {path}"))
    name = _marked("a.png", network={"file": "tiny.safetensors", "sha256": digest})

    assert "unknown" in json.loads(run("info", name, "--json").stdout)["network is"]


def test_finding_a_network_hashes_few_snapshots_and_each_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        home = Path(f"runs/{number:05d}-x/network-snapshot-000001000.safetensors")
        home.parent.mkdir(parents=True)
        home.write_bytes(b"%300d" % number)
    hashed: list[Path] = []
    digest = weights.file_sha256

    def count(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(weights, "file_sha256", count)
    other_size = {"file": "x.safetensors", "sha256": "0" * 64, "bytes": 301}
    wanted = _marked("b.png", network=other_size)
    assert "not here" in run("info", wanted).stdout and hashed == []

    name = _marked("a.png")
    told = [run("info", name).stdout for _ in range(4)]
    assert [("not found yet" in text) for text in told] == [True, True, False, False]
    assert len(hashed) == len(set(hashed)) == 25  # ten, ten, five, none

    last = "runs/00024-x/network-snapshot-000001000.safetensors"
    hashed.clear()
    found = _marked("c.png", network={"file": None, "sha256": digest(Path(last))})
    assert f"here, as {last}" in run("info", found).stdout and hashed == [Path(last)]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_refused(run: Run, kind: str) -> None:
    os.mkfifo("pipe.png")

    result = run("info", "pipe.png" if kind == "pipe" else "/dev/zero")

    assert isinstance(result.exception, DataError) and "is a pipe" in str(result.exception)


def test_a_demos_record_cannot_stand_in_for_what_info_finds(run: Run) -> None:
    Path("d").mkdir()
    Path("d/demo.json").write_text('{"what": "network", "run": {"what": "x"}, "seed": 4}')

    told = json.loads(run("info", "d", "--json").stdout)

    assert told == {"what": "demo", "folder": "d", "seed": 4}


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, Image.DecompressionBombError])
def test_whatever_a_decoder_raises_is_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Pillow answers an AVIF without a picture with RuntimeError, a GIF of 65,535 px so."""

    def fail(*words: object, **options: object) -> None:
        raise error("as plugins do")

    Path("a.avif").write_bytes(b"no picture")
    monkeypatch.setattr(Image, "open", fail)
    result = run("info", "a.avif")
    assert isinstance(result.exception, DataError)
    assert "a.avif is not a readable picture" in str(result.exception)
    with pytest.raises(DataError, match="is not a readable picture"):
        read_provenance("a.avif")


def test_a_picture_with_long_text_is_described(run: Run) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "long " * 500_000, zip=True)
    Image.new("RGB", (8, 6)).save("a.png", pnginfo=text)
    assert json.loads(run("info", "a.png", "--json").stdout)["size"] == "8 x 6 RGB"


def test_a_picture_is_explained(run: Run) -> None:
    run("generate", "--network", "tiny.safetensors", "--seeds", "3", "--out", "here")

    lines = run("info", "here/seed0003.png").stdout.splitlines()

    assert lines[0].split() == ["what", "picture"]
    assert "network is         here, unchanged" in lines
    assert "record.seeds       3" in lines


def test_a_moved_network_is_found_by_its_hash(run: Run) -> None:
    run("generate", "--network", "tiny.safetensors", "--seeds", "3", "--out", "here")
    home = Path("runs/00000-x/network-snapshot-000001000.safetensors")
    home.parent.mkdir(parents=True)
    Path("tiny.safetensors").rename(home)

    told = json.loads(run("info", "here/seed0003.png", "--json").stdout)["network is"]

    assert told == f"here, as {home}: give --network {home}"


def test_networks_and_datasets_are_explained(run: Run, tiny_lmdb: Path) -> None:
    network = json.loads(run("info", "tiny.safetensors", "--json").stdout)
    dataset = json.loads(run("info", str(tiny_lmdb), "--json").stdout)

    assert (network["what"], network["resolution"], network["layers"]) == ("network", 16, 6)
    assert (dataset["what"], dataset["pictures"], dataset["classes"]) == ("dataset", 24, 3)


def test_a_run_is_explained(run: Run) -> None:
    home = Path("runs/00000-x")
    home.mkdir(parents=True)
    (home / "run.json").write_text('{"total_kimg": 4}')
    (home / "stats.jsonl").write_text('{"kimg": 1}\n{"kimg": 2}\n')
    Path("tiny.safetensors").rename(home / "network-snapshot-000002000.safetensors")

    told = json.loads(run("info", str(home), "--json").stdout)

    assert (told["what"], told["networks"], told["can continue"]) == ("run", 1, False)
    assert told["settings"] == {"total_kimg": 4} and told["last tick"] == {"kimg": 2}


def test_a_picture_that_names_its_network_by_hash_alone_is_explained(run: Run) -> None:
    made = {"network": "0" * 64, "figure": "fakes", "stylecli": "0.1.0"}
    save_png("fakes.png", np.zeros((4, 4, 3), dtype=np.uint8), made)

    told = json.loads(run("info", "fakes.png", "--json").stdout)

    record = told["record"]
    assert record["made by"] == "stylecli 0.1.0, a generated picture"
    assert record["figure"] == "fakes"
    assert told["network is"].startswith("not here") and "again" not in told


def test_foreign_things_are_said_to_be_foreign(run: Run) -> None:
    save_png("plain.png", np.zeros((4, 4, 3), dtype=np.uint8))

    assert "no record" in run("info", "plain.png").stdout
    for path, message in (("nowhere", "does not exist"), (".", "neither a run")):
        result = run("info", path)
        assert isinstance(result.exception, DataError) and message in str(result.exception)


@pytest.mark.parametrize(
    ("file", "what", "facts"),
    [
        ("stylegan1_labels_G_D_Gs.pkl", "network of another program",
         {"family": "StyleGAN (NVIDIA, TensorFlow)", "classes": 4, "G_ema parameters": 14_833}),
        ("progan_original_repo_G_D_Gs.pkl", "network of another program",
         {"family": "Progressive GAN (NVIDIA, TensorFlow)", "resolution": 32}),
    ],
)  # fmt: skip
def test_official_networks_are_explained(
    run: Run, file: str, what: str, facts: dict[str, object]
) -> None:
    told = json.loads(run("info", str(FIXTURES / "official" / file), "--json").stdout)

    assert told["what"] == what and told["source_licence"].startswith("CC BY-NC 4.0")
    assert {name: told[name] for name in facts} == facts
    assert told["settings"]["D"]["num_channels"] == 3


def test_a_snapshot_of_nvidias_pytorch_programs_is_explained(run: Run) -> None:
    Path("snapshot.pkl").write_bytes(ada_snapshot())

    told = json.loads(run("info", "snapshot.pkl", "--json").stdout)

    assert (told["family"], told["resolution"]) == ("StyleGAN2 (NVIDIA, stylegan2-ada-pytorch)", 4)
    assert told["configuration"].startswith("stylegan2") and told["settings"]["D"]


def test_saved_styles_are_explained(run: Run) -> None:
    save_ws("faces.npz", torch.zeros(2, 6, 8), provenance={"tool": "stylecli 9", "command": "x"})

    told = json.loads(run("info", "faces.npz", "--json").stdout)

    assert (told["what"], told["faces"], told["layers"], told["w_dim"]) == ("styles", 2, 6, 8)
    assert told["record"]["made by"] == "stylecli 9, styles"


def test_styles_of_other_tools_are_explained_and_drawn(run: Run) -> None:
    styles = torch.zeros(1, 2, 6, 8)
    np.save("faces.npy", styles.numpy())
    torch.save(styles, "faces.pt")
    torch.save(torch.zeros(6, 8), "one.pt")

    for name in ("faces.npy", "faces.pt"):
        told = json.loads(run("info", name, "--json").stdout)
        assert (told["what"], told["faces"], told["layers"], told["w_dim"]) == ("styles", 2, 6, 8)
        drawn = run("generate", "--network", "tiny.safetensors", "--ws", name, "--out", name + "s")
        assert drawn.exit_code == 0 and len(drawn.stdout.splitlines()) == 2
    drawn = run("generate", "--network", "tiny.safetensors", "--ws", "one.pt", "--out", "one")
    assert len(drawn.stdout.splitlines()) == 1 and "one face" in drawn.stderr
    drawn = run("interpolate", "--network", "tiny.safetensors", "--ws", "one.pt",
                "--seconds", "0.1", "--out", "one.gif")  # fmt: skip
    assert drawn.exit_code == 0 and "one face" in drawn.stderr


def test_a_training_checkpoint_is_explained(run: Run) -> None:
    header, tensors = read_tensors("tiny.safetensors")
    write_tensors("checkpoint.safetensors", tensors, {**header, "training": {"nimg": 400}})

    told = json.loads(run("info", "checkpoint.safetensors", "--json").stdout)

    assert (told["what"], told["training"]) == ("training checkpoint", {"nimg": 400})


def test_feature_weights_are_explained(run: Run) -> None:
    names = {"_conv_stem.weight": (2, 3, 3, 3), "_conv_head.weight": (1280, 320, 1, 1)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    Path("eff.pth").write_bytes(torch_file(arrays))

    told = json.loads(run("info", "eff.pth", "--json").stdout)

    assert (told["what"], told["network"]) == ("weights of a feature network", "efficientnet-lite0")
    assert told["published"] is False


def test_a_demo_is_explained(run: Run) -> None:
    Path("demo").mkdir()
    Path("demo/demo.json").write_text('{"minutes": 5}')

    told = json.loads(run("info", "demo", "--json").stdout)

    assert (told["what"], told["minutes"]) == ("demo", 5)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes.safetensors", "notes.npz"])
def test_what_is_nothing_ends_in_one_sentence(run: Run, name: str) -> None:
    Path(name).write_text("shopping list")

    error = run("info", name).exception

    assert isinstance(error, StyleCLIError) and name in str(error)


def test_bare_it_lists_the_runs_here(run: Run) -> None:
    """State, size and best number of each, the newest first; a damaged one is no obstacle."""
    for number, (finished, value) in enumerate(((True, 12.345), (False, None))):
        folder = Path(f"runs/0000{number}-faces")
        folder.mkdir(parents=True)
        settings = {"training": {"total_kimg": 20}, "network": {"resolution": 32}}
        (folder / "run.json").write_text(json.dumps({**settings, "finished": finished}))
        (folder / "stats.jsonl").write_text('{"nimg": 12500, "tick": 1}\n')
        if value:
            best = {"network": "n.safetensors", "nimg": 9000, "kimg": 9, "metric": "fid50k"}
            (folder / "best.json").write_text(json.dumps({**best, "value": value}))
        os.utime(folder / "run.json", (1e9 + number, 1e9 + number))
        os.utime(folder / "stats.jsonl", (1e9 + number, 1e9 + number))
    Path("runs/00002-damaged").mkdir()
    Path("runs/00002-damaged/run.json").write_text("{")

    told = run("info")
    listed = json.loads(run("info", "--json").stdout)["runs"]

    header, damaged, stopped, finished = told.stdout.splitlines()
    assert header.split() == ["run", "state", "kimg", "size", "best"]
    assert damaged.split()[:2] == ["runs/00002-damaged", "damaged"]
    assert stopped.split() == ["runs/00001-faces", "stopped", "12.5/20", "32", "px", "-"]
    assert finished.endswith("finished  12.5/20  32 px  fid50k 12.35 at 9 kimg")
    assert [item["run"] for item in listed][:2] == ["runs/00002-damaged", "runs/00001-faces"]
    assert max(map(len, told.stdout.splitlines())) <= 80
    # A folder of runs, or of a project, is asked for in the same way.
    assert run("info", "runs").stdout == run("info", ".").stdout == told.stdout
    Path("runs").rename("trials")
    for number, old in enumerate(sorted(Path("trials").iterdir())):
        old.rename(f"trials/any-{number}")
    assert run("info", "trials").stdout.replace("trials/any-", "runs/0000").split() == [
        word.replace("-faces", "").replace("-damaged", "") for word in told.stdout.split()
    ]
    assert "stylecli report trials/any-1" in run("info", "trials").stderr  # no damaged one


def test_numbers_are_shown_without_the_dust_of_their_sums() -> None:
    assert info._shown(0.1 * 18) == "1.8" and info._shown([2 / 3]) == "0.6666666667"


def test_signs_of_a_picture_are_no_proof(
    tiny_lmdb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    Image.fromarray(pixels).save("a.png")

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["info", *words])

    plain = run("a.png", "--signs")
    assert plain.exit_code == 0 and "none of these signs proves" in plain.stdout
    told = json.loads(run("a.png", "--signs", "--data", str(tiny_lmdb), "--json").stdout)
    assert len(told["signs"]["nearest"]) == 3
    assert run("--signs").exit_code == ExitCode.USAGE
    assert run("a.png", "--data", str(tiny_lmdb)).exit_code == ExitCode.USAGE
    assert run("none.png", "--signs").exit_code == ExitCode.UNUSABLE
    assert run(".", "--signs").exit_code == ExitCode.UNUSABLE
