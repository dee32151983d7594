"""How good pictures are after so many CPU-minutes, beside two other programs: docs/few-pictures.md.

    python tests/benchmarks/peers_quality.py FOLDER --rosinality DIR --lucidrains DIR
        [--cpu-minutes 20] [--seeds 2] [--faces 2000] [--minutes 60] [--page PAGE] [--images DIR]

DIR are checkouts of rosinality/stylegan2-pytorch and lucidrains/stylegan2-pytorch. All train on the
same demo faces of all styles, 32 px, on one thread each, one after the other: ours by ``stylecli
train --config f --preset small``, the others by their own training code with the defaults of their
command lines, at the smallest widths: rosinality's ``--channel_multiplier 1`` (which makes no
difference at 32 px: 512 maps), lucidrains' ``--network-capacity`` 1, 4 and its default 16. They
need einops, kornia and tqdm here; what they use for other things than training (torchvision, aim,
fire, vector quantisation, compiled CUDA operators) is left out, and the time of saving and drawing
is not counted for them. Of every mark 1,000 fakes are compared with 1,700 other faces: KID x 1000
of EfficientNet's features, and sliced Wasserstein distance.

All there is stands in FOLDER: the same command continues, whenever it was stopped, by Ctrl-C or
after ``--minutes``. Linux only, as it reads CPU times of processes from /proc. Their code runs with
your rights; none of it is here.
"""

import argparse
import importlib
import json
import math
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
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
from stylecli.files import replacing, write_json
from stylecli.metrics.picture_sets import draw_samples
from stylecli.workspace import list_snapshots, saved_at

RESOLUTION, HELD_OUT, BATCH = 32, 1700, 50
KIMG_A_MINUTE = 6.0  # of ours about; the schedule has to be chosen before
PROGRAMS = ("ours", "rosinality", "lucidrains-1", "lucidrains-4", "lucidrains-16")
MARKS = 10  # of a run
save_tensors = torch.save  # of rosinality's it is taken away


class PausedError(Exception):
    """The worker is to stop at this step."""


class StandIn(ModuleType):
    """A module whose every name can be imported and called, and does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")

    def __call__(self, *words, **named):
        return None


def stand_in(*names):
    for name in names:
        sys.modules[name] = StandIn(name)


# ---- the other programs, each in a process of its own


class Rosinality:
    """Their train(), which asks for pictures once a step: there it is looked at and stopped."""

    def __init__(self, folder, seed, batch):
        sys.path.insert(0, str(folder))
        stand_in("torchvision", "torchvision.transforms", "torchvision.utils")
        import torch.utils.cpp_extension

        torch.utils.cpp_extension.load = lambda *words, **named: None  # CUDA's; CPUs have theirs
        self.program = importlib.import_module("train")
        from model import Discriminator, Generator

        torch.manual_seed(seed)
        self.args = SimpleNamespace(
            iter=10**9, batch=batch, n_sample=1, size=RESOLUTION, r1=10, path_regularize=2,
            path_batch_shrink=2, d_reg_every=16, g_reg_every=4, mixing=0.9, lr=0.002,
            channel_multiplier=1, wandb=False, augment=False, augment_p=0, ada_target=0.6,
            ada_length=500_000, ada_every=256, distributed=False, latent=512, start_iter=0,
        )  # fmt: skip
        self.program.torch.save = lambda *words, **named: None  # after 0 steps already
        G, D, G_ema = (
            Generator(RESOLUTION, 512, 8, channel_multiplier=1),
            Discriminator(RESOLUTION, channel_multiplier=1),
            Generator(RESOLUTION, 512, 8, channel_multiplier=1).eval(),
        )
        self.program.accumulate(G_ema, G, 0)
        adam = torch.optim.Adam
        g, d = 4 / 5, 16 / 17  # of regularisation in phases of its own
        self.parts = {
            "G": G, "D": D, "G_ema": G_ema,
            "g_optim": adam(G.parameters(), lr=0.002 * g, betas=(0.0, 0.99**g)),
            "d_optim": adam(D.parameters(), lr=0.002 * d, betas=(0.0, 0.99**d)),
        }  # fmt: skip
        self.batch = self.args.batch

    def train(self, batches, at_step):
        def watched():
            for batch in batches:
                at_step()
                yield batch * 2 - 1

        parts = self.parts
        self.program.train(self.args, watched(), parts["G"], parts["D"], parts["g_optim"],
                           parts["d_optim"], parts["G_ema"], "cpu")  # fmt: skip

    def draw(self, count):
        images, _ = self.parts["G_ema"]([torch.randn(count, 512)])
        return (images + 1) / 2


class Lucidrains:
    """Their Trainer, a step at a time."""

    def __init__(self, folder, seed, capacity):
        sys.path.insert(0, str(folder))
        stand_in("torchvision", "torchvision.transforms", "torchvision.utils", "aim", "fire",
                 "vector_quantize_pytorch")  # fmt: skip
        torch.cuda.is_available = lambda: True  # asserted at import, and nothing else
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *words, **named: self
        program = importlib.import_module("stylegan2_pytorch.stylegan2_pytorch")
        torch.cuda.is_available = lambda: False
        torch.manual_seed(seed)
        self.program = program
        self.trainer = program.Trainer(
            name="peer", base_dir=Path.cwd(), image_size=RESOLUTION, network_capacity=capacity,
            batch_size=5, gradient_accumulate_every=6, ttur_mult=1.5, rank="cpu",
        )  # fmt: skip
        self.trainer.save = self.trainer.evaluate = lambda *words, **named: None
        self.trainer.init_GAN()
        networks = self.trainer.GAN
        self.parts = {"GAN": networks, "G_opt": networks.G_opt, "D_opt": networks.D_opt}
        self.batch = 5

    def train(self, batches, at_step):
        self.trainer.dataset, self.trainer.loader = range(10**6), iter(batches)  # top-k only asks
        while True:
            at_step()
            self.trainer.train()

    def draw(self, count):
        mapping, synthesis = self.trainer.GAN.SE, self.trainer.GAN.GE
        w = mapping(torch.randn(count, 512))[:, None].expand(-1, synthesis.num_layers, -1)
        return synthesis(w, torch.rand(count, RESOLUTION, RESOLUTION, 1))


def open_program(name, folder, seed, batch):
    if name == "rosinality":
        return Rosinality(folder, seed, batch)
    return Lucidrains(folder, seed, int(name.partition("-")[2]))


def endless(faces, size, seed):
    """Yield batches [size, 3, R, R] in [0, 1], half of them mirrored, epoch after epoch."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(faces))
        for start in range(0, len(order) - size + 1, size):
            batch = torch.from_numpy(faces[order[start : start + size]]).float() / 255
            mirrored = torch.from_numpy(random.random(size) < 0.5)[:, None, None, None]
            yield torch.where(mirrored, batch.flip(3), batch)


def work(name, checkout, run, faces, seed, options):
    """Train another program for so many CPU-seconds in all; pictures at every mark stay in run."""
    torch.set_num_threads(1)
    seconds, asked = 60 * options.cpu_minutes, []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    program = open_program(name, checkout, seed, options.rosinality_batch)
    state, facts = run / "state.pt", {"spent": 0.0, "steps": 0}
    if state.exists():
        stored = torch.load(state, weights_only=True)
        facts = stored["facts"]
        for part, value in program.parts.items():
            value.load_state_dict(stored[part])
        if name.startswith("lucidrains"):
            program.trainer.steps = facts["steps"]
        else:
            program.args.start_iter = facts["steps"]
        torch.manual_seed(seed + facts["steps"])
    # Starting the process counts once, not in every session.
    began = [time.process_time() - facts["spent"] if facts["steps"] else 0.0]

    def at_step():
        facts["spent"] = time.process_time() - began[0]
        mark = int(facts["spent"] / seconds * MARKS)
        done = facts["spent"] >= seconds
        target = run / f"fakes-{mark:02}.npz"
        if mark and not target.exists():
            with torch.inference_mode():
                fakes = torch.cat([program.draw(BATCH) for _ in range(options.fakes // BATCH)])
            pixels = (fakes.clamp(0, 1) * 255).round().byte().numpy()
            with replacing(target) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, pictures=pixels, **facts)
        if done or asked:
            values = {part: value.state_dict() for part, value in program.parts.items()}
            with replacing(state) as temporary:
                save_tensors({"facts": facts, **values}, temporary)
            write_json(run / "facts.json", facts | {"parameters": count_parameters(program)})
            raise PausedError
        began[0] = time.process_time() - facts["spent"]  # drawing and saving are not training
        facts["steps"] += 1

    batches = endless(faces, program.batch, seed + facts["steps"])
    try:
        program.train(batches, at_step)
    except PausedError:
        sys.exit(0 if facts["spent"] >= seconds else 130)


def count_parameters(program):
    G, D = (program.parts[name] for name in ("G", "D")) if "G" in program.parts else (
        torch.nn.ModuleList([program.parts["GAN"].S, program.parts["GAN"].G]),
        program.parts["GAN"].D,
    )  # fmt: skip
    return [sum(p.numel() for p in network.parameters()) for network in (G, D)]


# ---- one after the other


def train_ours(run, row, dataset, seed, minutes, deadline):
    """Train or continue ours; note after which CPU time every snapshot was there."""
    kimg = KIMG_A_MINUTE * minutes
    words = ["train", dataset, "--out", run, "--config", "f", "--preset", "small", "--seed", seed,
             "--kimg", f"{kimg:g}", "--ranks", 1, "--device", "cpu", "--watch", "off",
             "--tick-kimg", f"{kimg / (2 * MARKS):g}", "--snapshot-ticks", 2]  # fmt: skip
    base, marks = row["spent"], row.setdefault("marks", {})

    def look(seconds):
        row["spent"] = base + seconds
        for path in list_snapshots(run) if run.is_dir() else ():
            marks.setdefault(path.name, row["spent"])

    limit = max(1.0, 60 * minutes - base)
    with open(run.with_suffix(".log"), "ab") as log:
        ended = run_until(stylecli_command(*words), deadline, most_cpu=limit, look=look,
                          stdout=log, stderr=log)  # fmt: skip
    return ended or row["spent"] >= 60 * minutes


def pictures_of(run, row, count):
    """Yield (mark, CPU seconds, fakes) of all that a run has kept and nobody measured."""
    for path in list_snapshots(run):
        if saved_at(path.name) and path.name in row["marks"] and path.name not in row["measured"]:
            G = load_network(path, drawing=True).generator
            samples = draw_samples(G, count, seed=0, batch=BATCH, labels=None)
            yield path.name, row["marks"][path.name], np.concatenate([s.pictures for s in samples])
    for path in sorted(run.glob("fakes-*.npz")):
        if path.name not in row["measured"]:
            with np.load(path) as stored:
                yield path.name, float(stored["spent"]), stored["pictures"]


def table(results, minutes):
    """Return what was measured as Markdown."""
    settings, by_program = results["settings"], {}
    for name, row in results["runs"].items():
        if row["finished"] and row["measured"]:
            by_program.setdefault(name.rpartition("-")[0], []).append(
                sorted(row["measured"].values(), key=lambda mark: mark["cpu"])
            )
    if not by_program:
        return "Not measured yet.\n"
    third = 7 / 20 * minutes
    lines = [
        f"{settings['faces']} demo faces of all styles, 32 px, one thread, {minutes:g} CPU-minutes."
        f" KID × 1000 and SWD of {settings['fakes']} fakes to {HELD_OUT} other faces. Medians over "
        "seeds.",
        "",
        f"| program | runs | KID after {third:g} | after {minutes:g} | best KID | best SWD |",
        "|---|---|---|---|---|---|",
    ]
    for program, runs in by_program.items():
        early = [[mark for mark in run if mark["cpu"] <= 60 * third] for run in runs]
        cells = (
            shown([run[-1]["kid"] for run in early if run]), shown([r[-1]["kid"] for r in runs]),
            shown([min(mark["kid"] for mark in run) for run in runs]),
            shown([min(mark["swd"] for mark in run) for run in runs]),
        )  # fmt: skip
        lines.append(f"| {program} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def shown(values):
    return f"{np.median(values):.1f}" if values else "-"


def curves(results, what):
    found = {}
    for name, row in results["runs"].items():
        marks = sorted(row["measured"].values(), key=lambda mark: mark["cpu"])
        found[name] = [mark["cpu"] / 60 for mark in marks], [mark[what] for mark in marks]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rosinality", type=Path)
    parser.add_argument("--lucidrains", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--fakes", type=int, default=1000, help="at every mark")
    parser.add_argument("--rosinality-batch", type=int, default=16, help="16 is its default")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--minutes", type=float, default=math.inf, help="then pause")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)  # program and seed
    options = parser.parse_args()
    folder = options.folder.resolve()
    faces_file = folder / f"faces-{options.faces}.npz"
    checkouts = {"rosinality": options.rosinality, "lucidrains": options.lucidrains}
    if options.worker:
        name, seed = options.worker
        faces = draw_faces(faces_file, 0, options.faces, RESOLUTION)
        work(name, checkouts[name.partition("-")[0]].resolve(), folder / f"{name}-{seed}", faces,
             int(seed), options)  # fmt: skip
    deadline = time.monotonic() + 60 * options.minutes
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    asked = ("faces", "cpu_minutes", "fakes", "rosinality_batch")
    settings = {option: getattr(options, option) for option in asked}
    results = Results(folder / "results.json", settings)
    runs = results.setdefault("runs", {})
    draw_faces(faces_file, 0, options.faces, RESOLUTION)
    dataset = make_demo_dataset(folder / "faces.lmdb", count=options.faces, all_styles=True)
    held = HeldOut(folder, options.faces, HELD_OUT)
    for seed in range(options.seeds):
        for name in options.programs.split(","):
            checkout = checkouts.get(name.partition("-")[0])
            if name != "ours" and checkout is None:
                continue
            row = runs.setdefault(
                f"{name}-{seed}", {"finished": False, "spent": 0.0, "measured": {}}
            )
            run = folder / f"{name}-{seed}"
            if row["finished"] or time.monotonic() > deadline:
                continue
            if name == "ours":
                done = train_ours(run, row, dataset, seed, options.cpu_minutes, deadline)
            else:
                run.mkdir(exist_ok=True)
                words = [sys.executable, Path(__file__).resolve(), folder]
                for option in settings:
                    words += [f"--{option.replace('_', '-')}", settings[option]]
                for option in ("rosinality", "lucidrains"):
                    if checkouts[option]:
                        words += [f"--{option}", checkouts[option].resolve()]
                words += ["--worker", name, str(seed)]
                with open(run / "log", "ab") as log:
                    done = run_until(words, deadline, stdout=log, stderr=log, cwd=run)
                if (run / "facts.json").exists():
                    row |= json.loads((run / "facts.json").read_text())
            results.keep()
            for mark, cpu, fakes in pictures_of(run, row, options.fakes):
                row["measured"][mark] = {"cpu": cpu, "kid": held.kid(held.features(fakes)),
                                         "swd": held.swd(fakes)}  # fmt: skip
                results.keep()
                print(run.name, mark, row["measured"][mark], flush=True)
            row["finished"] = done
            results.keep()
    text = table(results, options.cpu_minutes)
    print(text)
    if options.images:
        for what in ("kid", "swd"):
            write_curves(options.images / f"peers-{what}.svg", f"Held-out {what.upper()}",
                         curves(results, what), "CPU-minutes")  # fmt: skip
            text += f"\n![Held-out {what.upper()} by CPU-minutes](images/peers-{what}.svg)\n"
    if options.page:
        write_block(options.page, "peers-quality", text)


if __name__ == "__main__":
    main()
