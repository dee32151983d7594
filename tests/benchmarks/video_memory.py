"""Peak memory of ``stylecli interpolate`` for a short and a long video, in processes of their own.

    python tests/benchmarks/video_memory.py NETWORK [--seconds 10 60] [OPTIONS OF INTERPOLATE ...]

Prints the peak resident memory of the whole command and of ffmpeg for each length, and the ratio
of the longest to the first: frames are streamed, so it should be about 1.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Runs the command line in this process, then tells two peaks in KiB: its own, and that of ffmpeg.
# A child's ru_maxrss counts the parent it was forked from, so /proc is asked while it runs (Linux).
PROBE = """
import glob, re, resource, threading, time
from stylecli.__main__ import main

peaks = {}

def watch():
    while True:
        for listing in glob.glob("/proc/self/task/*/children"):
            try:
                for pid in open(listing).read().split():
                    status = open(f"/proc/{pid}/status").read()
                    if "ffmpeg" in status.splitlines()[0]:
                        peaks[pid] = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
            except (OSError, TypeError):
                pass
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
try:
    main()
except SystemExit as end:
    if end.code:
        raise
print("peaks", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, max(peaks.values(), default=0))
"""


def measure(network: Path, seconds: float, options: list[str]) -> tuple[float, float]:
    """Return the peak MiB of the command and of ffmpeg."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["interpolate", "--network", str(network.resolve()), "--seconds", str(seconds),
                   "--quiet", *options]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
    own, child = done.stdout.split()[-2:]
    return int(own) / 1024, int(child) / 1024


def main() -> None:
    """Measure every length and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60])
    known, options = parser.parse_known_args()
    totals = []
    for seconds in known.seconds:
        own, child = measure(known.network, seconds, options)
        totals.append(own + child)
        print(f"{seconds:g} s: stylecli {own:.0f} MiB, ffmpeg {child:.0f} MiB", flush=True)
    print(f"ratio {totals[-1] / totals[0]:.3f}")


if __name__ == "__main__":
    main()
