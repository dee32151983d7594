"""`stylecli train` as typed: a new run, going on, finished, refused; resumed; watched."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stylecli
from stylecli.checkpoint import load_network
from stylecli.cli.app import app
from stylecli.metrics.tasks import MetricResult
from stylecli.shipped import shipped_network
from tests.conftest import FIXTURES
from tests.data.checking.pictures import draw

SMALL = ["--kimg", "0.048", "--batch", "8", "--ranks", "1", "--fmap-base", "64", "--fmap-max", "8",
         "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--device", "cpu"]  # fmt: skip
SHORT = ["--kimg", "0.016", "--batch", "8", "--ranks", "1", "--device", "cpu"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stylecli.training.checkpoints.SHEET_SIDE", 2)  # 4 pictures, not 64
    return tmp_path


def train(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_run_is_made_and_the_same_command_knows_it(here: Path, tiny_lmdb: Path) -> None:
    first = train(str(tiny_lmdb), *SMALL)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("runs/00000-tiny-f16/network-snapshot-")
    said = first.stderr.splitlines()
    start = next(place for place, line in enumerate(said) if line.startswith("data: "))
    data, plan, where = said[start : start + 3]
    assert " px" in data and "network: f" in data
    assert " kimg" in plan and "--dry-run" in plan
    assert "augmentation adaptive" in plan and "24 pictures" in plan
    assert where.startswith("training in ") and "stylecli report" in where
    again = train(str(tiny_lmdb), *SMALL)
    assert again.stdout == first.stdout
    assert "is finished with these settings" in again.stderr
    other = train(str(tiny_lmdb), *SMALL, "--seed", "1")
    assert other.stdout.startswith("runs/00001-")


def test_a_run_that_cannot_be_read_stops_no_other(here: Path, tiny_lmdb: Path) -> None:
    broken = here / "runs" / "00007-old" / "run.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"format": 99}')
    result = train(str(tiny_lmdb), *SMALL)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("runs/00008-")
    assert "skipping runs/00007-old" in result.stderr
    assert train(str(tiny_lmdb), *SMALL, "--out", str(broken.parent)).exit_code == 3


def test_a_moved_dataset_and_a_moved_run_are_continued(here: Path, tiny_lmdb: Path) -> None:
    shutil.copytree(tiny_lmdb, here / "data.lmdb")
    assert train("data.lmdb", *SMALL, "--out", "work/run").exit_code == 0
    short = json.loads((here / "work/run/run.json").read_text())
    (here / "work/run/run.json").write_text(json.dumps({**short, "finished": False}))
    (here / "far").mkdir()
    (here / "data.lmdb").rename(here / "far" / "moved.lmdb")
    (here / "work").rename(here / "other")
    result = train("far/moved.lmdb", *SMALL, "--out", "other/run")
    assert result.exit_code == 0, result.stderr
    assert "its dataset is now far/moved.lmdb" in result.stderr
    stored = json.loads((here / "other/run/run.json").read_text())
    assert stored["dataset"] == {**short["dataset"], "path": "../../far/moved.lmdb"}
    assert stored["finished"]


def test_a_run_of_another_device_is_not_taken_over(here: Path, tiny_lmdb: Path) -> None:
    run = Path(train(str(tiny_lmdb), *SMALL).stdout.strip()).parent
    settings = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**settings, "device": "cuda", "finished": False}))
    result = train(str(tiny_lmdb), *SMALL)
    assert result.exit_code == 2
    assert "trains on cuda, not on cpu" in result.stderr


def test_a_folder_that_cannot_be_made_is_one_sentence(here: Path, tiny_lmdb: Path) -> None:
    (here / "file").touch()
    result = train(str(tiny_lmdb), *SMALL, "--out", "file/run")
    assert result.exit_code == 2
    assert "run folder file/run cannot be made" in result.stderr


def test_labels_and_configurations_reach_the_network(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--labels", "--config", "b", "--json")
    assert result.exit_code == 0, result.stderr
    settings = json.loads((Path(json.loads(result.stdout)["run"]) / "run.json").read_text())
    assert settings["network"]["label_dim"] == 3
    assert settings["network"]["use_styles"] is False


def test_dry_run_prints_every_value_and_trains_nothing(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), "--dry-run", "--preset", "paper", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["network"]["fmap_base"] == 8192
    assert plan["training"]["total_kimg"] == 25_000
    assert plan["run"] == {"path": "runs/00000-tiny-f16", "state": "begin"}
    assert plan["parameters"] == {"G": 17_068_553, "D": 16_005_121}
    assert [(s["resolution"], s["fading"]) for s in plan["stages"]] == [
        (8, False), (16, True), (16, False)
    ]  # fmt: skip
    assert set(plan["reasons"]["training"]) == set(plan["training"])
    assert set(plan["reasons"]["network"]) == set(plan["network"]) - {"family"}
    assert all(plan["reasons"]["training"].values())
    assert not (here / "runs").exists()


def test_every_option_reaches_its_setting(here: Path, tiny_lmdb: Path) -> None:
    typed = (
        "--gamma-fake 2 --beta1 0.5 --beta2 0.9 --adam-epsilon 1e-7 --ema-kimg 3 "
        "--minibatch-repeats 2 --mbstd-group 0 "
        "--fused-scale on --mirror --own-fakes --lr 0.001,16:0.002 --batch 8:16,16:8 --kimg 9 "
        "--augment adaptive --augment-pipe bgcf --augment-target 0.5 --augment-kimg 50 "
        "--augment-p 0.1 "
        "--initial-resolution 4 --mapping-fmaps 9 --mixing 0.25 --hold-kimg 1 --fade-kimg 2"
    )
    result = train(str(tiny_lmdb), "--dry-run", "--json", "--ranks", "1", *typed.split())
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    training, network = plan["training"], plan["network"]
    wanted = {
        "r2_gamma": 2, "adam_beta1": 0.5, "adam_beta2": 0.9, "adam_epsilon": 1e-7, "ema_kimg": 3,
        "mirror": True,
        "minibatch_repeats": 2, "share_fakes": False, "lr": {"16": 0.002}, "lr_base": 0.001,
        "batch": {"8": 16, "16": 8}, "batch_base": 16, "initial_resolution": 4, "total_kimg": 9,
        "hold_kimg": 1, "fade_kimg": 2, "augment": "adaptive", "augment_pipe": "bgcf",
        "augment_target": 0.5, "augment_kimg": 50, "augment_p": 0.1,
    }  # fmt: skip
    assert {name: training[name] for name in wanted} == wanted
    assert (network["mbstd_group_size"], network["fused_scale"]) == (0, True)
    assert (network["mapping_fmaps"], network["style_mixing_prob"]) == (9, 0.25)
    assert {plan["reasons"]["training"][name] for name in wanted} == {"asked for"}


def test_a_run_from_before_augmentation_goes_on_without_it(here: Path, tiny_lmdb: Path) -> None:
    """Neither its run.json nor the command mentions augmentation."""
    assert train(str(tiny_lmdb), *SMALL, "--augment", "none").exit_code == 0
    record = here / "runs" / "00000-tiny-f16" / "run.json"
    values = json.loads(record.read_text())
    for name in [name for name in values["training"] if name.startswith("augment")]:
        del values["training"][name]
    values["finished"] = False
    record.write_text(json.dumps(values))

    seen = json.loads(train(str(tiny_lmdb), *SMALL, "--dry-run", "--json").stdout)
    assert seen["run"] == {"path": "runs/00000-tiny-f16", "state": "continue"}
    assert seen["training"]["augment"] == "none" and seen["reasons"]["training"]["augment"]
    asked = train(str(tiny_lmdb), *SMALL, "--augment", "adaptive", "--dry-run", "--json")
    assert json.loads(asked.stdout)["run"]["state"] == "begin"
    again = train(str(tiny_lmdb), *SMALL)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith("runs/00000-")


def test_dry_run_says_what_would_go_on(here: Path, tiny_lmdb: Path) -> None:
    train(str(tiny_lmdb), *SMALL)
    result = train(str(tiny_lmdb), *SMALL, "--dry-run")
    assert "runs/00000-tiny-f16" in result.stdout.splitlines()[1]
    assert "is finished" in result.stdout.splitlines()[1]
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert ["total_kimg", "0.048", "asked for"] in rows


def draw_photos(folder: Path, count: int = 3) -> None:
    folder.mkdir()
    for index in range(count):
        draw(index).save(folder / f"{index}.png")


def test_a_folder_stands_for_the_dataset_packed_from_it(here: Path) -> None:
    draw_photos(here / "photos")
    pack = ("pack", "photos", "--resolution", "32", "--channels", "1", "--out", "datasets/x.lmdb")
    assert CliRunner().invoke(app, pack).exit_code == 0
    result = train("photos", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "using datasets/x.lmdb, packed from photos: 3 pictures, 32 px, --channels 1" in (
        result.stderr
    )
    other = train("photos", "--dry-run", "--resolution", "16")
    assert other.exit_code == 2
    command = "stylecli pack photos --resolution 16 --out datasets/photos-16.lmdb"
    assert other.stderr.endswith(f"{command}\n")
    assert CliRunner().invoke(app, command.split()[1:]).exit_code == 0
    assert train("photos", "--dry-run", "--resolution", "16").exit_code == 0


@pytest.mark.parametrize("name", ["stylegan3_r_snapshot", "r3gan_labels_snapshot"])
def test_pictures_are_packed_for_the_network_that_training_starts_from(
    name: str, here: Path
) -> None:
    """In one command, whatever program's file it is; a table says what fits."""
    draw_photos(here / "photos", 8)
    source = FIXTURES / "official" / f"{name}.pkl"
    side = load_network(source).config.resolution
    result = train("photos", "--resume", str(source), "--kimg", "0.004", "--batch", "4",
                   "--ranks", "1", "--freeze-d", "2", "--precision", "float32")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    run = json.loads(next(here.glob("runs/*/run.json")).read_text())
    assert run["network"]["resolution"] == side
    assert run["training"]["phases"] == ("paired" if name[:5] == "r3gan" else "lazy")
    assert "taken over" in result.stderr and "frozen in D: FromRGB" in result.stderr
    assert ("classes 3 to 0" in result.stderr) == (name[:5] == "r3gan")


def test_pictures_that_changed_are_no_longer_the_dataset(here: Path) -> None:
    draw_photos(here / "photos")
    assert CliRunner().invoke(app, ["pack", "photos", "--channels", "1"]).exit_code == 0
    draw(9).save(here / "photos" / "9.png")
    result = train("photos", "--dry-run")
    assert result.exit_code == 3
    assert "stylecli pack photos --channels 1 --force" in result.stderr


def test_a_dry_run_needs_none_of_the_gpus(here: Path, tiny_lmdb: Path) -> None:
    arguments = (str(tiny_lmdb), "--gpus", "8", "--nodes", "2", "--preset", "paper")
    result = train(*arguments, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["ranks"], plan["device"]) == (16, "cuda")
    assert "this GPU" not in result.stderr  # there is none
    refused = train(*arguments)
    assert refused.exit_code == 2 and "torchrun" in refused.stderr


def test_a_dry_run_does_not_pack(here: Path) -> None:
    draw_photos(here / "photos")
    result = train("photos", "--dry-run", "--preset", "lsun-car")
    assert result.exit_code == 2
    assert "run stylecli pack photos --resolution 512 --transform wide" in result.stderr
    shipped = train("photos", "--dry-run", "--resume", "shipped")
    side = load_network(shipped_network()).config.resolution
    assert shipped.stderr.endswith(f"run stylecli pack photos --resolution {side}\n")
    for path in (here / "photos").iterdir():
        draw(0).resize((20, 18)).save(path)
    smaller = train("photos", "--dry-run", "--resume", "shipped")
    assert "16 px that its pictures reach" in smaller.stderr
    assert smaller.stderr.endswith("run stylecli pack photos --resolution 16\n")


def test_a_run_is_not_made_in_a_dataset(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--out", str(tiny_lmdb))
    assert result.exit_code == 2 and "is a dataset" in result.stderr
    assert not (tiny_lmdb / "run.json").exists()


def test_a_number_that_cannot_be_is_named_by_its_option(here: Path, tiny_lmdb: Path) -> None:
    for words in (("--kimg", "0"), ("--augment-p", "-1"), ("--augment-pipe", "xyz")):
        result = train(str(tiny_lmdb), *words)
        assert result.exit_code == 2 and words[0] in result.stderr, result.stderr


def test_a_processor_gets_pictures_that_it_can_train_on(here: Path) -> None:
    (here / "photos").mkdir()
    for index in range(3):
        draw(index).resize((300, 260)).save(here / "photos" / f"{index}.jpg")
    for words, packs in (
        (("--device", "cpu"), "stylecli pack photos --resolution 64"),
        (("--device", "cpu", "--preset", "paper"), "stylecli pack photos"),
        (("--device", "cpu", "--resolution", "256"), "stylecli pack photos --resolution 256"),
        (("--gpus", "1"), "stylecli pack photos"),  # not here: only planned for
        (("--device", "cpu", "--shape", "4:3"), "stylecli pack photos --shape 4:3 --resolution 48"),
    ):
        result = train("photos", "--dry-run", *words)
        assert result.exit_code == 2
        assert result.stderr.endswith(f"run {packs}\n"), result.stderr
        assert ("all the same" in result.stderr) == packs.endswith(("64", "48"))


def test_advice_is_a_warning_and_no_error(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--loss", "wgan-gp", "--gamma", "5", "--dry-run")
    assert result.exit_code == 0
    assert "warning: --gamma 5 has no effect" in result.stderr


def test_the_help_has_headings(here: Path) -> None:
    lines = train("--help").stdout.splitlines()
    headings = [line for line in lines if line and not line.startswith(" ")]
    assert headings[1] == "Arguments:"
    assert headings.index("Network:") < headings.index("Losses:") < headings.index("Options:")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--config", "z"], 2, "unknown configuration 'z'"),
        (["--resolution", "32"], 2, "holds 16 px"),
        (["--batch", "6"], 2, "does not divide into"),
        (["--loss", "mse"], 2, "unknown --loss 'mse'"),
        (["--preset", "big"], 2, "unknown preset 'big'"),
        (["--lr", "12:1"], 2, "--lr '12:1'"),
        (["--fused-scale", "yes"], 2, "--fused-scale 'yes'"),
        (["--device", "tpu"], 2, "unknown device 'tpu'"),
    ],
)
def test_mistakes_are_one_sentence(
    here: Path, tiny_lmdb: Path, arguments: list[str], code: int, words: str
) -> None:
    result = train(str(tiny_lmdb), *SMALL, *arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_dataset_says_how_to_make_one(here: Path) -> None:
    result = train()
    assert result.exit_code == 3
    assert "make one with stylecli pack" in result.stderr


def test_a_network_file_is_transferred_and_the_same_command_knows_the_run(
    here: Path, tiny_lmdb: Path, tiny_network_file: Path
) -> None:
    command = [str(tiny_lmdb), "--resume", str(tiny_network_file), "--labels", *SHORT]
    first = train(*command, "--freeze-d", "1")
    assert first.exit_code == 0, first.stderr
    assert f"starting from the weights of {tiny_network_file}, at the first image:" in first.stderr
    assert "  G, G_ema  mapping          resized     classes 0 to 3" in first.stderr
    assert "frozen in D: FromRGB 16 px; all other layers are trained" in first.stderr
    settings = json.loads((here / "runs" / "00000-tiny-f16" / "run.json").read_text())["training"]
    assert (settings["augment"], settings["augment_kimg"]) == ("adaptive", 100)
    again = train(*command, "--freeze-d", "1")
    assert "is finished with these settings" in again.stderr
    assert again.stdout == first.stdout
    assert train(*command).stdout.startswith("runs/00001-")  # another run: nothing is frozen


def test_a_run_goes_on_for_longer_in_a_new_one(
    here: Path, tiny_lmdb: Path, tiny_network_file: Path
) -> None:
    first = train(str(tiny_lmdb), "--resume", str(tiny_network_file), *SHORT)
    assert first.exit_code == 0, first.stderr
    longer = train("--resume", "runs/00000-tiny-f16", "--kimg", "0.08", "--ranks", "1", "--json")
    assert longer.exit_code == 0, longer.stderr
    assert "using " in longer.stderr  # the run's own dataset
    assert "at 0.032 kimg with its full state: optimizers" in longer.stderr
    run = Path(json.loads(longer.stdout)["run"])
    assert run.name == "00001-tiny-f16"
    assert json.loads((run / "run.json").read_text())["origin"]["continued"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--resume", "nowhere"], 3, "--resume nowhere does not exist: give a run, a checkpoint"),
        (["--freeze-d", "2"], 2, "--freeze-d 2"),
        (["--resume", "NETWORK", "--config", "b"], 2, "leave --config out"),
        (["--resume", "TRADITIONAL", "--config", "f"], 2, "leave --config out"),
        (["--resume", "NETWORK", "--freeze-d", "99"], 2, "freeze_d 99 is not within 0 to 7"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    arguments: list[str],
    code: int,
    words: str,
    here: Path,
    tiny_lmdb: Path,
    tiny_network_file: Path,
    tiny_config_fields: dict[str, Any],
) -> None:
    traditional = tiny_network_file.with_name("b.safetensors")
    stylecli.save_network(traditional, stylecli.new_network("b", **tiny_config_fields))
    files = {"NETWORK": str(tiny_network_file), "TRADITIONAL": str(traditional)}
    given = [files.get(word, word) for word in arguments]
    result = train(str(tiny_lmdb), *SHORT, *given)
    assert result.exit_code == code
    assert words in result.stderr
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--watch", "hope"], "unknown watch 'hope'"),
        (["--metrics", "kid,beauty"], "unknown metric 'beauty'"),
        (["--metric-samples", "500"], "add --metrics kid"),
        (["--classifiers", "x"], "add --metrics ls"),
        (["--metrics", "kid", "--classifiers", "x"], "stylecli metrics ls"),
        (["--metrics", "ppl_wfull", "--config", "a"], "ppl_wfull"),
    ],
    ids=["watch", "metric", "samples", "classifiers", "not ls", "network"],
)
def test_what_cannot_work_is_refused_before_a_run_is_made(
    options: list[str], sentence: str, here: Path, tiny_lmdb: Path
) -> None:
    result = train(str(tiny_lmdb), *SMALL, *options)

    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (here / "runs").exists()


def test_tensorboard_is_asked_for_before_a_run_is_made(
    here: Path, tiny_lmdb: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    result = train(str(tiny_lmdb), *SMALL, "--tensorboard")

    assert result.exit_code == 2
    assert "pip install 'stylecli[tensorboard]'" in result.stderr
    assert not (here / "runs").exists()


def test_the_document_of_a_dry_run_is_read_back_as_the_same_run(
    here: Path, tiny_lmdb: Path
) -> None:
    options = [*SMALL, "--lr", "0.001,16:0.002", "--no-mirror", "--watch", "stop"]
    wanted = train(str(tiny_lmdb), *options, "--dry-run", "--json").stdout
    (here / "settings.json").write_text(wanted)
    assert train(str(tiny_lmdb), *options).exit_code == 0

    again = train(str(tiny_lmdb), "--settings", "settings.json", "--ranks", "1", "--dry-run",
                  "--json")  # fmt: skip

    first, second = json.loads(wanted), json.loads(again.stdout)
    assert all(first[name] == second[name] for name in ("network", "training", "session", "preset"))
    assert second["run"]["state"] == "finished"


def test_options_come_before_a_file_of_settings(here: Path, tiny_lmdb: Path) -> None:
    (here / "my.toml").write_text(
        "preset = 'small'\nkimg = 9\ngamma = 3\nmirror = true\n"
        "[training]\nbatch = '8,16:32'\n[network]\nfmap-base = 64\n[session]\nkeep = 2\n"
    )

    result = train(str(tiny_lmdb), "--settings", "my.toml", "--gamma", "4", "--batch", "16:64",
                   "--ranks", "1", "--dry-run", "--json")  # fmt: skip

    document = json.loads(result.stdout)
    training = document["training"]
    assert (training["total_kimg"], training["r1_gamma"], training["mirror"]) == (9, 4, True)
    assert (document["network"]["fmap_base"], document["session"]["keep"]) == (64, 2)
    assert training["batch"]["16"] == 64


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("kimgs = 3", 2, ["kimgs", "'kimg'"]),
        ("kimg = 'many'", 2, ["kimg", "many"]),
        ("mirror = 3", 2, ["mirror", "true or false"]),
        ("log = 'paper'", 2, ["log", "paper", "wandb"]),
        ("lr = {x = 1}", 2, ["lr at 'x' px", "power of two"]),
        ("lr = {64 = 'fast'}", 2, ["lr at 64 px", "fast"]),
        ("lr = {64 = {a = 1}}", 2, ["lr at 64 px", "not a number"]),
        ("batch = 3.5", 2, ["batch 3.5", "whole number"]),
        ("batch = {64 = 3.5}", 2, ["batch at 64 px", "whole number"]),
        ("labels = 'no'", 2, ["labels 'no'", "true or false"]),
        ("kimg = ", 3, ["s.toml", "TOML"]),
        (None, 3, ["s.toml", "--dry-run --json"]),
    ],
)
def test_settings_that_are_not_understood_are_named(
    here: Path, tiny_lmdb: Path, text: str | None, code: int, words: list[str]
) -> None:
    if text is not None:
        (here / "s.toml").write_text(text)

    result = train(str(tiny_lmdb), "--settings", "s.toml")

    assert result.exit_code == code, result.stderr
    assert all(word in result.stderr for word in words)


def test_lines_of_json_follow_a_training_on_stdout(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--log", "jsonl")

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    ticks = [row for row in rows if row["event"] == "tick"]
    assert ticks[-1]["nimg"] >= 48 and ticks[-1]["grad_norm_G"] > 0 and ticks[-1]["grad_norm_D"] > 0
    assert rows[-1]["event"] == "finished" and Path(rows[-1]["network"]).is_file()
    assert train(str(tiny_lmdb), *SMALL, "--log", "jsonl", "--json").exit_code == 2
    assert "expected jsonl" in train(str(tiny_lmdb), *SMALL, "--log", "paper").stderr


def test_a_run_that_diverges_is_stopped_with_advice(here: Path, tiny_lmdb: Path) -> None:
    result = train(str(tiny_lmdb), *SMALL, "--lr", "100", "--watch", "stop", "--tick-kimg", "0.008")

    assert result.exit_code == 1
    assert "warning: " in result.stderr
    assert "the watchdog stopped and saved" in result.stderr
    assert "try a lower --lr (now 100)" in result.stderr


def test_snapshots_are_measured_with_what_was_asked_for(
    here: Path, tiny_lmdb: Path, monkeypatch: Any
) -> None:
    asked: list[Any] = []

    def evaluate(names: list[str], bundle: Any, dataset: Any, **how: Any) -> list[MetricResult]:
        asked.append((names, len(dataset), how))
        return [MetricResult("kid", 0.25, 0.01, definition={"fakes": 16})]

    monkeypatch.setattr("stylecli.metrics.evaluation.evaluate", evaluate)
    result = train(str(tiny_lmdb), *SMALL, "--metrics", "kid, ppl", "--metric-samples", "16")

    assert result.exit_code == 0, result.stderr
    assert asked[-1] == (["kid", "ppl"], 24, {"samples": 16, "device": "cpu", "classifiers": None})
    [run] = (here / "runs").iterdir()
    rows = [json.loads(line) for line in (run / "metric-kid.jsonl").read_text().splitlines()]
    assert rows[-1]["snapshot"] == Path(result.stdout.strip()).name
    assert rows[-1]["results"] == {"kid": 0.25, "kid_std": 0.01}


def test_a_published_metric_without_weights_stops_before_the_run_and_others_warn(
    here: Path, tiny_lmdb: Path, monkeypatch: Any, tmp_path: Path
) -> None:
    from stylecli import weights

    monkeypatch.setenv("STYLECLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_package_file", lambda network: None)
    refused = train(str(tiny_lmdb), *SHORT, "--metrics", "kid50k")
    assert refused.exit_code == 3 and not (here / "runs").exists()
    assert "stylecli weights fetch inception-2015-12-05" in refused.stderr
    warned = train(str(tiny_lmdb), *SHORT, "--metrics", "ppl")
    assert warned.exit_code == 0 and "warning: ppl cannot be measured" in warned.stderr


def test_separability_is_measured_with_classifiers_and_left_out_without(
    here: Path, tiny_lmdb: Path
) -> None:
    from stylecli.metrics.classifiers import (
        AttributeClassifier,
        AttributeClassifiers,
        new_classifier_network,
        save_classifiers,
    )
    from stylecli.networks.stylegan1_config import StyleGAN1Config

    config = StyleGAN1Config(resolution=16, fmap_base=64, fmap_max=8, mbstd_group_size=1)
    network = new_classifier_network(config, 0)
    save_classifiers(
        here / "own.safetensors",
        AttributeClassifiers([AttributeClassifier("shade", ("dark", "bright"), network)], {}),
    )
    measuring = ["--metrics", "ls", "--metric-samples", "20"]
    for number, given in enumerate(([], ["--classifiers", "own.safetensors"])):
        words = [*SMALL, *measuring, *given, "--out", f"run{number}"]
        result = train(str(tiny_lmdb), *words)
        assert result.exit_code == 0, result.stderr
    assert not list((here / "run0").glob("metric-*"))
    [event] = [
        line for line in (here / "run0/events.jsonl").read_text().splitlines() if "ls_w" in line
    ]
    assert "stylecli metrics ls --train-classifiers" in event
    row = json.loads((here / "run1/metric-ls_w@own-classifiers.jsonl").read_text().splitlines()[-1])
    assert row["value"] >= 1 and row["definition"]["fakes"] == 20


def test_the_help_begins_with_the_ten_options_that_people_use() -> None:
    text = CliRunner().invoke(app, ["train", "--help"]).stdout
    first = text.split("Used most:\n")[1].split("\n\n")[0]
    assert len([line for line in first.splitlines() if line.startswith("  --")]) == 10
    assert text.index("Used most:") < text.index("Network:") < text.index("Options:")
    assert text.count("  --kimg ") == 1
