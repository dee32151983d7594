"""Run folders made up for the tests of the report: as training writes them, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylecli.training.plan import plan_training


def make_run(
    path: Path,
    *,
    ticks: int = 6,
    kimg: float = 60.0,
    sheets: int = 3,
    finished: bool = False,
    label_dim: int = 0,
    ranks: int = 2,
    side: int = 16,
    **training: Any,
) -> Path:
    """Write a run of 32 px in ``ticks`` equal ticks to ``kimg`` of 200 kimg; return its folder."""
    path.mkdir(parents=True)
    plan = plan_training(
        "small", resolution=32, label_dim=label_dim, ranks=ranks, training=training
    )
    record = {
        "format": 1,
        "stylecli": "0.1.0",
        "network": plan.network.to_dict(),
        "training": plan.training.to_dict(),
        "dataset": {"path": "../faces.lmdb", "digest": "ab" * 32},
        "ranks": ranks,
        "device": "cpu",
        "origin": None,
        "environment": {"python": "3.11.7", "torch": "2.13.0+cpu", "system": "Linux"},
        "started": "2026-11-22T14:11:22+00:00",
        "finished": finished,
    }
    (path / "run.json").write_text(json.dumps(record))
    rows = [make_row(index, round(1000 * kimg * index / ticks)) for index in range(1, ticks + 1)]
    write_rows(path / "stats.jsonl", rows)
    for index in range(sheets):
        save_sheet(path / f"fakes{round(1000 * kimg * index / max(1, sheets - 1)):09d}.png", side)
    save_sheet(path / "reals.png", side)
    return path


def make_row(tick: int, nimg: int, **changed: Any) -> dict[str, Any]:
    """Return a line of ``stats.jsonl``."""
    row = {
        "tick": tick, "nimg": nimg, "kimg": nimg / 1000, "lod": 0.0, "resolution": 32, "batch": 16,
        "lr": 0.003, "steps": 60, "seconds": 5.0 * nimg / 1000, "sec_per_kimg": 5.0,
        "loader_share": 0.01, "memory_mib": 300.0, "memory_now_mib": 290.0,
        "loss_G": 2.0 + 0.1 * (tick % 3), "loss_D": 0.5, "r1_penalty": 0.3, "real_logits": 1.2,
        "fake_logits": -1.3, "skipped_steps": 0.0, "diversity": 0.8,
    }  # fmt: skip
    return {**row, **changed}


def make_event(nimg: int, event: str, text: str = "") -> dict[str, Any]:
    """Return a line of ``events.jsonl``."""
    time = "2026-11-22T19:48:25+00:00"
    return {"nimg": nimg, "kimg": nimg / 1000, "event": event, "text": text, "time": time}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append lines of JSON to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def save_sheet(path: Path, side: int) -> None:
    """Write a picture of ``side`` × ``side`` random pixels, each enlarged to 2 × 2."""
    rng = np.random.default_rng(len(path.name))
    picture = rng.integers(0, 256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(picture.repeat(2, axis=0).repeat(2, axis=1)).save(path)
