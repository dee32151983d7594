"""How a run starts: its networks and dataset, checked; and with ``--resume`` from a file.

A training checkpoint whose architecture and dataset are the new run's continues with its full
state. From anything else weights are transferred, and training begins at its first image.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from stylecli import files
from stylecli.checkpoint import load_network, save_network
from stylecli.data.reader import Dataset, open_dataset
from stylecli.errors import DataError, NetworkError, UsageError, plural
from stylecli.hardware import choose_precision, quicker_precision, resolve_device
from stylecli.networks.config import NetworkConfig
from stylecli.networks.headers import network_digest, read_header
from stylecli.networks.model import Bundle, new_network
from stylecli.networks.registry import USUAL_CONFIG, make_config
from stylecli.ops.convolution import planar_gain
from stylecli.settings import of_dataset, with_tables
from stylecli.shapes import SQUARE, Grid
from stylecli.training.checkpoints import inherited_info
from stylecli.training.config import AUTO, NO_SIDES, TrainingConfig, training_from_dict
from stylecli.training.optimizer import frozen_layers
from stylecli.training.plan import (
    TRANSFER_AUGMENT_KIMG,
    Derived,
    TrainingPlan,
    plan_training,
    show_value,
)
from stylecli.training.run_folder import (
    Origin,
    RunChoice,
    RunSettings,
    choose_run,
    create_run,
    load_settings,
    making,
)
from stylecli.training.schedule import batch_at, count_passes, list_sides
from stylecli.training.transfer import grown_resolution, same_architecture, transfer_networks
from stylecli.training.transfer_table import TransferRow, describe_transfer
from stylecli.workspace import (
    BEST_CHECKPOINT_FILE,
    BEST_NAME,
    CHECKPOINT_FILE,
    INITIAL_FILE,
    RUN_FILE,
    best_snapshot,
    find_network,
    has_address,
    missing,
    newest_snapshot,
)

_PLANAR = "planar_gradients"
_CLEARLY = 1.1  # times as fast


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
            f"--freeze-d {count} needs a trained network to start from: add --resume PATH"
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


def resolve_precision(training: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return options of training with the precision that ``auto`` comes to on a kind of device."""
    if training.get("precision") != AUTO:
        return dict(training)
    return {**training, "precision": quicker_precision(torch.device(device))}


def choose_planar_gradients(plan: TrainingPlan, device: str) -> TrainingPlan:
    """Return the plan with the sides at which a trial finds planar weight gradients faster.

    Tried for float32 on a CPU, 20 to 60 ms a side, where the plan was not asked for sides.
    """
    training = plan.training
    if device != "cpu" or training.precision != "float32" or _PLANAR in plan.given:
        return plan
    chosen = faster_planar_sides(plan.network)
    reason = Derived(_PLANAR, chosen, "the faster in a trial on this processor")
    training = replace(training, planar_gradients=chosen)
    return replace(plan, training=training, derived=(*plan.derived, reason))


def faster_planar_sides(network: NetworkConfig) -> str:
    """Return where this processor computes weight gradients faster in planes, as settings have it.

    Only where it gains clearly, so that two trials hardly ever differ.
    """
    sides = [1 << r for r in range(2, network.resolution_log2 + 1)]
    faster = [side for side in sides if planar_gain(network.maps_at(side), side) > _CLEARLY]
    return ",".join(map(str, faster)) or NO_SIDES


def check_precision(settings: RunSettings, *, force: bool = False) -> None:
    """Raise UsageError for a precision that the device does not compute in, or only slowly.

    ``force`` takes a slow one.
    """
    if settings.training.precision == "fp16" and settings.device != "cuda":
        raise UsageError(
            f"--precision fp16 is for CUDA, not for {settings.device}: give bf16 or float32"
        )
    choose_precision(settings.training.precision, torch.device(settings.device), force=force)


def initial_file(run: Path, origin: Origin) -> Path:
    """Return where a run of ``--resume`` begins; raise NetworkError for another file than then."""
    path = run / INITIAL_FILE
    if not path.is_file():
        raise NetworkError(f"{path}, from which this run started, is gone: put it back")
    wanted = origin.initial or (origin.digest if origin.continued else None)
    if wanted is not None and (found := network_digest(path)) != wanted:
        raise NetworkError(
            f"{path} is not the file from which this run started: its SHA-256 is {found[:12]}, "
            f"not {wanted[:12]} as in {RUN_FILE}. Start a new run: stylecli train --resume "
            f"{origin.source} --out another folder"
        )
    return path


def open_matching(settings: RunSettings) -> Dataset:
    """Open the run's dataset; raise DataError when it is another, or does not fit the network."""
    dataset = open_dataset(settings.dataset)
    network = settings.network
    if dataset.digest != settings.dataset_digest:
        raise DataError(
            f"{settings.dataset} is not the dataset of this run: its digest is "
            f"{dataset.digest[:12]}, the run's {settings.dataset_digest[:12]}"
        )
    labels = dataset.label_dim if network.label_dim else 0
    found = (dataset.size, dataset.channels, labels)
    wanted = (network.size, network.channels, network.label_dim)
    if found != wanted:
        raise DataError(
            f"{settings.dataset} has {dataset.size} px, {plural(dataset.channels, 'channel')} and "
            f"{plural(labels, 'class', 'classes')}, and the network {network.size} px, "
            f"{plural(network.channels, 'channel')} and "
            f"{plural(network.label_dim, 'class', 'classes')}: pack the pictures again"
        )
    return dataset


@dataclass(frozen=True)
class StartingNetwork:
    """What ``--resume`` was given, read."""

    given: Path
    path: Path  # the file it led to
    digest: str  # its SHA-256
    net: Bundle
    nimg: int  # images it was trained on, 0 if not known
    data_digest: str | None  # of the dataset it was trained on
    training: TrainingConfig | None  # its settings, where the file holds the full state

    @property
    def resolution(self) -> int:
        """Side in pixels up to which its networks are grown."""
        return grown_resolution(self.net)


def open_source(given: Path) -> StartingNetwork:
    """Open a run (its newest checkpoint), RUN/best, a training checkpoint or a network file.

    Raises NetworkError when there is nothing to read, or it cannot be read.
    """
    path = _find_file(given)
    digest = network_digest(path)
    net = load_network(path)
    if net.G_ema is None and net.G is None:
        raise NetworkError(f"{path} holds no generator to start from: give another --resume")
    training = _read_training(path)
    nimg = round(float(net.info.get("kimg") or 0) * 1000)
    return StartingNetwork(given, path, digest, net, nimg, net.info.get("data_digest"), training)


@dataclass(frozen=True)
class NoDataset:
    """Pictures that a plan is made for without having them: only their size is known."""

    resolution: int
    channels: int = 3
    label_dim: int = 0
    path: Path = Path()
    digest: str = ""
    grid: Grid = SQUARE


def make_settings(
    dataset: Dataset | NoDataset,
    source: StartingNetwork | None,
    config: str | None,
    preset: str | None,
    device: str | None,
    ranks: int | None,
    labels: bool | None,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    batch_gpu: int | None = None,
    force: bool = False,
) -> tuple[RunSettings, TrainingPlan]:
    """Return the settings of a run, and the plan they come from; no ``device``: GPUs elsewhere.

    ``force`` takes a precision that is slow here.
    """
    name = "cuda"
    if device is not None:
        chosen = resolve_device(device)
        if chosen.index is not None:  # a run stores the kind of its device only
            torch.cuda.set_device(chosen)
        name = chosen.type
    plan, origin = plan_run(
        source,
        preset,
        config,
        dataset=dataset,
        labels=labels,
        device=name,
        cpus=os.cpu_count() or 1,
        ranks=ranks,
        network=network,
        training=resolve_precision(training, name),
    )
    if origin is None or not origin.continued:
        plan = choose_planar_gradients(plan, name)
    settings = RunSettings(
        plan.network, plan.training, dataset.path, dataset.digest, plan.ranks, name, origin
    )
    check_batches(settings, batch_gpu)
    if device is not None:
        check_precision(settings, force=force)
    frozen_in(settings)  # raises for layers that D has not
    return settings, plan


def plan_run(
    source: StartingNetwork | None,
    preset: str | None,
    config: str | None,
    *,
    dataset: Dataset | NoDataset,
    labels: bool | None,
    **settings: Any,
) -> tuple[TrainingPlan, Origin | None]:
    """Return the plan of a run, and its origin where it starts from ``source``.

    ``settings`` are those of ``plan_training``. Raises UsageError for a ``--config`` that is not
    the source's.
    """
    if labels and not dataset.label_dim:
        raise UsageError("--labels needs a dataset with classes: this one has none")
    if source is None:
        plan = plan_training(
            preset,
            config=config or USUAL_CONFIG,
            resolution=dataset.resolution,
            channels=dataset.channels,
            grid=dataset.grid,
            label_dim=dataset.label_dim if labels else 0,
            pictures=len(dataset) if isinstance(dataset, Dataset) else None,
            **settings,
        )
        return plan, None
    own = source.net.config.preset
    if config is not None and config.lower() != own:
        raise UsageError(
            f"--config {config} is not the configuration of {source.path}, {own}: leave --config "
            f"out, --resume reads it from the file"
        )
    assert isinstance(dataset, Dataset)  # plan takes no source
    return plan_resumed(source, preset, dataset=dataset, labels=labels, **settings)


def plan_resumed(
    source: StartingNetwork,
    preset: str | None,
    *,
    dataset: Dataset,
    labels: bool | None,
    network: Mapping[str, Any],
    training: Mapping[str, Any],
    **machine: Any,
) -> tuple[TrainingPlan, Origin]:
    """Return the plan of a run that starts from ``source`` on ``dataset``, and its origin.

    The architecture is the source's where ``network`` does not say otherwise. ``labels`` None
    keeps classes where source and dataset have as many. A continued run keeps the settings it had
    but for what ``training`` says; another one has the preset's, and grows
    from the resolution that the source is grown to. ``machine`` goes to ``plan_training``.
    """
    config = source.net.config
    if labels is None:
        labels = bool(config.label_dim) and config.label_dim == dataset.label_dim
    own = config.to_dict()
    name = own.pop("preset")
    for field in ("family", *of_dataset(config)):
        own.pop(field, None)  # the base of square networks is not written
    start = min(source.resolution, dataset.resolution)
    begins = {"initial_resolution": start} if config.grows else {}
    plan = plan_training(
        preset, config=name, resolution=dataset.resolution, channels=dataset.channels,
        grid=dataset.grid, label_dim=dataset.label_dim if labels else 0, pictures=len(dataset),
        network={**own, **network}, training={**begins, **training}, **machine,
    )  # fmt: skip
    taken = set(own) - set(network) | set(begins) - set(training)
    plan = replace(plan, given=plan.given - taken)
    if plan.training.augment == "adaptive" and "augment_kimg" not in training:
        faster = replace(plan.training, augment_kimg=TRANSFER_AUGMENT_KIMG)
        why = "of StyleGAN2-ADA with --resume: a trained D overfits sooner"
        reason = Derived("augment_kimg", show_value(TRANSFER_AUGMENT_KIMG), why)
        plan = replace(plan, training=faster, derived=(*plan.derived, reason))
    if plan.training.ema_rampup is not None and "ema_rampup" not in training:
        at_once = replace(plan.training, ema_rampup=None)
        reason = Derived("ema_rampup", "none", "the average continues from the source's")
        plan = replace(plan, training=at_once, derived=(*plan.derived, reason))
    continued = (
        source.training is not None
        and source.data_digest == dataset.digest
        and same_architecture(config, plan.network)
    )
    if continued:
        assert source.training is not None
        changed = with_tables(training, asdict(source.training), TrainingConfig)
        plan = replace(plan, training=replace(source.training, **changed))
        if source.nimg >= plan.training.total_kimg * 1000:
            raise UsageError(
                f"{source.path} is already trained to {source.nimg / 1000:g} of "
                f"{plan.training.total_kimg:g} kimg: give more with --kimg"
            )
    plan = replace(plan, derived=_reasons(plan, source, continued=continued, start=start))
    return plan, Origin(str(source.given), source.digest, continued, start)


def choose_planned_run(
    settings: RunSettings, plan: TrainingPlan, out: Path | None
) -> tuple[RunChoice, TrainingPlan]:
    """Return the run to train, and the plan with that run's own settings where it is there.

    They differ in settings that were not there when it was begun. Raises as ``choose_run`` does.
    """
    choice = choose_run(settings, out, plan.given)
    if choice.training is None:
        return choice, plan
    names = [
        item.name
        for item in fields(TrainingConfig)
        if getattr(choice.training, item.name) != getattr(plan.training, item.name)
    ]
    why = "as the run was begun, which no newer default changes"
    derived = [item for item in plan.derived if item.name not in names]
    derived += [Derived(name, show_value(getattr(choice.training, name)), why) for name in names]
    return choice, replace(plan, training=choice.training, derived=tuple(derived))


def describe_start(source: StartingNetwork, settings: RunSettings) -> list[TransferRow]:
    """Return what will become of every part of the source; no row when it continues as it is."""
    assert settings.origin is not None
    if settings.origin.continued:
        return []
    config = settings.network
    outcomes = transfer_networks(source.net, config, seed=settings.training.seed).outcomes
    return describe_transfer(outcomes, source.net.config, config)


def begin_run(run: Path, settings: RunSettings, source: StartingNetwork) -> None:
    """Make the run with ``initial.safetensors`` in it, which every session and rank starts from.

    Raises NetworkError when the source changed since it was opened, UsageError when ``run`` is a
    run already, DataError when another process has it, StyleCLIError when the disk is full.
    """
    assert settings.origin is not None
    initial = run / INITIAL_FILE
    with making(run):
        if settings.origin.continued:
            room = files.room_for(initial, source.path.stat().st_size)
            with room, files.replacing(initial) as temporary:
                shutil.copyfile(source.path, temporary)
                if network_digest(temporary) != source.digest:
                    raise NetworkError(
                        f"{source.path} changed while it was read: run the same command again"
                    )
        else:
            moved = transfer_networks(source.net, settings.network, seed=settings.training.seed)
            moved.bundle.info = inherited_info(source.net.info)
            save_network(initial, moved.bundle)
        origin = replace(settings.origin, initial=network_digest(initial))
        create_run(run, replace(settings, origin=origin))  # last: without run.json it is no run


def describe_begin(
    run: Path, settings: RunSettings, plan: TrainingPlan, dataset: Dataset
) -> list[str]:
    """Return three lines: dataset and network, what it will take, where to look.

    All settings with their reasons are in --dry-run and in the report.
    """
    network, sides = settings.network, list_sides(settings.training, settings.network.resolution)
    classes = f", {plural(network.label_dim, 'class', 'classes')}" if network.label_dim else ""
    first, last = network.size_at(sides[0]), network.size
    growing = f"growing from {first} to {last} px" if sides[1:] else f"at {last} px"
    shared = f", in {plan.ranks} processes" if plan.ranks > 1 else ""
    why = next((item.reason for item in plan.derived if item.name == "augment"), "asked for")
    augment = f"; augmentation {plan.training.augment}: {why}"
    augment = "" if plan.training.augment == "none" else augment
    return [
        f"data: {dataset.path}, {plural(len(dataset), 'picture')} of {dataset.size} "
        f"px{classes}; "
        f"network: {network.preset}",
        f"plan: {settings.training.total_kimg:,g} kimg {growing} on {settings.device}{shared}, "
        f"preset {plan.preset} (all settings: --dry-run){augment}",
        f"training in {run}; watch its fakes*.png, or run stylecli report",
    ]


def _find_file(given: Path) -> Path:
    if has_address(given):
        return find_network(given).path
    if given.is_dir():
        found = given / CHECKPOINT_FILE
        newest = found if found.exists() else newest_snapshot(given)
        if newest is None:
            raise NetworkError(f"{given} holds no checkpoint and no network: give a file")
        return newest
    if given.name == BEST_NAME and given.parent.is_dir() and not given.exists():
        found = given.parent / BEST_CHECKPOINT_FILE
        return found if found.exists() else best_snapshot(given.parent)
    if not given.is_file():
        raise NetworkError(missing(given, "give a run, a checkpoint or a network", "--resume"))
    return given


def _read_training(path: Path) -> TrainingConfig | None:
    """Return the settings of a training checkpoint; None for a file without the full state.

    Checkpoints of earlier versions do not carry them: there the run that they lie in knows.
    """
    try:
        state = read_header(path).get("training")
        if not isinstance(state, dict):
            return None
        if "settings" in state:
            return training_from_dict(state["settings"])
        return load_settings(path.parent).training
    except (NetworkError, UsageError, TypeError):
        return None


def _reasons(
    plan: TrainingPlan, source: StartingNetwork, *, continued: bool, start: int
) -> tuple[Derived, ...]:
    """Return what was chosen by the source instead of by a preset."""
    as_there = "as in the source"
    usual = make_config(plan.network.preset)
    configs: list[tuple[Any, Any]] = [(plan.network, usual)]
    if continued:
        configs.append((plan.training, TrainingConfig()))
        chosen = [item for item in plan.derived if item.name == "ranks"]
        chosen.insert(0, Derived("preset", "none", f"all settings {as_there}"))
    else:
        of_network = {field.name for field in fields(plan.network)} - {"preset"}
        chosen = [item for item in plan.derived if item.name not in of_network]
        of_start = plan.network.grows and "initial_resolution" not in plan.given
        if of_start and plan.training.initial_resolution == start:
            why = f"the source is grown to {source.net.config.size_at(source.resolution)} px"
            chosen.append(Derived("initial_resolution", str(start), why))
    for config, default in configs:
        chosen += [
            Derived(field.name, show_value(getattr(config, field.name)), as_there)
            for field in fields(config)
            if field.name not in {*plan.given, "preset", *of_dataset(config)}
            and getattr(config, field.name) != getattr(default, field.name)
            and getattr(config, field.name) != {}
        ]
    return tuple(chosen)
