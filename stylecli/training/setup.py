"""What a run trains with: its networks, its dataset, and batches that fit its processes."""

from pathlib import Path

import torch

from stylecli.checkpoint import network_digest
from stylecli.data.reader import Dataset, open_dataset
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.networks.bundle import Bundle, new_network
from stylecli.training.optimizer import frozen_layers
from stylecli.training.passes import count_passes
from stylecli.training.run_folder import Origin, RunSettings
from stylecli.training.schedule import batch_at, list_sides
from stylecli.workspace import INITIAL_FILE, RUN_FILE


def build_networks(settings: RunSettings) -> Bundle:
    """Make a run's fresh networks; the same settings give the same weights on every rank."""
    values = settings.network.to_dict()
    values.pop("family")
    preset = values.pop("preset")
    return new_network(preset, seed=settings.training.seed, **values)


def frozen_in(settings: RunSettings) -> list[str]:
    """Return the layers of D that a run keeps frozen; raise UsageError when it cannot."""
    count = settings.training.freeze_d
    if not count:
        return []
    if settings.origin is None:
        raise UsageError(
            f"freeze_d {count} needs weights worth keeping: begin with a network, --resume PATH"
        )
    return frozen_layers(settings.network, count, settings.origin.resolution)


def label_table(dataset: Dataset) -> torch.Tensor | None:
    """Return the dataset's labels as rows [N, label_dim], or None when it has none."""
    if dataset.labels is None or not dataset.label_dim:
        return None
    labels = torch.as_tensor(dataset.labels)
    if labels.ndim == 1:
        return torch.nn.functional.one_hot(labels.long(), dataset.label_dim).float()
    return labels.float()


def check_batches(settings: RunSettings, batch_gpu: int | None = None) -> None:
    """Raise UsageError for a batch that cannot be dealt to ranks, passes and stddev groups."""
    group = settings.network.mbstd_group_size
    for side in list_sides(settings.training, settings.network.resolution):
        batch = batch_at(settings.training, side)
        share, rest = divmod(batch, settings.ranks)
        if rest or (group > 1 and share % min(group, max(share, 1))):
            raise UsageError(
                f"batch {batch} at {side} px does not divide into {settings.ranks} "
                f"processes and minibatch-stddev groups of {group}"
            )
        count_passes(share, batch_gpu, group)


def check_precision(settings: RunSettings) -> None:
    """Raise UsageError for a precision that the device does not compute in."""
    if settings.training.precision == "fp16" and settings.device != "cuda":
        raise UsageError(
            f"--precision fp16 is for CUDA, not for {settings.device}: give bf16 or float32"
        )


def initial_file(run: Path, origin: Origin) -> Path:
    """Return where a run of ``--resume`` begins; raise NetworkError for another file than then."""
    path = run / INITIAL_FILE
    if not path.is_file():
        raise NetworkError(f"{path}, with which this run was started, is gone: put it back")
    wanted = origin.initial or (origin.digest if origin.continued else None)
    if wanted is not None and (found := network_digest(path)) != wanted:
        raise NetworkError(
            f"{path} is not the file that this run was started with: its SHA-256 is {found[:12]}, "
            f"{RUN_FILE} says {wanted[:12]}. Start a new run: stylecli train --resume "
            f"{origin.source} --out another folder"
        )
    return path


def open_matching(settings: RunSettings) -> Dataset:
    """Open the run's dataset; raise DataError when it is another, or does not fit the network."""
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
