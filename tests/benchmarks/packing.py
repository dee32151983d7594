"""Measure what packing photographs and reading them back costs, beside any other program.

    python tests/benchmarks/packing.py PHOTOS --repeats 5 \
        --peer "other=other_tool --in {photos} --out {out}.zip" \
        --reader "other=python read_other.py {out}.zip"

All programs run in turn, ours first, ``--repeats`` times, and the medians are printed. CPU is user
and system time of a command and all its processes: it hardly depends on what else the machine does.
It is told with and without the start, which is what the same command takes for a single picture.
A reader reads random pictures of its program's output and prints, as its last line, JSON with
``pictures`` and ``cpu_seconds``; ours is ``packing.py --read DATASET``.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = "stylecli"
PACK = "{python} -m stylecli pack {photos} --out {out} --resolution {resolution} --quiet"
READ = "{python} {script} --read {out}"
READS = 2000


def main() -> None:
    """Pack and read with every program in turn, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="?", type=Path, help="folder of photographs")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--reader", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--read", type=Path, metavar="DATASET", help="be our reader")
    arguments = parser.parse_args()
    if arguments.read:
        read_randomly(arguments.read)
        return
    packers = {OURS: PACK} | dict(peer.split("=", 1) for peer in arguments.peer)
    readers = {OURS: READ} | dict(reader.split("=", 1) for reader in arguments.reader)
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments, packers, readers, Path(scratch))


def measure(
    arguments: argparse.Namespace,
    packers: dict[str, str],
    readers: dict[str, str],
    scratch: Path,
) -> None:
    """Run everything interleaved and print medians, with the lowest and highest."""
    photos = sorted(path for path in arguments.photos.rglob("*") if path.is_file())
    single = scratch / "single" / "all"
    single.mkdir(parents=True)
    shutil.copy(photos[0], single)
    words = {"resolution": arguments.resolution, "python": sys.executable, "script": __file__}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in packers}
    for _ in range(arguments.repeats):
        for name, command in packers.items():
            out = scratch / f"{name}-out"
            start, _wall = run(command.format(photos=single.parent, out=out, **words))
            clear(scratch, out)
            cpu, wall = run(command.format(photos=arguments.photos, out=out, **words))
            row = {
                "with start": 1000 * cpu / len(photos),
                "without": 1000 * (cpu - start) / (len(photos) - 1),
                "wall": wall,
                "kB/picture": size_of(scratch, out) / len(photos) / 1000,
            }
            if name in readers:
                row["read"] = reading(readers[name].format(out=out, **words))
            clear(scratch, out)
            results[name].append(row)
    print(
        f"{len(photos)} photographs, {arguments.repeats} repeats; CPU-ms a picture: median (range)"
    )
    for name, rows in results.items():
        for key in rows[0]:
            values = [row[key] for row in rows]
            print(
                f"{name:12} {key:12} {statistics.median(values):9.3f} "
                f"({min(values):.3f}-{max(values):.3f})"
            )


def run(command: str) -> tuple[float, float]:
    """Run a command and return (CPU seconds, wall seconds); it must succeed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}\n{done.stderr}")
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return cpu, ended - begun


def reading(command: str) -> float:
    """Return the CPU milliseconds a reader takes for one picture."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.strip().rpartition("\n")[2])
    return 1000 * float(told["cpu_seconds"]) / float(told["pictures"])


def read_randomly(path: Path) -> None:
    """Read random pictures one by one, as a data loader does, and print what it took."""
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(path)
    order = random.Random(0).choices(range(len(dataset)), k=READS)
    for index in order[:100]:
        dataset.read([index])
    begun = time.process_time()
    for index in order:
        dataset.read([index])
    print(json.dumps({"pictures": READS, "cpu_seconds": time.process_time() - begun}))


def size_of(scratch: Path, out: Path) -> int:
    """Return the bytes on disk of all that a command wrote at ``out``, whatever its suffix."""
    found = [path for top in scratch.glob(out.name + "*") for path in (top, *top.rglob("*"))]
    return sum(path.stat().st_blocks * 512 for path in found if path.is_file())


def clear(scratch: Path, out: Path) -> None:
    """Remove all that a command wrote at ``out``."""
    for path in scratch.glob(out.name + "*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    main()
