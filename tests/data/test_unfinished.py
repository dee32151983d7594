"""Whatever ends packing, nothing is lost: the next run of the same command continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylecli.data import lmdb_files, writer
from stylecli.data.format import DATA_FILE
from stylecli.data.pack_settings import PackSettings
from stylecli.data.packing import pack
from stylecli.data.reader import open_dataset
from stylecli.data.sources.folders import ImageFolder
from stylecli.errors import DataError, Interrupted
from stylecli.files import LOCK_FILE, OwnerLock

resource = pytest.importorskip("resource", reason="needs POSIX")

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
KILLS = os.environ.get("STYLECLI_KILLS", "24")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twenty pictures of noise, 16 px, packed four to a transaction."""
    monkeypatch.setattr(writer, "BATCH_ITEMS", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(20):
        noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number:02}.png")
    return ImageFolder(tmp_path / "photos")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.lmdb"


def stop_at(picture, error=KeyboardInterrupt):
    """Return a progress callback that raises when so many pictures are done."""

    def progress(done, total, note=""):
        if done == picture:
            raise error

    return progress


@pytest.mark.slow
def test_kills_at_random_points_lose_nothing():
    done = subprocess.run(
        [sys.executable, str(HERE / "fault_injection.py"), "--kills", KILLS],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["kills"].values()) >= int(KILLS) >= 20


def test_ctrl_c_keeps_every_picture_and_the_same_call_goes_on(photos, out):
    with pytest.raises(Interrupted, match="stopped at picture 10 of 20"):
        pack(photos, out, progress=stop_at(10))
    assert not out.exists()
    seen = []
    report = pack(photos, out, progress=lambda done, total, note="": seen.append(done))
    assert seen == list(range(10, 21))
    assert report.digest == pack(photos, out.with_name("whole.lmdb")).digest


@pytest.mark.slow
def test_ctrl_c_to_the_whole_group_ends_workers_too_and_says_how_to_go_on(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.linear_gradient("L").resize((2000, 2000)).save(tmp_path / "photos" / "0.jpg")
    for number in range(1, 150):
        os.link(tmp_path / "photos" / "0.jpg", tmp_path / "photos" / f"{number}.jpg")
    command = [sys.executable, "-m", "stylecli", "pack", "photos", "--workers", "2"]
    command += ["--keep-duplicates", "--resolution", "512", "--filter", "box"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f"datasets/*.part/{DATA_FILE}")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (130, "")
    assert "run the same command to continue" in stderr.splitlines()[-1]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "150 pictures" in done.stdout


def test_an_unfinished_dataset_of_other_work_is_only_replaced_by_force(photos, out):
    with pytest.raises(Interrupted):
        pack(photos, out, progress=stop_at(10))
    other = PackSettings(resolution=8)
    with pytest.raises(
        DataError, match=r"out.lmdb.part was started with other --resolution: finish"
    ):
        pack(photos, out, other)
    assert pack(photos, out, other, force=True).resolution == 8


def test_force_goes_on_with_its_own_unfinished_work(photos, out):
    pack(photos, out, PackSettings(resolution=8))
    with pytest.raises(Interrupted):
        pack(photos, out, force=True, progress=stop_at(10))
    assert open_dataset(out).resolution == 8  # what stood there, until the new one is complete
    seen = []
    pack(photos, out, force=True, progress=lambda done, total, note="": seen.append(done))
    assert seen[0] == 10 and open_dataset(out).resolution == 16


@pytest.mark.parametrize("left", [0, 1, 4096, 0.5, 0.99])
def test_a_damaged_unfinished_dataset_is_said_to_be_and_replaced_by_force(photos, out, left):
    with pytest.raises(Interrupted):
        pack(photos, out, progress=stop_at(10))
    file = out.with_name("out.lmdb.part") / DATA_FILE
    size = file.stat().st_size
    os.truncate(file, int(left * size) if left < 1 else left)
    if left:
        with pytest.raises(DataError, match=r"is not a readable dataset|was cut short"):
            pack(photos, out)
    assert pack(photos, out, force=True).count == 20


def test_a_second_command_says_that_the_first_one_is_at_work(photos, out):
    def second(done, total, note=""):
        if done == 10:
            with pytest.raises(DataError, match=f"another command .process {os.getpid()}."):
                pack(photos, out)

    assert pack(photos, out, progress=second).count == 20


def test_a_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    (tmp_path / LOCK_FILE).write_text("12345")
    OwnerLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_with_what_is_missing_and_the_same_call_goes_on(photos, out):
    def limited():
        limit = 65536  # bytes a file may have
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            pack(photos, out, PackSettings(resolution=16, enlarge=True))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    sentence = r"cannot be written: .*; about .*B more are needed and .* free there: make room, "
    with pytest.raises(
        DataError, match=sentence + "then run the same command to continue from picture"
    ):
        limited()
    seen = []
    report = pack(
        photos,
        out,
        PackSettings(resolution=16, enlarge=True),
        progress=lambda done, total, note="": seen.append(done),
    )
    assert report.count == 20 and seen[0] > 0


def test_what_cannot_fit_is_refused_before_the_work(photos, out, monkeypatch):
    monkeypatch.setattr(lmdb_files, "free_bytes", lambda folder: 10_000)
    with pytest.raises(DataError, match=r"the pictures need 40 kB, but 10 kB are free"):
        pack(photos, out)
    assert not out.parent.joinpath("out.lmdb.part").exists()


def test_a_finished_part_that_was_not_renamed_only_gets_its_name(photos, out):
    pack(photos, out)
    part = out.with_name("out.lmdb.part")
    out.rename(part)
    seen = []
    pack(photos, out, progress=lambda done, total, note="": seen.append(done))
    assert seen == [20] and not part.exists()
