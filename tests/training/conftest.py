"""Runs whose sample sheets have 4 pictures instead of 64, which took a fifth of a short run."""

import pytest


@pytest.fixture(autouse=True)
def _small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylecli.training.checkpoints.SHEET_SIDE", 2)
