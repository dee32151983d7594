"""Training checkpoints: everything a run needs to go on as if it had never stopped.

One safetensors file: networks, optimizer moments by parameter name, and the counters in its
header. Random numbers are a function of seed and step, so there is no random state to keep.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stylecli.checkpoint import (
    load_state,
    network_header,
    network_tensors,
    read_tensors,
    save_network,
    write_tensors,
)
from stylecli.errors import NetworkError
from stylecli.files import check_room, room_for
from stylecli.images import Pictures
from stylecli.networks.bundle import Bundle
from stylecli.training.optimizer import Adam, FlatParameters
from stylecli.training.run_folder import RunSettings, append_event, read_events
from stylecli.training.sheets import save_sheet, sheet_bytes, sheet_path
from stylecli.training.step import TrainingStep
from stylecli.workspace import CHECKPOINT_FILE


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
    sheet_size = sheet_bytes(settings.network.resolution, settings.network.channels)
    check_room(run, size + networks + sheet_size)
    network = snapshot_path(run, counters.nimg)
    save_network(network, bundle, extra=_info(settings, counters))
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
    info = {**bundle.info, **_info(settings, counters)}
    save_checkpoint(run / CHECKPOINT_FILE, bundle, step, counters, info)


def snapshot_path(run: Path, nimg: int) -> Path:
    """Return where the networks after ``nimg`` images lie."""
    return run / f"network-snapshot-{nimg:09d}.safetensors"


def save_checkpoint(
    path: Path, bundle: Bundle, step: TrainingStep, counters: Counters, info: dict[str, Any]
) -> None:
    """Write a checkpoint atomically: temporary name, fsync, rename."""
    header = network_header(bundle, info)
    header["training"] = {
        "counters": asdict(counters),
        "adam_steps": {"G": step.adam_G.steps, "D": step.adam_D.steps},
        "loss_scales": {"G": step.scaler_G.state(), "D": step.scaler_D.state()},
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
        adam_steps = training["adam_steps"]
        step.adam_G.steps, step.adam_D.steps = int(adam_steps["G"]), int(adam_steps["D"])
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
        raise NetworkError(f"{path} lacks a fitting optimizer state: {error}") from None
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
    """Return what networks keep of the file they began with: where it came from, its licence."""
    return {key: value for key, value in info.items() if key.startswith("source")}


def _info(settings: RunSettings, counters: Counters) -> dict[str, Any]:
    return {
        "data_digest": settings.dataset_digest,
        "seed": settings.training.seed,
        "kimg": counters.nimg / 1000,
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
