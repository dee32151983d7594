"""Find the working directory's datasets and runs, so that commands work without arguments.

    datasets/<name>.lmdb/            what `stylecli pack` writes
    runs/00000-<description>/        what `stylecli train` writes
    demo/dataset.lmdb, demo/run/     what `stylecli demo` writes

A run holds ``run.json`` (settings; names its dataset), ``stats.jsonl``, ``events.jsonl``,
``checkpoint.safetensors`` (to continue from), and by number of images shown
``network-snapshot-NNNNNNNNN.safetensors`` and sample sheets ``fakesNNNNNNNNN.png``. Where training
was measured, ``best.json`` and ``checkpoint-best.safetensors`` are the best snapshot so far.
"""

import contextlib
import math
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecli import hub, shipped
from stylecli.errors import DataError, NetworkError, UsageError, plural
from stylecli.files import LOCK_FILE, read_json, row_number, sweep
from stylecli.progress import Progress, silent

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_CHECKPOINT_FILE = "checkpoint-best.safetensors"  # full state at the best snapshot
LAST_GOOD_FILE = "checkpoint-before-stop.safetensors"  # full state before the watchdog stopped it
BEST_FILE = "best.json"  # which snapshot that is, and by what
NEAREST_FILE = "nearest.png"  # newest fakes above the training pictures they resemble most
INITIAL_FILE = "initial.safetensors"  # where a run of --resume began
EVENTS_FILE = "events.jsonl"
STATS_FILE = "stats.jsonl"
DEMO_FILE = "demo.json"  # what a demo was made with
BEST_NAME = "best"  # --network RUN/best
_MOST_SWEPT = 1000  # folders
# What training writes into a run by the number of images shown, and nobody else.
_SAVED = re.compile(r"(?:network-snapshot-(\d{9,})\.safetensors|fakes(\d{9,})\.png)")
_RUN_NAME = re.compile(r"^([0-9]{5,})(-.*)?$")
_RUN_VALUES: dict[str, type | tuple[type, ...]] = {
    "format": int, "stylecli": str, "network": dict, "training": dict, "dataset": dict,
    "ranks": int, "device": str, "origin": (dict, type(None)), "environment": dict, "started": str,
    "finished": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A path and, where it was not given by hand, a phrase saying how it was chosen."""

    path: Path
    why: str = ""

    @property
    def shown(self) -> str:
        """What a note says of it: a path of this folder and why, or that it came along."""
        return self.why if self.path == shipped.shipped_network() else f"{self.path} ({self.why})"


def has_address(network: Path) -> bool:
    """Whether a network is named by what is no file here: ``hub:owner/name`` or ``shipped``."""
    return hub.is_address(network) or (network == Path(shipped.NAME) and not network.exists())


def find_network(
    network: Path | None = None, root: Path = Path(), progress: Progress = silent
) -> Found:
    """Return the network file to use: the given file or run, else the newest run's newest network.

    A run's newest network is taken, of ``RUN/best`` the one that measured best. Looks into
    ``runs/``, then ``demo/``; where nothing is trained, takes the network that comes with the
    package, which ``shipped`` names. ``hub:owner/name`` is fetched into the cache where it is not
    there yet; ``progress`` counts its megabytes. Raises NetworkError when there is none.
    """
    if network is not None and hub.is_address(network):
        address = hub.parse_address(network)
        if address.kind != "network":
            raise UsageError(f"{address} is a dataset: expected a network, such as hub:OWNER/NAME")
        record = hub.open_network(address, progress)
        return Found(Path(record.path), f"{address} as of commit {record.commit[:12]}")
    if network is not None:
        if has_address(network):
            return _shipped_network("the network that comes with stylecli")
        if network.is_dir():
            return Found(_run_network(network), f"the newest network of {network}")
        if network.name == BEST_NAME and network.parent.is_dir():
            return Found(best_snapshot(network.parent), f"the best network of {network.parent}")
        if not network.is_file():
            raise NetworkError(missing(network, "give a file or a run folder", "network"))
        return Found(network)
    try:
        run = find_run(root)
    except NetworkError:
        return _shipped_network("the network that comes with stylecli (none is trained here)")
    return Found(_run_network(run), f"the newest network of {run}")


def runs_newest_first(root: Path = Path()) -> list[Path]:
    """Return all runs here, the one that was written to last first; ``demo/run`` comes after them.

    ``root`` is a working directory or a folder of runs, such as ``runs`` itself.

    This is what every command means by the newest run: those that need a network take the first
    that has one.
    """
    written = {run: _written(run) for run in list_runs(root) or _runs_within(root)}
    runs = sorted((run for run in written if written[run]), key=lambda run: -written[run])
    demo = root / "demo" / "run"
    return [*runs, demo] if _written(demo) else runs


def _written(run: Path) -> float:
    """Return when a run was last written to; 0 for a folder that is none."""
    newest = newest_snapshot(run)
    paths = [run / RUN_FILE, run / STATS_FILE, *([newest] if newest else [])]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def find_run(root: Path = Path()) -> Path:
    """Return the newest run that has a network; raise NetworkError for none."""
    for run in runs_newest_first(root):
        if newest_snapshot(run):
            return run
    raise NetworkError(
        f"there is no trained network in {_shown(root)}: run stylecli demo or stylecli train, "
        "or give --network FILE"
    )


def find_dataset(
    data: Path | None = None,
    root: Path = Path(),
    run: Path | None = None,
    given_as: str = "PATH",
) -> Found:
    """Return the dataset to use: the given one, else the run's own, else the only one here.

    Looks into ``datasets/``, then ``demo/``. Raises DataError when there is none or a choice;
    ``given_as`` is how the command that asks takes a dataset.
    """
    if data is not None:
        if not data.exists() and not SHARDS.search(str(data)):  # shards are looked for one by one
            raise DataError(
                describe_unfinished(data) or missing(data, "make one with stylecli pack", "dataset")
            )
        return Found(data)
    if run is not None and (own := run_dataset(run)) is not None:
        return Found(own, f"the dataset of {run}")
    here = sorted((root / "datasets").glob("*.lmdb"))
    if len(here) == 1:
        return Found(here[0], "the only dataset in datasets/")
    if len(here) > 1:
        names = ", ".join(str(path) for path in here[:5]) + ", ..." * (len(here) > 5)
        raise DataError(
            f"there are {len(here)} datasets ({names}): name one, such as "
            + given_as.replace("PATH", shlex.quote(str(here[0])))
        )
    demo = root / "demo" / "dataset.lmdb"
    if demo.exists():
        return Found(demo, "the demo's dataset")
    raise DataError(
        f"there is no dataset in {_shown(root)}: make one with stylecli pack PICTURES/, "
        f"draw the demo's faces with stylecli demo, or give {given_as}"
    )


SHARDS = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""What stands for numbers in the name of tar shards: ``shards-{000..009}.tar``."""


def check_there(path: Path, expected: str) -> None:
    """Raise DataError, which says what was expected or is meant, where nothing is at ``path``."""
    if not path.exists():
        raise DataError(describe_unfinished(path) or missing(path, f"expected {expected}"))


def check_demo_folder(folder: Path, minutes: float, seed: int, *, force: bool) -> None:
    """Raise UsageError where ``stylecli demo`` may not write: other files, or another demo.

    ``force`` permits to empty a demo of any kind, but no folder of other files.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: give another --out")
    record = folder / DEMO_FILE
    if not record.exists():
        if folder.exists() and any(not is_passing(item) for item in folder.iterdir()):
            why = "--force does not empty it, " if force else ""
            raise UsageError(f"{folder} holds files that are not a demo: {why}give another --out")
    elif not force:
        found = read_json(record)
        if (found.get("minutes"), found.get("seed")) != (minutes, seed):
            raise UsageError(
                f"{folder} holds a demo of {found.get('minutes')} minutes with seed "
                f"{found.get('seed')}: give another --out, or --force to start over"
            )


def is_passing(item: Path) -> bool:
    """Whether a file is there only while a command runs."""
    return item.name == LOCK_FILE or item.suffix == ".part"


def missing(path: Path, otherwise: str, what: str = "") -> str:
    """Return the sentence about a path that does not exist, which ends with what to do.

    That is a similar name beside it, the download of an address (written as it was typed, which
    Path does not keep), else ``otherwise``. ``what`` is the option or kind of file.
    """
    words = f"{what} " if what else ""
    if hub.is_address(path):
        return f"{words}{path.as_posix()} is on the hub: run stylecli hub pull {path.as_posix()}"
    if path.parts[:1] in (("http:",), ("https:",)):
        address = path.as_posix().replace(":/", "://", 1)
        return (
            f"{words}{address} is an address: download it first, curl -L -O '{address}', "
            "then give the file"
        )
    return f"{words}{path} does not exist{_near_name(path) or f': {otherwise}'}"


def _near_name(path: Path) -> str:
    """Ask whether a similar name beside ``path`` was meant; empty where none is similar."""
    import difflib

    names: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        names = [name for name in os.listdir(path.parent) if not name.startswith(".")]
    near = difflib.get_close_matches(path.name, names[:_MOST_SWEPT], 1, 0.75)
    return f". Did you mean {path.with_name(near[0])}?" if near and path.name else ""


def describe_unfinished(dataset: Path) -> str:
    """Say what to do where only the unfinished part of a dataset lies; empty where none does."""
    dataset = Path(os.path.realpath(dataset)) if dataset.is_symlink() else dataset
    part = dataset.with_name(dataset.name + ".part")
    if not (part / "data.mdb").is_file():
        return ""
    return (
        f"{dataset} is unfinished ({part.name} is there): run the same stylecli pack command "
        f"again to continue"
    )


def sweep_leftovers(root: Path = Path()) -> None:
    """Remove what commands that were killed left where commands write when not told otherwise.

    That is in ``root``, its folders, and those of ``runs``, ``demo`` and ``out``; unfinished work
    that the same command continues stays. Other folders are swept when they are next written to.
    """
    folders = [root, *_folders(root)]
    for name in ("runs", "demo", "out"):
        folders += _folders(root / name)
    for folder in folders[:_MOST_SWEPT]:
        sweep(folder)
        for aside in folder.glob(".*.replaced"):  # by a new dataset, which has its name already
            new = folder / aside.name[1:].removesuffix(".replaced")
            with contextlib.suppress(OSError):
                if (new / "data.mdb").is_file() and _is_bare_dataset(aside):
                    shutil.rmtree(aside)


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
    return []


def _is_bare_dataset(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {"data.mdb", "lock.mdb", "writer.lock"}


def list_runs(root: Path = Path()) -> list[Path]:
    """Return the numbered run folders in ``runs/``, in order of their numbers."""
    folder = root / "runs"
    if not folder.is_dir():
        return []
    runs = [run for run in folder.iterdir() if _RUN_NAME.match(run.name) and run.is_dir()]
    return sorted(runs, key=lambda run: (run_number(run), run.name))


def run_number(run: Path) -> int:
    """Return the number of a run of ``list_runs``."""
    return int(run.name.partition("-")[0])


def _runs_within(folder: Path) -> list[Path]:
    """Return the runs that lie in a folder of any name, whatever they are called."""
    return sorted(run for run in _folders(folder) if (run / RUN_FILE).is_file())


def next_run(description: str, root: Path = Path()) -> Path:
    """Return the path of a new run: the next free number and a description, not yet made."""
    runs = root / "runs"
    names = os.listdir(runs) if runs.is_dir() else []
    taken = [run_number(runs / name) for name in names if _RUN_NAME.match(name)]
    return runs / f"{max(taken, default=-1) + 1:05d}-{description}"


def newest_run(root: Path = Path()) -> Path:
    """Return the newest run, which may have no network yet; raise NetworkError for none."""
    for run in runs_newest_first(root):
        if (run / RUN_FILE).exists():
            return run
    raise NetworkError(
        f"there is no run in {_shown(root)}: run stylecli train or stylecli demo, or give RUN"
    )


def newest_snapshot(run: Path) -> Path | None:
    """Return the network snapshot of a run with the most training, if it has one."""
    return next(reversed(list_snapshots(run)), None)


def snapshot_path(run: Path, nimg: int) -> Path:
    """Return where the networks after ``nimg`` images lie."""
    return run / f"network-snapshot-{nimg:09d}.safetensors"


def sheet_path(run: Path, nimg: int) -> Path:
    """Return where the sample sheet drawn after ``nimg`` images lies."""
    return run / f"fakes{nimg:09d}.png"


def folder_of(network: Path) -> Path:
    """Return where what is made of a network goes unless told otherwise: out/<run>-<kimg>."""
    name = network.stem
    if name.startswith("network-snapshot-"):
        run = network.resolve().parent
        owner = run.parent.name if run.name == "run" else run.name
        name = f"{owner}-{name.removeprefix('network-snapshot-')}"
    return Path("out") / name


def saved_at(name: str) -> int | None:
    """Return after how many images training wrote the network or sample sheet of this name.

    None for the names of all other files.
    """
    found = _SAVED.fullmatch(name)
    return None if found is None else int(found[1] or found[2])


def list_snapshots(run: Path) -> list[Path]:
    """Return the network snapshots of a run, the one with the least training first."""
    return _list_saved(run, "network-snapshot-*")


def list_sheets(run: Path) -> list[Path]:
    """Return the sample sheets of a run, the one with the least training first."""
    return _list_saved(run, "fakes*")


def _list_saved(run: Path, pattern: str) -> list[Path]:
    places = {path: saved_at(path.name) for path in run.glob(pattern)}
    return [path for _, path in sorted((n, path) for path, n in places.items() if n is not None)]


def read_best(run: Path) -> dict[str, Any] | None:
    """Return what ``best.json`` says: network, nimg, kimg, metric, value; None for none."""
    with contextlib.suppress(OSError, NetworkError):
        best: dict[str, Any] = read_json(run / BEST_FILE, error=NetworkError)
        numbers = [row_number(best, name) for name in ("nimg", "kimg", "value")]
        if isinstance(best.get("metric"), str) and all(map(math.isfinite, numbers)):
            return best
    return None


def best_snapshot(run: Path) -> Path:
    """Return the snapshot that measured best while it trained; raise NetworkError for none."""
    try:
        snapshot = run / str(read_json(run / BEST_FILE)["network"])
    except (OSError, DataError, KeyError):
        raise NetworkError(
            f"{run} has no best network: none was measured while it trained; the newest is "
            f"--network {run}"
        ) from None
    if not snapshot.is_file():
        raise NetworkError(f"the best network of {run}, {snapshot.name}, is gone")
    return snapshot


def read_run(run: Path) -> dict[str, Any]:
    """Return a run's settings; raise NetworkError when the folder is not a run."""
    try:
        settings: dict[str, Any] = read_json(run / RUN_FILE, error=NetworkError)
    except (FileNotFoundError, NotADirectoryError):
        _refuse_many(run)
        raise NetworkError(f"{run} is not a run: it has no {RUN_FILE}") from None
    for name, kind in _RUN_VALUES.items():
        if name in settings and not isinstance(settings[name], kind):
            raise NetworkError(
                f"{run / RUN_FILE} is not readable: {name} is {str(settings[name])[:40]!r}"
            )
    dataset = settings.get("dataset", {})
    if not all(isinstance(dataset.get(name, ""), str) for name in ("path", "digest")):
        raise NetworkError(f"{run / RUN_FILE} is not readable: dataset is {str(dataset)[:40]!r}")
    return settings


def run_dataset(run: Path) -> Path | None:
    """Return the dataset a run was trained on, if it is still there.

    It is stored relative to the run, so that a working directory can be moved as a whole.
    """
    try:
        stored = read_run(run).get("dataset", {}).get("path")
    except NetworkError:
        return None
    if not stored:
        return None
    path = Path(os.path.normpath(run / stored))
    return path if path.exists() else None


def _shipped_network(why: str) -> Found:
    path = shipped.shipped_network()
    if path is None:
        raise NetworkError(
            "there is no trained network here, and this copy of stylecli has none: run "
            "stylecli demo or stylecli train, or give --network FILE"
        )
    return Found(path, why)


def _run_network(run: Path) -> Path:
    snapshot = newest_snapshot(run)
    if snapshot is None:
        _refuse_many(run)
        raise NetworkError(f"{run} holds no network yet: continue its training, or give a file")
    return snapshot


def _refuse_many(folder: Path) -> None:
    """Raise NetworkError for a folder of runs where one run is meant."""
    if not (folder / RUN_FILE).exists() and (runs := runs_newest_first(folder)):
        raise NetworkError(
            f"{folder} holds {plural(len(runs), 'run')}: give one, such as {runs[0]}, the newest"
        )


def _shown(root: Path) -> str:
    return "this folder" if root == Path() else str(root)
