"""What ``stylecli train`` does between its options and the training loop."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stylecli.cli.output import Output
from stylecli.cli.training_start import plan_run
from stylecli.errors import NetworkError, UsageError
from stylecli.workspace import find_dataset, list_runs, newest_snapshot, next_run

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.training.oversight import Evaluate
    from stylecli.training.presets import TrainingPlan
    from stylecli.training.run_folder import RunSettings
    from stylecli.training.session import Session
    from stylecli.training.starting import Source


@dataclass(frozen=True)
class RunChoice:
    """The run that settings lead to, and whether it is begun, gone on with or finished."""

    run: Path
    state: str  # begin | continue | finished
    description: str = ""  # what follows the number of a new run; "": --out names the folder
    unreadable: tuple[Path, ...] = ()  # runs whose settings cannot be read, passed over


def prepare_dataset(
    data: Path | None,
    resolution: int | None,
    preset: str | None,
    output: Output,
    *,
    pack: bool,
    run: Path | None = None,
) -> "Dataset":
    """Return the dataset to train on; pictures are packed into datasets/ first.

    Without ``data`` it is the one that ``run`` was trained on, where there is such a run. They are
    packed as the preset's own set was, where it has one. Without ``pack`` raises
    UsageError for pictures, with the command that packs them.
    """
    from stylecli.data.reader import open_dataset
    from stylecli.training.presets import name_preset
    from stylecli.training.published import SETS

    found = find_dataset(data, run=run)
    if found.why:
        output.note(f"using {found.path}, {found.why}")
    path = found.path
    if not (path / "data.mdb").is_file():
        published = SETS.get(name_preset(preset)) if preset else None
        transform: Literal["center-crop", "wide"] = (
            published.transform if published else "center-crop"
        )
        side = resolution or (published.resolutions[0] if published and preset != "paper" else None)
        if not pack:
            raise UsageError(
                f"{path} is not packed yet, which --dry-run does not do: run stylecli pack {path}"
                + (f" --resolution {side}" if side else "")
                + (f" --transform {transform}" if transform != "center-crop" else "")
            )
        from stylecli.cli.pack import pack_to_default

        path = pack_to_default(path, side, output, transform=transform)
    dataset = open_dataset(path)
    if resolution is not None and resolution != dataset.resolution:
        raise UsageError(
            f"--resolution {resolution} differs from {path}, which holds "
            f"{dataset.resolution} px: pack the pictures again with --resolution {resolution}"
        )
    return dataset


def make_settings(
    dataset: "Dataset",
    source: "Source | None",
    config: str,
    preset: str | None,
    device: str,
    ranks: int | None,
    labels: bool | None,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    batch_gpu: int | None = None,
) -> tuple["RunSettings", "TrainingPlan"]:
    """Return the settings of a run, and the plan they come from."""
    import os

    from stylecli.hardware import resolve_device
    from stylecli.training.run_folder import RunSettings
    from stylecli.training.starting import check_batches, check_precision, frozen_in

    chosen = resolve_device(device)
    if chosen.index is not None:  # a run stores the kind of its device only
        import torch

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
        training=training,
    )
    settings = RunSettings(
        plan.network, plan.training, dataset.path, dataset.digest, plan.ranks, name, origin
    )
    check_batches(settings, batch_gpu)
    check_precision(settings)
    frozen_in(settings)  # raises for layers that D has not
    return settings, plan


def tell_advice(plan: "TrainingPlan", dataset: "Dataset", output: Output) -> None:
    """Warn on stderr of what looks wrong, under --quiet too."""
    for sentence in find_advice(plan, dataset):
        output.warn(sentence)


def find_advice(plan: "TrainingPlan", dataset: "Dataset") -> list[str]:
    """Return what looks wrong about training this plan on this dataset."""
    from stylecli.training.advice import advise

    return advise(
        plan,
        pictures=len(dataset),
        classes=dataset.label_dim,
        transform=str(dataset.info.get("transform", "")),
    )


def choose_run(settings: "RunSettings", out: Path | None) -> RunChoice:
    """Return the run to train: the newest with equal settings, else a new one.

    A run that cannot be read is passed over. Raises UsageError when ``out`` is a run with other
    settings, or the run is to go on that was begun on another kind of device.
    """
    from stylecli.training.run_folder import is_finished, load_settings

    unreadable: list[Path] = []
    candidates = [out] if out is not None else list(reversed(list_runs()))
    for run in candidates:
        if not (run / "run.json").exists():
            continue
        try:
            stored = load_settings(run)
        except NetworkError:  # damaged, or of another version
            if out is not None:
                raise
            unreadable.append(run)
            continue
        if stored.same_run(settings):
            if is_finished(run):
                return RunChoice(run, "finished", unreadable=tuple(unreadable))
            if stored.device != settings.device:
                raise UsageError(
                    f"{run} has these settings but trains on {stored.device}, not on "
                    f"{settings.device}: give --device {stored.device} where there is one, or go "
                    f"on here in a new run with --resume '{run}'"
                )
            return RunChoice(run, "continue", unreadable=tuple(unreadable))
        if out is not None:
            raise UsageError(f"{run} was started with other settings: give another --out")
    network = settings.network
    name = f"{settings.dataset.stem}-{network.preset}{network.resolution}"
    if out is not None:
        return RunChoice(out, "begin", unreadable=tuple(unreadable))
    return RunChoice(next_run(name), "begin", name, tuple(unreadable))


@contextlib.contextmanager
def owned_run(
    choice: RunChoice,
    settings: "RunSettings",
    plan: "TrainingPlan",
    source: "Source | None",
    output: Output,
) -> Iterator[Path]:
    """Yield the run's folder, made where it is new; no other process can write it meanwhile.

    Says on stderr what happens. Raises DataError when another process has the run.
    """
    from stylecli.training import run_folder

    for other in choice.unreadable:
        output.warn(f"{other} is passed over: its run.json is damaged or of another version")
    if choice.state == "begin":
        with contextlib.ExitStack() as stack:
            run = choice.run
            if not choice.description:
                stack.enter_context(run_folder.making(run))
            else:
                run = stack.enter_context(run_folder.next_numbered(choice.description))
            if source is None:
                run_folder.create_run(run, settings)
            else:
                from stylecli.training.starting import begin_run

                begin_run(run, settings, source)
            output.note(f"training in {run}")
            for item in plan.derived:
                output.note(f"  {item.name} {item.value}: {item.reason}")
            yield run
        return
    with run_folder.held(choice.run):
        if choice.state == "finished":
            output.note(
                f"{choice.run} is finished with these settings; change --kimg or --seed for more"
            )
        else:
            output.note(f"going on with {choice.run}")
        if run_folder.record_dataset(choice.run, settings.dataset):
            output.note(f"  its dataset is {settings.dataset} now")
        yield choice.run


def make_session(**settings: Any) -> "Session":
    """Return how this session is driven; raise UsageError for what cannot be done here."""
    from stylecli.training.oversight import require_tensorboard
    from stylecli.training.session import Session

    session = Session(**settings)
    if session.tensorboard:
        require_tensorboard()
    return session


def train_run(
    run: Path,
    ranks: int | None,
    output: Output,
    session: "Session",
    evaluate: "Evaluate | None" = None,
) -> Path:
    """Train a run to its end, with its own number of processes unless another is asked for."""
    from stylecli.training.launch import rank_processes
    from stylecli.training.loop import TrainingLoop
    from stylecli.training.run_folder import is_finished, load_settings
    from stylecli.training.schedule import TimeLeft

    if not is_finished(run):
        settings = load_settings(run)
        count = ranks or settings.ranks
        left = TimeLeft(settings.training, settings.network)
        with (
            rank_processes(run, count, session=session) as group,
            output.progress("training", "kimg", left) as report,
        ):
            TrainingLoop(run, group, session, evaluate).train(progress=report, notice=output.warn)
    network = newest_snapshot(run)
    assert network is not None
    return network
