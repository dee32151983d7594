"""How well faces fit small pictures, how much they differ, and the pictures of docs/sharpen.md.

    python tests/benchmarks/sharpening.py [NETWORK] [--faces 20] [--own 5] [--side 8]
        [--page docs/sharpen.md] [--pictures docs/images] [--results sharpening.json]

Two kinds of pictures are shrunk to --side px: --faces demo faces that did not train the network
(seeds from 20000 on), and --own pictures of the network itself (psi 1), of which it surely draws
some that fit. Of each the table has the share of all candidates within the bound, and of pictures
with at least one; the perceptual distance between the candidates of a picture, its mean and its
least, by LPIPS or the stand-in that the page then names, and the share of pictures whose candidates
are all more than 0.1 apart; and the distance between the candidates and the large picture that was
shrunk. Every picture is kept in --results at once, so the same command continues; delete the file
for another network. ``--page`` puts the table between the page's sharpening marks, ``--pictures``
draws its sheets. Takes some 18 CPU-seconds a picture for a network of 64 px.
"""

import argparse
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from pages import write_block

from stylecli import weights
from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import FaceArtist
from stylecli.errors import plural
from stylecli.features.perceptual import choose_distance, open_distance
from stylecli.files import read_json, write_json
from stylecli.images import from_uint8, save_png, to_uint8
from stylecli.latents.sharpening import Sharpener, Sharpening, shrink_cubic
from stylecli.rendering import render
from stylecli.sampling import map_seeds
from stylecli.sheets.candidates import lay_out_candidates
from stylecli.workspace import find_network

MARK = "sharpening"
DRAWN = {"demo": 1, "own": 0}  # which of each
APART = 0.1  # from where on two candidates count as different
FIRST_FACE, FIRST_SEED = 20_000, 9_000  # no face that trained
KINDS = {"demo": ("demo face", "that did not train the network"), "own": ("picture", "of its own")}


def large_picture(net, kind, number):
    """Return picture ``number`` of a kind, uint8 [H, W, 3]."""
    if kind == "own":
        (picture,) = render(net.generator, map_seeds(net.generator, [FIRST_SEED + number]))
        return picture
    artist = FaceArtist(net.config.resolution)
    return np.ascontiguousarray(artist(FIRST_FACE + number)[0].transpose(1, 2, 0))


def shrunk(picture, side):
    """Return a picture with its longer side at ``side`` px, shrunk as the search shrinks."""
    return to_uint8(shrink_cubic(from_uint8(np.array(picture)[None]), max(picture.shape) // side))[
        0
    ]


def measure_picture(sharpener, distance, large, small):
    """Return errors, distances between the candidates and to the large picture, CPU seconds."""
    began = time.process_time()
    found = sharpener.sharpen(small)
    seconds = time.process_time() - began
    images = [from_uint8(one.picture[None]) for one in found]
    apart = [float(distance(a, b)) for a, b in combinations(images, 2)]
    away = [float(distance(one, from_uint8(np.array(large)[None]))) for one in images]
    return {"errors": [one.error for one in found], "apart": apart, "away": away,
            "seconds": seconds}  # fmt: skip


def measure(net, counts, side, results, path):
    """Measure what ``results`` lacks, and keep every picture in ``path`` at once."""
    distance = open_distance(choose_distance(None), "cpu")
    sharpener = Sharpener(net, Sharpening())
    results["distance"] = distance.name
    for kind, count in counts.items():
        for number in range(count):
            rows = results.setdefault(kind, {})
            if str(number) in rows:
                continue
            large = large_picture(net, kind, number)
            row = measure_picture(sharpener, distance, large, shrunk(large, side))
            rows[str(number)] = row
            write_json(path, results)
            print(kind, number, [f"{error:.4f}" for error in row["errors"]],
                  f"{min(row['apart']):.3f} {row['seconds']:.1f} s", flush=True)  # fmt: skip
    return results


def table(results, net, side, counts, name):
    """Return the results as Markdown."""
    bound, far = Sharpening.bound, results["distance"]
    label = {"lpips": "LPIPS"}.get(far, f"`{far}`, the stand-in for LPIPS,")
    height, width = net.config.size
    lines = [
        f"Pictures of {side} px, {width}x{height} px by {name}, five candidates each, one thread:",
        "",
        f"| | candidates within {bound:g} | pictures with one | error, median | {label} between "
        f"two, mean | two nearest, median | pictures with all > {APART:g} | to the large picture | "
        f"CPU-seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, (noun, whose) in KINDS.items():
        if not (rows := [results[kind][str(number)] for number in range(counts[kind])]):
            continue
        nearest = [min(row["apart"]) for row in rows]
        errors = np.array([row["errors"] for row in rows])
        fits = errors <= bound
        lines.append(
            f"| {plural(len(rows), noun)} {whose} | {100 * fits.mean():.0f} % | "
            f"{100 * fits.any(axis=1).mean():.0f} % | "
            f"{np.median(errors):.4f} | {np.mean([row['apart'] for row in rows]):.2f} | "
            f"{np.median(nearest):.2f} | {100 * np.mean(np.array(nearest) > APART):.0f} % | "
            f"{np.mean([row['away'] for row in rows]):.2f} | "
            f"{np.median([row['seconds'] for row in rows]):.1f} |"
        )
    return "\n".join([*lines, ""])


def draw(net, side, folder):
    """Draw a sheet of each kind."""
    sharpener = Sharpener(net, Sharpening())
    for kind, number in DRAWN.items():
        small = shrunk(large_picture(net, kind, number), side)
        sheet = lay_out_candidates(small, sharpener.sharpen(small), Sharpening.bound)
        save_png(folder / f"sharpen-{kind}.png", sheet)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", type=Path, nargs="?", default=Path("shipped"))
    parser.add_argument("--faces", type=int, default=20)
    parser.add_argument("--own", type=int, default=5)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--results", type=Path, default=Path("sharpening.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = find_network(options.network).path
    net = load_network(found, drawing=True)
    digest = weights.file_sha256(found)
    results = read_json(options.results) if options.results.exists() else {}
    wanted = {"network": digest, "side": options.side}
    if {name: results.setdefault(name, value) for name, value in wanted.items()} != wanted:
        raise SystemExit(f"{options.results} is of another network or size: delete it")
    counts = {"demo": options.faces, "own": options.own}
    results = measure(net, counts, options.side, results, options.results)
    text = table(results, net, options.side, counts, f"network {digest[:12]}")
    print(text)
    if options.page:
        write_block(options.page, MARK, text)
    if options.pictures:
        draw(net, options.side, options.pictures)


if __name__ == "__main__":
    main()
