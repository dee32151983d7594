"""What a run tells programs that show curves: TensorBoard, Weights & Biases, MLflow.

A tracker that fails is left out with a warning; training never ends for it.
"""

import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from stylecli.errors import UsageError
from stylecli.images import Pictures
from stylecli.training.run_folder import RunSettings

PACKAGES = {  # by tracker: the module that it needs, and what installs it
    "tensorboard": ("tensorboard", "pip install 'stylecli[tensorboard]'"),
    "wandb": ("wandb", "pip install wandb"),
    "mlflow": ("mlflow", "pip install mlflow"),
}
_PROJECT = "stylecli"
_POSITION = {"tick", "nimg", "kimg"}  # the x axis, not curves


def require_trackers(names: tuple[str, ...]) -> None:
    """Raise UsageError when a package that one of these needs is not installed."""
    for name in names:
        module, install = PACKAGES[name]
        if importlib.util.find_spec(module) is None:
            raise UsageError(
                f"{name} needs the package {module!r}, which is not installed: run {install}"
            )


class Tracker(Protocol):
    """What is told of a run. ``nimg`` is how many real images it was shown until then."""

    def add_values(self, values: Mapping[str, float], nimg: int) -> None:
        """Take finite numbers by name, such as training/loss_G or metrics/fid50k."""

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Take a sample sheet [H, W, 3]."""

    def close(self) -> None:
        """Write out what is left."""


class Trackers:
    """The trackers of a session, told as one."""

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        names: tuple[str, ...],
        warn: Callable[[str], None],
    ) -> None:
        """``warn`` is told what fails. Raises UsageError for a package that is missing."""
        require_trackers(names)
        self._run, self._settings, self._names, self._warn = run, settings, names, warn
        self._open: dict[str, Tracker] = {}

    def start(self, nimg: int) -> None:
        """Start over at so many images: curves beyond are undone, or continue from there."""
        self.close()
        for name in self._names:
            self._try(name, self._add, name, nimg)

    def add_tick(self, row: Mapping[str, Any]) -> None:
        """Hand on a row of statistics, and the pictures per second that follow from it."""
        values = {name: value for name, value in row.items() if name not in _POSITION}
        if row.get("sec_per_kimg"):
            values["pictures_per_second"] = 1000 / row["sec_per_kimg"]
        self._tell_values("training", values, row["nimg"])

    def add_metric(self, row: Mapping[str, Any]) -> None:
        """Hand on one measured value."""
        self._tell_values("metrics", {row["name"]: row.get("value")}, row["nimg"])

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Hand on a sample sheet [H, W, C]."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.add_sheet, sheet[:, :, :3], nimg)

    def close(self) -> None:
        """End all of them."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)
        self._open = {}

    def _add(self, name: str, nimg: int) -> None:
        self._open[name] = _TRACKERS[name](self._run, self._settings, nimg)

    def _tell_values(self, group: str, values: Mapping[str, Any], nimg: int) -> None:
        numbers = {
            f"{group}/{name}": value
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.add_values, numbers, nimg)

    def _try(self, name: str, step: Callable[..., None], *arguments: Any) -> None:
        """Take a step; leave the tracker out from now on when it fails, whatever it raises."""
        try:
            step(*arguments)
        except Exception as error:
            self._open.pop(name, None)
            self._names = tuple(other for other in self._names if other != name)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._warn(f"{name} is left out, training continues: {reason}")


def flat_settings(settings: RunSettings) -> dict[str, Any]:
    """Return the settings of a run as flat plain values, such as training.lr.128."""

    def spread(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from spread(f"{prefix}.{name}", item)
        else:
            yield prefix, value

    parts = {
        "network": settings.network.to_dict(), "training": settings.training.to_dict(),
        "device": settings.device, "ranks": settings.ranks,
        "dataset": settings.dataset_digest,
    }  # fmt: skip
    return dict(item for name, value in parts.items() for item in spread(name, value))


class EventWriter:
    """Event files for TensorBoard in the run folder, which ``tensorboard --logdir`` is given."""

    def __init__(self, run: Path, settings: RunSettings, nimg: int) -> None:
        """``nimg``: where this session begins; what an earlier one wrote beyond it is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run), purge_step=nimg + 1 if nimg else None)
        rows = "\n".join(f"| {name} | {value} |" for name, value in flat_settings(settings).items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", nimg)

    def add_values(self, values: Mapping[str, float], nimg: int) -> None:
        """Add points to curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, nimg)

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Add a picture."""
        self._writer.add_image("fakes", sheet, nimg, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left and close the file."""
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases for each session, all sessions of a run folder in one group."""

    def __init__(self, run: Path, settings: RunSettings, nimg: int) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), group=run.name,
            name=f"{run.name}-{nimg / 1000:g}-kimg", dir=str(run), config=flat_settings(settings),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="kimg")  # goes back where a run is rolled back

    def add_values(self, values: Mapping[str, float], nimg: int) -> None:
        """Add points to curves."""
        self._run.log({**values, "kimg": nimg / 1000})

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Add a picture."""
        self._run.log({"fakes": self._wandb.Image(sheet), "kimg": nimg / 1000})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow for each session; where it goes, MLFLOW_TRACKING_URI says."""

    def __init__(self, run: Path, settings: RunSettings, nimg: int) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        mlflow.start_run(run_name=f"{run.name}-{nimg / 1000:g}-kimg", tags={"folder": run.name})
        mlflow.log_params(flat_settings(settings))

    def add_values(self, values: Mapping[str, float], nimg: int) -> None:
        """Add points to curves; MLflow takes fewer signs in names."""
        named = {re.sub(r"[^\w\-./ ]", "-", name): value for name, value in values.items()}
        self._mlflow.log_metrics(named, step=nimg)

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Add a picture."""
        self._mlflow.log_image(sheet, f"fakes{nimg:09d}.png")

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


_TRACKERS: Mapping[str, Callable[[Path, RunSettings, int], Tracker]] = {
    "tensorboard": EventWriter, "wandb": WandbTracker, "mlflow": MlflowTracker
}  # fmt: skip
