"""How long commands take to refuse a wrong word, in CPU-seconds, beside ``stylecli --help``.

Example: python tests/benchmarks/refusals.py

Runs every refusal of ``tests/cli/test_refusals.py`` and the help in turns; prints the median of
five and its ratio to the help's.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.cli.test_refusals import REFUSED, fill

ROUNDS = 5


def cpu_seconds(words: list[str], folder: str) -> float:
    """Return the CPU-seconds of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "stylecli", *words], cwd=folder, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line for every refusal, the slowest first."""
    cases = [["--help"], *(words for words, _, _ in REFUSED)]
    seconds: dict[int, list[float]] = {place: [] for place in range(len(cases))}
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        for _ in range(ROUNDS):
            for place, words in enumerate(cases):
                seconds[place].append(cpu_seconds(words, folder))
    medians = {place: statistics.median(taken) for place, taken in seconds.items()}
    for place in sorted(medians, key=lambda place: -medians[place]):
        ratio = medians[place] / medians[0]
        print(f"{ratio:5.2f}x  {medians[place]:.3f} s  stylecli {' '.join(cases[place])}")


if __name__ == "__main__":
    main()
