"""Sample sheets: what the averaged generator draws of the same seeds, and what the data holds."""

from pathlib import Path

import numpy as np

from stylecli import sampling
from stylecli.data.reader import Dataset
from stylecli.images import Pictures, make_grid, save_png, visible_scale
from stylecli.networks.bundle import Bundle
from stylecli.training.run_folder import RunSettings

SHEET_SIDE = 8  # a sample sheet has 8 × 8 pictures


def sheet_path(run: Path, nimg: int) -> Path:
    """Return where the sheet drawn after ``nimg`` images lies."""
    return run / f"fakes{nimg:09d}.png"


def sheet_bytes(resolution: int, channels: int) -> int:
    """Return about how many bytes a sample sheet takes on disk: PNG halves pictures, or better."""
    side = SHEET_SIDE * resolution * visible_scale(resolution, at_least=64)
    return side * side * channels // 2


def save_sheet(run: Path, bundle: Bundle, settings: RunSettings, nimg: int) -> Pictures:
    """Draw the averaged generator's pictures of seeds 0 to 63; return the sheet [H, W, C]."""
    net = Bundle(settings.network, G_ema=bundle.G_ema)
    pictures = sampling.generate(
        net,
        range(SHEET_SIDE**2),
        settings.training.sample_psi if settings.network.has_w else 1.0,
        noise_mode=settings.training.sample_noise,  # type: ignore[arg-type]
    )
    grid = _sheet([picture for _, picture in pictures])
    save_png(sheet_path(run, nimg), grid, {"kind": "training sheet"})
    return grid


def save_reals(run: Path, dataset: Dataset) -> None:
    """Show the dataset's first 64 pictures as ``reals.png``."""
    count = min(SHEET_SIDE**2, len(dataset))
    reals = dataset.read(range(count)).transpose(0, 2, 3, 1)  # [N, H, W, C]
    save_png(run / "reals.png", _sheet(list(reals)), None)


def _sheet(pictures: list[Pictures]) -> Pictures:
    scale = visible_scale(pictures[0].shape[0], at_least=64)
    return make_grid(np.stack(pictures), SHEET_SIDE, scale=scale)
