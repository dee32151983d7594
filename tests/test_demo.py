"""The demo, in small: everything is made, a second call keeps it, other settings are refused."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stylecli import demo
from stylecli.distributed.ranks import Ranks
from stylecli.errors import UsageError
from stylecli.progress import Progress, silent
from stylecli.training import costs

pytest.importorskip("dicebear", reason="the demo extra is not installed: pip install '.[demo]'")


@contextlib.contextmanager
def no_progress(title: str, unit: str) -> Iterator[Progress]:
    yield silent


@pytest.fixture
def small(monkeypatch: Any) -> None:
    monkeypatch.setattr(demo, "FACES", 48)
    monkeypatch.setattr(demo, "RESOLUTION", 16)
    monkeypatch.setattr(demo, "METRICS", {"ppl_wfull": 2})
    monkeypatch.setattr(demo, "VIDEO_SECONDS", 1)
    monkeypatch.setattr(costs, "SECONDS_PER_STAGE", 0.05)


def run(folder: Path, minutes: float = 0.02) -> demo.DemoResult:
    return demo.run_demo(
        folder, minutes=minutes, seed=0, ranks=Ranks(), progress=no_progress, say=lambda text: None
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_everything_is_made_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = run(folder)
    assert result.finished
    made = ["fakes.png", "mix.png", "truncation.png", "interpolation.mp4", "metrics.json",
            "report.html", "dataset.lmdb", "run"]  # fmt: skip
    assert all((folder / name).exists() for name in made)
    page = result.report.read_text()
    assert 'http-equiv="refresh"' not in page  # that of the page to look at meanwhile
    assert "How it grew" in page
    assert "Johan Melin" in page
    assert "Your run, and a longer one" in page
    digest = result.network.read_bytes()
    assert run(folder).network.read_bytes() == digest
    with pytest.raises(UsageError, match=r"holds a demo of 0\.02 minutes"):
        run(folder, minutes=1)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="holds files"):
        run(tmp_path)


@pytest.mark.parametrize(("kimg", "minutes"), [(6.0, 5.0), (40.0, 2.0)])
def test_a_slow_machine_is_told_which_minutes_bring_faces(kimg: float, minutes: float) -> None:
    told = demo.describe_prospect(kimg, minutes)
    needed = int(told.partition("--minutes ")[2].split()[0])
    assert needed * kimg / minutes >= demo.FACES_KIMG > (needed - 1) * kimg / minutes
    assert "--minutes" not in demo.describe_prospect(demo.FACES_KIMG, minutes)
