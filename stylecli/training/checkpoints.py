"""What a run saves: checkpoints, networks and sample sheets; which stay, and where it goes back to.

A checkpoint is everything a run needs to continue as if it had never stopped, in one safetensors
file: networks, optimizer moments by parameter name, and the counters in its header. Random numbers
are a function of seed and step, so there is no random state to keep. ``events.jsonl`` says which
files training wrote; when snapshots get old no other file is removed.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from stylecli import files, rendering, sampling
from stylecli.checkpoint import (
    load_state,
    network_header,
    network_tensors,
    read_tensors,
    save_network,
    write_tensors,
)
from stylecli.data.reader import Dataset
from stylecli.errors import NetworkError
from stylecli.files import check_room, room_for
from stylecli.images import Pictures, make_grid, save_png, visible_scale
from stylecli.networks.headers import read_header
from stylecli.networks.model import Bundle
from stylecli.shapes import Size
from stylecli.training.optimizer import Adam, FlatParameters
from stylecli.training.run_folder import (
    RunSettings,
    append_event,
    lesser_is_better,
    read_events,
    rewind_measurements,
)
from stylecli.training.step import TrainingStep
from stylecli.workspace import (
    BEST_CHECKPOINT_FILE,
    BEST_FILE,
    CHECKPOINT_FILE,
    LAST_GOOD_FILE,
    read_best,
    saved_at,
    sheet_path,
    snapshot_path,
)

SHEET_SIDE = 8  # a sample sheet has 8 × 8 pictures
MAX_ROLLBACKS = 3  # in a run; other random numbers did not help, so settings must


@dataclass
class Counters:
    """Where a run stands."""

    nimg: int = 0  # real images shown
    step: int = 0  # batches trained on
    position: int = 0  # of the data stream
    tick: int = 0
    tick_start_nimg: int = 0
    seconds: float = 0.0  # spent training, all sessions together
    rollbacks: int = 0  # times the run was taken back; each changes the random numbers


@dataclass(frozen=True)
class Snapshot:
    """What was saved at one moment, beside the checkpoint."""

    network: Path
    sheet: Pictures  # [H, W, C]


def save_snapshot(
    run: Path, settings: RunSettings, bundle: Bundle, step: TrainingStep, counters: Counters
) -> Snapshot:
    """Write network, sample sheet and checkpoint, in this order, each atomically.

    A checkpoint that is there therefore has its network and sheet. Raises StyleCLIError, with
    everything as it was, when the disk has no room for all of them.
    """
    state = checkpoint_tensors(bundle, step)
    size = sum(tensor.nbytes for tensor in state.values())
    networks = sum(tensor.nbytes for tensor in network_tensors(bundle).values())
    sheet_size = sheet_bytes(settings.network.size, settings.network.channels)
    check_room(run, size + networks + sheet_size)
    network = snapshot_path(run, counters.nimg)
    save_network(network, bundle, extra=_info(settings, step, counters))
    place = sheet_path(run, counters.nimg)
    with room_for(place, sheet_size):
        sheet = save_sheet(run, bundle, settings, counters.nimg)
    save_state(run, settings, bundle, step, counters)
    note_saved(run, counters.nimg)
    return Snapshot(network, sheet)


def note_saved(run: Path, nimg: int) -> None:
    """Write down which files a snapshot consists of, unless that is done."""
    if any(row["event"] == "saved" and row["nimg"] == nimg for row in read_events(run)):
        return
    files = [snapshot_path(run, nimg).name, sheet_path(run, nimg).name]
    append_event(run, {"nimg": nimg, "event": "saved", "files": files})


def save_state(
    run: Path, settings: RunSettings, bundle: Bundle, step: TrainingStep, counters: Counters
) -> None:
    """Write the run's checkpoint, and nothing else."""
    info = {**bundle.info, **_info(settings, step, counters)}
    save_checkpoint(run / CHECKPOINT_FILE, bundle, step, counters, info)


def save_checkpoint(
    path: Path, bundle: Bundle, step: TrainingStep, counters: Counters, info: dict[str, Any]
) -> None:
    """Write a checkpoint atomically: temporary name, fsync, rename."""
    header = network_header(bundle, info)
    header["training"] = {
        "counters": asdict(counters),
        "adam_steps": {"G": int(step.adam_G.steps), "D": int(step.adam_D.steps)},
        "loss_scales": {"G": step.scaler_G.state(), "D": step.scaler_D.state()},
        "augmentation": step.augmentation.state(),
        "path_mean": float(step.gradients.path_mean),
        "settings": step.config.to_dict(),
    }
    write_tensors(path, checkpoint_tensors(bundle, step), header)


def checkpoint_tensors(bundle: Bundle, step: TrainingStep) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint: networks, and the moments of both optimizers."""
    tensors = network_tensors(bundle)
    tensors.update(_moments("optimizer_G", step.flat_G, step.adam_G))
    tensors.update(_moments("optimizer_D", step.flat_D, step.adam_D))
    return tensors


def load_checkpoint(path: Path, bundle: Bundle, step: TrainingStep) -> Counters:
    """Bring networks and optimizers to a checkpoint; return its counters.

    Raises NetworkError when the file is no training checkpoint or does not fit the networks.
    """
    header, tensors = read_tensors(path)
    try:
        training = header["training"]
        counters = Counters(**training["counters"])
        bundle.info = {**bundle.info, **inherited_info(header.get("info", {}))}
        scales = training.get("loss_scales", {})  # earlier versions had none
        step.scaler_G.restore(scales.get("G", {}))
        step.scaler_D.restore(scales.get("D", {}))
        step.augmentation.restore(training.get("augmentation", {}))
        step.gradients.path_mean.fill_(float(training.get("path_mean", 0.0)))
        adam_steps = training["adam_steps"]
        step.adam_G.steps.fill_(int(adam_steps["G"]))
        step.adam_D.steps.fill_(int(adam_steps["D"]))
    except (KeyError, TypeError, ValueError):
        raise NetworkError(f"{path} is not a training checkpoint") from None
    for name in ("G", "D", "G_ema"):
        network = getattr(bundle, name)
        load_state(path, name, network, tensors)
        network.lod = float(header["lods"].get(name, 0.0))
    try:
        _fill(tensors, "optimizer_G", step.flat_G, step.adam_G)
        _fill(tensors, "optimizer_D", step.flat_D, step.adam_D)
    except (KeyError, RuntimeError) as error:
        raise NetworkError(f"{path} has no optimizer state that fits: {error}") from None
    return counters


def load_networks(path: Path, bundle: Bundle) -> None:
    """Bring networks to what a network file of their configuration holds, and take over its info.

    Optimizers and counters stay fresh. Raises NetworkError when the file does not fit.
    """
    header, tensors = read_tensors(path)
    for name in ("G", "D", "G_ema"):
        network = getattr(bundle, name)
        load_state(path, name, network, tensors)
        network.lod = float(header["lods"].get(name, 0.0))
    bundle.info = {**bundle.info, **inherited_info(header.get("info", {}))}


def inherited_info(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what networks keep of the file they started from: where it came from, its licence."""
    return {key: value for key, value in info.items() if key.startswith("source")}


def _info(settings: RunSettings, step: TrainingStep, counters: Counters) -> dict[str, Any]:
    return {
        "data_digest": settings.dataset_digest,
        "seed": settings.training.seed,
        "kimg": counters.nimg / 1000,
        "products": step.products,  # of this session; an earlier one may have had others
    }


def _vectors(adam: Adam) -> dict[str, Tensor]:
    vectors = {"square": adam.square}
    if adam.mean is not None:
        vectors["mean"] = adam.mean
    return vectors


def _moments(prefix: str, flat: FlatParameters, adam: Adam) -> dict[str, Tensor]:
    return {
        f"{prefix}.{kind}.{name}": view
        for kind, vector in _vectors(adam).items()
        for name, view in flat.named(vector).items()
    }


def _fill(tensors: dict[str, Tensor], prefix: str, flat: FlatParameters, adam: Adam) -> None:
    for kind, vector in _vectors(adam).items():
        for name, view in flat.named(vector).items():
            view.copy_(tensors[f"{prefix}.{kind}.{name}"])


def sheet_bytes(size: Size, channels: int) -> int:
    """Return about how many bytes a sample sheet takes on disk: PNG halves pictures, or better."""
    times = SHEET_SIDE * visible_scale(max(size), at_least=64)
    return times**2 * size.pixels * channels // 2


def save_sheet(run: Path, bundle: Bundle, settings: RunSettings, nimg: int) -> Pictures:
    """Draw the averaged generator's pictures of seeds 0 to 63; return the sheet [H, W, C]."""
    net = Bundle(settings.network, G_ema=bundle.G_ema)
    drawing = rendering.Drawing(
        psi=settings.training.sample_psi if settings.network.has_w else 1.0,
        noise_mode=settings.training.sample_noise,  # type: ignore[arg-type]
    )
    pictures = sampling.draw_seeds(net, range(SHEET_SIDE**2), drawing)
    grid = _sheet([picture for _, picture in pictures])
    save_png(sheet_path(run, nimg), grid, {"kind": "training sheet"})
    return grid


def save_reals(run: Path, dataset: Dataset) -> None:
    """Show the dataset's first 64 pictures as ``reals.png``."""
    count = min(SHEET_SIDE**2, len(dataset))
    reals = dataset.read(range(count)).transpose(0, 2, 3, 1)  # [N, H, W, C]
    save_png(run / "reals.png", _sheet(list(reals)), {"kind": "real pictures"})


def _sheet(pictures: list[Pictures]) -> Pictures:
    scale = visible_scale(max(pictures[0].shape[:2]), at_least=64)
    return make_grid(np.stack(pictures), SHEET_SIDE, scale=scale)


def keep_best(run: Path, nimg: int, row: Mapping[str, Any]) -> bool:
    """Keep the full state of the snapshot just saved if ``row`` says it is the best so far.

    ``row`` is the first metric measured of it: {"name", "value", ...}; less is better unless it
    says otherwise. Its network is named in
    ``best.json``, its state is in ``checkpoint-best.safetensors``. A run measured by another metric
    than before starts its comparison over. Returns whether it was the best.
    """
    value = row.get("value")
    if not isinstance(value, int | float) or value != value:  # skipped, or not a number
        return False
    best = read_best(run)
    lesser = lesser_is_better(row)
    if best and best["metric"] == row["name"] and best["nimg"] <= nimg:
        if not (value < best["value"] if lesser else value > best["value"]):
            return False
    found = {
        "network": snapshot_path(run, nimg).name,
        "nimg": nimg, "kimg": nimg / 1000, "metric": row["name"], "value": value,
        "higher_is_better": not lesser,
    }  # fmt: skip
    files.write_json(run / BEST_FILE, found)
    _copy_best(run)
    return True


def repair_best(run: Path, nimg: int) -> None:
    """Finish what a crash interrupted: the best checkpoint of a run that continues at ``nimg``."""
    best = read_best(run)
    if best and best["nimg"] == nimg and _state_nimg(run / BEST_CHECKPOINT_FILE) != nimg:
        _copy_best(run)


def remove_old_snapshots(run: Path, keep: int | None) -> list[Path]:
    """Remove networks and sheets older than the last ``keep`` snapshots; return what went.

    The best snapshot, the first sheet and whatever training did not write stay. None keeps all.
    """
    if keep is None:
        return []
    written: dict[int, set[str]] = {}
    for event in read_events(run):
        if event.get("event") == "saved":
            written.setdefault(event["nimg"], set()).update(event.get("files", ()))
    there = [
        nimg for nimg in sorted(written) if any((run / name).exists() for name in written[nimg])
    ]
    best = read_best(run)
    removed = []
    for nimg in there[:-keep]:
        if best and nimg == best["nimg"]:
            continue
        for name in sorted(written[nimg]):
            if saved_at(name) is not None and (run / name).exists():
                (run / name).unlink()
                removed.append(run / name)
    return removed


def _copy_best(run: Path) -> None:
    """Give the newest checkpoint a second name; where disks have no links, copy it."""
    source = run / CHECKPOINT_FILE
    with files.replacing(run / BEST_CHECKPOINT_FILE) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)  # a checkpoint is replaced, never written into
        except OSError:
            with files.room_for(run / BEST_CHECKPOINT_FILE, source.stat().st_size):
                shutil.copyfile(source, temporary)


def _state_nimg(path: Path) -> int | None:
    """Return where the run of a training checkpoint stood; None when there is no such file."""
    try:
        return int(read_header(path)["training"]["counters"]["nimg"])
    except (NetworkError, KeyError, TypeError):
        return None


def rollback_source(run: Path) -> Path | None:
    """Return the checkpoint to go back to: the best that was measured, else the last good one."""
    for name in (BEST_CHECKPOINT_FILE, LAST_GOOD_FILE, CHECKPOINT_FILE):
        if (run / name).exists():
            return run / name
    return None


def keep_last_good(run: Path) -> None:
    """Set the newest checkpoint aside, because the next one will hold what went wrong."""
    if (run / CHECKPOINT_FILE).exists() and not (run / LAST_GOOD_FILE).exists():
        with files.replacing(run / LAST_GOOD_FILE) as copy:
            shutil.copyfile(run / CHECKPOINT_FILE, copy)


def forget_last_good(run: Path) -> None:
    """Remove what ``keep_last_good`` set aside: the run is well, or was taken back."""
    (run / LAST_GOOD_FILE).unlink(missing_ok=True)


def take_back(run: Path, nimg: int) -> None:
    """Remove what training beyond ``nimg`` images left, which is undone, but for statistics.

    Those are networks, sample sheets and measurements. Doing it twice does no harm.
    """
    rewind_measurements(run, nimg)
    for path in run.iterdir():
        written = saved_at(path.name)
        if written is not None and written > nimg:
            path.unlink()
