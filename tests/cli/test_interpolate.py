"""``stylecli interpolate``: the asked video, what it says of itself, and when it refuses."""

import json
import re
import shlex
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import stylecli
from stylecli.cli import interpolate
from stylecli.errors import DataError, Interrupted, StyleCLIError, UsageError
from stylecli.images import read_provenance
from stylecli.provenance import remake_command
from stylecli.sampling import map_seeds
from stylecli.saved_ws import save_ws
from stylecli.video import read_video_provenance
from tests.test_video import play

Run = Callable[..., Result]


@pytest.fixture
def run(tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tiny_network_file.parent)
    app = typer.Typer()
    app.command()(interpolate.command)
    network = ["--network", tiny_network_file.name]
    return lambda *arguments: CliRunner().invoke(app, [*network, *arguments])


def test_writes_a_loop_of_the_asked_length(run: Run) -> None:
    result = run("--seeds", "1,2", "--seconds", "0.5", "--fps", "8", "--json")

    document = json.loads(result.stdout)
    assert document["frames"] == 4 and document["loop"] is True and document["space"] == "w"
    assert document["path"] == "out/tiny/interpolation.mp4"
    assert (read_video_provenance(document["path"]) or {})["settings"]["seeds"] == "1-2"


def test_the_same_command_again_keeps_the_video(run: Run) -> None:
    arguments = ["--seconds", "0.2", "--fps", "10", "--grid", "2x1", "--out", "w.mp4"]
    run(*arguments)

    assert "w.mp4 already exists" in run(*arguments).stderr


def test_networks_without_w_walk_in_z(run: Run, tiny_config_fields: dict[str, Any]) -> None:
    stylecli.save_network("b.safetensors", stylecli.new_network("b", **tiny_config_fields))
    short = ["--network", "b.safetensors", "--seconds", "0.1", "--seeds", "1-2"]

    assert json.loads(run(*short, "--json").stdout)["space"] == "z"
    refused = run(*short, "--space", "w", "--out", "x.mp4")
    assert isinstance(refused.exception, UsageError) and "use --space z" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "0x2"], "'0x2'"),
        (["--seconds", "0"], "make no video"),
        (["--seeds", "1-3", "--grid", "2x1"], "3 seeds do not divide among 2x1 cells"),
        (["--space", "q"], "unknown space 'q'"),
        (["--method", "teleport"], "unknown method 'teleport'"),
        (["--method", "circle", "--space", "w"], "a circle needs latents about zero"),
        (["--out", "walk.avi"], "walk.avi"),
        (["--out", "walk.mp4", "--format", "gif"], "--format gif contradicts --out walk.mp4"),
        (["--format", "png", "--crf", "9"], "--crf 9"),
        (["--codec", "h264", "--format", "webm"], "'h264' does not go into webm"),
        (["--seconds", "1", "--key-seconds", "1"], "both set the length"),
        (["--key-seconds", "0"], "make no video"),
        (["--seeds", "1", "--ws", "a.npz"], "two sources of faces"),
        (["--ws-rows", "1"], "give --ws FILE too"),
        (["--classes", "0", "--class", "1"], "--classes 0 and --class 1"),
        (["--classes", "0-2"], "trained without labels"),
        (["--pulses", "2"], "need an end"),
        (["--noise-motion", "wobble"], "unknown noise motion 'wobble'"),
        (["--noise-motion", "drift", "--noise-mode", "const"], "needs --noise-mode random"),
        (["--noise-seconds", "2"], "--noise-motion drift"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    Path("a.npz").touch()
    result = run(*arguments)

    assert isinstance(result.exception, UsageError) and message in str(result.exception)
    assert not list(Path().glob("**/*.mp4"))


@pytest.mark.parametrize("size", ["too large", "widely refused"])
def test_a_size_that_is_refused_is_said_before_anything_is_drawn(
    run: Run, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    def drawn(*_: object, **__: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr("stylecli.latents.walks.draw_walk", drawn)
    result = run("--scale", "2000" if size == "too large" else "250", "--out", "w.mp4")

    if size == "too large":
        assert isinstance(result.exception, UsageError)
        assert "32000 x 32000" in str(result.exception)
    else:
        assert "4000 x 4000" in result.stderr and "--scale" in result.stderr
        assert isinstance(result.exception, AssertionError)  # the work began after that


def test_a_missing_ffmpeg_is_said_before_anything_is_drawn(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    monkeypatch.setattr("stylecli.latents.walks.draw_walk", lambda *_, **__: pytest.fail("drawn"))

    result = run("--out", "w.gif")

    assert isinstance(result.exception, StyleCLIError)
    assert "IMAGEIO_FFMPEG_EXE names /nowhere/ffmpeg" in str(result.exception)


def test_key_frames_are_the_pictures_of_generate(run: Run, tiny_network: Any) -> None:
    arguments = ["--seeds", "3,9", "--key-seconds", "0.1", "--psi", "0.6", "--scale", "1"]

    result = run(*arguments, "--format", "png", "--out", "frames")

    assert result.stdout == "frames\n" and len(list(Path("frames").iterdir())) == 6
    for frame, (_, picture) in zip(
        (0, 3), stylecli.generate(tiny_network, [3, 9], 0.6, psi_cutoff=8), strict=True
    ):
        with Image.open(f"frames/frame-00000{frame}.png") as image:
            assert (np.asarray(image) == picture).all()


@pytest.fixture
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a tone, as an uncompressed WAV file."""
    path = tmp_path_factory.mktemp("sound") / "song.wav"
    tone = (np.sin(np.arange(8000) / 3) * 9000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(tone.tobytes())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
@pytest.mark.parametrize("seconds", [0.5, 1.5])  # music that is longer, and shorter
def test_music_ends_with_the_video_and_is_made_again(
    run: Run, song: Path, suffix: str, seconds: float
) -> None:
    Path("song.wav").write_bytes(song.read_bytes())
    path = f"w.{suffix}"
    run("--seconds", str(seconds), "--fps", "8", "--size", "48x64", "--music", "song.wav",
        "--out", path)  # fmt: skip

    facts, frames = play(Path(path))
    (length,) = re.findall(r"Duration: 00:00:([\d.]+)", facts)
    assert "Audio:" in facts and abs(float(length) - seconds) < 0.2  # a packet of sound
    assert len(frames) == 8 * seconds and frames[0].shape == (64, 48, 3)
    first, record = Path(path).read_bytes(), read_video_provenance(path) or {}
    assert set(record["inputs"]) == {"music"}
    run(*shlex.split(remake_command(record) or "")[4:], "--out", path, "--force")
    assert Path(path).read_bytes() == first


def test_what_is_no_music_is_refused_before_anything_is_drawn(
    run: Run, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stylecli.latents.walks.draw_walk", lambda *_, **__: pytest.fail("drawn"))
    Path("text.mp3").write_text("#EXTM3U\nhttp://127.0.0.1/a.mp3\n")

    missing, text = run("--music", "none.mp3"), run("--music", "text.mp3")
    silent = run("--music", str(song), "--out", "w.gif")

    assert isinstance(missing.exception, DataError) and "none.mp3" in str(missing.exception)
    assert isinstance(text.exception, DataError) and "holds no sound" in str(text.exception)
    assert isinstance(silent.exception, UsageError) and "gif" in str(silent.exception)


def test_the_record_of_a_video_makes_it_again(run: Run) -> None:
    run(
        "--seeds", "1-4", "--grid", "2x1", "--key-seconds", "0.1", "--fps", "20", "--open",
        "--psi", "-0.5", "--psi-to", "1", "--pulses", "2", "--noise-motion", "drift",
        "--noise-seed", "3", "--method", "lerp", "--crf", "20", "--out", "walk.mp4",
    )  # fmt: skip
    first = Path("walk.mp4").read_bytes()
    command = remake_command(read_video_provenance("walk.mp4") or {})
    assert command is not None and command.startswith("stylecli interpolate --network tiny.")

    again = run(*command.split()[4:], "--out", "walk.mp4", "--force")

    assert again.stdout == "walk.mp4\n" and Path("walk.mp4").read_bytes() == first


@pytest.mark.parametrize(("suffix", "fps"), [("mp4", 30), ("webm", 30), ("gif", 25), ("webp", 30)])
def test_the_name_decides_the_format(run: Run, suffix: str, fps: int) -> None:
    document = json.loads(run("--seconds", "0.2", "--out", f"w.{suffix}", "--json").stdout)

    assert (document["format"], document["fps"], document["path"]) == (suffix, fps, f"w.{suffix}")
    assert (read_video_provenance(f"w.{suffix}") or {})["settings"]["fps"] == fps


def test_every_face_takes_two_seconds_unless_told(run: Run) -> None:
    def frames(*arguments: str) -> int:
        options = ["--fps", "5", "--force", "--json", "--out", "w.mp4"]
        return int(json.loads(run(*options, *arguments).stdout)["frames"])

    assert frames("--seeds", "1-3") == 30
    assert frames("--seeds", "1-3", "--no-loop") == 21
    assert frames("--seeds", "1-4", "--grid", "2x1", "--key-seconds", "1") == 10
    assert frames("--seeds", "1", "--psi", "-1", "--psi-to", "1") == 20


def test_saved_styles_are_visited_unchanged(run: Run, tiny_network: Any) -> None:
    save_ws("faces.npz", map_seeds(tiny_network.G_ema, [7, 8, 9]))

    run("--ws", "faces.npz", "--ws-rows", "2,0", "--key-seconds", "0.1", "--scale", "1",
        "--format", "png", "--out", "frames")  # fmt: skip

    (_, picture), *_ = stylecli.generate(tiny_network, [9])
    with Image.open("frames/frame-000000.png") as image:
        assert (np.asarray(image) == picture).all()
    record = read_provenance("frames/frame-000005.png") or {}
    assert record["settings"]["ws_rows"] == "2,0" and record["settings"]["psi"] == 1.0
    assert set(record["inputs"]) == {"ws"}


def test_one_face_shows_its_classes_in_turn(run: Run, tiny_config_fields: dict[str, Any]) -> None:
    network = stylecli.new_network("f", label_dim=3, **tiny_config_fields)
    stylecli.save_network("labelled.safetensors", network)

    result = run("--network", "labelled.safetensors", "--classes", "0-2", "--seeds", "4", "--fps",
                 "5", "--key-seconds", "0.4", "--json")  # fmt: skip

    assert json.loads(result.stdout)["frames"] == 6


def test_ctrl_c_keeps_a_shorter_video(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylecli.latents import walks

    whole = walks.draw_walk

    def stopped(*arguments: Any, **options: Any) -> Iterator[Any]:
        for frame, _ in zip(whole(*arguments, **options), range(3), strict=False):
            yield frame
        raise KeyboardInterrupt

    monkeypatch.setattr(walks, "draw_walk", stopped)
    result = run("--seconds", "1", "--out", "w.mp4")

    assert isinstance(result.exception, Interrupted) and "first 3 of 30" in str(result.exception)
    assert [path.name for path in Path().glob("w*.mp4")] == ["w-first-3-frames.mp4"]


def test_frames_of_other_networks_than_alias_free_ones_stay(run: Run) -> None:
    assert isinstance(run("--seeds", "1,2", "--translate", "0.1,0").exception, UsageError)


def test_frames_of_an_alias_free_network_move(run: Run) -> None:
    small = {"fmap_base": 256, "fmap_max": 8, "z_dim": 8, "w_dim": 8, "output_scale": 8.0}
    net = stylecli.new_network("stylegan3-t", resolution=16, **small)
    stylecli.save_network("free.safetensors", net)
    words = ("--network", "free.safetensors", "--seeds", "1,2", "--seconds", "0.1", "--fps", "10",
             "--format", "png")  # fmt: skip

    results = [run(*words, "--out", "still"), run(*words, "--rotate", "180", "--out", "moved")]

    assert [result.exit_code for result in results] == [0, 0], results
    still, moved = (sorted(Path(name).glob("*.png"))[0].read_bytes() for name in ("still", "moved"))
    assert still != moved
