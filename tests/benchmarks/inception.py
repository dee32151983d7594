"""Measure Inception features against torch-fidelity's and pytorch-fid's modules, interleaved.

Needs an environment with torch, numpy, torch-fidelity and pytorch-fid. Every network gets the same
weights, made by a formula, and sees the same pictures; prints a Markdown table of medians. CPU
seconds (both threads added up) hold on a busy machine, wall time does not.

    OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. python tests/benchmarks/inception.py --threads 2
"""

import argparse
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylecli.features.inception import InceptionV3, tensor_shapes

Network = Callable[[torch.Tensor], torch.Tensor]  # uint8 [N, 3, H, W] -> [N, 2048]


def made_weights() -> dict[str, torch.Tensor]:
    """Return the weights of the test fixture's formula, seed 0."""
    state = {}
    for name, shape in tensor_shapes().items():
        key = [zlib.crc32(name.encode()), 0]
        x = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape)
        if name.endswith("running_var"):
            x = 0.5 + 0.5 * np.abs(x)
        elif name.endswith("bn.weight"):
            x = 1 + 0.1 * x
        elif len(shape) == 1:
            x = 0.1 * x
        else:
            x = x * np.sqrt(2 / np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.float32(x))
    return state


def without_compiled_torchvision() -> None:
    """Let torchvision be imported where its compiled detection operators cannot be loaded."""
    register = torch.library.register_fake

    def skip(name: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *rest, **options)

    torch.library.register_fake = skip


def torch_fidelity_network(state: dict[str, torch.Tensor]) -> Network:
    """Return torch-fidelity's module, asked for the pooled features only."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.pth"
        torch.save(state, path)
        module = FeatureExtractorInceptionV3(
            "made", ["2048"], feature_extractor_weights_path=str(path)
        )
    return lambda images: module.eval()(images)[0]


def pytorch_fid_network(state: dict[str, torch.Tensor]) -> Network:
    """Return pytorch-fid's module; it takes floats in 0..1 and resizes by another rule."""
    from pytorch_fid import inception

    inception.load_state_dict_from_url = lambda *_, **__: state
    module = inception.InceptionV3([3]).eval()
    return lambda images: module(images.float() / 255)[0][:, :, 0, 0]


def main() -> None:
    """Time every network on every size and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    without_compiled_torchvision()
    state = made_weights()
    ours = InceptionV3.from_state_dict({name: value.numpy() for name, value in state.items()})
    networks: dict[str, Network] = {
        "torch-fidelity": torch_fidelity_network(state),
        "pytorch-fid": pytorch_fid_network(state),
        "stylecli": lambda images: ours(images, outputs=["2048"])["2048"],
        "stylecli, bfloat16": lambda images: ours(images, outputs=["2048"], bfloat16=True)["2048"],
    }
    print(
        "| pictures | batch | network | CPU s/picture | wall s/picture "
        "| CPU speed, torch-fidelity = 1 | difference of features |\n|---|---|---|---|---|---|---|"
    )
    for size in chosen.sizes:
        for batch in chosen.batches:
            random = np.random.Generator(np.random.Philox(key=[size, batch]))
            images = torch.from_numpy(random.integers(0, 256, (batch, 3, size, size), np.uint8))
            compare(networks, images, chosen.repeats)


def compare(networks: dict[str, Network], images: torch.Tensor, repeats: int) -> None:
    """Print a row per network: one warm-up, then repeats in turn."""
    cpu: dict[str, list[float]] = {name: [] for name in networks}
    wall: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        features = {name: network(images) for name, network in networks.items()}
        for _ in range(repeats):
            for name, network in networks.items():
                started, begun = time.perf_counter(), time.process_time()
                network(images)
                cpu[name].append((time.process_time() - begun) / len(images))
                wall[name].append((time.perf_counter() - started) / len(images))
    reference = features["torch-fidelity"]
    for name in networks:
        difference = (features[name] - reference).abs().max() / reference.abs().max()
        ratio = statistics.median(cpu["torch-fidelity"]) / statistics.median(cpu[name])
        print(f"| {images.shape[-1]} px | {len(images)} | {name} | "
              f"{statistics.median(cpu[name]):.4f} | {statistics.median(wall[name]):.3f} | "
              f"{ratio:.2f} | {difference:.1e} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
