"""Pictures that are not square: no file assumes otherwise, every command runs on a wide network.

``stylecli/shapes.py`` alone relates height to width. What must be square is named here, with why.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import stylecli
from stylecli.cli.app import COMMANDS, app
from stylecli.cli.explore import Studio
from stylecli.commands import project
from stylecli.data.writer import DatasetWriter
from stylecli.errors import UsageError
from stylecli.shapes import Grid
from tests.source import FILES, ROOT

# One number for both sides: (side, side), resolution**2, [N, C, R, R], ...
SQUARE = re.compile(
    r"\b([\w.]*(?:resolution|side))\s*,\s*\1\b|\b(?:resolution|side)\s*\*\*\s*2"
    r"|\b([\w.]*(?:resolution|side)) \* \2\b|\(\w*\.?(?:resolution|side),\)\s*\*\s*2"
    r"|\*2 \* \(|\bR, R\b|\b4\s*\*\*\s*r\b"
)
ALLOWED = {
    "data/alignment/mtcnn.py": "what this detector looks at",
    "data/alignment/portrait.py": "FFHQ's alignment makes squares",
    "data/alignment/prepare_ffhq.py": "FFHQ's pictures are squares",
    "data/checking/findings.py": "central squares of a source, for thumbnails",
    "data/checking/inspection.py": "what pack takes without --shape",
    "data/checking/subjects.py": "a sample as pack cuts it without --shape",
    "features/resizing.py": "what feature networks look at",
    "interop/conversion.py": "other programs draw squares",
    "interop/lucidrains.py": "other programs draw squares",
    "interop/rosinality_stylegan2.py": "other programs draw squares",
    "metrics/classifier_training.py": "no pair: the least of two resolutions",
    "metrics/equivariance.py": "what turns must be square, which it says",
    "networks/frozen.py": "how large features are, about",
    "networks/lucidrains.py": "other programs draw squares",
    "ops/convolution.py": "features that a kernel is tried on",
    "peers.py": "other programs draw squares",
    "training/presets.py": "settings are those of a square of as many pixels",
    "training/trials.py": "pictures that a trial is made with",
}


def test_no_file_assumes_that_pictures_are_square() -> None:
    package = ROOT / "stylecli"
    found = {
        path.relative_to(package).as_posix()
        for path in FILES
        if path.is_relative_to(package) and SQUARE.search(path.read_text("utf-8"))
    }

    assert found <= set(ALLOWED), "use config.size or config.size_at(side), dataset.size"
    assert set(ALLOWED) <= found, "no longer needs to be named"
    assert SQUARE.search("torch.zeros(n, 3, config.resolution, config.resolution)")
    assert SQUARE.search("side**2")


# Commands that have no network, none of their own, or a server; each with what tests it instead.
ELSEWHERE = {
    "demo": "its faces are square", "prepare-ffhq": "FFHQ is square", "weights": "no pictures",
    "doctor": "no pictures", "convert": "reads other programs' networks",
    "bench": "makes its own networks",
    "explore": "a server: below, what it says of a network",
}  # fmt: skip
ANY = (0, 0)
RUN = ["--network", "net.safetensors"]
# Command line -> what it writes, and the size of each picture: width, height.
CASES: dict[str, tuple[list[str], str, tuple[int, int]]] = {
    "pack": (["pack", "photos", "--shape", "4:3", "--resolution", "12", "--out", "d.lmdb"],
             "", ANY),
    "check": (["check", "wide.lmdb", "--out", "c"], "c/mean.png", (256, 192)),
    "train": (["train", "wide.lmdb", "--out", "run", "--kimg", "0.032", "--initial-resolution", "8",
               "--hold-kimg", "0.008", "--fade-kimg", "0.008", "--batch", "8", "--tick-kimg",
               "0.016", "--fmap-base", "64", "--fmap-max", "8", "--ranks", "1"],
              "run/fakes*.png", (8 * 64, 8 * 48)),
    "plan": (["plan", "wide.lmdb", "--fmap-base", "64", "--fmap-max", "8", "--batch", "8",
              "--initial-resolution", "16", "--on", "h100"], "", ANY),
    "generate": (["generate", *RUN, "--seeds", "0-1", "--out", "g"], "g/*.png", (16, 12)),
    "generate grid": (["generate", *RUN, "--seeds", "0-3", "--grid", "--out", "s.png"], "s.png",
                      (2 * 128, 2 * (96 + 14))),
    "mix": (["mix", *RUN, "--rows", "1", "--cols", "2", "--styles", "coarse", "--out",
             "m.png"], "m.png", ANY),
    "interpolate": (["interpolate", *RUN, "--seeds", "0,1", "--seconds", "0.2", "--fps", "10",
                     "--format", "png", "--scale", "2", "--out", "walk"], "walk/*.png", (32, 24)),
    "figures": (["figures", "2", "3", "5", "8", "layers", *RUN, "--out", "f"], "f/*.png", ANY),
    "project": (["project", "photos/0.png", *RUN, "--distance", "pyramid", "--steps", "3", "--out",
                 "p"], "", ANY),
    "sharpen": (["sharpen", "small.png", *RUN, "--candidates", "1", "--starts", "1", "--steps", "2",
                 "--out", "sharp"], "sharp/*-1.png", (16, 12)),
    "metrics": (["metrics", "diversity", *RUN, "--data", "wide.lmdb", "--samples", "16"], "", ANY),
    "report": (["report", "run"], "", ANY),
    "export": (["export", "torchscript", "net.safetensors", "--out", "n.pt"], "", ANY),
    "info": (["info", "net.safetensors"], "", ANY),
    "hub": (["hub", "push", "net.safetensors", "me/wide", "--into", "card"], "card/samples.png",
            (4 * 128, 3 * 96)),
    "hub dataset": (["hub", "push", "wide.lmdb", "me/few", "--into", "cards"], "", ANY),
    "directions": (["directions", "find", *RUN, "--method", "sefa", "--count", "1"], "", ANY),
    "directions show": (["directions", "show", "sefa.1", *RUN, "--seeds", "0", "--out", "d.png"],
                        "d.png", ANY),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a dataset and a network of 16x12 px."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "photos").mkdir()
    Image.new("RGB", (8, 6), (200, 90, 30)).save(folder / "small.png")
    Image.new("RGB", (8, 8), (200, 90, 30)).save(folder / "small-square.png")
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = random.integers(0, 256, (3, 4, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((20, 15), Image.Resampling.BICUBIC)
        picture.save(folder / "photos" / f"{number}.png")
    with DatasetWriter(
        folder / "of-4x3.lmdb", resolution=16, channels=3, grid=Grid(3, 4)
    ) as writer:
        for _ in range(4):
            writer.add(random.integers(0, 256, (3, 12, 16), np.uint8))
    net = stylecli.new_network(
        "f", shape="4:3", resolution=12, z_dim=8, w_dim=8, fmap_base=64, fmap_max=8,
        mapping_fmaps=8, mapping_layers=2,
    )  # fmt: skip
    stylecli.save_network(folder / "net.safetensors", net)
    return folder


def run(place: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{' '.join(words)}: {result.output} {result.exception!r}"
    return result.output


@pytest.mark.slow
def test_every_command_runs_on_a_wide_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (words, written, size) in CASES.items():
        output = run(place, words, monkeypatch)
        if name == "pack":
            assert "16x12 px" in output
            shutil.copytree(place / "d.lmdb", place / "wide.lmdb")
        if name == "info":
            assert "16x12 px" in output
        pictures = sorted(place.glob(written)) if written else []
        assert bool(pictures) == bool(written), name
        for path in pictures:
            with Image.open(path) as picture:
                assert size in (ANY, picture.size), f"{name}: {path.name} {picture.size}"
    with Image.open(place / "m.png") as mixed:  # a corner and two columns of 4:3, over a row
        assert abs(mixed.width / mixed.height - 2.0) < 0.05
    for page in ("run/report.html", "card/README.md", "cards/README.md"):
        assert "16x12 px" in (place / page).read_text("utf-8"), page
    assert ".zip" not in (place / "cards" / "README.md").read_text("utf-8")  # squares only
    named = {words[0] for words, _, _ in CASES.values()}
    assert named | set(ELSEWHERE) >= set(COMMANDS) - {"help", "version"}


def test_packing_squares_says_which_shape_keeps_more(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    proposed = "photos: --shape 4:3 keeps 100% of the pixels, a square 75%"
    squares = run(tmp_path, ["pack", "photos", "--resolution", "8"], monkeypatch)
    assert proposed in squares

    shaped = [
        "pack",
        "photos",
        "--shape",
        "4:3",
        "--resolution",
        "12",
        "--out",
        "datasets/of-a-shape.lmdb",
    ]
    assert proposed not in run(tmp_path, shaped, monkeypatch)
    padded = ["pack", "photos", "--transform", "pad", "--resolution", "32", "--out", "bars.lmdb"]
    assert "keeps" not in run(tmp_path, padded, monkeypatch)

    # Training on the folder takes the shape that is asked for, else the newest of its datasets.
    trained = ["train", "photos", "--dry-run"]
    assert "of-a-shape" in run(tmp_path, [*trained, "--shape", "4:3"], monkeypatch)
    assert "photos.lmdb" in run(tmp_path, [*trained, "--shape", "1:1"], monkeypatch)
    other = CliRunner().invoke(app, [*trained, "--shape", "3:2"])
    assert other.stderr.endswith("pack photos --shape 3:2 --out datasets/photos-3x2.lmdb\n")


def test_a_photograph_is_drawn_in_its_shape(place: Path) -> None:
    net = stylecli.load_network(place / "net.safetensors")

    found = project(net, place / "photos" / "1.png", steps=2, distance="pyramid")

    assert found.picture.shape == (12, 16, 3)
    with pytest.raises(UsageError, match="12, 16, 3"):
        project(net, np.zeros((16, 16, 3), np.uint8), steps=2, distance="pyramid")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["pack", "photos", "--shape", "17:13"], 2, "4:3"),
        (["pack", "photos", "--shape", "4:3", "--resolution", "13"], 2, "12"),
        (["pack", "photos", "--shape", "4:3", "--out", "x.zip"], 2, "square"),
        (["pack", "of-4x3.lmdb", "--out", "y.zip"], 3, "square"),
        (["pack", "photos", "--shape", "3:2", "--append", "--out", "of-4x3.lmdb"], 3, "4:3"),
        (["pack", "photos", "--shape", "4:3", "--transform", "wide"], 2, "--shape"),
        (["export", "state-dict", "net.safetensors"], 2, "square"),
        (["export", "state-dict", "net.safetensors", "--layout", "rosinality"], 2, "square"),
        (["train", "of-4x3.lmdb", "--config", "stylegan3-r", "--dry-run"], 2, "stylegan3-t"),
        (["train", "of-4x3.lmdb", "--resolution", "16", "--dry-run"], 2, "16x12 px"),
        (["sharpen", "small-square.png", *RUN], 3, "no whole fraction of the 16x12 px"),
        (["plan", "photos", "--shape", "4:3"], 2, "pack photos --shape 4:3"),
        (["plan", "square.lmdb", "--shape", "4:3"], 2, "--shape 4:3"),
        (
            ["train", "photos", "--shape", "4:3", "--resolution", "12", "--dry-run"],
            2,
            "pack photos --shape 4:3 --resolution 12",
        ),
        (
            ["train", "photos", "--resume", "net.safetensors", "--dry-run"],
            2,
            "pack photos --shape 4:3 --resolution 12",
        ),
        (["train", "photos", "--shape", "101:97"], 2, "1:1"),
        (["train", "square.lmdb", "--shape", "4:3", "--dry-run"], 2, "--shape 4:3"),
        (["plan", "--resolution", "13", "--shape", "4:3"], 2, "12"),
        (["metrics", "diversity", *RUN, "--data", "square.lmdb"], 3, "--shape 4:3 --resolution 12"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    place: Path, tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int,
    named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    shutil.copytree(tiny_lmdb, place / "square.lmdb", dirs_exist_ok=True)

    result = CliRunner().invoke(app, words)

    assert result.exit_code == code, result.output
    assert named in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_file_is_described_with_both_sides(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("net.safetensors", "of-4x3.lmdb"):
        told = run(place, ["info", path], monkeypatch)
        assert re.search(r"^resolution +16\nsize +16x12 px$", told, re.MULTILINE), told


def test_the_browser_is_told_both_sides(place: Path) -> None:
    told, _ = Studio().describe(
        {"network": str(place / "net.safetensors"), "device": "cpu"}, lambda *_: None
    )

    assert (told["width"], told["height"]) == (16, 12)
    assert told["layers"] == ["4x3", "4x3", "8x6", "8x6", "16x12", "16x12"]
