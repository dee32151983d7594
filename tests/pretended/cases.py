"""What is tried on the pretended GPU, from tables that a new family or setting adds a row to.

``python -m tests.pretended.cases GUARD FOLDER`` tries all and prints a line of JSON for each; with
further words only the cases whose names contain one of them. FOLDER holds tiny.lmdb and
tiny.safetensors.
"""

import copy
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.pretended import device

LAZY: dict[str, Any] = {"phases": "lazy", "r1_interval": 2, "ema_rampup": 0.05}
GRAPHS: dict[str, Any] = {"accelerations": {"graphs"}}
PAIRED: dict[str, Any] = {"phases": "paired", "loss": "relativistic", "r2_gamma": 1.0}
# name -> (config, settings of training, of the step). Kernels as CUDA has them, unless "plain".
STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{f"config {name}": (name, {}, {}) for name in ("a", "b", "c", "d", "e", "traditional-8")},
    "float32": ("f", {}, {}),
    "float32 plain": ("f", {}, {}),
    "bf16": ("f", {"precision": "bf16"}, {}),
    "bf16 plain": ("f", {"precision": "bf16"}, {}),
    "fp16": ("f", {"precision": "fp16"}, {}),
    "fp16 plain": ("f", {"precision": "fp16"}, {}),
    "channels-last bf16": ("f", {"precision": "bf16"}, {"accelerations": {"channels-last"}}),
    "channels-last fp16": ("f", {"precision": "fp16"}, {"accelerations": {"channels-last"}}),
    "channels-last bf16 plain": ("f", {"precision": "bf16"}, {"accelerations": {"channels-last"}}),
    # Planes that fill the tiles of the kernel for activation and blur.
    "32 px": ("f", {}, {"resolution": 32}),
    "32 px channels-last bf16": (
        "f", {"precision": "bf16"}, {"resolution": 32, "accelerations": {"channels-last"}},
    ),
    "32 px graphs bf16": ("f", {"precision": "bf16"}, {"resolution": 32, **GRAPHS}),
    "graphs": ("f", {"r1_interval": 2}, GRAPHS),
    "graphs plain": ("f", {"share_fakes": True}, GRAPHS),
    "graphs bf16": ("f", {"precision": "bf16"}, {"accelerations": {"graphs", "channels-last"}}),
    "graphs fp16 augmented": ("f", {"precision": "fp16", "augment": "adaptive"}, GRAPHS),
    "graphs labels": ("f", {}, {"label_dim": 3, **GRAPHS}),
    "graphs wide": ("f", {"augment": "adaptive"}, {"base": (3, 4), **GRAPHS}),
    "graphs stylegan2": (
        "stylegan2", {**LAZY, "pl_weight": 2.0, "pl_interval": 1}, {"num_fp16_res": 0, **GRAPHS},
    ),
    "graphs stylegan3-t": ("stylegan3-t", LAZY, {"num_fp16_res": 0, **GRAPHS}),
    "graphs r3gan": ("r3gan", PAIRED, {"num_bf16_res": 0, **GRAPHS}),
    "wide": ("f", {}, {"base": (3, 4)}),
    "wide bf16 augmented": (
        "f", {"precision": "bf16", "augment": "fixed", "augment_p": 0.8}, {"base": (3, 4)},
    ),
    "wide stylegan2": ("stylegan2", LAZY, {"num_fp16_res": 0, "base": (3, 4)}),
    "wide stylegan3-t": ("stylegan3-t", LAZY, {"num_fp16_res": 0, "base": (3, 4)}),
    "wide r3gan": ("r3gan", PAIRED, {"num_bf16_res": 0, "base": (3, 4)}),
    "saturating": ("f", {"loss": "logistic-saturating"}, {}),
    "hinge": ("f", {"loss": "hinge"}, {}),
    "hinge-gp": ("f", {"loss": "hinge-gp"}, {}),
    "wgan-gp": ("f", {"loss": "wgan-gp"}, {}),
    "wgan-gp bf16": ("f", {"loss": "wgan-gp", "precision": "bf16"}, {}),
    "wgan-gp fp16": ("f", {"loss": "wgan-gp", "precision": "fp16"}, {}),
    "R2": ("f", {"r2_gamma": 1.0}, {}),
    "shared fakes": ("f", {"share_fakes": True}, {}),
    "shared fakes fp16": ("f", {"share_fakes": True, "precision": "fp16"}, {}),
    "passes": ("f", {}, {"batch_gpu": 4}),
    "momentum": ("f", {"adam_beta1": 0.5}, {}),
    "labels": ("f", {}, {"label_dim": 3}),
    "exact": ("f", {}, {"exact": True}),
    "augmented": ("f", {"augment": "adaptive", "augment_pipe": "bgcfnc"}, {}),
    "augmented bf16": ("f", {"augment": "fixed", "augment_p": 0.8, "precision": "bf16"}, {}),
    "diffaugment": ("f", {"augment": "fixed", "augment_pipe": "diffaugment"}, {}),
    **{
        f"{config}{more}": (config, {**LAZY, **settings}, {"num_fp16_res": 0})
        for config, more, settings in (
            ("stylegan2", "", {"pl_weight": 2.0, "pl_interval": 1}),
            ("stylegan2", " bf16", {"pl_weight": 2.0, "pl_interval": 1, "precision": "bf16"}),
            ("stylegan2", " augmented", {"augment": "adaptive"}),
            ("stylegan3-t", "", {}),
            ("stylegan3-r", " blurred", {"blur_sigma": 2.0, "blur_kimg": 1.0}),
        )
    },
    "stylegan2 in its own half": (
        "stylegan2", {**LAZY, "pl_weight": 2.0, "pl_interval": 1}, {},
    ),
    "stylegan3-t in its own half": ("stylegan3-t", LAZY, {}),
    "r3gan": ("r3gan", PAIRED, {"num_bf16_res": 0}),
    "r3gan bf16 labels": ("r3gan", {**PAIRED, "precision": "bf16"}, {"label_dim": 3}),
    "r3gan in its own half": ("r3gan", PAIRED, {}),
    "r3gan augmented": (
        "r3gan",
        {**PAIRED, "augment": "fixed", "augment_pipe": "halfcolor", "anneal_kimg": 0.1,
         "gamma_final": 0.1, "lr_final": 1e-7},
        {"num_bf16_res": 0},
    ),
}  # fmt: skip
# Of the third part of a row, what goes to the networks.
NETWORK_FIELDS = {"label_dim", "num_fp16_res", "num_bf16_res", "base", "resolution"}
# The first gradients beside the CPU's own; reduced precisions round elsewhere there.
FARTHEST = {"float32": 2e-3, "bf16": 0.3, "fp16": 0.3, "half": 0.05}

# Families: drawing, and R1's gradient of D; after a space, what is special about one. Their steps
# of training are rows of STEPS.
SMALL = {"resolution": 16, "fmap_base": 128, "fmap_max": 8, "z_dim": 8}
F: dict[str, Any] = SMALL | {"w_dim": 8, "mapping_layers": 2, "mapping_fmaps": 8}
NETWORKS: dict[str, dict[str, Any]] = {
    "f": F,
    "f wide": F | {"base": (3, 4)},
    "stylegan2": SMALL | {"w_dim": 8, "mapping_layers": 2},
    "stylegan3-t": SMALL | {"num_layers": 3, "w_dim": 8, "D_fmap_base": 64, "D_fmap_max": 8},
    "stylegan3-r": SMALL | {"num_layers": 3, "w_dim": 8, "D_fmap_base": 64, "D_fmap_max": 8},
    "r3gan": SMALL | {"group_fmaps": 4, "embed_dim": 6},
    "lucidrains": {"resolution": 16, "capacity": 1, "z_dim": 8, "w_dim": 8, "attention": (1,)},
}

COMMANDS: dict[str, list[str]] = {
    "train": ["train", "tiny.lmdb", "--out", "run", "--kimg", "0.096", "--hold-kimg", "0.032",
              "--fade-kimg", "0.032", "--batch", "8", "--tick-kimg", "0.032", "--fmap-max", "8",
              "--mapping-layers", "2", "--mirror"],
    "train continues": ["train", "tiny.lmdb", "--resume", "run", "--out", "further", "--kimg",
                        "0.128", "--precision", "bf16"],
    "train with graphs": ["train", "tiny.lmdb", "--out", "graphs", "--kimg", "0.096", "--batch",
                          "8", "--fmap-max", "8", "--accelerate", "graphs,channels-last",
                          "--precision", "bf16"],
    "train on the second": ["train", "tiny.lmdb", "--out", "second", "--kimg", "0.064", "--batch",
                            "8", "--fmap-max", "8"],
    "generate": ["generate", "--network", "tiny.safetensors", "--seeds", "0-3", "--out", "g"],
    "generate random bf16": ["generate", "--network", "tiny.safetensors", "--seeds", "0-3",
                             "--noise-mode", "random", "--precision", "bf16", "--out", "r"],
    "generate on the second": ["generate", "--network", "tiny.safetensors", "--seeds", "0-3",
                               "--out", "s"],
    "mix": ["mix", "--network", "tiny.safetensors", "--rows", "2", "--cols", "2", "--out", "m.png"],
    "interpolate": ["interpolate", "--network", "tiny.safetensors", "--seeds", "0,1", "--seconds",
                    "0.2", "--fps", "10", "--out", "frames", "--format", "png"],
    "project": ["project", "photo.jpg", "--network", "tiny.safetensors", "--no-align", "--distance",
                "pyramid", "--steps", "4", "--tune", "--tune-steps", "2", "--out", "p"],
    "figures": ["figures", "3", "--network", "tiny.safetensors", "--out", "f"],
    "plan": ["plan", "--resolution", "8", "--batch", "4", "--fmap-max", "8"],
    "metrics": ["metrics", "diversity", "--network", "tiny.safetensors", "--data", "tiny.lmdb",
                "--samples", "16"],
    "bench": ["bench", "--resolutions", "8", "--small", "--repeats", "1", "--train",
              "--precisions", "float32,bf16", "--json"],
    "doctor": ["doctor"],
}  # fmt: skip
TINY = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "z_dim": 8, "w_dim": 8,
        "mapping_layers": 2, "mapping_fmaps": 8}  # fmt: skip


def try_step(name: str) -> dict[str, Any]:
    """Take two steps on both devices; return how far apart they are, and what was waited for."""
    import torch

    from stylecli.networks.model import new_network
    from stylecli.ops import dispatch
    from stylecli.training.config import TrainingConfig
    from stylecli.training.schedule import Stage
    from stylecli.training.step import TrainingStep

    config, training, more = STEPS[name]
    more = dict(more)
    own = {key: more.pop(key) for key in list(more) if key in NETWORK_FIELDS}
    fields = NETWORKS.get(config) or {
        key: value for key, value in TINY.items() if key[:7] != "mapping"
    }
    if config == "f":
        fields = TINY
    bundle = new_network(config, seed=0, **{**fields, **own})
    with torch.no_grad():
        for own_name, parameter in bundle.G.named_parameters():
            if own_name.endswith("noise_strength"):
                parameter.fill_(0.1)
    table = torch.eye(3) if "label_dim" in own else None
    lod = 0.5 if bundle.config.grows else 0.0
    # Adam's first updates go by signs: where D follows G, a large one would part the devices.
    lr = 1e-6 if "phases" in training else 0.003
    stage = Stage(lod, bundle.config.resolution, batch=8, lr=lr, tick_kimg=1)
    torch.manual_seed(0)
    count = 16 if training.get("phases") == "paired" else 8
    reals = torch.randint(0, 256, (count, 3, *bundle.config.size), dtype=torch.uint8)
    labels = None if table is None else table[torch.arange(count) % 3]
    settings = TrainingConfig(**{"r1_gamma": 1.0, **training})
    grads = []
    kernels = "off" if "plain" in name else "require"
    if "graphs" in name or kernels != os.environ.get("STYLECLI_KERNELS"):
        dispatch.forget()  # where steps are captured the check of the kernels comes before
    os.environ["STYLECLI_KERNELS"] = kernels
    steps = 5 if "graphs" in name else 2  # the first of them are not captured
    for where in ("cpu", "cuda"):
        step = TrainingStep(copy.deepcopy(bundle), settings, device=torch.device(where),
                            label_table=table, **more)  # fmt: skip
        step.set_stage(stage, reset=True)
        given = reals.to(where), None if labels is None else labels.to(where)
        device.seen.clear()
        device.where.clear()
        for number in range(steps):
            step(*given, stage, number)
            if not number:
                scales = [scaler.scale for scaler in (step.scaler_D, step.scaler_G)]
                flats = [flat.grad.cpu().clone() for flat in (step.flat_D, step.flat_G)]
                device.seen.clear()
                device.where.clear()
        grads.append(flats)
    waited, places = dict(device.seen), {key: sorted(found) for key, found in device.where.items()}
    apart = [float((a - b).norm() / a.norm()) for a, b in zip(*grads, strict=True)]
    assert all(scale is None or float(scale) > 0 for scale in scales)
    replays = waited.pop("replay", 0)
    return {"apart": apart, "waited": waited, "where": places, "replays": replays,
            "skipped": step.take_statistics()["skipped_steps"]}  # fmt: skip


def try_network(name: str) -> dict[str, Any]:
    """Draw and judge on both devices, plain and with kernels; return how far apart they are."""
    import numpy as np
    import torch

    import stylecli
    from stylecli.networks.model import asked_lod, new_network
    from stylecli.ops import dispatch
    from stylecli.training.losses import squared_gradient

    net = new_network(name.split()[0], seed=0, **NETWORKS[name])
    torch.manual_seed(0)
    reals = torch.randn(4, 3, *net.config.size)

    def drawn(where: str, precision: Any) -> Any:
        shown = stylecli.generate(net, range(3), 0.7 if net.config.has_w else 1.0, device=where,
                                  precision=precision)  # fmt: skip
        return np.stack([picture.astype(int) for _, picture in shown])

    waited: dict[str, int] = {}

    def gradient(where: str) -> torch.Tensor:
        D = copy.deepcopy(net.D).to(where)
        images = reals.to(where).clone().requires_grad_()
        device.seen.clear()
        device.where.clear()
        logits = D(images, **asked_lod(D.config, None))
        (logits.sum() + squared_gradient(logits, images).sum()).backward()
        waited.update(device.seen)
        return torch.cat([p.grad.flatten() for p in D.parameters() if p.grad is not None])

    exact, judged = drawn("cpu", "float32"), gradient("cpu")
    found: dict[str, Any] = {}
    for kernels in ("off", "require"):
        os.environ["STYLECLI_KERNELS"] = kernels
        dispatch.forget()
        gradient("cuda")  # the kernels are checked
        waited.clear()
        there = gradient("cuda")
        found[f"waited, {kernels}"] = dict(waited)
        found[f"D, {kernels}"] = float((there.cpu() - judged).norm() / judged.norm())
        for precision in ("float32", "bf16"):
            apart = np.abs(drawn("cuda", precision) - exact)
            found[f"{precision}, {kernels}"] = [float(apart.max()), float(apart.mean())]
    return found


def try_command(name: str) -> dict[str, Any]:
    """Run a command on the pretended GPU; return how it ended, and what a batch waited for."""
    from typer.testing import CliRunner

    from stylecli.cli.app import app
    from stylecli.ops import dispatch
    from stylecli.training.loop import TrainingLoop

    # doctor would measure how fast kernels are, which a host build is not.
    os.environ["STYLECLI_KERNELS"] = "off" if name == "doctor" else "require"
    dispatch.forget()
    batches: list[dict[str, Any]] = []
    real = TrainingLoop._train_batch

    def watched(self: Any, stage: Any) -> None:
        before, known = device.seen.copy(), set(dispatch._ANSWERS)
        device.where.clear()
        real(self, stage)
        counts = device.seen - before
        del counts["replay"]
        checked = sorted(
            f"{kernel} {dtype}" for kernel, _, dtype in dispatch._ANSWERS.keys() - known
        )
        places = {kind: sorted(found) for kind, found in device.where.items()}
        batches.append({"counts": dict(counts), "where": places, "checked": checked})

    TrainingLoop._train_batch = watched  # type: ignore[method-assign]
    device.rounding.clear()
    try:
        chosen = [] if name == "doctor" else ["--device", "cuda:1" if "second" in name else "cuda"]
        result = CliRunner().invoke(app, [*COMMANDS[name], *chosen])
    finally:
        TrainingLoop._train_batch = real  # type: ignore[method-assign]
    error = result.exception
    told = "".join(traceback.format_exception(error)) if error else ""
    found = {"exit_code": result.exit_code, "output": result.stdout or result.output, "error": told,
             "batches": batches, "rounding": sorted(device.rounding)}  # fmt: skip
    if name.startswith("generate"):
        found["apart"] = _apart_from_the_cpu(COMMANDS[name])
    return found


def _apart_from_the_cpu(words: list[str]) -> float:
    """Draw the same on the CPU; return the largest difference in grey levels."""
    import numpy as np
    from PIL import Image
    from typer.testing import CliRunner

    from stylecli.cli.app import app

    *rest, out = words
    CliRunner().invoke(app, [*rest, f"{out}-cpu", "--device", "cpu"], catch_exceptions=False)
    pairs = [(path, Path(f"{out}-cpu") / path.name) for path in sorted(Path(out).glob("*.png"))]
    assert len(pairs) == 4
    drawn = [[np.asarray(Image.open(one), int) for one in pair] for pair in pairs]
    return float(max(np.abs(a - b).max() for a, b in drawn))


def main() -> None:
    """Try what is asked for."""
    guard, folder, *words = sys.argv[1:]
    device.pretend(Path(guard))
    os.chdir(folder)
    device.use_host_kernels()
    from stylecli.training.graphs import CudaGraphs

    CudaGraphs.capture = lambda self, work: device.replayed(work)  # type: ignore[method-assign]
    tables: Any = (("network", NETWORKS, try_network), ("step", STEPS, try_step),
                   ("command", COMMANDS, try_command))  # fmt: skip
    for kind, table, attempt in tables:
        for name in table:
            if words and not any(word in name for word in words):
                continue
            try:
                found = attempt(name)
            except Exception as error:
                found = {"error": "".join(traceback.format_exception(error))}
            print("CASE " + json.dumps({"kind": kind, "name": name, **found}), flush=True)


if __name__ == "__main__":
    main()
