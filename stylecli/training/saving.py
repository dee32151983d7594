"""Training checkpoints: everything a run needs to go on as if it had never stopped.

One safetensors file: networks, optimizer moments by parameter name, and the counters in its
header. Random numbers are a function of seed and step, so there is no random state to keep.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stylecli.checkpoint import load_state, network_header, network_tensors, read_tensors
from stylecli.checkpoint import write_tensors as _write_tensors
from stylecli.errors import NetworkError
from stylecli.networks.bundle import Bundle
from stylecli.training.adam import Adam
from stylecli.training.flat_parameters import FlatParameters
from stylecli.training.step import TrainingStep


@dataclass
class Counters:
    """Where a run stands."""

    nimg: int = 0  # real images shown
    step: int = 0  # batches trained on
    position: int = 0  # of the data stream
    tick: int = 0
    tick_start_nimg: int = 0
    seconds: float = 0.0  # spent training, all sessions together


def save_checkpoint(
    path: Path, bundle: Bundle, step: TrainingStep, counters: Counters, info: dict[str, Any]
) -> None:
    """Write a checkpoint atomically: temporary name, fsync, rename."""
    header = network_header(bundle, {**info, "kimg": counters.nimg / 1000})
    header["training"] = {
        "counters": asdict(counters),
        "adam_steps": {"G": step.adam_G.steps, "D": step.adam_D.steps},
    }
    tensors = network_tensors(bundle)
    tensors.update(_moments("optimizer_G", step.flat_G, step.adam_G))
    tensors.update(_moments("optimizer_D", step.flat_D, step.adam_D))
    _write_tensors(path, tensors, header)


def load_checkpoint(path: Path, bundle: Bundle, step: TrainingStep) -> Counters:
    """Bring networks and optimizers to a checkpoint; return its counters.

    Raises NetworkError when the file is no training checkpoint or does not fit the networks.
    """
    header, tensors = read_tensors(path)
    try:
        training = header["training"]
        counters = Counters(**training["counters"])
        adam_steps = training["adam_steps"]
        step.adam_G.steps, step.adam_D.steps = int(adam_steps["G"]), int(adam_steps["D"])
    except (KeyError, TypeError, ValueError):
        raise NetworkError(f"{path} is not a training checkpoint") from None
    for name in ("G", "D", "G_ema"):
        network = getattr(bundle, name)
        load_state(path, name, network, tensors)
        network.lod = float(header["lods"][name])
    try:
        _fill(tensors, "optimizer_G", step.flat_G, step.adam_G)
        _fill(tensors, "optimizer_D", step.flat_D, step.adam_D)
    except (KeyError, RuntimeError) as error:
        raise NetworkError(f"{path} lacks a fitting optimizer state: {error}") from None
    return counters


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
