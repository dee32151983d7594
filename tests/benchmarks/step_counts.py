"""Count what a training step asks of a GPU, with no GPU: operators, launches, bytes, arithmetic.

    python tests/benchmarks/step_counts.py [--resolutions 64,256,1024] [--gpu h100] [--top 12]
        [--json]

The product's own step runs on fake tensors that claim to be on CUDA (torch's FakeTensorMode, with
the guard of tests/pretended in front), with all its paths for a GPU: nothing is computed, every
operator and every launch of a kernel is counted. **This is a model, not a measurement**:

* an operator that only looks at a tensor in another way is free, any other is at least one launch;
* an operator reads every tensor that it is given once and writes every result once (what is
  broadcast is read once, what is overwritten is not read), as if there were no caches and cuDNN
  had no workspaces;
* cuDNN's half-precision kernels take features in channels-last memory; what it would move to bring
  other features there and back is a column of its own;
* arithmetic is that of convolutions and matrix products.

The floor is the longer of both at the data sheet's peaks, for a GPU that does nothing else.
Prints rows of the table in docs/bench.md; ``--top`` also the operators that move most. Needs g++.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.pretended import device as pretended  # noqa: E402

# Images of a step: the paper's at these sizes on one GPU, except 1024 px, where it has 4.
BATCH = {64: 32, 256: 32, 1024: 32}
FREE = ("detach", "alias", "empty", "new_empty", "lift", "is_pinned", "sym_")
OVERWRITES = ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_")


@dataclass
class Count:
    """What a step asks for."""

    launches: int = 0  # of torch's operators
    kernels: int = 0  # of the product's own
    flops: float = 0.0
    moved: Counter[str] = field(default_factory=Counter)  # bytes, by operator
    times: Counter[str] = field(default_factory=Counter)
    graphs: int = 0  # replayed; what they launch is no launch of the host
    within: bool = False  # a graph
    waits: int = 0
    transposed: float = 0.0  # bytes that bringing features to channels-last and back would move

    @property
    def bytes(self) -> float:
        return sum(self.moved.values())


def size_of(tensor: Any) -> int:
    """Return the bytes that reading all of a tensor moves: what is broadcast counts once."""
    own = tensor.untyped_storage().nbytes()
    return min(tensor.numel() * tensor.element_size(), own)


def in_other_order(tensor: Any, weight: Any) -> bool:
    """Say whether cuDNN would transpose these features of a convolution in half precision."""
    import torch

    halves = (torch.bfloat16, torch.float16)
    if tensor.dim() != 4 or tensor.dtype not in halves or tensor.shape == weight.shape:
        return False
    return not tensor.is_contiguous(memory_format=torch.channels_last)


def counting(count: Count) -> Any:
    """Return the mode that adds every operator to ``count``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    def tensors(tree: Any) -> dict[int, Any]:
        return {id(one): one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)}

    def is_view(func: Any) -> bool:
        returns = func._schema.returns
        alias = returns[0].alias_info if returns else None
        return alias is not None and not alias.is_write

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            kwargs = kwargs or {}
            name = func.overloadpacket.__name__
            if name == "_local_scalar_dense":  # the host asks for a number
                count.waits += args[0].is_cuda
                return 1.0 if args[0].is_floating_point() else 1
            out = func(*args, **kwargs)
            given, made = tensors((args, kwargs)), tensors(out)
            if name in ("_to_copy", "copy_"):
                source = args[0] if name == "_to_copy" else args[1]
                target = out if name == "_to_copy" else args[0]
                count.waits += source.is_cuda != target.is_cuda
            on_gpu = any(one.is_cuda for one in made.values())
            if not on_gpu or name.startswith(FREE) or is_view(func):
                return out
            if name in OVERWRITES:
                del given[id(args[0])]
            if name.startswith("convolution"):
                weight = args[2 if name == "convolution_backward" else 1]
                features = [one for one in (*given.values(), *made.values())
                            if one is not weight and in_other_order(one, weight)]  # fmt: skip
                count.transposed += 2 * sum(map(size_of, features))
            counter = flop_registry.get(func.overloadpacket)
            count.flops += counter(*args, **kwargs, out_val=out) if counter else 0
            count.launches += not count.within
            count.times[name] += 1
            count.moved[name] += sum(map(size_of, (*given.values(), *made.values())))
            return out

    return Counting()


class Launches:
    """A backend of kernels that has nothing but their arguments."""

    def __init__(self) -> None:
        self.count = Count()

    def capturing(self) -> bool:
        return False

    def launch(self, record: Any) -> None:
        import torch

        name = record.kernel.partition("<")[0]
        arguments = [one for one in record.arguments if isinstance(one, torch.Tensor)]
        self.count.kernels += not self.count.within
        self.count.times[name] += 1
        self.count.moved[name] += sum(size_of(one) for one in arguments)


class Replays:
    """Stands for CUDA graphs: what is replayed is counted, but launched by nobody."""

    def __init__(self) -> None:
        self.count = Count()

    def aside(self) -> Any:
        return contextlib.nullcontext()

    def capture(self, work: Any) -> Any:
        def replay() -> None:
            self.count.graphs += 1
            self.count.within = True
            work()
            self.count.within = False

        return replay

    def forget(self) -> None:
        pass


def prepare() -> None:
    """Have torch believe in a GPU; before it is imported."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise SystemExit("no C++ compiler: the guard of tests/pretended needs one")
    pretended.believe(pretended.build_guard(compiler))
    import torch

    generator, tensor = torch.Generator, torch.tensor

    class Generator:
        def __new__(cls, device: Any = "cpu") -> Any:
            return generator()

    torch.Generator = Generator  # type: ignore[assignment, misc]
    torch.nn.Module.to = lambda self, *_, **__: self  # fake parameters cannot be moved

    def copied(data: Any, *, device: Any = None, **how: Any) -> Any:
        """Do what torch.tensor does, which passes by modes: a copy from the host."""
        made = tensor(data, **how)
        return made if device is None else torch.ones(made.shape, dtype=made.dtype).to(device)

    torch.tensor = copied


def count_step(
    resolution: int, batch: int, precision: str, *, kernels: bool, accelerations: frozenset[str]
) -> Count:
    """Count a step of configuration f at full resolution, with R1 in it, but none of the first."""
    import torch
    from torch._subclasses import FakeTensorMode

    import stylecli.networks.stylegan1  # noqa: F401, its operators enter their checks
    from stylecli.networks.model import new_network
    from stylecli.ops import dispatch
    from stylecli.ops.cuda.launches import set_backend
    from stylecli.training.config import TrainingConfig
    from stylecli.training.schedule import Stage
    from stylecli.training.step import DrawSource, TrainingStep

    DrawSource._crossover = lambda self, layers, position: layers // 2  # styles are mixed
    os.environ["STYLECLI_KERNELS"] = "require" if kernels else "off"
    dispatch.forget()
    for name in dispatch.CHECKS:
        dispatch.CHECKS[name] = lambda *_: None
    count, launches = Count(), Launches()
    ready = dispatch.ready_backend
    dispatch.ready_backend = lambda _: launches  # type: ignore[assignment, return-value]
    before = set_backend("cuda", launches if kernels else None)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            training = TrainingConfig(precision=precision)
            with torch.device("cuda:0"):
                net = new_network("f", resolution=resolution)
            device = torch.device("cuda", 0)
            replays = Replays() if "graphs" in accelerations else None
            step = TrainingStep(net, training, device=device, accelerations=accelerations,
                                recorder=replays)  # fmt: skip
            stage = Stage(lod=0.0, resolution=resolution, batch=batch, lr=1e-3, tick_kimg=1)
            step.set_stage(stage, reset=True)
            shape = batch, 3, resolution, resolution
            reals = torch.zeros(shape, dtype=torch.uint8, device="cuda:0")
            for number in range(1 if replays is None else 3):
                with counting(Count()):
                    step(reals, None, stage, number)
            launches.count = count
            if replays is not None:
                replays.count = count
            with counting(count):
                step(reals, None, stage, 3)
    finally:
        dispatch.ready_backend = ready
        set_backend("cuda", before)
    return count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resolutions", default="64,256,1024")
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="a line for each case instead")
    parser.add_argument("--accelerate", default="", help="as of stylecli train")
    chosen = parser.parse_args()
    accelerations = frozenset(filter(None, chosen.accelerate.split(",")))
    prepare()
    from stylecli.training.costs import find_gpu

    gpu = find_gpu(chosen.gpu)
    columns = ("step", "kernels", "launches", "of them own", "graphs", "TFLOP", "GB",
               "GB to transpose", "waits", "floor by bytes", "by arithmetic")  # fmt: skip
    if not chosen.json:
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for resolution in map(int, chosen.resolutions.split(",")):
        batch = BATCH.get(resolution, 32)
        for precision in chosen.precisions.split(","):
            for kernels in (False, True):
                found = count_step(
                    resolution, batch, precision, kernels=kernels, accelerations=accelerations
                )
                peaks = gpu.memory_gbs * 1e9, gpu.peak(precision, exact=False)
                if chosen.json:
                    print(json.dumps({"resolution": resolution, "precision": precision,
                                      "kernels": kernels, "launches": found.launches,
                                      "own": found.kernels, "graphs": found.graphs,
                                      "bytes": found.bytes, "flops": found.flops,
                                      "waits": found.waits}))  # fmt: skip
                    continue
                cells = (
                    f"{resolution} px, batch {batch}, {precision}", "on" if kernels else "off",
                    f"{found.launches + found.kernels:,}", f"{found.kernels:,}", f"{found.graphs}",
                    f"{found.flops / 1e12:.1f}", f"{found.bytes / 1e9:.0f}",
                    f"{found.transposed / 1e9:.0f}", f"{found.waits}",
                    f"{found.bytes / peaks[0] * 1e3:.1f} ms",
                    f"{found.flops / peaks[1] * 1e3:.1f} ms",
                )  # fmt: skip
                print(f"| {' | '.join(cells)} |", flush=True)
                for name, moved in found.moved.most_common(chosen.top):
                    print(f"    {name}: {found.times[name]} times, {moved / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
