"""Ask a running `stylecli explore` for thousands of pictures, and see that memory stays flat.

    python tests/benchmarks/explore_soak.py --requests 10000

Starts the server on the shipped network in a temporary folder. Asks over one connection, as the
page does, for pictures of new seeds, psi, noise and mixes, frames of walks, sheets, lists and wrong
states, in turn. Prints the memory of the server and of the process that draws, in RAM and swapped
out, after a tenth of the requests and at the end, how long answers took and how many there were of
each status. Exits with 1 where memory grew by more than a tenth. Reads /proc, so it needs Linux.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MOST_GROWTH = 0.10


def held_mib(process: int) -> float:
    """Return the memory of a process, in RAM or swapped out, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.startswith(("VmRSS:", "VmSwap:"))]
    return sum(int(row[1]) for row in rows) / 1024


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has taken."""
    words = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text(encoding="ascii").split()]


def address(number: int) -> str:
    """Return what the request of a number asks for; no two states are the same."""
    kinds = (
        f"/api/picture?seed={number}&psi={number % 150 / 100}",
        f"/api/picture?seed={number}&noise_seed={number}&noise_scale=0.5",
        f"/api/picture?seed={number}&mix=coarse:{number + 1}&mix=fine:{number + 2}",
        f"/api/command?seed={number}",
        f"/api/walk/frame?through={number}&through={number + 1}&frame={number % 60}",
        f"/api/picture?seed={number}&psi=nothing",
        "/api/networks",
        f"/api/sheet?seeds={number}-{number + 3}" if number % 5 == 0 else "/api/faces",
        f"/api/picture?seed={number}&network=nowhere",
    )
    return kinds[number % len(kinds)]


def main() -> int:
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    count = parser.parse_args().requests
    with tempfile.TemporaryDirectory(prefix="explore-soak-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "stylecli", "explore", "--network", "shipped", "--no-open",
             "--json", "--quiet", "--device", "cpu"],
            cwd=folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += server.stdout.readline()
        said = json.loads(text)
        connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=120)
        statuses: Counter[int] = Counter()
        early: dict[str, tuple[float, float]] = {}
        slowest, began = 0.0, time.perf_counter()
        for number in range(count):
            start = time.perf_counter()
            connection.request("GET", address(number), headers={"X-Stylecli-Token": said["token"]})
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
            if number:  # the first one waits until torch has loaded
                slowest = max(slowest, time.perf_counter() - start)
            if number + 1 == max(1, count // 10):
                early = figures(server.pid)
        seconds, late = time.perf_counter() - began, figures(server.pid)
        server.send_signal(signal.SIGINT)
        code = server.wait(10)
    print(f"{count:,} requests in {seconds:.0f} s, the slowest {1000 * slowest:.0f} ms")
    print(
        "statuses:", ", ".join(f"{status}: {times:,}" for status, times in sorted(statuses.items()))
    )
    print("process   after a tenth  at the end  CPU of a request in between")
    for name, (held, spent) in early.items():
        each = 1000 * (late[name][1] - spent) / (count - max(1, count // 10))
        print(f"{name:8}  {held:9.1f} MiB  {late[name][0]:6.1f} MiB  {each:.1f} ms")
    grown = [name for name in early if late[name][0] > early[name][0] * (1 + MOST_GROWTH)]
    unexpected = set(statuses) - {200, 400, 404}
    print(f"exit code of the server: {code}" + (f"; memory grew: {grown}" if grown else ""))
    return int(bool(grown or unexpected or code))


def figures(server: int) -> dict[str, tuple[float, float]]:
    """Return memory in MiB and processor seconds of the server and of the process that draws."""
    (drawing,) = children_of(server)
    processes = {"server": server, "drawing": drawing}
    return {name: (held_mib(each), cpu_seconds(each)) for name, each in processes.items()}


if __name__ == "__main__":
    sys.exit(main())
