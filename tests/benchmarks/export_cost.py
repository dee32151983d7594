"""CPU-seconds of a picture by onnxruntime beside stylecli's own drawing, for docs/export.md.

    python tests/benchmarks/export_cost.py [--resolution 256] [--rounds 5] [NETWORK ...]

Fresh networks are exported (ONNX, opset 18, float32). One thread each, one picture at a time,
interleaved; medians of the process's CPU time, so that other work on the machine counts little.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from stylecli.checkpoint import save_network
from stylecli.export import Drawing, Interface, export_network
from stylecli.networks.model import new_network
from stylecli.rendering import prepare_synthesis

NETWORKS = ("f", "stylegan2", "stylegan3-t", "stylegan3-r", "r3gan")


def compare(name: str, resolution: int, rounds: int) -> list[str]:
    """Return the table's cells for one network."""
    import onnxruntime

    net = new_network(name, resolution=resolution)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "net.safetensors", Path(folder) / "net.onnx"
        save_network(source, net)
        begin = time.process_time()
        told = export_network(source, target, format="onnx")
        spent = time.process_time() - begin
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(target, options)
    drawing = Drawing(net.generator, Interface())
    given = dict(zip(drawing.names, drawing.example(1), strict=True))
    mapping = drawing.G.mapping
    synthesis = prepare_synthesis(drawing.G)
    arrays = {key: value.numpy() for key, value in given.items()}

    def ours() -> None:
        with torch.inference_mode():
            synthesis(mapping(given["z"], truncation_psi=0.7))

    times: dict[str, list[float]] = {"ours": [], "onnx": []}
    for _ in range(rounds + 1):
        for key, work in (("ours", ours), ("onnx", lambda: session.run(None, arrays))):
            begin = time.process_time()
            work()
            times[key].append(time.process_time() - begin)
    mine, theirs = (statistics.median(spans[1:]) for spans in times.values())
    size = f"{told['bytes'] / 2**20:.0f} MiB"
    ratio = f"{theirs / mine:.1f}×"
    return [name, f"{mine:.2f}", f"{theirs:.2f}", ratio, size, f"{told['apart']:.0e}",
            f"{spent:.0f} s"]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("networks", nargs="*")
    words = parser.parse_args()
    torch.set_num_threads(1)
    header = ["network", "stylecli", "onnxruntime", "ratio", "file", "apart", "export"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for name in words.networks or NETWORKS:
        print(f"| {' | '.join(compare(name, words.resolution, words.rounds))} |", flush=True)


if __name__ == "__main__":
    main()
