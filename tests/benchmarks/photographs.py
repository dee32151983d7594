"""Measure and draw all that the pages on photographs say and show, for the network shipped now.

    python tests/benchmarks/photographs.py CLASSIFIERS [--network shipped] [--results photographs]
        [--only projection,crossing,sharpening,signs,editing]

CLASSIFIERS is a file of ``stylecli metrics ls --train-classifiers`` on the demo's faces. Runs the
scripts of the same names, one after the other, from the project's folder: docs/project.md,
docs/sharpen.md, docs/info.md and docs/directions.md get their tables, docs/images their pictures,
the package its directions. Each keeps what it has measured in --results, so the same command
continues after Ctrl-C; for another network give another folder. Look at the pictures afterwards.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = "docs/images"


def calls(network, classifiers, results):
    """Return the words of every script, in order; ``results`` is where each keeps its own."""
    return {
        "projection": [network, "--page", "docs/project.md", "--pictures", PICTURES, "--results",
                       f"{results}/projection.json"],
        "crossing": [network, classifiers, "--page", "docs/project.md", "--results",
                     f"{results}/crossing"],
        "sharpening": [network, "--page", "docs/sharpen.md", "--pictures", PICTURES, "--results",
                       f"{results}/sharpening.json"],
        "signs": [network, "--page", "docs/info.md", "--results", f"{results}/signs.json"],
        "editing": [classifiers, "--network", network, "--page", "docs/directions.md",
                    "--pictures", f"{PICTURES}/directions", "--write",
                    "stylecli/shipped/directions.safetensors"],
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("classifiers", type=Path)
    parser.add_argument("--network", default="shipped")
    parser.add_argument("--results", type=Path, default=Path("photographs"))
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    scripts = calls(given.network, str(given.classifiers), given.results)
    chosen = given.only.split(",") if given.only else list(scripts)
    if unknown := set(chosen) - scripts.keys():
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")
    given.results.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        if not (HERE / f"{name}.py").exists():
            print(f"{name}: there is no such script")
            continue
        print(f"{name}: {' '.join(scripts[name])}", flush=True)
        subprocess.run([sys.executable, HERE / f"{name}.py", *scripts[name]], check=True)


if __name__ == "__main__":
    main()
