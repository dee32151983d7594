"""Compare the statistics with independent libraries on the same features; write the table.

    python -m venv OTHER && OTHER/bin/pip install clean-fid torch-fidelity pytorch-fid
    python tests/benchmarks/agreement.py OTHER/bin/python docs/numbers.md

The other libraries live in an environment of their own: this script runs itself there with
``--peers`` on arrays in a temporary folder and compares what comes back with the same numbers from
here. The table goes between ``<!-- agreement -->`` and ``<!-- /agreement -->`` of the page, or to
stdout when no page is named. No weights are needed: features and pictures are made.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_block

MARK = "agreement"
ROWS, WIDTH, CLASSES = 3000, 512, 1008
KID_SETTING = {"subsets": 20, "subset_size": 500}


def make_inputs(folder: Path) -> None:
    """Save features, class logits and pictures that both sides read."""
    from frechet import make_features

    random = np.random.default_rng(3)
    logits = (2.0 * random.standard_normal((ROWS, CLASSES))).astype(np.float32)
    pictures = random.integers(0, 256, (4, 3, 61, 93), np.uint8)
    pictures[1:3] //= 64
    pictures[1:3] *= 85
    large = np.repeat(np.repeat(random.integers(0, 256, (2, 3, 64, 64), np.uint8), 8, 2), 8, 3)
    np.savez(
        folder / "inputs.npz",
        real=make_features(ROWS, WIDTH, 0),
        fake=make_features(ROWS - 500, WIDTH, 1),
        logits=logits,
        small_pictures=pictures,
        large_pictures=large,
    )


def ask_peers(folder: Path) -> None:
    """Run in the other environment: write every library's numbers to peers.json and peers.npz."""
    import contextlib
    import io

    import torch

    # torch-fidelity imports torchvision for other things; a torchvision built for another PyTorch
    # stumbles over operators of its own, which only have to have a name.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            operators.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import torch_fidelity.metric_fid as fidelity_fid
    import torch_fidelity.metric_isc as fidelity_isc
    import torch_fidelity.metric_kid as fidelity_kid
    import torch_fidelity.metric_prc as fidelity_prc

    with np.load(folder / "inputs.npz") as stored:
        inputs = dict(stored)
    real, fake = inputs["real"], inputs["fake"]
    found: dict[str, Any] = {}
    wide = {"real": real.astype(np.float64), "fake": fake.astype(np.float64)}
    tensors = {name: torch.from_numpy(values) for name, values in wide.items()}
    statistics = [fidelity_fid.fid_features_to_statistics(x) for x in tensors.values()]
    name = "torch-fidelity"
    quiet = {"verbose": False, "rng_seed": 5}
    found[name] = {
        "FID": fidelity_fid.fid_statistics_to_metric(*statistics, verbose=False)[
            "frechet_inception_distance"
        ]
    }
    setting = {"kid_subsets": KID_SETTING["subsets"], "kid_subset_size": KID_SETTING["subset_size"]}
    # It draws the first side's rows first, ours the fakes': the fakes go first.
    for label, dtype in (("KID (float64)", torch.float64), ("KID (float32)", torch.float32)):
        kid = fidelity_kid.kid_features_to_metric(
            tensors["fake"].to(dtype), tensors["real"].to(dtype), **setting, **quiet
        )
        found[name][label] = kid["kernel_inception_distance_mean"]
        found[name][label.replace("KID", "KID spread")] = kid["kernel_inception_distance_std"]
    score = fidelity_isc.isc_features_to_metric(torch.from_numpy(inputs["logits"]), shuffle=False)
    found[name]["IS"] = score["inception_score_mean"]
    found[name]["IS spread"] = score["inception_score_std"]
    shares = fidelity_prc.prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3,
        prc_batch_size=10000, save_cpu_ram=False, verbose=False,
    )  # fmt: skip
    found[name]["precision"], found[name]["recall"] = shares["precision"], shares["recall"]
    moments = [x for side in wide.values() for x in (side.mean(0), np.cov(side, rowvar=False))]
    resized: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        ask_frechet_programs(found, moments)
        resized |= ask_clean_resize(inputs)
    found["versions"] = {
        name: version(name)
        for name in ("torch-fidelity", "clean-fid", "pytorch-fid", "scipy", "pillow")
    }
    (folder / "peers.json").write_text(json.dumps(found))
    np.savez(folder / "peers.npz", **resized)


def ask_frechet_programs(found: dict[str, Any], moments: list[Any]) -> None:
    """Note the distances of the programs that take a matrix square root; why not, if they fail."""
    from cleanfid import fid as clean
    from pytorch_fid import fid_score

    for name, distance in (
        ("pytorch-fid", fid_score.calculate_frechet_distance),
        ("clean-fid", clean.frechet_distance),
    ):
        try:
            found[name] = {"FID": float(distance(*moments))}
        except Exception as error:  # whatever another program raises is the finding
            found[name] = {"FID": f"fails: {type(error).__name__}: {error}"}


def ask_clean_resize(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return clean-fid's resized pictures [N, 299, 299, 3]."""
    import warnings

    from cleanfid.resize import build_resizer

    warnings.simplefilter("ignore")
    resize = build_resizer("clean")
    return {
        name: np.stack([resize(picture.transpose(1, 2, 0)) for picture in inputs[name]])
        for name in ("small_pictures", "large_pictures")
    }


def our_numbers(folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the same numbers from here, and the resized pictures."""
    import torch

    from stylecli.features.resizing import resize_clean
    from stylecli.metrics import (
        frechet_distance,
        inception_score,
        kernel_distance,
        precision_recall,
    )

    with np.load(folder / "inputs.npz") as stored:
        inputs = dict(stored)
    real, fake = inputs["real"], inputs["fake"]
    kid, spread = kernel_distance(real, fake, **KID_SETTING, rng=np.random.RandomState(5))
    probs = torch.softmax(torch.from_numpy(inputs["logits"]).double(), dim=1).numpy()
    score, score_spread = inception_score(probs)
    precision, recall = precision_recall(real, fake)
    numbers = {
        "FID": frechet_distance(real, fake),
        "KID (float64)": kid,
        "KID spread (float64)": spread,
        "KID (float32)": kid,
        "KID spread (float32)": spread,
        "IS": score,
        "IS spread": score_spread,
        "precision": precision,
        "recall": recall,
    }
    names = ("small_pictures", "large_pictures")
    return numbers, {name: resize_clean(inputs[name]).transpose(0, 2, 3, 1) for name in names}


def table(folder: Path) -> str:
    """Return the Markdown table of differences."""
    found = json.loads((folder / "peers.json").read_text())
    versions = found.pop("versions")
    ours, resized = our_numbers(folder)
    lines = ["| number | library | theirs | ours | relative difference |", "|---|---|---|---|---|"]
    for library, numbers in found.items():
        for number, theirs in numbers.items():
            mine = ours[number]
            if isinstance(theirs, str):
                lines.append(f"| {number} | {library} | {theirs} | {mine:.10g} | |")
                continue
            apart = abs(mine - theirs) / max(abs(theirs), 1e-300)
            shown = "0" if apart == 0 else f"{apart:.0e}"
            lines.append(f"| {number} | {library} | {theirs:.10g} | {mine:.10g} | {shown} |")
    with np.load(folder / "peers.npz") as stored:
        for name, sizes in (("small_pictures", "61 x 93"), ("large_pictures", "512 x 512")):
            differing = int((stored[name] != resized[name]).sum())
            lines.append(
                f"| clean resize, {sizes} to 299 | clean-fid | {stored[name].size} floats "
                f"| {resized[name].size} floats | {differing} of them differ |"
            )
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    counts = f"{ROWS} and {ROWS - 500} rows of {WIDTH} made features"
    return "\n".join([*lines, "", f"{counts}. {made}."])


def main() -> None:
    """Compare, then write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="the other environment's interpreter")
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--peers", action="store_true", help="run there; python is the folder")
    asked = parser.parse_args()
    if asked.peers:
        ask_peers(asked.python)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        subprocess.run(
            [str(asked.python), str(Path(__file__).resolve()), str(folder), "--peers"], check=True
        )
        text = table(folder)
    if asked.page is None:
        print(text)
        return
    write_block(asked.page, MARK, f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
