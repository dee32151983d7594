"""The training loop: batches in, a growing network out, a run folder filled along the way."""

import contextlib
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from stylecli.data.loader import BatchLoader, Prefetcher
from stylecli.distributed.ranks import Ranks
from stylecli.errors import DataError, Interrupted, StyleCLIError
from stylecli.progress import Progress, silent
from stylecli.training import checkpoints, run_folder, run_setup
from stylecli.training.config import Session
from stylecli.training.draws import seed_after
from stylecli.training.oversight import (
    Evaluate,
    Oversight,
    Tell,
    TickMeter,
    describe_row,
    describe_stage,
    no_notice,
    tell_nobody,
)
from stylecli.training.schedule import Stage, resets_optimizer, stage_at
from stylecli.training.step import TrainingStep
from stylecli.workspace import CHECKPOINT_FILE, snapshot_path


class TrainingLoop:
    """One session of a run: from its checkpoint, or from the start, to its end."""

    def __init__(
        self,
        run: Path,
        ranks: Ranks | None = None,
        session: Session | None = None,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.run = run
        self.ranks = ranks or Ranks()
        self.session = session or Session()
        self.settings = run_folder.load_settings(run)
        self.config = self.settings.training
        self.dataset = run_setup.open_matching(self.settings)
        self.bundle = run_setup.build_networks(self.settings)
        label_table = run_setup.label_table(self.dataset)
        self.step = TrainingStep(
            self.bundle,
            self.config,
            ranks=self.ranks,
            device=torch.device(self.settings.device),
            label_table=label_table,
            batch_gpu=self.session.batch_gpu,
            exact=self.session.exact,
            accelerations=self.session.accelerations,
        )
        self.counters = checkpoints.Counters()
        self.stage: Stage | None = None
        self.meter = TickMeter(self.step.device)
        self.oversight = Oversight(
            run, self.settings, self.session, self.dataset, label_table, evaluate
        )
        self.batches: Prefetcher | None = None
        self._note = ""  # the last tick's figures, for live progress
        self._resume()

    def _follow_seed(self) -> None:
        """Draw latents, noise and pictures as the seed and the rollbacks so far have it."""
        seed = seed_after(self.config.seed, self.counters.rollbacks)
        self.step.streams.seed = seed
        self.loader = BatchLoader(
            self.dataset,
            seed=seed,
            rank=self.ranks.rank,
            world_size=self.ranks.count,
            mirror=self.config.mirror,
        )
        self.loader.load_state_dict({"position": self.counters.position})
        if self.batches is not None:
            self.batches.close()
        self.batches = Prefetcher(self.loader, self.step.device)

    def _resume(self) -> None:
        path, origin = self.run / CHECKPOINT_FILE, self.settings.origin
        self._began_at = run_folder.checkpoint_mark(self.run)
        self._begins = self._began_at is None
        if not self._begins:
            self._load(path)
        elif origin is not None and origin.continued:
            self._load(run_setup.initial_file(self.run, origin))
        elif origin is not None:
            checkpoints.load_networks(run_setup.initial_file(self.run, origin), self.bundle)
        self.step.freeze_D(run_setup.frozen_in(self.settings))
        self._follow_seed()

    def _load(self, path: Path) -> None:
        self.counters = checkpoints.load_checkpoint(path, self.bundle, self.step)
        # The stage of the last step trained, so that a reset due now is not missed or repeated.
        self.stage = self._schedule(self.counters.nimg)
        assert self.bundle.G is not None
        if self.bundle.G.lod != self.stage.lod:
            self.stage = replace(self.stage, lod=self.bundle.G.lod)

    def _schedule(self, nimg: int) -> Stage:
        return stage_at(self.config, self.settings.network.resolution, nimg)

    def train(
        self,
        *,
        progress: Progress = silent,
        deadline_seconds: float | None = None,
        notice: Callable[[str], None] = no_notice,
        tell: Tell = tell_nobody,
    ) -> bool:
        """Train to the end of the schedule; return whether it was reached.

        Saves and raises Interrupted when the user stops it, StyleCLIError when the watchdog does.
        ``deadline_seconds`` ends this session early, saved, by returning False. ``notice`` is told
        what the watchdog finds, ``tell`` every tick, metric and warning as JSON values.
        """
        self.oversight.notice, self.oversight.tell = notice, tell
        assert self.batches is not None
        with self._holding(), stop_requests() as asked:
            if self.session.batch_gpu is None:
                self.step.adapt = self._note_smaller_pass
            try:
                reached = self._train_until(asked, progress, deadline_seconds)
            finally:
                self.batches.close()
                self.step.adapt = None  # a circle would hold all tensors until the next collection
            if reached and self.ranks.is_main:
                run_folder.mark_finished(self.run, self.counters.nimg)
        return reached

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """Own the run's files while this session trains, brought to where it continues (main rank).

        Nobody else can write them meanwhile, and what a crash left behind is cleared away.
        """
        if not self.ranks.is_main:
            yield
            return
        nimg = self.counters.nimg
        with run_folder.held(self.run):
            if run_folder.checkpoint_mark(self.run) != self._began_at:
                raise DataError(
                    f"another process trained {self.run} meanwhile: run the same command again"
                )
            run_folder.rewind_statistics(self.run, nimg)
            if self.counters.rollbacks:  # a crash may have cut one short
                checkpoints.take_back(self.run, nimg)
            checkpoints.repair_best(self.run, nimg)
            if not self._begins:  # a crash may have come between saving and what follows it
                checkpoints.note_saved(self.run, nimg)
                checkpoints.remove_old_snapshots(self.run, self.session.keep)
            event = "started" if self._begins else "resumed"
            products = self.step.products
            run_folder.append_event(self.run, {"nimg": nimg, "event": event, "products": products})
            self.oversight.go_on_from(nimg)
            if self._begins:
                checkpoints.save_reals(self.run, self.dataset)
                self.oversight.add_sheet(
                    checkpoints.save_sheet(self.run, self.bundle, self.settings, nimg), nimg
                )
            try:
                yield
            finally:
                self.oversight.close()

    def _train_until(
        self, asked: Callable[[], bool], progress: Progress, deadline_seconds: float | None
    ) -> bool:
        """Train to the end and return True, or to the deadline and return False."""
        total = round(self.config.total_kimg * 1000)
        started, base_seconds = time.monotonic(), self.counters.seconds
        self._make_up_for_measuring(total)
        self.meter.start(self.counters)
        while self.counters.nimg < total:
            now = self._schedule(self.counters.nimg)
            self.step.set_stage(now, reset=resets_optimizer(self.stage, now))
            self.stage = now
            for _ in range(self.config.minibatch_repeats):
                self._train_batch(now)
            counters = self.counters
            session_seconds = time.monotonic() - started
            counters.seconds = base_seconds + session_seconds
            late = deadline_seconds is not None and session_seconds > deadline_seconds
            stop = self.ranks.any_of(asked(), late)
            ended = counters.nimg >= total or any(stop)
            tick = counters.nimg >= counters.tick_start_nimg + now.tick_kimg * 1000
            if self.ranks.is_main:
                note = ", ".join(
                    filter(None, (describe_stage(now, self.settings.network), self._note))
                )
                progress(min(counters.nimg, total) / 1000, total / 1000, note)
            if not (tick or ended):
                continue
            verdict = self._end_tick(now)
            if verdict != "rollback" and (
                ended or verdict or counters.tick % self.config.snapshot_ticks == 0
            ):
                verdict = self._snapshot(verdict, measure=not any(stop))
            if self._obey(verdict):
                continue
            if stop[0]:
                if self.ranks.is_main:
                    run_folder.append_event(
                        self.run, {"nimg": counters.nimg, "event": "stopped", "text": "Ctrl-C"}
                    )
                raise Interrupted(
                    f"stopped and saved at {counters.nimg / 1000:g} of "
                    f"{self.config.total_kimg:g} kimg: run the same command to continue"
                )
            if stop[1]:
                return False
            self.meter.start(counters)
        return True

    def _make_up_for_measuring(self, total: int) -> None:
        """Measure the snapshot that this session continues, if the last one ended before it did.

        So that a run is measured where an unbroken one is. A snapshot of Ctrl-C is in neither.
        """
        counters = self.counters
        last = counters.nimg >= total
        if self._begins or not (last or counters.tick % self.config.snapshot_ticks == 0):
            return
        network = snapshot_path(self.run, counters.nimg)

        def measure() -> str:
            if not network.exists() or run_folder.is_measured(self.run, counters.nimg):
                return ""
            return self.oversight.snapshot(counters, self.bundle, network, last=last)

        self._obey(self._decide(measure))

    def _train_batch(self, stage: Stage) -> None:
        assert self.batches is not None
        with self.meter.loader.waiting():
            batch = self.batches.next(stage.batch * self.config.batches_of_reals, stage.level)
        images, labels = self.batches.on_device(batch)
        if not self.settings.network.label_dim:
            labels = None  # a labelled dataset can train an unconditional network
        self.step(images, labels, stage, self.counters.step)
        self.counters.nimg += stage.batch
        self.counters.step += 1
        self.counters.position = self.loader.position

    def _note_smaller_pass(self, text: str) -> None:
        if self.ranks.is_main:
            self.oversight.warn(self.counters.nimg, text, "memory")

    def _end_tick(self, stage: Stage) -> str:
        """Write the tick down; return the verdict on it that all ranks agree on."""
        self.counters.tick += 1
        self.counters.tick_start_nimg = self.counters.nimg
        statistics = self.step.take_statistics()
        row = self.meter.row(self.counters, stage, statistics)
        self._note = describe_row(row)
        rollbacks = self.counters.rollbacks
        return self._decide(lambda: self.oversight.tick(row, self.step.G_ema, stage, rollbacks))

    def _decide(self, judge: Callable[[], str]) -> str:
        """Let the main rank judge, however long it takes; return its verdict on all ranks."""
        return str(self.ranks.from_main(self.ranks.main_alone(judge)))

    def _obey(self, verdict: str) -> bool:
        """Stop as the watchdog demands, or take the run back and return True."""
        if verdict == "stop":
            if self.ranks.is_main:
                why = self.oversight.describe_stop()
                run_folder.append_event(
                    self.run, {"nimg": self.counters.nimg, "event": "stopped", "text": why}
                )
                raise StyleCLIError(why)
            raise Interrupted("stopped by the main process")
        if verdict == "rollback":
            self._roll_back()
        return verdict == "rollback"

    def _roll_back(self) -> None:
        """Go back to the best checkpoint, else the newest, and on with other random numbers."""
        left = self.counters
        source = checkpoints.rollback_source(self.run)
        assert source is not None  # or the verdict had been to stop
        self._load(source)
        self.counters.seconds, self.counters.rollbacks = left.seconds, left.rollbacks + 1
        self._follow_seed()
        self.ranks.any(False)  # all have read before the file is replaced
        if self.ranks.is_main:
            nimg = self.counters.nimg
            # First of all the state: a crash from here on does not forget the rollback, and the
            # next session takes away what is undone.
            checkpoints.save_state(self.run, self.settings, self.bundle, self.step, self.counters)
            run_folder.rewind_statistics(self.run, nimg)
            checkpoints.take_back(self.run, nimg)
            checkpoints.forget_last_good(self.run)
            self.oversight.rolled_back(left.nimg, nimg, self.counters.rollbacks)
        self.meter.start(self.counters)

    def _snapshot(self, verdict: str, *, measure: bool) -> str:
        """Write network, sample sheet and checkpoint, then measure; return the agreed verdict."""
        return self._decide(lambda: self._save_and_measure(verdict, measure=measure))

    def _save_and_measure(self, verdict: str, *, measure: bool) -> str:
        if verdict:  # to stop: what is saved now may be past repair
            checkpoints.keep_last_good(self.run)
        saved = checkpoints.save_snapshot(
            self.run, self.settings, self.bundle, self.step, self.counters
        )
        self.oversight.add_sheet(saved.sheet, self.counters.nimg)
        if measure and not verdict:
            last = self.counters.nimg >= self.config.total_kimg * 1000
            verdict = self.oversight.snapshot(self.counters, self.bundle, saved.network, last=last)
        if not verdict:
            checkpoints.forget_last_good(self.run)
        checkpoints.remove_old_snapshots(self.run, self.session.keep)
        return verdict


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the user asked to stop (Ctrl-C or SIGTERM).

    Training then finishes the step, saves and stops.

    The first request is only noted; a second Ctrl-C interrupts at once, as without this.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signal handlers belong to the main thread
        return
    previous = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: types.FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for name in previous:
        signal.signal(name, note)
    try:
        yield asked.is_set
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
