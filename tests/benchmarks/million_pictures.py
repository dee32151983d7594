"""Pack very many pictures from tar shards, start training on them, and watch the memory.

    python tests/benchmarks/million_pictures.py --pictures 1000000 --folder /tmp/million

makes shards of synthetic pictures (a coloured ramp each, as PNG, with a class), packs them at 64 px
with ``stylecli pack``, and starts ``stylecli train`` on the dataset until its first ticks. The
memory of the whole command, workers included, is read from ``/proc`` (Linux) twice a second: of
every process what it holds alone (RSS without the pages of files, which the system drops at need).
It prints for each step the seconds, CPU-seconds, and the memory after each tenth of the time; for
training, at one resolution, also the most that was held in each tick.
"""

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np

SIDE = 64
PER_SHARD = 10_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


def ramp(number: int) -> bytes:
    """Return picture ``number`` as a PNG of some 200 to 400 bytes: no two are equal.

    Each row is the one above and a step, which PNG's filter "up" says of itself: no encoder, which
    took most of the time, is needed.
    """
    corner = np.frombuffer(number.to_bytes(4, "big"), np.uint8)[1:]
    first = b"\0" + (corner + np.arange(SIDE, dtype=np.uint8)[:, None]).tobytes()
    step = bytes((number % 3, number % 2 + 1, 1))
    rows = first + (b"\2" + step * SIDE) * (SIDE - 1)
    shape = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", shape), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def make_shards(folder: Path, pictures: int) -> None:
    """Write the shards that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, pictures, PER_SHARD):
        shard = folder / f"ramps-{first // PER_SHARD:04d}.tar"
        if shard.exists():
            continue
        with tarfile.open(shard.with_suffix(".part"), "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(first, min(first + PER_SHARD, pictures)):
                for suffix, content in (("png", ramp(number)), ("cls", str(number % 10).encode())):
                    info = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        shard.with_suffix(".part").rename(shard)


def own_memory(root: int) -> float:
    """Return MiB that a process and its descendants hold apart from files."""
    children: dict[int, list[int]] = {}
    held = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            _, resident, shared = Path("/proc", entry, "statm").read_text().split()[:3]
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry))
        held[int(entry)] = (int(resident) - int(shared)) * _PAGE / 2**20
    found, todo = 0.0, [root]
    while todo:
        process = todo.pop()
        found += held.get(process, 0.0)
        todo += children.get(process, [])
    return found


def watched(words: list[str], stats: Path | None = None) -> dict[str, object]:
    """Run a command and return its times and its memory over the time, and by lines of stats."""
    before, start = os.times(), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stylecli", *words], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    samples: list[float] = []
    ticks: dict[int, float] = {}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            samples.append(own_memory(process.pid))
            if stats is not None and process.poll() is None:
                tick = len(stats.read_bytes().splitlines()) if stats.exists() else 0
                ticks[tick] = max(ticks.get(tick, 0.0), samples[-1])

    thread = threading.Thread(target=sample)
    thread.start()
    output, _ = process.communicate()
    done.set()
    thread.join()
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    tenths = [round(samples[place * (len(samples) - 1) // 10]) for place in range(11)]
    return {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(cpu, 1),
            "MiB": tenths if samples else [], "most_MiB": round(max(samples, default=0)),
            "tick_MiB": [round(most) for _, most in sorted(ticks.items())],
            "end": output.strip().splitlines()[-3:]}  # fmt: skip


def main() -> None:
    """Make, pack, train, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kimg", type=float, default=12.0)
    options = parser.parse_args()
    start = time.monotonic()
    make_shards(options.folder / "shards", options.pictures)
    print(json.dumps({"shards": options.pictures, "seconds": round(time.monotonic() - start, 1)}))
    dataset = options.folder / "ramps.lmdb"
    packed = watched(["pack", str(options.folder / "shards"), "--out", str(dataset),
                      "--resolution", "64", "--channels", "3",
                      "--workers", str(options.workers)])  # fmt: skip
    print(json.dumps({"pack": packed}), flush=True)
    run = options.folder / "run"
    trained = watched(["train", str(dataset), "--preset", "small", "--kimg", str(options.kimg),
                       "--initial-resolution", "64", "--tick-kimg", "1", "--fmap-max", "4",
                       "--batch", "32", "--snapshot-ticks", "100",
                       "--out", str(run)], run / "stats.jsonl")  # fmt: skip
    print(json.dumps({"train": trained}), flush=True)


if __name__ == "__main__":
    main()
