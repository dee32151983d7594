"""CPU seconds of a picture: the plain network, the form that draws, and its convolutions alone.

    python tests/benchmarks/frozen_synthesis.py [--rounds 5] [--only stylegan2]

One thread, in turn, medians. The last column is what the library's own convolutions of the same
sizes cost with nothing between them: no form of the same arithmetic is quicker on this machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import stylecli
from stylecli.hardware import tune_memory
from stylecli.networks.registry import freeze_synthesis
from stylecli.networks.stylegan2_config import StyleGAN2Config
from stylecli.networks.stylegan3_config import StyleGAN3Config

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "stylegan2 256 px, fmap_base 16384": ("stylegan2", {"resolution": 256, "fmap_base": 16384}),
    "stylegan2 256 px": ("stylegan2", {"resolution": 256}),
    "stylegan3-t 256 px, fmap_base 16384": ("stylegan3-t", {"resolution": 256, "fmap_base": 16384}),
    "stylegan3-t 256 px": ("stylegan3-t", {"resolution": 256}),
    "stylegan3-r 256 px": ("stylegan3-r", {"resolution": 256}),
}


def convolutions(config: Any) -> list[Callable[[], Tensor]]:
    """Return every convolution of one picture, with kernels and features ready."""
    calls: list[Callable[[], Tensor]] = []

    def add(fan_in: int, fan_out: int, side: int, kernel: int, padding: int, up: bool) -> None:
        last = torch.channels_last
        x = torch.randn(1, fan_in, side, side).contiguous(memory_format=last)
        shape = (fan_in, fan_out) if up else (fan_out, fan_in)
        weight = torch.randn(*shape, kernel, kernel).contiguous(memory_format=last)
        if up:
            calls.append(lambda: F.conv_transpose2d(x, weight, stride=2))
        else:
            calls.append(lambda: F.conv2d(x, weight, padding=padding))

    if isinstance(config, StyleGAN2Config):
        for side in config.sides:
            maps = config.fmaps(side)
            if side > 4:
                add(config.fmaps(side // 2), maps, side // 2, 3, 0, up=True)
            add(maps, maps, side, 3, 1, up=False)
    elif isinstance(config, StyleGAN3Config):
        for plan in config.layers():
            add(plan.in_channels, plan.out_channels, plan.in_size.width, plan.kernel,
                plan.kernel - 1, up=False)  # fmt: skip
    return calls


def measure(preset: str, fields: dict[str, Any], rounds: int) -> list[float]:
    """Return the medians of plain, frozen and convolutions alone, in seconds."""
    G = stylecli.new_network(preset, **fields).G_ema
    assert G is not None
    frozen, calls = freeze_synthesis(G, torch.float32), convolutions(G.config)
    ws = G.mapping(torch.randn(1, G.config.z_dim))
    for name, value in G.synthesis.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.1)
    works: list[Callable[[], Any]] = [
        lambda: G.synthesis(ws), lambda: frozen(ws), lambda: [call() for call in calls]
    ]  # fmt: skip
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for kept, work in zip(seconds, works, strict=True):
            start = time.process_time()
            work()
            if turn:
                kept.append(time.process_time() - start)
    return [statistics.median(kept) for kept in seconds]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="networks whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_memory()
    print("| network | plain, s | frozen, s | convolutions alone, s |\n|---|---|---|---|")
    for name, (preset, fields) in NETWORKS.items():
        if name.startswith(options.only):
            with torch.inference_mode():
                found = measure(preset, fields, options.rounds)
            print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in found) + " |", flush=True)


if __name__ == "__main__":
    main()
