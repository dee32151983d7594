"""Kill packing with SIGKILL at random points, let it go on, and compare what comes out.

    python tests/data/fault_injection.py --kills 200

Each trial forks a process that packs, and kills it: after a random time, when its file has reached
a random size, or by its own hand before or after a random transaction or renaming. The next trial
goes on with what is left, until the dataset is complete; then every key and value must equal those
of one that was packed in one go. Every other round adds to a complete dataset instead, which must
be readable, and unchanged, after every kill. Prints one JSON document.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from stylecli.data import packing, writer
from stylecli.data.format import DATA_FILE, META_KEY
from stylecli.data.lmdb_files import Database
from stylecli.data.pack_settings import PackSettings
from stylecli.data.reader import open_dataset
from stylecli.data.sources.folders import ImageFolder
from stylecli.data.unfinished import OWN_FILES, publish
from stylecli.progress import silent

PICTURES = 120
SIDE = 32
SETTINGS = PackSettings(resolution=SIDE, channels=3)


def make_pictures(folder, seed):
    """Noise in two classes, with a damaged picture and two of equal pixels in between."""
    rng = np.random.default_rng(seed)
    for number in range(PICTURES):
        path = folder / "ab"[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    shutil.copy(folder / "a" / "010.png", folder / "a" / "050.png")
    (folder / "b" / "071.png").write_bytes(b"no picture")


def content(path):
    """Return all keys and values; dates left out."""
    with (
        lmdb.open(str(path), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        found = dict(transaction.cursor())
    header = json.loads(found[META_KEY])
    del header["created"]
    return {**found, META_KEY: header}


class Killer:
    """Decides when a trial dies, by a seeded choice."""

    def __init__(self, rng, seconds, size):
        self.kind = rng.choice(["time", "size", "transaction", "rename"])
        self.after = rng.random() * seconds * 1.1
        self.size = rng.random() * size
        self.transaction = rng.randrange(1, 30)
        self.before = rng.random() < 0.5

    def arm(self):
        """In the process that packs: die by its own hand where that was chosen."""
        calls = Counter()

        def deadly(function, when):
            def run(*arguments, **options):
                calls[function] += 1
                if calls[function] == when and self.before:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = function(*arguments, **options)
                if calls[function] == when:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return run

        if self.kind == "transaction":
            commit = Database.commit
            Database.commit = deadly(commit, self.transaction)
        if self.kind == "rename":
            writer.publish = deadly(publish, 1)

    def watch(self, child, file):
        """In the parent: kill the child when it is time; return how it ended."""
        started = time.monotonic()
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            if self.kind == "time" and time.monotonic() - started > self.after:
                os.kill(child, signal.SIGKILL)
            elif self.kind == "size" and file.exists() and file.stat().st_size > self.size:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.0005)


def pack(source, out, append, progress=silent):
    packing.pack(ImageFolder(source), out, SETTINGS, append=append, workers=1, progress=progress)


def trial(killer, source, out, append):
    """Pack in a process of its own; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            killer.arm()
            pack(source, out, append)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    part = out if append else out.with_name(out.name + ".part")
    status = killer.watch(child, part / DATA_FILE)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "packing failed after a kill"
    return False


def run(kills, seed, folder):
    rng = random.Random(seed)
    writer.BATCH_ITEMS = 4
    first, second = folder / "first", folder / "second"
    make_pictures(first, 0)
    make_pictures(second, 1)
    whole = folder / "whole.lmdb"
    started = time.monotonic()
    pack(first, whole, False)
    seconds = time.monotonic() - started
    both = shutil.copytree(whole, folder / "both.lmdb")
    pack(second, both, True)
    want = {False: content(whole), True: content(both)}
    digest = open_dataset(whole).digest
    kinds, rounds, append = Counter(), 0, False
    out = folder / "out.lmdb"
    while sum(kinds.values()) < kills:
        shutil.rmtree(out, ignore_errors=True)
        if append:
            shutil.copytree(whole, out)
        while True:
            final = sum(kinds.values()) >= kills
            killer = Killer(rng, seconds, sum(f.stat().st_size for f in whole.iterdir()))
            if final:
                killer.kind = "never"
            if not trial(killer, first if not append else second, out, append):
                break
            kinds[killer.kind] += 1
            if append:
                dataset = open_dataset(out)
                assert dataset.digest in (digest, open_dataset(both).digest)
                assert dataset.read(range(len(dataset))).shape[0] == len(dataset)
                assert len(dataset.labels) == len(dataset)
                dataset.close()
                del dataset
        assert content(out) == want[append], "the result differs from an uninterrupted one"
        assert {entry.name for entry in out.iterdir()} <= OWN_FILES
        assert not out.with_name(out.name + ".part").exists()
        rounds, append = rounds + 1, not append
    return {"kills": dict(kinds), "rounds": rounds, "seconds_uninterrupted": round(seconds, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(chosen.kills, chosen.seed, Path(scratch))))
