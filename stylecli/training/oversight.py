"""What watches over a run: figures of a tick, diversity, watchdog, metrics.

Nothing here changes what is trained. A verdict says what the loop is to do.
"""

import contextlib
import copy
import math
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylecli import files
from stylecli.data.reader import Dataset
from stylecli.hardware import memory_figures
from stylecli.images import Pictures, from_uint8, make_grid, save_png, visible_scale
from stylecli.networks.config import NetworkConfig
from stylecli.networks.layers import box_average
from stylecli.networks.model import Bundle, Generator, native_lod
from stylecli.rendering import exact_kernels
from stylecli.sampling import seed_latents
from stylecli.shapes import Size
from stylecli.training import checkpoints, run_folder
from stylecli.training.checkpoints import MAX_ROLLBACKS, Counters, rollback_source
from stylecli.training.config import Session
from stylecli.training.run_folder import RunSettings
from stylecli.training.schedule import Stage
from stylecli.training.trackers import Trackers
from stylecli.training.watchdog import LOADER_BOUND, Finding, Watchdog
from stylecli.workspace import NEAREST_FILE

# Given a network and the data: rows of plain JSON values, {"name", "value", ...}, the first metric
# first. stylecli train makes it of stylecli.metrics, which training does not know.
Evaluate = Callable[[Bundle, Dataset], Sequence[Mapping[str, Any]]]
_SUM_EVERY = 256  # pairs of events kept before they are added up
FAKES = 32  # pictures of seeds 0 to 31: 496 pairs, the same seeds each time
REALS = 128  # drawn once from the dataset: 8,128 pairs
COMPARED = 5_000  # pictures up to which fakes are compared with all of them: read once a session
COPY_SHARE = 0.5  # of the usual distance between a real picture and the nearest other one
MANY_COPIES = 0.25  # of the fakes of a sample sheet
PAIRS = 16  # shown: the fakes that are nearest to a picture
LARGEST_SIDE = 16  # pixels; faces and rooms differ at this size already, and it is cheap


Tell = Callable[[Mapping[str, Any]], None]  # is handed every tick, metric and event, as JSON values


def no_notice(text: str) -> None:
    """Tell nobody."""


def tell_nobody(row: Mapping[str, Any]) -> None:
    """Tell nobody."""


class Oversight:
    """Keeps the books of a run and judges it, tick by tick and snapshot by snapshot."""

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        session: Session,
        dataset: Dataset,
        label_table: torch.Tensor | None,
        evaluate: Evaluate | None,
    ) -> None:
        self.run, self.settings, self.session = run, settings, session
        self.dataset, self.evaluate = dataset, evaluate
        self.notice: Callable[[str], None] = no_notice
        self.tell: Tell = tell_nobody
        self._nimg = 0  # of the last tick
        self._gauge: DiversityGauge | None = None
        if session.watch != "off":
            labels = label_table if settings.network.label_dim else None
            self._gauge = DiversityGauge(dataset, labels, settings.network.z_dim)
        here = weakref.ref(self)  # a circle would hold the gauge's pictures until it is collected

        def tracker_failed(text: str) -> None:
            if (oversight := here()) is not None:
                oversight.warn(oversight._nimg, text, "tracker-failed")

        self._trackers = Trackers(run, settings, session.trackers, tracker_failed)
        self._watchdog = Watchdog(settings.training)
        self._reason: Finding | None = None  # of the last verdict
        self._exhausted = False  # no rollback is left
        self._skipped: set[str] = set()  # metrics without a value, told once
        self._copies: CopyGauge | None = None
        if session.watch != "off" and len(dataset) <= COMPARED:
            self._copies = CopyGauge(dataset, mirror=settings.training.mirror)
        self._copies_told = False

    def go_on_from(self, nimg: int) -> None:
        """Take up the run's past as its files tell it now; done before anything else."""
        self._watchdog = Watchdog(self.settings.training, run_folder.read_statistics(self.run))
        self._trackers.start(nimg)

    def close(self) -> None:
        """Finish what trackers write."""
        self._trackers.close()

    def tick(self, row: dict[str, Any], G_ema: Generator, stage: Stage, rollbacks: int) -> str:
        """Write down a tick; return "" to continue, "stop" or "rollback"."""
        self._nimg = row["nimg"]
        if self._gauge:
            row["diversity"] = round(self._gauge.measure(G_ema, stage), 4)
        run_folder.append_statistics(self.run, row)
        self.tell({"event": "tick", **row})
        self._trackers.add_tick(row)
        return self._judge(lambda dog: dog.look(row), row["nimg"], rollbacks)

    def snapshot(self, counters: Counters, bundle: Bundle, network: Path, *, last: bool) -> str:
        """Measure a snapshot when it is due, or the last; return a verdict as ``tick`` does."""
        config = self.settings.training
        every = self.session.evaluate_ticks
        due = last or is_due(counters.tick, config.snapshot_ticks, every)
        if self.evaluate is None or not due:
            return ""
        rows = self._measure(self.evaluate, counters, bundle, network)
        if not rows:
            return ""
        checkpoints.keep_best(self.run, counters.nimg, rows[0])
        first = run_folder.read_measurements(self.run, rows[0]["name"])
        return self._judge(
            lambda dog: dog.look_at_metric(first, counters.tick), counters.nimg, counters.rollbacks
        )

    def describe_stop(self) -> str:
        """Say why the watchdog stopped the run and how to continue all the same."""
        tried = f" after {MAX_ROLLBACKS} rollbacks" if self._exhausted else ""
        return (
            f"the watchdog stopped and saved the run{tried}: {self._reason}; to continue as it "
            f"is, add --watch off"
        )

    def rolled_back(self, left: int, nimg: int, rollbacks: int) -> None:
        """Take note that training from ``nimg`` to ``left`` images was undone."""
        self.warn(
            nimg,
            f"rolled back from {left / 1000:g} to {nimg / 1000:g} kimg, continuing with new "
            f"random numbers (rollback {rollbacks} of at most {MAX_ROLLBACKS})",
            "rollback",
        )
        self.go_on_from(nimg)

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Take in a sample sheet [H, W, C] that was just drawn."""
        self._trackers.add_sheet(sheet, nimg)
        if self._copies is not None and nimg:
            self._look_for_copies(self._copies, sheet, nimg)

    def _look_for_copies(self, gauge: "CopyGauge", sheet: Pictures, nimg: int) -> None:
        """Show the fakes beside the pictures they resemble most; warn, once, of many copies."""
        grid, copies, count = gauge.compare(sheet)
        place = self.run / NEAREST_FILE
        with files.room_for(place, grid.nbytes):
            save_png(place, grid, {"kind": "fakes above the nearest real pictures"})
        if copies > MANY_COPIES * count and not self._copies_told:
            self._copies_told = True
            self.warn(
                nimg,
                f"{copies} of {count} fakes nearly copy a picture of the dataset at "
                f"{nimg / 1000:g} kimg: look at {place}; more pictures, --mirror and --augment "
                "adaptive help",
                "copies",
            )

    def warn(self, nimg: int, text: str, event: str = "warning") -> None:
        """Write an event down and tell whoever listens."""
        told = {"nimg": nimg, "event": event, "text": text}
        run_folder.append_event(self.run, told)
        self.tell(told)
        self.notice(text)

    def _measure(
        self, evaluate: Evaluate, counters: Counters, bundle: Bundle, network: Path
    ) -> list[dict[str, Any]]:
        nimg = counters.nimg
        where = {"tick": counters.tick, "nimg": nimg, "kimg": nimg / 1000, "snapshot": network.name}
        try:
            rows = measure_network(evaluate, bundle, self.dataset, where)
        except Exception as error:  # whatever it is: measuring never ends a run
            text = f"measuring at {nimg / 1000:g} kimg failed, training continues: {_brief(error)}"
            self.warn(nimg, text, "evaluation-failed")
            return []
        run_folder.append_measurements(self.run, rows)
        for row in rows:
            self.tell({"event": "metric", **row})
            self._trackers.add_metric(row)
            if row["value"] is None and row["name"] not in self._skipped:
                self._skipped.add(row["name"])
                reason = row.get("skipped") or "it has no value"
                self.warn(nimg, f"{row['name']} is not measured: {reason}", "evaluation-failed")
        return rows

    def _judge(self, look: Callable[[Watchdog], list[Finding]], nimg: int, rollbacks: int) -> str:
        if self.session.watch == "off":
            return ""
        findings = look(self._watchdog)
        for finding in findings:
            self.warn(nimg, str(finding))
        grave = [finding for finding in findings if finding.ends_run]
        if not grave or self.session.watch not in ("stop", "rollback"):
            return ""
        self._reason, self._exhausted = grave[0], False
        if self.session.watch == "rollback":
            self._exhausted = rollbacks >= MAX_ROLLBACKS
            if not self._exhausted and rollback_source(self.run) is not None:
                return "rollback"
        return "stop"


def _brief(error: Exception) -> str:
    """Say what was raised in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def is_due(tick: int, snapshot_ticks: int, every: int | None) -> bool:
    """Whether the snapshot at a tick is to be measured: the first from each multiple of ``every``.

    A function of the tick alone, so that a resumed run measures where an unbroken one does.
    """
    return every is None or tick // every > max(tick - snapshot_ticks, 0) // every


def measure_network(
    evaluate: Evaluate, bundle: Bundle, dataset: Dataset, where: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what ``evaluate`` says of the averaged generator, each row with ``where`` it was.

    It is given a copy: whatever it does, training continues with its own weights. What it raises
    comes through; so does KeyError or TypeError for rows that are not JSON with name and value.
    """
    started = time.monotonic()
    seen = Bundle(bundle.config, G_ema=copy.deepcopy(bundle.G_ema))
    results = [dict(result) for result in evaluate(seen, dataset)]
    seconds = time.monotonic() - started
    rows = [run_folder.measurement_row(result, where, seconds) for result in results]
    files.to_json(rows)
    return rows


class TickMeter:
    """Measures from one tick to the next; time between ``row`` and ``start`` does not count."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loader = LoaderClock(device)
        self._since = (0.0, 0, 0)

    def start(self, counters: Counters) -> None:
        """Begin a tick."""
        self.loader.take()
        self._since = (time.monotonic(), counters.nimg, counters.step)

    def row(self, counters: Counters, stage: Stage, statistics: dict[str, float]) -> dict[str, Any]:
        """Return a line of ``stats.jsonl``; ``statistics`` are the step's means over the tick."""
        waited = self.loader.take()  # on CUDA also waits until the tick's work is done
        started, nimg, step = self._since
        seconds = time.monotonic() - started
        shown = counters.nimg - nimg
        return {
            "tick": counters.tick,
            "nimg": counters.nimg,
            "kimg": counters.nimg / 1000,
            "lod": stage.lod,
            "resolution": stage.resolution,
            "batch": stage.batch,
            "lr": stage.lr,
            "steps": counters.step - step,
            "seconds": round(counters.seconds, 3),
            "sec_per_kimg": round(seconds / (max(shown, 1) / 1000), 3),
            "loader_share": round(min(waited / max(seconds, 1e-9), 1.0), 4),
            **memory_figures(self.device),
            **statistics,
        }


def describe_row(row: dict[str, Any]) -> str:
    """Say the figures of a tick in a few words, for the live progress."""
    bound = "loader" if row["loader_share"] >= LOADER_BOUND else "compute"
    memory = f"{row['memory_mib']:.0f} MiB"
    if "gpu_reserved_mib" in row:
        memory = f"{row['gpu_reserved_mib']:.0f} MiB on the GPU"
    return (
        f"{row['sec_per_kimg']:.1f} sec/kimg, loss G {row['loss_G']:.2f} "
        f"D {row['loss_D']:.2f}, {bound}-bound (loader {row['loader_share']:.0%}), {memory}"
    )


def describe_stage(stage: Stage, network: NetworkConfig) -> str:
    """Say which resolution is trained, and how far it is faded in."""
    fading = f" fading in {1 - stage.fade:.0%}" if stage.fade else ""
    return f"{network.size_at(stage.resolution)} px{fading}"


class LoaderClock:
    """Adds up how long the device waits for the loader.

    On CPUs the loop asks for a batch and computes with it, one after the other, so a clock around
    the asking tells the whole wait. On CUDA launches return before the work is done, and reading
    pictures while the device still computes costs nothing; there two events on the device's own
    stream enclose the asking, and the time between them is how long the device stood idle
    meanwhile. Nothing waits for the device before the tick ends.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.device = device
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Time the asking for one batch."""
        if not self.cuda:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started
            return
        before = self._mark()
        yield
        self._pairs.append((before, self._mark()))
        if len(self._pairs) >= 2 * _SUM_EVERY:
            self._add_up(_SUM_EVERY)  # long done by now

    def take(self) -> float:
        """Return the seconds since the last call; on CUDA this waits for the device."""
        self._add_up(len(self._pairs))
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _add_up(self, count: int) -> None:
        for before, after in self._pairs[:count]:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1000
        del self._pairs[:count]


class DiversityGauge:
    """Mean distance between pairs of fakes, as a share of that between pairs of real pictures.

    The fakes are of a fixed set of seeds; what a collapse makes fall.
    """

    def __init__(self, dataset: Dataset, label_table: Tensor | None, z_dim: int) -> None:
        """``label_table`` [N, label_dim]: the labels a conditional network draws from, or None."""
        rng = np.random.default_rng(0)
        count = min(REALS, len(dataset))
        self._dataset = dataset
        self._picked = np.sort(rng.permutation(len(dataset))[:count])
        self._z = seed_latents(range(FAKES), z_dim)
        self._labels = None
        if label_table is not None:
            self._labels = label_table.cpu()[rng.integers(len(label_table), size=FAKES)]
        self._real: dict[int, float] = {}  # side -> distance between pairs of reals

    @torch.no_grad()
    def measure(self, G_ema: Generator, stage: Stage) -> float:
        """Return fakes' over reals' mean pairwise distance; 1 is the variety of the data.

        Both are seen at the stage's resolution, 16 px at most, without truncation and noise. Draws
        no random numbers. NaN where all real pictures are equal.
        """
        side = min(LARGEST_SIDE, stage.resolution)
        device = next(G_ema.parameters()).device
        labels = None if self._labels is None else self._labels.to(device)
        # In chunks, so that a large network needs little memory beside the training's own.
        chunks = []
        lod = native_lod(G_ema.config, stage.lod)
        with exact_kernels(device):
            for start in range(0, FAKES, chunk := max(4, min(FAKES, 4096 // stage.resolution))):
                picked = slice(start, start + chunk)
                c = None if labels is None else labels[picked]
                ws = G_ema.mapping(self._z[picked].to(device), c)
                images = G_ema.synthesis(ws, noise_mode="none", **lod)
                width = G_ema.config.size_at(side).width
                chunks.append(_shrink(images.float().clamp(-1, 1), width).cpu())
        real = self._real_distance(side)
        return mean_pair_distance(torch.cat(chunks)) / real if real else math.nan

    def _real_distance(self, side: int) -> float:
        if side not in self._real:
            level = (self._dataset.resolution // side).bit_length() - 1
            reals = from_uint8(torch.from_numpy(self._dataset.read(self._picked, level)))
            self._real[side] = mean_pair_distance(reals)
        return self._real[side]


def mean_pair_distance(images: Tensor) -> float:
    """Return the mean over all pairs of [N, ...] of their Euclidean distance per value; N > 1."""
    rows = images.cpu().flatten(1).double()
    return float(torch.pdist(rows).mean()) / math.sqrt(rows.shape[1])


def _shrink(images: Tensor, width: int) -> Tensor:
    """Average [N, C, H, W] down, 2x2 by 2x2, to a width."""
    while images.shape[-1] > width:
        images = box_average(images, 2)
    return images


class CopyGauge:
    """Which training pictures fakes resemble most, and whether they copy them.

    Distances are of pixels at 16 px at most, as the diversity's are.
    """

    def __init__(self, dataset: Dataset, *, mirror: bool) -> None:
        """``mirror``: the mirror image of a picture counts as that picture."""
        self._dataset, self._mirror = dataset, mirror
        self._side = min(LARGEST_SIDE, dataset.resolution)
        self._width = dataset.grid.at(self._side).width
        self._reals: Tensor | None = None  # [N, values], read when first needed
        self._usual = 0.0  # median distance from a picture to the nearest other one
        self._contrast = torch.empty(0)  # [N], of each picture from its mean colour

    def compare(self, sheet: Pictures) -> tuple[Pictures, int, int]:
        """Return pairs of fakes and reals as a picture, and how many of how many fakes are copies.

        ``sheet`` is a sample sheet [H, W, C].
        """
        fakes = sheet_cells(sheet, self._dataset.size)  # [n, H, W, C]
        reals = self._read()
        small = _shrink(from_uint8(torch.from_numpy(fakes).permute(0, 3, 1, 2)), self._width)
        distances = torch.cdist(small.flatten(1), reals)
        if self._mirror:
            mirrored = torch.cdist(small.flip(3).flatten(1), reals)
            distances = torch.minimum(distances, mirrored)
        nearest, which = distances.min(dim=1)
        shown = nearest.argsort(stable=True)[:PAIRS]
        originals = self._dataset.read(which[shown].numpy()).transpose(0, 2, 3, 1)
        half = len(shown) // 2 or 1
        rows = [fakes[shown][:half], originals[:half], fakes[shown][half:], originals[half:]]
        scale = visible_scale(max(self._dataset.size), at_least=64)
        grid = make_grid(np.concatenate(rows), half, scale=scale)
        # A fake without contrast, as at the beginning, is near to every plain picture.
        bound = COPY_SHARE * self._contrast[which].clamp(max=self._usual)
        return grid, int((nearest < bound).sum()), len(fakes)

    def _read(self) -> Tensor:
        if self._reals is None:
            level = (self._dataset.resolution // self._side).bit_length() - 1
            pixels = self._dataset.read(range(len(self._dataset)), level)
            reals = from_uint8(torch.from_numpy(pixels))
            self._reals = reals.flatten(1)
            self._contrast = (reals - reals.mean(dim=(2, 3), keepdim=True)).flatten(1).norm(dim=1)
            picked = self._reals[:: max(1, len(self._reals) // REALS)]
            if len(self._reals) > 1:  # the nearest of all is the picture itself
                others = torch.cdist(picked, self._reals).topk(2, largest=False).values[:, 1]
                self._usual = float(others.median())
        return self._reals


def sheet_cells(sheet: Pictures, size: Size) -> Pictures:
    """Return the pictures [n, H, W, C] of a sample sheet, row by row."""
    across = checkpoints.SHEET_SIDE
    scale = sheet.shape[0] // (across * size.height)
    cells = sheet[::scale, ::scale].reshape(across, size.height, across, size.width, -1)
    return np.ascontiguousarray(cells.swapaxes(1, 2).reshape(across**2, *size, -1))
