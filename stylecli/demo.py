"""The whole tool in one command: faces, dataset, training, pictures, numbers, a page.

``demo/`` afterwards holds ``dataset.lmdb``, ``run/``, ``fakes.png``, ``mix.png``,
``truncation.png``, ``interpolation.mp4``, ``metrics.json`` and ``report.html``. Every step that
is done is kept, so that the same command continues after an interruption.
"""

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stylecli import __version__, files, shipped
from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import make_demo_dataset
from stylecli.data.reader import open_dataset
from stylecli.distributed.ranks import Ranks
from stylecli.errors import DataError, UsageError, plural
from stylecli.images import Pictures, save_png
from stylecli.latents.walks import draw_walk
from stylecli.metrics.evaluation import evaluate
from stylecli.networks.config import NoiseMode
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.progress import Progress
from stylecli.provenance import make_provenance
from stylecli.rendering import Drawing
from stylecli.report.demo_page import (
    FACES_KIMG,
    WaitingPage,
    describe_faces,
    write_demo_page,
)
from stylecli.sheets.fakes import draw_fakes
from stylecli.sheets.mixing import draw_mixing_sheet
from stylecli.sheets.paper import draw_truncation_sweep
from stylecli.styles import style_bands
from stylecli.training.costs import measure_stages
from stylecli.training.loop import TrainingLoop
from stylecli.training.plan import TrainingPlan, plan_training
from stylecli.training.presets import SMALL_PHASE_SHARE
from stylecli.training.run_folder import (
    RunSettings,
    create_run,
    held,
    is_finished,
    load_settings,
)
from stylecli.training.run_setup import choose_planar_gradients
from stylecli.video import write_video
from stylecli.workspace import DEMO_FILE, RUN_FILE, check_demo_folder, is_passing, newest_snapshot

RESOLUTION = 32
FACES = 2000
PSI = 0.7
NOISE_MODE: NoiseMode = "none"  # after minutes of training noise is still rougher than helpful
SCALE = 3
VIDEO_SECONDS, VIDEO_FPS = 8, 20
KID_PICTURES = 500
PPL_PAIRS = 200
METRICS = {
    "kid@efficientnet-lite0": KID_PICTURES,
    "diversity": KID_PICTURES,
    "ppl_wfull": PPL_PAIRS,
}
# Training may run over its calibrated time by this much before it is cut short.
PATIENCE, GRACE_SECONDS = 1.10, 15.0

ProgressFactory = Callable[[str, str], AbstractContextManager[Progress]]
Say = Callable[[str], None]
Show = Callable[[Pictures], None]  # one picture [H, W, C]


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind."""

    folder: Path
    network: Path
    report: Path
    metrics: list[dict[str, Any]]
    finished: bool  # whether the schedule was trained to its end
    seconds: float


def run_demo(
    folder: Path,
    *,
    minutes: float,
    seed: int,
    ranks: Ranks,
    progress: ProgressFactory,
    say: Say,
    show: Show = lambda picture: None,
    force: bool = False,
) -> DemoResult:
    """Make the demo in ``folder`` with ``minutes`` of training; continue what is there.

    ``ranks`` train together; those other than the main one call ``follow_demo``. ``force`` starts
    over. ``show`` is handed faces to look at meanwhile. Raises UsageError when the folder holds a
    demo of another length or seed, or other files, DataError when another process makes a demo
    there or the ``demo`` extra is missing, Interrupted on Ctrl-C, with everything saved.
    """
    started = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"folder {folder} cannot be made ({error.strerror}): give another --out"
        ) from None
    with held(folder):
        _claim(folder, minutes, seed, force=force)
        waiting = _show_shipped(folder, say, show)
        return _fill(folder, minutes, seed, ranks, progress, say, waiting, started)


def follow_demo(ranks: Ranks) -> None:
    """Take part in the demo as a rank other than the main one."""
    for task in iter(ranks.from_main, None):
        run = Path(task["run"])
        if task["calibrate"]:
            measure_stages(run, ranks)
        else:
            TrainingLoop(run, ranks).train()


def stored_ranks(folder: Path) -> int | None:
    """Return how many processes train the demo in ``folder``, None where there is none.

    It continues with as many: another number would round differently.
    """
    run = folder / "run"
    return load_settings(run).ranks if (run / RUN_FILE).exists() else None


def is_trained(folder: Path) -> bool:
    """Whether the demo's network is trained to the end of its schedule."""
    return (folder / "run" / RUN_FILE).exists() and is_finished(folder / "run")


def _show_shipped(folder: Path, say: Say, show: Show) -> WaitingPage | None:
    """Write a page with the faces of the network that comes with stylecli, and show some."""
    if shipped.shipped_network() is None or is_trained(folder):
        return None
    page = WaitingPage(folder)
    page.write("This computer draws faces to learn from.")
    show(page.first_faces())
    say(f"faces of the network that comes with stylecli, to look at meanwhile: open {page.path}")
    return page


def _fill(
    folder: Path,
    minutes: float,
    seed: int,
    ranks: Ranks,
    progress: ProgressFactory,
    say: Say,
    waiting: WaitingPage | None,
    started: float,
) -> DemoResult:
    with ranks.alone(), progress("drawing faces", "faces") as report:
        dataset = make_demo_dataset(
            folder / "dataset.lmdb", count=FACES, resolution=RESOLUTION, progress=report
        )
    run = folder / "run"
    if not (run / RUN_FILE).exists():
        say("measuring the speed of this machine: a few seconds of training at every stage")
        plan = _calibrated_plan(folder, dataset, minutes, seed, ranks)
        create_run(run, _settings(plan, dataset))
        say(
            f"schedule: {plan.training.total_kimg:.1f} kimg (thousand images) through 8, 16 and "
            f"{RESOLUTION} px in about {minutes:g} minutes"
        )
        say(describe_prospect(plan.training.total_kimg, minutes))
    finished = is_finished(run)
    if not finished:
        ranks.from_main({"run": str(run.resolve()), "calibrate": False})
        with progress("training", "kimg") as report:
            finished = TrainingLoop(run, ranks).train(
                progress=waiting.follow(report) if waiting else report,
                deadline_seconds=minutes * 60 * PATIENCE + GRACE_SECONDS,
            )
        if not finished:
            say(
                "this machine slowed down and training stopped early: run the same command to "
                "continue"
            )
    ranks.from_main(None)  # the others are done
    network = newest_snapshot(run)
    assert network is not None
    net = load_network(network)
    with progress("drawing pictures", "steps") as report:
        draw_pictures(folder, net, network, report)
    with progress("measuring", "steps") as report:
        results = measure(folder, net, network, dataset, report)
    page = write_demo_page(folder, minutes, results)
    return DemoResult(folder, network, page, results, finished, time.monotonic() - started)


def describe_prospect(kimg: float, minutes: float) -> str:
    """Say what so many thousand images bring, and which ``--minutes`` would bring faces here."""
    if kimg >= FACES_KIMG:
        return f"expect {describe_faces(kimg)}"
    needed = math.ceil(minutes * FACES_KIMG / kimg)
    return (
        f"expect {describe_faces(kimg)}: this machine is too slow for faces in "
        f"{plural(minutes, 'minute')}; for heads with eyes, run stylecli demo --minutes {needed} "
        f"--out longer"
    )


def _claim(folder: Path, minutes: float, seed: int, *, force: bool) -> None:
    """Note what the folder is for; refuse one that was started otherwise, or empty it."""
    check_demo_folder(folder, minutes, seed, force=force)
    path = folder / DEMO_FILE
    if force:
        # What a killed process left of temporary files is no other file.
        for item in folder.iterdir():
            if item == path or is_passing(item):
                continue
            shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
        path.unlink(missing_ok=True)  # last, so that the same command continues after a kill
    if not path.exists():
        files.write_json(path, {"minutes": minutes, "seed": seed, "stylecli": __version__})


def _settings(plan: TrainingPlan, dataset: Path) -> RunSettings:
    digest = open_dataset(dataset).digest
    return RunSettings(plan.network, plan.training, dataset, digest, plan.ranks, "cpu")


def _plan(kimg: float, seed: int, ranks: int) -> TrainingPlan:
    plan = plan_training(
        "small", resolution=RESOLUTION, ranks=ranks, training={"total_kimg": kimg, "seed": seed}
    )
    return choose_planar_gradients(plan, "cpu")


def _calibrated_plan(
    folder: Path, dataset: Path, minutes: float, seed: int, ranks: Ranks
) -> TrainingPlan:
    """Measure a step at every stage; return the plan whose schedule fills the minutes."""
    with files.scratch_folder(folder, "calibration") as scratch:
        trial = scratch / "run"
        create_run(trial, _settings(_plan(1.0, seed, ranks.count), dataset))
        ranks.from_main({"run": str(trial.resolve()), "calibrate": True})
        costs = measure_stages(trial, ranks)
    *early, last = (cost.seconds_per_image for cost in costs.values())
    mean = SMALL_PHASE_SHARE * sum(early) + (1 - SMALL_PHASE_SHARE * len(early)) * last
    # Sheets, checkpoints and reports take about three hundredths beside the steps themselves.
    kimg = minutes * 60 * 0.97 / mean / 1000
    return _plan(max(round(kimg, 2), 0.5), seed, ranks.count)


def draw_pictures(folder: Path, net: Bundle, network: Path, progress: Progress) -> None:
    """Write fakes.png, mix.png, truncation.png and interpolation.mp4."""
    G = net.generator
    digest = network_digest(network)

    def made(command: str, **settings: Any) -> dict[str, Any]:
        """Say how a file was made; `stylecli info` prints the command that makes it again."""
        shared = {"psi": PSI, "noise_mode": NOISE_MODE, "scale": SCALE, "device": "cpu"}
        return make_provenance(command, network, digest, {**shared, **settings})

    def figure(name: str) -> dict[str, Any]:
        """Say what a sheet is that no single command makes."""
        source = {"file": network.name, "sha256": digest}
        return {"tool": f"stylecli {__version__}", "network": source, "figure": name}

    drawing = Drawing(psi=PSI, noise_mode=NOISE_MODE, scale=SCALE)
    steps = 4
    progress(0, steps, "fakes.png")
    fakes = draw_fakes(net, range(64), 8, drawing)
    save_png(folder / "fakes.png", fakes, made("generate", seeds="0-63", grid=True, columns=8))
    progress(1, steps, "mix.png")
    sheets = [
        draw_mixing_sheet(G, range(100, 104), range(200, 206), layers, drawing)
        for layers in style_bands(G.config.style_sides).values()
        if layers
    ]
    gap = np.full((4 * SCALE, *sheets[0].shape[1:]), 255, np.uint8)
    mix = np.concatenate([part for sheet in sheets for part in (sheet, gap)][:-1])
    save_png(folder / "mix.png", mix, figure("style mixing: coarse, middle, fine"))
    progress(2, steps, "truncation.png")
    sweep = draw_truncation_sweep(G, range(4), drawing=drawing)
    save_png(folder / "truncation.png", sweep, figure("truncation sweep"))
    progress(3, steps, "interpolation.mp4")
    columns, rows, keys = 3, 2, 3  # six cells, each a closed walk through three seeds
    seeds, frames = range(columns * rows * keys), VIDEO_SECONDS * VIDEO_FPS
    walk = draw_walk(
        G, seeds, frames, drawing=replace(drawing, scale=SCALE + 1), grid=(columns, rows)
    )
    how = made("interpolate", seeds=f"0-{len(seeds) - 1}", grid=f"{columns}x{rows}",
               seconds=VIDEO_SECONDS, fps=VIDEO_FPS, scale=SCALE + 1)  # fmt: skip
    write_video(folder / "interpolation.mp4", walk, VIDEO_FPS, total=frames, provenance=how)
    progress(4, steps)


def measure(
    folder: Path, net: Bundle, network: Path, dataset: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Measure the network, write metrics.json; numbers already there for it are kept."""
    path = folder / "metrics.json"
    digest = network_digest(network)
    kept = _kept_results(path, digest)
    if kept is not None:
        progress(1, 1)
        return kept
    measured = evaluate(
        list(METRICS), net, open_dataset(dataset), samples=METRICS, device="cpu",
        network_digest=digest, progress=progress,
    )  # fmt: skip
    results = [result.to_dict() for result in measured]
    files.write_json(path, {"network": digest, "stylecli": __version__, "results": results})
    return results


def _kept_results(path: Path, digest: str) -> list[dict[str, Any]] | None:
    """Return the numbers of a network that were measured before; None where they are not whole."""
    try:
        found = files.read_json(path)
    except (FileNotFoundError, DataError):
        return None
    rows = found.get("results")
    if found.get("network") != digest or found.get("stylecli") != __version__:
        return None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and (row.get("value") is None or files.is_number(row["value"]))
        for row in rows
    ):
        return None
    return rows
