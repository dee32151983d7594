"""Spoil datasets in many ways and give them to train, pack and metrics.

    python tests/campaigns/spoilt_datasets.py --trials 2000 --real 50

Each trial spoils a copy of a small dataset (random bytes, cut short, pages emptied or exchanged,
metadata, lower levels, labels, digests or header damaged) and runs one command after the other on
it, in a process that is forked from this one, which has loaded everything once; ``--real`` of them
are run as commands of their own. Right is: exit code 0, where every picture that was read is one of
those that were packed, or exit code 3 and one sentence; never a signal, a traceback, other pixels,
or a scratch file left behind. Prints one JSON document; exits 1 when something was not right.
"""

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import lmdb
import numpy as np

import stylecli
from stylecli.data.format import DATA_FILE, box_mean
from stylecli.data.reader import Dataset, open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.files import is_scratch

COUNT, SIDE, PAGE = 24, 16, 4096
SECONDS = 120
SMALL = ["--kimg", "0.016", "--batch", "8", "--ranks", "1", "--fmap-base", "64", "--fmap-max", "8",
         "--z-dim", "8", "--w-dim", "8", "--mapping-layers", "1", "--labels"]  # fmt: skip
METRIC = "kid@efficientnet-lite0"
COMMANDS = {
    "pack": ["pack", "a.lmdb", "--out", "copy.lmdb", "--workers", "1"],
    "pack zip": ["pack", "a.lmdb", "--out", "copy.zip"],
    "append": ["pack", "other.lmdb", "--append", "--out", "a.lmdb", "--workers", "1"],
    "train": ["train", "a.lmdb", *SMALL, "--device", "cpu"],
    "metrics": ["metrics", METRIC, "--data", "a.lmdb", "--against", "other.lmdb",
                "--device", "cpu"],
}  # fmt: skip


def make_dataset(path, seed, codec="raw"):
    """Two classes, a pyramid, and metadata of many lengths so that the tree has branches."""
    rng = np.random.default_rng(seed)
    options = {"codec": codec, "pyramid": True, "class_names": ["a", "b"]}
    with DatasetWriter(path, resolution=SIDE, channels=3, **options) as writer:
        for index in range(COUNT):
            pixels = rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
            author = "somebody " * (8 * index)
            writer.add(pixels, index % 2, {"author": author, "source": f"{index}.png"})


def known_pixels(*paths):
    """Return the pixels, at each level, that a reader may give."""
    known = {}
    for path in paths:
        pictures = open_dataset(path).read(range(COUNT))
        for level in range(SIDE.bit_length() - 2):
            known.setdefault(level, set()).update(p.tobytes() for p in box_mean(pictures, level))
    return known


def spoil(path, rng):
    """Damage the dataset at ``path``; return how."""
    file = path / DATA_FILE
    kind = rng.choice(
        ["bytes", "bytes", "header bytes", "cut", "zeros", "exchanged", "rows", "rows"]
    )
    if kind == "rows":
        return _spoil_rows(path, rng)
    content = bytearray(file.read_bytes())
    pages = len(content) // PAGE
    page, other = (PAGE * rng.randrange(pages) for _ in range(2))
    if kind == "bytes":
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == "header bytes":
        content[page + rng.randrange(64)] = rng.randrange(256)
    elif kind == "cut":
        content = content[: rng.randrange(len(content))]
    elif kind == "zeros":
        content[page : page + PAGE] = bytes(PAGE)
    else:
        first = bytes(content[page : page + PAGE])
        content[page : page + PAGE] = content[other : other + PAGE]
        content[other : other + PAGE] = first
    file.write_bytes(content)
    return kind


def _spoil_rows(path, rng):
    """Damage values under whole keys, as a faulty program would."""
    names = {b"m/": "metadata", b"p/": "level", b"l/": "label", b"d/": "digest", b"i/": "picture",
             b"h/": "level digest", b"_labels": "labels", b"_meta": "header"}  # fmt: skip
    start = rng.choice(list(names))
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as txn:
        keys = [key for key in txn.cursor().iternext(values=False) if key.startswith(start)]
        key = rng.choice(keys)
        value = bytearray(txn.get(key))
        how = rng.randrange(4)
        if how == 0:
            value[rng.randrange(len(value))] = rng.randrange(256)
        elif how == 1:
            value = value[: rng.randrange(len(value))]
        elif how == 2:
            value = bytearray(txn.get(rng.choice(keys)))
        if how == 3:
            txn.delete(key)
        else:
            txn.put(key, bytes(value))
    (path / "lock.mdb").unlink(missing_ok=True)
    return names[start]


def watch_pixels(known):
    """Make every reading in this process end it with code 99 when it gives other pixels."""
    read = Dataset.read

    def checked(self, indices, level=0, *, verify=True):
        pictures = read(self, indices, level, verify=verify)
        if not all(picture.tobytes() in known[level] for picture in pictures):
            os._exit(99)
        return pictures

    Dataset.read = checked


def run_forked(words, known):
    """Run a command in a fork; return (how it ended, what it said)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(reader)
        signal.alarm(SECONDS)
        watch_pixels(known)
        from stylecli.cli.app import app

        try:
            app(words)
        except SystemExit as ended:
            sys.stderr.flush()
            os._exit(int(ended.code or 0))
        except BaseException as error:
            print(f"Traceback {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def run_real(words, known):
    """Run a command as users do."""
    done = subprocess.run(
        [sys.executable, "-m", "stylecli", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode(errors="replace")


def judge(name, code, said, known, folder):
    """Return what is wrong with how a command ended; empty where nothing is."""
    if code < 0:
        return f"signal {-code}"
    if code == 99:
        return "other pixels were read"
    if "Traceback" in said or "failed unexpectedly" in said or "STYLECLI_DEBUG" in said:
        return "traceback"
    if code not in (0, 3):
        return f"exit code {code}"
    if code == 3 and not said.splitlines()[-1].startswith("stylecli: "):
        if name != "metrics":  # which names what could not be measured, and goes on
            return "no sentence"
    if left := [path.name for path in folder.rglob(".*") if is_scratch(path.name)]:
        return f"left behind: {left}"
    copy = folder / "copy.lmdb"
    if name == "pack" and code == 0:
        pictures = open_dataset(copy).read(range(len(open_dataset(copy))))
        if not all(picture.tobytes() in known[0] for picture in pictures):
            return "the copy has other pixels"
    return ""


def run(trials, real, seed, scratch, names):
    rng = random.Random(seed)
    bases = []
    for codec in ("raw", "png"):
        bases.append(scratch / f"{codec}.lmdb")
        make_dataset(bases[-1], 0, codec)
    make_dataset(scratch / "other.lmdb", 1)
    known = known_pixels(bases[0], scratch / "other.lmdb")
    ended, kinds, wrong = Counter(), Counter(), []
    for number in range(trials + real):
        folder = scratch / "trial"
        folder.mkdir()
        shutil.copytree(scratch / "other.lmdb", folder / "other.lmdb")
        base = rng.choice(bases)
        how = spoil(shutil.copytree(base, folder / "a.lmdb"), rng)
        kinds[how] += 1
        kept = (folder / "a.lmdb" / DATA_FILE).read_bytes()
        os.chdir(folder)
        os.environ["STYLECLI_CACHE"] = f"{folder}/cache"  # or pictures would not be read again
        for name in names:
            (folder / "a.lmdb" / DATA_FILE).write_bytes(kept)
            runner = run_real if number >= trials else run_forked
            code, said = runner(COMMANDS[name], known)
            ended[f"{name}: {code}"] += 1
            if problem := judge(name, code, said, known, folder):
                wrong.append([number, base.name, how, name, problem, said[-600:]])
                print(json.dumps(wrong[-1]), file=sys.stderr, flush=True)
        os.chdir(scratch)
        shutil.rmtree(folder)
        if number % 100 == 99:
            print(number + 1, dict(sorted(ended.items())), file=sys.stderr, flush=True)
    return {
        "datasets": trials,
        "by the real command": real,
        "spoilt": dict(kinds),
        "ended": dict(sorted(ended.items())),
        "wrong": wrong,
    }


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--real", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    chosen = parser.parse_args(words)
    for module in pkgutil.walk_packages(stylecli.__path__, "stylecli."):  # once, for all forks
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # extras
                importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as scratch:
        names = chosen.commands.split(",")
        report = run(chosen.trials, chosen.real, chosen.seed, Path(scratch).resolve(), names)
        os.chdir("/")
    print(json.dumps(report))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
