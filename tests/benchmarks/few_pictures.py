"""What augmentation is worth on 300 demo faces, for docs/few-pictures.md.

    python tests/benchmarks/few_pictures.py FOLDER [--seeds 3] [--kimg 300] [--pictures 300]
        [--minutes 60] [--page docs/few-pictures.md] [--images docs/images]

Trains configuration f at 32 px by ``stylecli train --preset small``, one process on one thread,
with ``--augment none`` and with ``--augment adaptive``, for every seed. Of every snapshot 1,000
fakes are compared with 1,700 faces that were not trained on: KID x 1000 of EfficientNet's features,
and the share of fakes that look turned by more than 30 degrees, which is more than five times what
faces are tilted by. A turn is what a small network says that was trained on further faces, turned
at random; how often it is wrong on the held-out ones is in the table.

All there is stands in FOLDER, so that the same command continues, also within a training, whenever
it was stopped: by Ctrl-C or after ``--minutes``. With ``--page`` the table goes between that page's
few-pictures marks and the curves into ``--images``.
"""

import argparse
import itertools
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from held_out import (
    HeldOut,
    Results,
    draw_faces,
    run_until,
    stylecli_command,
    write_curves,
)
from pages import write_block

from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import make_demo_dataset
from stylecli.files import replacing
from stylecli.metrics.picture_sets import draw_samples
from stylecli.workspace import list_snapshots, saved_at

HELD_OUT, BOUND = 1700, 30.0  # pictures, degrees
JUDGE_FACES, JUDGE_STEPS = 4000, 2000
SNAPSHOT_TICKS = 4
WAYS = {"plain": "none", "ADA": "adaptive"}


class TurnJudge:
    """Tells by how many degrees faces are turned; a small network, trained once a folder."""

    def __init__(self, held, folder):
        self._network = torch.nn.Sequential(
            *(layer for a, b in itertools.pairwise((3, 24, 48, 64))
              for layer in (torch.nn.Conv2d(a, b, 3, stride=2, padding=1), torch.nn.ReLU())),
            torch.nn.Flatten(), torch.nn.Dropout(0.2), torch.nn.Linear(64 * 16, 64),
            torch.nn.ReLU(), torch.nn.Linear(64, 2),  # cosine and sine
        )  # fmt: skip
        path = folder / f"judge-{JUDGE_FACES}.pt"
        if not path.exists():
            first = held.first + len(held.faces)
            faces = draw_faces(folder / f"judge-{first}-{JUDGE_FACES}.npz", first, JUDGE_FACES, 32)
            torch.manual_seed(0)
            facts = self._train(torch.from_numpy(faces), torch.from_numpy(held.faces))
            with replacing(path) as temporary:
                torch.save({"facts": facts, "network": self._network.state_dict()}, temporary)
        stored = torch.load(path, weights_only=True)
        self._network.load_state_dict(stored["network"])
        self._network.eval()
        self.facts = stored["facts"]

    def _train(self, faces, others):
        """Train on faces, turned at random; return how it does on the others."""
        random = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(self._network.parameters(), lr=2e-3)
        for step in range(JUDGE_STEPS):
            optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / JUDGE_STEPS)
            chosen = faces[torch.randint(len(faces), (64,), generator=random)].float()
            angles = torch.rand(64, generator=random) * 360 - 180
            angles[:16] = 0.0  # those that matter most
            known = torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], dim=1)
            loss = (self._network(turned(chosen, angles) / 128 - 1) - known).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self._network.eval()
        signs = torch.randint(2, (len(others),), generator=random) * 2 - 1
        angles = (BOUND + torch.rand(len(others), generator=random) * (180 - BOUND)) * signs
        return {"mistaken": self.share(others.numpy()),
                "found": self.share(turned(others.float(), angles).numpy())}  # fmt: skip

    def share(self, pictures):
        """Return the share of pictures [N, 3, 32, 32], 0 to 255, that look turned by over BOUND.

        A mirrored picture is turned the other way round: both are asked.
        """
        pictures = torch.from_numpy(pictures).float() / 128 - 1
        with torch.inference_mode():
            mirrored = self._network(pictures.flip(3)) * torch.tensor([1.0, -1.0])
            found = self._network(pictures) + mirrored
        return float((torch.atan2(found[:, 1], found[:, 0]).rad2deg().abs() > BOUND).float().mean())


def turned(faces, angles):
    """Return faces [N, 3, R, R] turned by degrees, mirrored at their edges as augmentation does."""
    cosine, sine = angles.deg2rad().cos(), angles.deg2rad().sin()
    nothing = torch.zeros_like(cosine)
    matrix = torch.stack([cosine, -sine, nothing, sine, cosine, nothing], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)


def train(run, dataset, augment, seed, kimg, deadline):
    """Train or continue a run until it is done, or until the deadline; return whether it is."""
    words = ["train", dataset, "--out", run, "--config", "f", "--preset", "small",
             "--kimg", f"{kimg:g}", "--augment", augment, "--seed", seed, "--ranks", 1,
             "--device", "cpu", "--snapshot-ticks", SNAPSHOT_TICKS, "--watch", "off",
             "--tick-kimg", f"{max(0.1, kimg / 60):g}"]  # fmt: skip
    with open(run.with_suffix(".log"), "ab") as log:
        return run_until(stylecli_command(*words), deadline, stdout=log, stderr=log)


def measure(run, kept, held, judge, results, deadline):
    """Measure the run's snapshots that were not measured yet; return whether none is left."""
    for path in list_snapshots(run):
        kimg = f"{saved_at(path.name) / 1000:g}"
        if kimg == "0" or kimg in kept:
            continue
        if time.monotonic() > deadline:
            return False
        G = load_network(path, drawing=True).generator
        samples = draw_samples(G, results["settings"]["fakes"], seed=0, batch=50, labels=None)
        fakes = np.concatenate([sample.pictures for sample in samples])
        kept[kimg] = {"kid": held.kid(held.features(fakes)), "turned": judge.share(fakes)}
        results.keep()
        print(run.name, kimg, kept[kimg], flush=True)
    return True


def best_and_last(kept):
    """Return (kimg, numbers) of a run's snapshot with the least distance, and of its last."""
    rows = [(float(kimg), numbers) for kimg, numbers in kept.items()]
    return min(rows, key=lambda row: row[1]["kid"]), max(rows, key=lambda row: row[0])


def table(results):
    """Return what was measured as Markdown."""
    settings, judge = results["settings"], results.get("judge")
    finished = {
        way: [
            best_and_last(run["snapshots"])
            for name, run in results["runs"].items()
            if name.startswith(f"{way}-") and run["finished"]
        ]
        for way in WAYS
    }
    if judge is None or not all(finished.values()):
        return "Not measured yet.\n"
    lines = [
        f"{settings['pictures']} demo faces of all styles, 32 px, `--config f --preset small "
        f"--kimg {settings['kimg']:g}`; KID × 1000 of {settings['fakes']} fakes to {HELD_OUT} "
        "other faces, by EfficientNet's features. A fake counts as turned above 30 degrees; the "
        f"judge calls {judge['mistaken']:.1%} of real, upright faces turned, and "
        f"{judge['found']:.0%} of those that are.",
        "",
        "| | runs | KID × 1000 at best | at kimg | at the end | turned at best | at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, runs in finished.items():
        best, last = zip(*runs, strict=True)
        lines.append(
            f"| {way} | {len(runs)} | {spread([row['kid'] for _, row in best])} | "
            f"{spread([kimg for kimg, _ in best], 0)} | {spread([row['kid'] for _, row in last])} "
            f"| {spread([100 * row['turned'] for _, row in best])} % | "
            f"{spread([100 * row['turned'] for _, row in last])} % |"
        )
    best = {way: np.median([one[0][1]["kid"] for one in runs]) for way, runs in finished.items()}
    last = {way: np.median([one[1][1]["kid"] for one in runs]) for way, runs in finished.items()}
    lines += ["", f"Medians; all runs in brackets. With ADA the best is "
              f"{best['ADA'] / best['plain']:.2f} of the best without, and the end "
              f"{last['ADA'] / best['plain']:.2f} of it.", ""]  # fmt: skip
    return "\n".join(lines)


def spread(values, digits=1):
    """Return the median and, of several, all values."""
    shown = ", ".join(f"{value:.{digits}f}" for value in values)
    return f"{np.median(values):.{digits}f}" + (f" ({shown})" if len(values) > 1 else "")


def curves(results):
    """Return a curve for every run: name -> (kimg, KID)."""
    found = {}
    for name, run in results["runs"].items():
        rows = sorted((float(kimg), row["kid"]) for kimg, row in run["snapshots"].items())
        found[name] = [list(column) for column in zip(*rows, strict=True)] or ([], [])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kimg", type=float, default=300.0)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--fakes", type=int, default=1000, help="of every snapshot")
    parser.add_argument("--minutes", type=float, default=math.inf, help="then pause")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * options.minutes
    options.folder.mkdir(parents=True, exist_ok=True)
    settings = {"kimg": options.kimg, "pictures": options.pictures, "fakes": options.fakes}
    results = Results(options.folder / "results.json", settings)
    runs = results.setdefault("runs", {})
    dataset = make_demo_dataset(options.folder / "few.lmdb", count=options.pictures,
                                all_styles=True)  # fmt: skip
    held = HeldOut(options.folder, options.pictures, HELD_OUT)
    judge = TurnJudge(held, options.folder)  # first: its errors bound what can be said
    results["judge"] = judge.facts
    print(judge.facts, flush=True)
    for seed in range(options.seeds):
        for way, augment in WAYS.items():
            name = f"{way}-{seed}"
            kept = runs.setdefault(name, {"finished": False, "snapshots": {}})
            if kept["finished"] or time.monotonic() > deadline:
                continue
            run = options.folder / name
            done = train(run, dataset, augment, seed, options.kimg, deadline)
            all_measured = measure(run, kept["snapshots"], held, judge, results, deadline)
            kept["finished"] = done and all_measured
            results.keep()
    text = table(results)
    print(text)
    if options.images:
        write_curves(options.images / "few-pictures.svg", "Held-out KID x 1000", curves(results),
                     "kimg")  # fmt: skip
        text += "\n![Held-out KID by images shown, a curve a run](images/few-pictures.svg)\n"
    if options.page:
        write_block(options.page, "few-pictures", text)


if __name__ == "__main__":
    main()
