"""Take a run back to where it was well: which checkpoint, and what came after it."""

import re
from pathlib import Path

from stylecli.workspace import BEST_CHECKPOINT_FILE, CHECKPOINT_FILE

MAX_ROLLBACKS = 3  # in a run; other random numbers did not help, so settings must
_WRITTEN = re.compile(r"network-snapshot-(\d+)\.safetensors|fakes(\d+)\.png")


def rollback_source(run: Path) -> Path | None:
    """Return the checkpoint to go back to: the best that was measured, else the newest."""
    for name in (BEST_CHECKPOINT_FILE, CHECKPOINT_FILE):
        if (run / name).exists():
            return run / name
    return None


def remove_later_files(run: Path, nimg: int) -> None:
    """Remove networks and sheets of training that is undone, beyond ``nimg`` images."""
    for path in run.iterdir():
        written = _WRITTEN.fullmatch(path.name)
        if written and int(written[1] or written[2]) > nimg:
            path.unlink()
