"""Every command that writes, in small: what it needs, what it leaves, and sessions of it.

Sessions are forked from this process, which has loaded everything once, so that a command takes as
long as its own work. Shared by the campaigns of kills and races.
"""

import argparse
import collections
import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import stylecli
from stylecli.data.reader import open_dataset

FIXTURES = Path(__file__).parents[1] / "fixtures"
PATIENCE = 120.0  # seconds for a session to end by itself
# What differs between two equal results: when and how fast they were made, and where.
PASSING = {
    "created", "started", "time", "seconds", "sec_per_kimg", "memory_mib", "memory_now_mib",
    "timestamp", "total_time", "loader_share", "environment", "changed", "mtime", "stamp",
}  # fmt: skip
NETWORK = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
           "mapping_layers": 2, "mapping_fmaps": 8}  # fmt: skip
SMALL = ["--kimg", "0.096", "--batch", "8", "--ranks", "1", "--fmap-base", "64", "--fmap-max", "8",
         "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--tick-kimg", "0.016",
         # a trial would choose otherwise on a busy machine, and round otherwise
         "--planar-gradients", "none",
         "--snapshot-ticks", "2", "--watch", "off", "--device", "cpu"]  # fmt: skip
POINTS = {
    "astronaut.jpg": [[204, 101], [247, 103], [224, 128], [203, 141], [245, 142]],
    "sub/grace_hopper.jpg": [[222, 192], [309, 187], [269, 237], [232, 278], [306, 273]],
}
DRAWING = ["--network", "net.safetensors", "--device", "cpu", "-q"]


@dataclass
class Case:
    """A command as typed, and the inputs that its folder holds before."""

    name: str
    words: list[str]
    inputs: list[str]
    length: float = 0.0  # seconds, of a session that is left alone
    result: dict[str, str] = field(default_factory=dict)  # what that session leaves


CASES = [
    Case("pack", ["pack", "photos", "--resolution", "16", "--workers", "1"], ["photos"]),
    Case("pack, workers", ["pack", "photos", "--resolution", "16", "--workers", "2"], ["photos"]),
    Case("pack --append", ["pack", "more", "--out", "data.lmdb", "--append", "--workers", "1"],
         ["data.lmdb", "more"]),
    Case("pack --force", ["pack", "more", "--resolution", "16", "--out", "data.lmdb", "--force",
                          "--workers", "1"], ["data.lmdb", "more"]),
    Case("export", ["pack", "data.lmdb", "--out", "x.zip", "--workers", "1"], ["data.lmdb"]),
    Case("prepare-ffhq", ["prepare-ffhq", "faces", "--landmarks", "points.json", "--size", "32",
                          "--workers", "1"], ["faces", "points.json"]),
    Case("train", ["train", "data.lmdb", *SMALL], ["data.lmdb"]),
    Case("train --resume", ["train", "data.lmdb", "--resume", "net.safetensors", *SMALL[:6],
                            *SMALL[-10:]], ["data.lmdb", "net.safetensors"]),
    Case("generate", ["generate", "--seeds", "0-11", "--out", "fakes", *DRAWING],
         ["net.safetensors"]),
    Case("generate --grid", ["generate", "--seeds", "0-11", "--grid", "--save-ws", "ws.npz",
                             "--out", "grid.png", *DRAWING], ["net.safetensors"]),
    Case("mix", ["mix", "--rows", "3", "--cols", "3", "--each", "--out", "mix.png", *DRAWING],
         ["net.safetensors"]),
    Case("interpolate", ["interpolate", "--seeds", "0,1", "--seconds", "0.5", "--out", "walk.mp4",
                         *DRAWING], ["net.safetensors"]),
    Case("interpolate, frames", ["interpolate", "--seeds", "0,1", "--seconds", "0.5", "--format",
                                 "png", "--out", "frames", *DRAWING], ["net.safetensors"]),
    Case("figures", ["figures", "3", "8", "--row-seeds", "0-1", "--col-seeds", "2-3", "--seeds",
                     "0-1", "--out", "figures", *DRAWING], ["net.safetensors"]),
    Case("project", ["project", "faces", "--no-align", "--distance", "pyramid", "--steps", "12",
                     "--video", "--out", "found", *DRAWING], ["net.safetensors", "faces"]),
    Case("project --tune", ["project", "faces/astronaut.jpg", "--no-align", "--distance",
                            "pyramid", "--steps", "4", "--tune", "--tune-steps", "6", "--out",
                            "found", *DRAWING], ["net.safetensors", "faces"]),
    Case("metrics", ["metrics", "kid", "--network", "run", "--data", "data.lmdb", "--samples", "16",
                     "--device", "cpu"], ["data.lmdb", "run"]),
    Case("report", ["report", "run"], ["data.lmdb", "run"]),
    Case("convert", ["convert", "faces.pkl"], ["faces.pkl"]),
    Case("export state-dict", ["export", "state-dict", "net2.safetensors"], ["net2.safetensors"]),
    Case("check", ["check", "photos", "--out", "seen"], ["photos"]),
    Case("demo", ["demo", "--minutes", "0.05", "--ranks", "1"], []),
]  # fmt: skip


def chosen(names: list[str]) -> list[Case]:
    """Return the cases of these names, all for none; raise ValueError for an unknown one."""
    known = {case.name: case for case in CASES}
    if unknown := set(names) - known.keys():
        raise ValueError(f"unknown: {sorted(unknown)}; there are {list(known)}")
    return [known[name] for name in names] or CASES


def prepare(base: Path) -> None:
    """Make all inputs, load all modules, and make the demo small."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that sessions start
    os.environ["STYLECLI_CACHE"] = str(base / "cache")
    for module in pkgutil.walk_packages(stylecli.__path__, "stylecli."):
        if "__main__" not in module.name and ".worker" not in module.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
    from stylecli import demo
    from stylecli.checkpoint import save_network
    from stylecli.networks.model import new_network
    from stylecli.training import costs

    demo.FACES, demo.RESOLUTION, demo.METRICS = 24, 16, {"ppl_wfull": 2}
    demo.VIDEO_SECONDS = 1
    costs.SECONDS_PER_STAGE = 0.02
    calibrated = demo._calibrated_plan

    def of_fixed_length(folder: Path, dataset: Path, minutes: float, seed: int, ranks: int) -> Any:
        """Calibrate all the same; the length that is measured differs from time to time."""
        calibrated(folder, dataset, minutes, seed, ranks)
        return demo._plan(0.5, seed, ranks.count)

    demo._calibrated_plan = of_fixed_length
    _store_stand_in(base)
    rng = np.random.default_rng(0)
    for name, count in (("photos", 60), ("more", 30)):
        (base / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(base / name / f"{number:03}.png")
    (base / "faces" / "sub").mkdir(parents=True)
    shutil.copy(FIXTURES / "portraits" / "astronaut.jpg", base / "faces")
    shutil.copy(FIXTURES / "portraits" / "grace_hopper.jpg", base / "faces" / "sub")
    (base / "points.json").write_text(json.dumps(POINTS), "utf-8")
    shutil.copy(FIXTURES / "official" / "stylegan1_labels_G_D_Gs.pkl", base / "faces.pkl")
    for config, name in (("f", "net"), ("stylegan2", "net2")):
        save_network(base / f"{name}.safetensors", new_network(config, seed=0, **NETWORK))
    for words in (
        ["pack", "photos", "--resolution", "16", "--workers", "1", "--out", "data.lmdb"],
        ["train", "data.lmdb", *SMALL, "--out", "run"],
    ):
        code, said = finish(start(words, base))
        assert code == 0, said


def _store_stand_in(base: Path) -> None:
    """Put made-up weights of an EfficientNet into the cache, for metrics."""
    from stylecli import weights
    from stylecli.features.efficientnet import tensor_shapes

    random = np.random.default_rng(0)
    arrays = {
        name: np.ones(shape, np.float32)
        if name.endswith(("running_var", "weight")) and len(shape) == 1
        else random.standard_normal(shape, np.float32) * np.float32(0.05)
        for name, shape in tensor_shapes().items()
    }
    base.mkdir(parents=True, exist_ok=True)
    (base / "made.bin").write_bytes(b"made up")
    weights.store("efficientnet-lite0", arrays, file=base / "made.bin")


def lay_out(case: Case, base: Path, folder: Path) -> None:
    """Make a folder with what the command needs."""
    folder.mkdir()
    for name in case.inputs:
        if (base / name).is_dir():
            shutil.copytree(base / name, folder / name)
        else:
            shutil.copy(base / name, folder / name)


def measure(case: Case, base: Path, folder: Path) -> None:
    """Run a command alone; note how long it takes and what it leaves."""
    lay_out(case, base, folder)
    started = time.monotonic()
    code, said = finish(start(case.words, folder))
    case.length = time.monotonic() - started
    assert code == 0, f"{case.name}: {said}"
    assert not faults_in(said), f"{case.name}: {said}"
    assert leftovers(folder) == [], case.name
    case.result = contents(folder)
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Running:
    """A session: its process, which leads a group, and where it writes what it says."""

    process: int
    log: Path


def start(words: list[str], folder: Path) -> Running:
    """Fork a process that carries out a command in a folder."""
    log = folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
    log.touch()
    sys.stdout.flush()
    child = os.fork()
    with contextlib.suppress(OSError):  # here and there: it may be killed before its first step
        os.setpgid(child, child)
    if child:
        return Running(child, log)
    code = 70
    try:
        os.chdir(folder)
        written = os.open(log, os.O_WRONLY | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for handle, target in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(handle, target)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["stylecli", *words]
        from stylecli.__main__ import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def finish(running: Running, patience: float = PATIENCE) -> tuple[int, str]:
    """Wait for a session; return its exit code (negative: the signal) and what it said."""
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(running.process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(running.process, signal.SIGKILL)
            os.waitpid(running.process, 0)
            raise AssertionError(f"hangs for {patience:g} s: {running.log.read_text('utf-8')}")
        time.sleep(0.005)
    _wait_for_group(running.process)
    said = running.log.read_text("utf-8", errors="replace")
    running.log.unlink()
    return os.waitstatus_to_exitcode(status), said


def kill(running: Running, delay: float, *, all_of_it: bool) -> tuple[int, str] | None:
    """End a session by SIGKILL after so many seconds; return how it ended if that was earlier."""
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        found = os.waitid(os.P_PID, running.process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return finish(running)
        time.sleep(0.002)
    (os.killpg if all_of_it else os.kill)(running.process, signal.SIGKILL)
    code, said = finish(running)
    return None if code == -signal.SIGKILL else (code, said)


def _wait_for_group(group: int) -> None:
    """Wait until the processes that a session started are gone as well."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.005)
    raise AssertionError("a process outlives its session")


def faults_in(said: str) -> list[str]:
    """Return the lines that no command should ever print."""
    words = ("Traceback", "failed unexpectedly", "STYLECLI_DEBUG", "No such file", "Errno")
    return [line for line in said.splitlines() if any(word in line for word in words)]


def leftovers(folder: Path) -> list[str]:
    """Return what is there only while a command runs."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name.startswith(".")
        or ".part" in path.name
        or ".tmp" in path.name
        or path.name == "writer.lock"
    )


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file's meaning, by its path; the number of a run left out."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name in ("lock.mdb", "writer.lock"):
            continue
        name = re.sub(r"^runs/\d+-", "runs/", path.relative_to(folder).as_posix())
        try:
            text = "\n".join(_meaning(path))
        except Exception as error:
            text = f"{path.name} cannot be read: {type(error).__name__}: {error}"
            found[name] = text
            continue
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if found.setdefault(name, digest) != digest:
            found[name] = "differs between two runs"
    return found


def _meaning(path: Path) -> Iterator[str]:
    """Yield what decides whether two files are the same result."""
    kind = path.suffix
    if path.name == "data.mdb":
        dataset = open_dataset(path.parent)
        yield f"{dataset.digest} {len(dataset)} {dataset.resolution} {dataset.channels}"
        yield str(None if dataset.labels is None else np.asarray(dataset.labels).tolist())
        for number in range(len(dataset)):
            yield hashlib.sha256(dataset[number][0].tobytes()).hexdigest()
    elif path.name == "events.jsonl":
        yield str(all(json.loads(line) for line in _lines(path)))  # a kill is an event
    elif kind == ".jsonl":
        yield from sorted({str(_lasting(json.loads(line))) for line in _lines(path)})
    elif kind == ".json":
        yield str(_lasting(json.loads(path.read_text("utf-8"))))
    elif kind == ".safetensors":
        from safetensors.torch import load_file  # reads what `export` writes too

        for name, tensor in sorted(load_file(path).items()):
            yield f"{name} {hashlib.sha256(tensor.numpy().tobytes()).hexdigest()}"
    elif kind in (".png", ".jpg", ".webp"):
        with Image.open(path) as picture:
            yield f"{picture.size} {hashlib.sha256(picture.tobytes()).hexdigest()}"
    elif kind == ".npz":
        with np.load(path) as arrays:
            for name in sorted(arrays):
                yield f"{name} {hashlib.sha256(arrays[name].tobytes()).hexdigest()}"
    elif kind == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            for entry in archive.infolist():
                yield f"{entry.filename} {entry.CRC} {entry.file_size}"
    elif kind == ".mp4":
        import imageio.v3 as imageio

        for frame in imageio.imiter(path):
            yield hashlib.sha256(np.asarray(frame).tobytes()).hexdigest()
    elif kind == ".html":
        yield str(path.read_text("utf-8").rstrip().endswith("</html>"))  # it holds the date
    else:
        yield hashlib.sha256(path.read_bytes()).hexdigest()


def _lines(path: Path) -> list[str]:
    text = path.read_text("utf-8")
    assert not text or text.endswith("\n"), "a torn line"
    return text.splitlines()


def _lasting(value: Any) -> Any:
    """Return JSON without what differs between two equal results."""
    if isinstance(value, dict):
        return {name: _lasting(item) for name, item in value.items() if name not in PASSING}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return what is missing, too much, or other than it should be."""
    missing = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    more = [f"{name} is too much" for name in found.keys() - wanted.keys()]
    other = [
        f"{name}: {found[name]} instead of {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    return sorted(missing + more + other)


Campaign = Callable[[Path, int, list[str]], tuple["collections.Counter[str]", list[str]]]


def run_campaign(campaign: Campaign, description: str | None, amount: str, default: int) -> bool:
    """Read the options, run a campaign in a scratch folder, print its figures; say if any is wrong.

    ``campaign`` is given the folder, how many (the option ``amount``), and the only commands.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(f"--{amount}", type=int, default=default, dest="amount")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="a command's name")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"stylecli-{amount}-") as folder:
        counts, wrong = campaign(Path(folder), arguments.amount, arguments.only)
    print(f"seed: {arguments.seed}")
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(*wrong, sep="\n")
    print(f"wrong: {len(wrong)}; took {time.monotonic() - started:.0f} s")
    return bool(wrong)
