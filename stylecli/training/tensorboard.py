"""Event files for TensorBoard: the statistics as curves over images shown, and sample sheets."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylecli.errors import UsageError
from stylecli.images import Pictures

_POSITION = {"tick", "nimg", "kimg"}  # the x axis, not curves


def require_tensorboard() -> None:
    """Raise UsageError when the package that writes event files is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs a package that is not installed: "
            "run pip install 'stylecli[tensorboard]'"
        )


class EventWriter:
    """Writes into the run folder, which ``tensorboard --logdir`` is then given."""

    def __init__(self, run: Path, nimg: int) -> None:
        """``nimg``: where this session begins; what an earlier one wrote beyond it is hidden."""
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run), purge_step=nimg + 1 if nimg else None)

    def add_tick(self, row: Mapping[str, Any]) -> None:
        """Add a row of statistics at its number of images."""
        for name, value in row.items():
            if name not in _POSITION and isinstance(value, int | float) and math.isfinite(value):
                self._add(f"training/{name}", value, row["nimg"])

    def add_metric(self, row: Mapping[str, Any]) -> None:
        """Add one measured value."""
        if isinstance(row.get("value"), int | float):
            self._add(f"metrics/{row['name']}", row["value"], row["nimg"])

    def add_sheet(self, sheet: Pictures, nimg: int) -> None:
        """Add a sample sheet [H, W, C]."""
        self._writer.add_image("fakes", sheet[:, :, :3], nimg, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Write out what is left and close the file."""
        self._writer.close()

    def _add(self, name: str, value: float, nimg: int) -> None:
        self._writer.add_scalar(name, value, nimg)
