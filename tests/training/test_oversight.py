"""A watched run: rolled back or stopped when it goes wrong, measured without being changed.

Its figures: waiting for pictures, told from computing; the distance between fakes, 1 for the
variety of the data and 0 for one picture of every seed.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stylecli.checkpoint import read_tensors
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.sources.recognition import find_source
from stylecli.distributed.processes import launch
from stylecli.errors import StyleCLIError
from stylecli.images import make_grid
from stylecli.networks.headers import read_header
from stylecli.networks.model import Bundle
from stylecli.networks.registry import make_config
from stylecli.shapes import Size
from stylecli.training import checkpoints, oversight, watchdog
from stylecli.training.config import Session, TrainingConfig
from stylecli.training.loop import TrainingLoop
from stylecli.training.oversight import (
    CopyGauge,
    DiversityGauge,
    LoaderClock,
    describe_row,
    mean_pair_distance,
    sheet_cells,
)
from stylecli.training.run_folder import (
    RunSettings,
    create_run,
    is_finished,
    read_events,
    read_statistics,
)
from stylecli.training.schedule import stage_at
from stylecli.training.watchdog import Finding

# Ticks of 16 images, a snapshot every second one, a fade in between.
SETTINGS = {
    "total_kimg": 0.128, "hold_kimg": 0.048, "fade_kimg": 0.032, "batch": {}, "batch_base": 8,
    "lr": {}, "lr_base": 0.003, "minibatch_repeats": 2, "tick_kimg": 0.016, "snapshot_ticks": 2,
}  # fmt: skip
STAGE = stage_at(TrainingConfig(initial_resolution=16), 16, 0)
CPU = torch.device("cpu")


@pytest.fixture
def start(tmp_path: Path, tiny_lmdb: Path, tiny_config_fields: Any) -> Callable[..., Path]:
    def make(name: str = "run", **settings: Any) -> Path:
        config = make_config("f", **tiny_config_fields)
        training = TrainingConfig(**{**SETTINGS, **settings})
        digest = open_dataset(tiny_lmdb).digest
        create_run(tmp_path / name, RunSettings(config, training, tiny_lmdb, digest))
        return tmp_path / name

    return make


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "checkpoint.safetensors")[1]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def named(run: Path, event: str) -> list[str]:
    return [row["text"] for row in read_events(run) if row["event"] == event]


def goes_wrong_at(nimg: int, times: int, monkeypatch: Any) -> None:
    """Make the watchdog find a collapse in the tick at ``nimg``, so many times."""
    left = [times]

    def find(rows: Sequence[Mapping[str, Any]], config: TrainingConfig) -> Finding | None:
        if rows[-1]["nimg"] != nimg or not left[0]:
            return None
        left[0] -= 1
        return Finding("collapse", "the pictures collapse", "try a lower --lr")

    monkeypatch.setattr(watchdog, "find_collapse", find)


def test_a_rollback_goes_back_to_the_checkpoint_and_on_with_other_numbers(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    straight, back = start("straight"), start("back")
    TrainingLoop(straight).train()
    goes_wrong_at(80, 1, monkeypatch)
    heard: list[str] = []
    assert TrainingLoop(back, session=Session(watch="rollback")).train(notice=heard.append)

    assert is_finished(back)
    assert [row["nimg"] for row in read_statistics(back)] == list(range(16, 129, 16))
    assert heard == [
        "the pictures collapse: try a lower --lr",
        "rolled back from 0.08 to 0.064 kimg, continuing with new random numbers "
        "(rollback 1 of at most 3)",
    ]
    assert named(back, "warning") + named(back, "rollback") == heard
    assert not equal(weights(straight), weights(back))
    before, after = ([row["loss_D"] for row in read_statistics(run)] for run in (straight, back))
    assert before[:4] == after[:4]  # up to the checkpoint nothing is different
    assert before[4] != after[4]


def test_a_rolled_back_run_resumes_bit_for_bit(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    whole, parts = start("whole"), start("parts")
    for run in (whole, parts):
        goes_wrong_at(80, 1, monkeypatch)
        loop = TrainingLoop(run, session=Session(watch="rollback"))
        if run == parts:
            # Killed right after the rollback: nothing more is saved.
            monkeypatch.setattr(loop.oversight, "rolled_back", _die)
            with pytest.raises(_KilledError):
                loop.train()
            loop = TrainingLoop(run, session=Session(watch="rollback"))
            assert (loop.counters.nimg, loop.counters.rollbacks) == (64, 1)
        assert loop.train()

    assert equal(weights(whole), weights(parts))


class _KilledError(Exception):
    pass


def test_a_rollback_cut_short_is_finished_by_the_next_session(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    run = start("run")
    goes_wrong_at(80, 1, monkeypatch)
    with monkeypatch.context() as killed, pytest.raises(_KilledError):
        killed.setattr(checkpoints, "take_back", _die)
        TrainingLoop(run, session=Session(watch="rollback")).train()
    undone = run / "network-snapshot-000000096.safetensors"
    undone.write_bytes(b"of the training that is undone")
    mine = run / "fakes99.png"  # not a name that training gives
    mine.write_bytes(b"of the user")

    assert TrainingLoop(run).train(deadline_seconds=0) is False
    assert not undone.exists()
    assert mine.exists()
    assert TrainingLoop(run).counters.rollbacks == 1


def _die(*anything: Any) -> None:
    raise _KilledError


def test_rollbacks_come_to_an_end(start: Callable[..., Path], monkeypatch: Any) -> None:
    run = start()
    goes_wrong_at(80, 99, monkeypatch)
    with pytest.raises(StyleCLIError, match="after 3 rollbacks") as caught:
        TrainingLoop(run, session=Session(watch="rollback")).train()

    assert caught.value.exit_code == 1
    assert len(named(run, "rollback")) == 3
    assert not is_finished(run)


def test_a_run_without_a_checkpoint_is_stopped_instead(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    run = start()
    goes_wrong_at(16, 1, monkeypatch)
    with pytest.raises(StyleCLIError, match="the watchdog stopped and saved the run: the pictures"):
        TrainingLoop(run, session=Session(watch="rollback")).train()

    assert (run / "checkpoint.safetensors").exists()


def test_a_stopped_run_can_still_be_taken_back_to_where_it_was_well(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    run = start()
    goes_wrong_at(80, 2, monkeypatch)
    with pytest.raises(StyleCLIError, match="stopped and saved"):
        TrainingLoop(run, session=Session(watch="stop")).train()
    good = run / "checkpoint-before-stop.safetensors"
    assert read_header(good)["training"]["counters"]["nimg"] < 80
    assert TrainingLoop(run, session=Session(watch="off")).train()

    assert not good.exists()  # well again


@pytest.mark.parametrize(("watch", "warnings"), [("warn", 1), ("off", 0)])
def test_a_run_that_is_not_to_be_stopped_goes_on(
    watch: str, warnings: int, start: Callable[..., Path], monkeypatch: Any
) -> None:
    run = start()
    goes_wrong_at(80, 99, monkeypatch)

    assert TrainingLoop(run, session=Session(watch=watch)).train()
    assert len(named(run, "warning")) == warnings


def test_a_real_divergence_is_stopped_and_saved(start: Callable[..., Path]) -> None:
    run = start(lr_base=100.0)
    with pytest.raises(StyleCLIError, match=r"diverges|not finite|D is winning"):
        TrainingLoop(run, session=Session(watch="stop")).train()

    assert (run / "checkpoint.safetensors").exists()
    [sentence] = named(run, "warning")
    assert "try a lower --lr (now 100)" in sentence


@pytest.mark.slow
def test_all_processes_are_taken_back(start: Callable[..., Path]) -> None:
    run = start()
    rank = Path(__file__).with_name("one_rank.py")
    assert launch(2, [str(rank), str(run), "--watch", "rollback", "--wrong-at", "80"]) == 0

    assert len(named(run, "rollback")) == 1
    assert [row["nimg"] for row in read_statistics(run)] == list(range(16, 129, 16))


def intrusive(bundle: Bundle, dataset: Dataset) -> list[dict[str, Any]]:
    """Measure something, and disturb all that a careless metric could."""
    torch.manual_seed(1)
    torch.randn(7)
    assert bundle.G_ema is not None
    with torch.no_grad():
        for parameter in bundle.G_ema.parameters():
            parameter.zero_()
    bundle.G_ema.lod = 0.0
    return [{"name": "kid", "value": 0.5, "std": 0.1}, {"name": "ppl", "value": None}]


def test_measuring_changes_nothing_that_is_trained(start: Callable[..., Path]) -> None:
    plain, measured = start("plain"), start("measured")
    TrainingLoop(plain).train()
    TrainingLoop(measured, evaluate=intrusive).train()

    assert equal(weights(plain), weights(measured))
    rows = [json.loads(line) for line in (measured / "metric-kid.jsonl").read_text().splitlines()]
    assert [row["kimg"] for row in rows] == [0.032, 0.064, 0.096, 0.128]
    assert rows[0]["snapshot"] == "network-snapshot-000000032.safetensors"
    assert rows[0]["results"] == {"kid": 0.5, "kid_std": 0.1}
    assert not (measured / "metric-ppl.jsonl").exists()
    assert named(measured, "evaluation-failed") == ["ppl is not measured: it has no value"]


@pytest.mark.parametrize(
    ("every", "measured"),
    [(3, [64, 96, 128]), (100, [128])],
)
def test_measuring_has_its_own_rhythm_and_never_misses_the_end(
    every: int, measured: list[int], start: Callable[..., Path]
) -> None:
    seen = []

    def note(bundle: Bundle, dataset: Dataset) -> list[dict[str, Any]]:
        seen.append(loop.counters.nimg)
        return []

    loop = TrainingLoop(start(), session=Session(evaluate_ticks=every), evaluate=note)
    loop.train()
    assert seen == measured


def test_a_failing_metric_does_not_end_a_run(start: Callable[..., Path]) -> None:
    errors = [
        StyleCLIError("Inception's weights\nare missing"),
        MemoryError(),
        RuntimeError("by 0"),
    ]
    failing = iter(errors)

    def fail(bundle: Bundle, dataset: Dataset) -> list[dict[str, Any]]:
        for error in failing:
            raise error
        return [{"kid": 1.0}]  # nor one whose row has no name

    run = start()
    assert TrainingLoop(run, session=Session(evaluate_ticks=1), evaluate=fail).train()
    sentences = named(run, "evaluation-failed")
    kinds = [*(type(error).__name__ for error in errors), "KeyError: 'name'"]
    assert len(sentences) == len(kinds) and not any("\n" in sentence for sentence in sentences)
    for kind, sentence in zip(kinds, sentences, strict=True):
        assert kind in sentence


def test_a_rising_metric_rolls_back_to_the_best(start: Callable[..., Path]) -> None:
    values = iter([0.1, 0.5, 0.6, 0.7, *[0.05] * 9])
    run = start(snapshot_ticks=1)
    assert TrainingLoop(
        run,
        session=Session(watch="rollback"),
        evaluate=lambda bundle, dataset: [{"name": "kid", "value": next(values)}],
    ).train()

    [sentence] = named(run, "rollback")
    assert sentence.startswith("rolled back from 0.064 to 0.016 kimg")
    rows = [json.loads(line) for line in (run / "metric-kid.jsonl").read_text().splitlines()]
    assert [row["nimg"] for row in rows] == list(range(16, 129, 16))
    assert [row["value"] for row in rows] == [0.1, *[0.05] * 7]


def test_tensorboard_reads_what_was_written(start: Callable[..., Path]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = start()
    TrainingLoop(run, session=Session(tensorboard=True), evaluate=intrusive).train()
    events = accumulator.EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()

    wanted = [(row["nimg"], row["loss_G"]) for row in read_statistics(run)]
    found = [(item.step, item.value) for item in events.Scalars("training/loss_G")]
    assert found == [(nimg, pytest.approx(loss)) for nimg, loss in wanted]
    assert [item.value for item in events.Scalars("metrics/kid")] == [0.5] * 4
    assert [item.step for item in events.Images("fakes")] == [0, 32, 64, 96, 128]


def test_tensorboard_that_is_not_there_is_one_sentence(
    start: Callable[..., Path], monkeypatch: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StyleCLIError, match=r"run pip install 'stylecli\[tensorboard\]'"):
        TrainingLoop(start(), session=Session(tensorboard=True)).train()


def test_the_wait_for_pictures_adds_up_until_it_is_taken(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(oversight.time, "perf_counter", lambda: now[0])
    clock = LoaderClock(CPU)
    for seconds in (0.25, 0.5):
        with clock.waiting():
            now[0] += seconds
        now[0] += 8.0  # computing

    assert clock.take() == 0.75
    assert clock.take() == 0.0


class FakeStream:
    """A device that is through with what it was given at ``free_at``."""

    now = 0.0  # of the host
    free_at = 0.0

    @classmethod
    def reach(cls) -> float:
        """Return when the device comes to what is put onto its stream now."""
        return max(cls.now, cls.free_at)


class FakeEvent:
    """An event of CUDA: its time is the device's, not the host's."""

    def __init__(self, enable_timing: bool) -> None:
        self.time = -1.0

    def record(self, stream: Any) -> None:
        self.time = FakeStream.reach()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "FakeEvent") -> float:
        return 1000 * (later.time - self.time)


def test_on_cuda_only_an_idle_device_waits(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream)
    clock = LoaderClock(torch.device("cuda"))
    FakeStream.now, FakeStream.free_at = 0.0, 3.0  # launched, 3 s of work to come
    with clock.waiting():
        FakeStream.now = 2.0  # the batch is there before the device asks for it
    assert clock.take() == 0.0

    FakeStream.now, FakeStream.free_at = 10.0, 10.5
    with clock.waiting():
        FakeStream.now = 12.0
    assert clock.take() == 1.5


@pytest.mark.parametrize(
    ("share", "words"), [(0.02, "compute-bound (loader 2%)"), (0.4, "loader-bound (loader 40%)")]
)
def test_the_progress_line_says_what_training_waits_for(share: float, words: str) -> None:
    row = {"sec_per_kimg": 3.04, "loss_G": 2.1, "loss_D": 0.55, "loader_share": share,
           "memory_mib": 512.3}  # fmt: skip

    assert describe_row(row) == f"3.0 sec/kimg, loss G 2.10 D 0.55, {words}, 512 MiB"


def test_the_distance_is_the_mean_over_all_pairs() -> None:
    images = torch.tensor([0.0, 3.0, 4.0])[:, None, None, None].expand(3, 3, 4, 4)

    assert mean_pair_distance(images) == pytest.approx((3 + 4 + 1) / 3)


def test_one_picture_for_every_seed_measures_nothing(tiny_lmdb: Path, tiny_network: Any) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    alive = gauge.measure(tiny_network.G_ema, STAGE)
    assert alive > 0.05
    with torch.no_grad():
        for layer in tiny_network.G_ema.synthesis.layers:
            layer.style.weight.zero_()  # no picture depends on its w any more
    assert gauge.measure(tiny_network.G_ema, STAGE) < 1e-6 * alive


def test_reals_measure_one(tiny_lmdb: Path) -> None:
    """A generator that returns the data's own pictures is as varied as the data."""
    dataset = open_dataset(tiny_lmdb)
    gauge = DiversityGauge(dataset, None, 8)
    reals = torch.from_numpy(dataset.read(range(24))).float() / 127.5 - 1

    class Copyist(torch.nn.Module):
        config = make_config("f", resolution=16)

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))
            self.shown = 0

        def mapping(self, z: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
            return z

        def synthesis(self, ws: torch.Tensor, **how: Any) -> torch.Tensor:
            self.shown += len(ws)
            return reals[torch.arange(self.shown - len(ws), self.shown) % len(reals)]

    measured = gauge.measure(Copyist(), STAGE)  # type: ignore[arg-type]
    assert measured == pytest.approx(1.0, abs=0.1)  # 8 of the 32 are shown twice


def test_measuring_draws_no_random_numbers(tiny_lmdb: Path, tiny_network: Any) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    state = torch.get_rng_state()
    first = gauge.measure(tiny_network.G_ema, STAGE)

    assert torch.equal(torch.get_rng_state(), state)
    assert gauge.measure(tiny_network.G_ema, STAGE) == first


def test_a_dataset_of_equal_pictures_has_no_measure(
    tiny_lmdb: Path, tiny_network: Any, monkeypatch: Any
) -> None:
    gauge = DiversityGauge(open_dataset(tiny_lmdb), None, 8)
    monkeypatch.setattr(gauge, "_real_distance", lambda side: 0.0)

    assert math.isnan(gauge.measure(tiny_network.G_ema, STAGE))


def test_fakes_that_copy_training_pictures_are_found_and_shown(
    tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sheet of the dataset's own pictures is all copies; one of noise has none."""
    monkeypatch.setattr("stylecli.training.checkpoints.SHEET_SIDE", 8)
    with closing(open_dataset(tiny_lmdb)) as dataset:
        gauge = CopyGauge(dataset, mirror=True)
        own = dataset.read([index % 24 for index in range(64)]).transpose(0, 2, 3, 1)
        noise = np.random.default_rng(0).integers(0, 256, own.shape, dtype=np.uint8)
        for pictures, wanted in ((own, 64), (own[:, :, ::-1], 64), (noise, 0)):
            sheet = make_grid(pictures, 8, scale=4)
            assert np.array_equal(sheet_cells(sheet, Size(16, 16)), pictures)
            pairs, copies, count = gauge.compare(sheet)
            assert (copies, count) == (wanted, 64)
            assert pairs.shape == (4 * 64, 8 * 64, 3)
            if wanted and pictures is own:  # every fake stands above its own picture
                assert np.array_equal(pairs[:64], pairs[64:128])


def test_pictures_of_one_colour_copy_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a generator that has learned nothing: near to a plain picture, but none of it."""
    monkeypatch.setattr("stylecli.training.checkpoints.SHEET_SIDE", 8)
    random = np.random.default_rng(0)
    loud = random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    plain = 128 + random.integers(-9, 10, (2, 16, 16, 3))
    for index, picture in enumerate(np.concatenate([loud, plain.astype(np.uint8)])):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    path = pack(find_source(tmp_path), tmp_path / "a.lmdb", PackSettings()).path
    with closing(open_dataset(path)) as dataset:
        gauge = CopyGauge(dataset, mirror=False)
        grey = np.full((64, 16, 16, 3), 128, np.uint8)
        own = dataset.read([9] * 64).transpose(0, 2, 3, 1)
        counts = [gauge.compare(make_grid(each, 8))[1] for each in (grey, own)]
    assert counts == [0, 64]
