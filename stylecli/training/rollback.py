"""Take a run back to where it was well: which checkpoint, and what came after it."""

import re
import shutil
from pathlib import Path

from stylecli import files
from stylecli.training.measuring import rewind_measurements
from stylecli.workspace import BEST_CHECKPOINT_FILE, CHECKPOINT_FILE, LAST_GOOD_FILE

MAX_ROLLBACKS = 3  # in a run; other random numbers did not help, so settings must
_WRITTEN = re.compile(r"network-snapshot-(\d+)\.safetensors|fakes(\d+)\.png")


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
        written = _WRITTEN.fullmatch(path.name)
        if written and int(written[1] or written[2]) > nimg:
            path.unlink()
