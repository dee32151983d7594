"""The training loop: batches in, a growing network out, a run folder filled along the way."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from stylecli import checkpoint, sampling
from stylecli.data.loader import BatchLoader
from stylecli.data.reader import Dataset, open_dataset
from stylecli.distributed import Ranks
from stylecli.errors import DataError, Interrupted, UsageError
from stylecli.images import Pictures, make_grid, save_png, visible_scale
from stylecli.networks.bundle import Bundle, new_network
from stylecli.progress import Progress, silent
from stylecli.training import run_folder, saving
from stylecli.training.run_folder import RunSettings
from stylecli.training.schedule import Stage, resets_optimizer, schedule_at
from stylecli.training.step import TrainingStep
from stylecli.training.stopping import stop_requests
from stylecli.workspace import CHECKPOINT_FILE

SHEET_SIDE = 8  # a sample sheet has 8 × 8 pictures


class TrainingLoop:
    """One session of a run: from its checkpoint, or from the start, to its end."""

    def __init__(self, run: Path, ranks: Ranks | None = None) -> None:
        self.run = run
        self.ranks = ranks or Ranks()
        self.settings = run_folder.load_settings(run)
        self.config = self.settings.training
        self.dataset = _open_matching(self.settings)
        self.bundle = build_networks(self.settings)
        self.step = TrainingStep(
            self.bundle,
            self.config,
            ranks=self.ranks,
            device=torch.device(self.settings.device),
            label_table=label_table(self.dataset),
        )
        self.loader = BatchLoader(
            self.dataset,
            seed=self.config.seed,
            rank=self.ranks.rank,
            world_size=self.ranks.count,
            mirror=self.config.mirror,
        )
        self.counters = saving.Counters()
        self.stage: Stage | None = None
        self._note = ""  # the last tick's figures, for live progress
        self._resume()

    def _resume(self) -> None:
        path = self.run / CHECKPOINT_FILE
        if not path.exists():
            return
        self.counters = saving.load_checkpoint(path, self.bundle, self.step)
        self.loader.load_state_dict({"position": self.counters.position})
        # The stage of the last step trained, so that a reset due now is not missed or repeated.
        self.stage = self._schedule(self.counters.nimg)
        assert self.bundle.G is not None
        if self.bundle.G.lod != self.stage.lod:
            self.stage = Stage(**{**self.stage.__dict__, "lod": self.bundle.G.lod})
        if self.ranks.is_main:
            run_folder.rewind_statistics(self.run, self.counters.nimg)

    def _schedule(self, nimg: int) -> Stage:
        return schedule_at(self.config, self.settings.network.resolution, nimg)

    def train(self, *, progress: Progress = silent, deadline_seconds: float | None = None) -> bool:
        """Train to the end of the schedule; return whether it was reached.

        Saves and raises Interrupted when the user stops it. ``deadline_seconds`` ends this
        session early, saved, by returning False.
        """
        total = round(self.config.total_kimg * 1000)
        counters = self.counters
        started = tick_started = time.monotonic()
        base_seconds, tick_nimg = counters.seconds, counters.nimg
        if self.ranks.is_main and counters.nimg == 0:
            self._save_reals()
            self._save_sheet()
        with stop_requests() as asked:
            while counters.nimg < total:
                now = self._schedule(counters.nimg)
                self.step.set_stage(now, reset=resets_optimizer(self.stage, now))
                self.stage = now
                for _ in range(self.config.minibatch_repeats):
                    self._train_batch(now)
                session_seconds = time.monotonic() - started
                counters.seconds = base_seconds + session_seconds
                late = deadline_seconds is not None and session_seconds > deadline_seconds
                stop = self.ranks.any(asked()), self.ranks.any(late)
                ended = counters.nimg >= total or any(stop)
                tick = counters.nimg >= counters.tick_start_nimg + now.tick_kimg * 1000
                if self.ranks.is_main:
                    note = ", ".join(filter(None, (_describe(now), self._note)))
                    progress(min(counters.nimg, total) / 1000, total / 1000, note)
                if not (tick or ended):
                    continue
                self._end_tick(now, time.monotonic() - tick_started, counters.nimg - tick_nimg)
                if ended or counters.tick % self.config.snapshot_ticks == 0:
                    self._snapshot()
                if stop[0]:
                    raise Interrupted(
                        f"stopped and saved at {counters.nimg / 1000:g} of "
                        f"{self.config.total_kimg:g} kimg: the same command goes on"
                    )
                if stop[1]:
                    return False
                tick_started, tick_nimg = time.monotonic(), counters.nimg
        if self.ranks.is_main:
            run_folder.mark_finished(self.run)
        return True

    def _train_batch(self, stage: Stage) -> None:
        images, labels = self.loader.next(stage.batch, stage.level)
        if not self.settings.network.label_dim:
            labels = None  # a labelled dataset can train an unconditional network
        self.step(images, labels, stage, self.counters.step)
        self.counters.nimg += stage.batch
        self.counters.step += 1
        self.counters.position = self.loader.position

    def _end_tick(self, stage: Stage, seconds: float, nimg: int) -> None:
        self.counters.tick += 1
        self.counters.tick_start_nimg = self.counters.nimg
        statistics = self.step.take_statistics()
        if not self.ranks.is_main:
            return
        kimg = max(nimg, 1) / 1000
        row: dict[str, Any] = {
            "tick": self.counters.tick,
            "nimg": self.counters.nimg,
            "kimg": self.counters.nimg / 1000,
            "lod": stage.lod,
            "resolution": stage.resolution,
            "batch": stage.batch,
            "lr": stage.lr,
            "seconds": round(self.counters.seconds, 3),
            "sec_per_kimg": round(seconds / kimg, 3),
            "memory_mib": _peak_memory_mib(),
            **statistics,
        }
        run_folder.append_statistics(self.run, row)
        self._note = (
            f"{row['sec_per_kimg']:.1f} sec/kimg, loss G {row['loss_G']:.2f} "
            f"D {row['loss_D']:.2f}, {row['memory_mib']:.0f} MiB"
        )

    def _snapshot(self) -> None:
        """Write checkpoint, network and sample sheet (main rank)."""
        if not self.ranks.is_main:
            return
        info = {"data_digest": self.settings.dataset_digest, "seed": self.config.seed}
        kimg = self.counters.nimg / 1000
        checkpoint.save_network(
            self.run / f"network-snapshot-{round(kimg * 1000):09d}.safetensors",
            self.bundle,
            extra={**info, "kimg": kimg},
        )
        self._save_sheet()
        saving.save_checkpoint(
            self.run / CHECKPOINT_FILE, self.bundle, self.step, self.counters, info
        )

    def _save_sheet(self) -> None:
        """Draw the averaged generator's pictures of seeds 0 to 63."""
        net = Bundle(self.settings.network, G_ema=self.bundle.G_ema)
        pictures = sampling.generate(
            net,
            range(SHEET_SIDE**2),
            self.config.sample_psi if self.settings.network.has_w else 1.0,
            noise_mode=self.config.sample_noise,  # type: ignore[arg-type]
        )
        grid = _sheet([picture for _, picture in pictures])
        save_png(self.run / f"fakes{self.counters.nimg:09d}.png", grid, {"kind": "training sheet"})

    def _save_reals(self) -> None:
        count = min(SHEET_SIDE**2, len(self.dataset))
        reals = self.dataset.read(range(count)).transpose(0, 2, 3, 1)  # [N, H, W, C]
        save_png(self.run / "reals.png", _sheet(list(reals)), None)


def build_networks(settings: RunSettings) -> Bundle:
    """Make a run's fresh networks; the same settings give the same weights on every rank."""
    values = settings.network.to_dict()
    values.pop("family")
    preset = values.pop("preset")
    return new_network(preset, seed=settings.training.seed, **values)


def label_table(dataset: Dataset) -> torch.Tensor | None:
    """Return the dataset's labels as rows [N, label_dim], or None when it has none."""
    if dataset.labels is None or not dataset.label_dim:
        return None
    labels = torch.as_tensor(dataset.labels)
    if labels.ndim == 1:
        return torch.nn.functional.one_hot(labels.long(), dataset.label_dim).float()
    return labels.float()


def check_batches(settings: RunSettings) -> None:
    """Raise UsageError for a batch that cannot be dealt to the ranks or their stddev groups."""
    resolution = settings.training.initial_resolution
    group = settings.network.mbstd_group_size
    while resolution <= settings.network.resolution:
        batch = settings.training.batch.get(resolution, settings.training.batch_base)
        share, rest = divmod(batch, settings.ranks)
        if rest or (group > 1 and share % min(group, max(share, 1))):
            raise UsageError(
                f"batch {batch} at {resolution} px does not divide into {settings.ranks} "
                f"processes and minibatch-stddev groups of {group}"
            )
        resolution *= 2


def _open_matching(settings: RunSettings) -> Dataset:
    dataset = open_dataset(settings.dataset)
    network = settings.network
    if dataset.digest != settings.dataset_digest:
        raise DataError(
            f"{settings.dataset} is not the dataset this run was started on: its digest is "
            f"{dataset.digest[:12]}, the run's {settings.dataset_digest[:12]}"
        )
    found = (dataset.resolution, dataset.channels, dataset.label_dim if network.label_dim else 0)
    wanted = (network.resolution, network.channels, network.label_dim)
    if found != wanted:
        raise DataError(
            f"{settings.dataset} has resolution, channels, labels {found}: the network {wanted}"
        )
    return dataset


def _sheet(pictures: list[Pictures]) -> Pictures:
    import numpy as np

    scale = visible_scale(pictures[0].shape[0], at_least=64)
    return make_grid(np.stack(pictures), SHEET_SIDE, scale=scale)


def _describe(stage: Stage) -> str:
    fading = f" fading in {1 - stage.fade:.0%}" if stage.fade else ""
    return f"{stage.resolution} px{fading}"


def _peak_memory_mib() -> float:
    """Return the most memory this process has held, in MiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
