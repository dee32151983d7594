"""What ``stylecli train --resume`` does before training: read the source, tell its fate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.cli.output import Output
from stylecli.errors import UsageError

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.training.presets import TrainingPlan
    from stylecli.training.run_folder import Origin, RunSettings
    from stylecli.training.starting import Source


def read_source(resume: Path | None) -> "Source | None":
    """Open what ``--resume`` names; None where it was not given."""
    if resume is None:
        return None
    from stylecli.training.starting import open_source

    return open_source(resume)


def plan_run(
    source: "Source | None",
    preset: str | None,
    config: str,
    *,
    dataset: "Dataset",
    labels: bool | None,
    **settings: Any,
) -> tuple["TrainingPlan", "Origin | None"]:
    """Return the plan of a run, and its origin where it begins with ``source``.

    ``settings`` are those of ``plan_training``. Raises UsageError for a ``--config`` that is not
    the source's.
    """
    if labels and not dataset.label_dim:
        raise UsageError("--labels needs a dataset with classes: this one has none")
    if source is None:
        from stylecli.training.presets import plan_training

        plan = plan_training(
            preset,
            config=config,
            resolution=dataset.resolution,
            channels=dataset.channels,
            label_dim=dataset.label_dim if labels else 0,
            pictures=len(dataset),
            **settings,
        )
        return plan, None
    from stylecli.training.starting import plan_resumed

    own = source.net.config.preset
    if config.lower() not in ("f", own):
        raise UsageError(
            f"--config {config} is not the configuration of {source.path}, {own}: with --resume "
            "the architecture is read from the file, leave --config out"
        )
    return plan_resumed(source, preset, dataset=dataset, labels=labels, **settings)


def tell_start(source: "Source | None", settings: "RunSettings", output: Output) -> None:
    """Say on stderr what a new run takes over from its source, and what of D stays frozen."""
    if source is None or output.quiet:
        return
    from stylecli.training.optimizer import describe_frozen
    from stylecli.training.starting import describe_start, frozen_in
    from stylecli.training.transfer import HEADINGS

    rows = describe_start(source, settings)
    if rows:
        output.note(f"beginning with the weights of {source.path}, at the first image:")
        for line in output.table(HEADINGS, [row.cells() for row in rows]):
            output.note(f"  {line}")
    else:
        output.note(
            f"going on from {source.path} at {source.nimg / 1000:g} kimg with its full state: "
            "optimizers, counters, place in the data"
        )
    if frozen := frozen_in(settings):
        output.note(f"frozen in D: {describe_frozen(frozen)}; all else is trained")
