"""Whether attributes cross between projected photographs as they do between seeds.

    python tests/benchmarks/crossing.py NETWORK CLASSIFIERS [--faces 40] [--pairs 1000] [--psi 0.7]
        [--sure 0.7] [--page docs/project.md] [--results crossing]

Demo faces that did not train the network (seeds from 20000 on) are projected as
``stylecli project`` does it. In pairs of them, the styles of each band of one are replaced by the
other's, with the noise maps of the first. The same is done with seeds, and the same attribute
classifiers look (a file of ``stylecli metrics ls --train-classifiers``), as mixing_attributes.py
explains. The table has, for every attribute and band, the share of mixes with the column's value
among seeds and among photographs, beside the classifier's own error; those further apart than 10
points are bold. Projections are kept in the folder --results, so the same command continues.
``--page`` puts the
table between the page's crossing marks. Takes some 12 CPU-seconds a face for a network of 32 px.
"""

import argparse
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from mixing_attributes import classify, compare, measure
from pages import write_block
from projection import face

from stylecli import weights
from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import FaceArtist
from stylecli.latents.projector import Projecting, Projector
from stylecli.metrics.classifiers import load_classifiers
from stylecli.sampling import mix_ws
from stylecli.saved_ws import load_noise, load_ws, read_ws_provenance, save_ws
from stylecli.styles import style_bands
from stylecli.workspace import find_network

MARK = "crossing"
FEWEST = 30  # pairs of which a share is worth a comparison
APART = 0.10


def project_faces(net, faces, folder, digest):
    """Return ws [N, num_ws, w_dim] and the noise maps of every face; what is there is read."""
    folder.mkdir(parents=True, exist_ok=True)
    config, artist = net.config, FaceArtist(net.config.resolution)
    projector, ws, noise = None, [], []
    for number in range(faces):
        path = folder / f"face-{number:03}.npz"
        if not path.exists():
            projector = projector or Projector(net, Projecting())
            (found,) = projector.project(face(artist, number)[None])
            save_ws(path, found.ws[None], noise=found.noise, provenance={"network": digest})
            print("projected", number, f"{found.distance:.3f}", flush=True)
        if (read_ws_provenance(path) or {}).get("network") != digest:
            raise SystemExit(f"{path} is of another network: delete {folder}")
        ws.append(load_ws(path, (config.num_ws, config.w_out_dim))[0])
        noise.append(load_noise(path, config.noise_shapes(), 1))
    return torch.stack(ws), noise


def cross(net, classifiers, ws, noise, pairs, sure):
    """Return attribute -> (pairs, {band: share of mixes as the column}) of projected faces."""
    G = net.generator
    chosen = list(permutations(range(len(ws)), 2))
    np.random.RandomState(0).shuffle(chosen)
    rows, columns = (list(side) for side in zip(*chosen[:pairs], strict=True))
    seen = classify(G, classifiers, ws, noise)
    found = {name: [0, {}] for name in classifiers.values}
    for band, layers in style_bands(net.config.style_sides).items():
        mixed = classify(
            G, classifiers, mix_ws(ws[rows], ws[columns], layers), [noise[row] for row in rows]
        )
        for name, line in found.items():
            count, share, _ = compare(seen[name][rows], seen[name][columns], mixed[name], sure)
            line[0], line[1][band] = count, share
    return found


def markdown(seeds, photos, bands, faces, name):
    """Return the table, and how many shares are within 10 points."""
    lines = [
        f"| attribute | classifier's error | pairs | {' | '.join(bands)} |",
        "|" + "---|" * (3 + len(bands)),
    ]
    close = total = 0
    for attribute, (accuracy, count, shares) in seeds.items():
        many, others = photos[attribute]
        cells = []
        for band in bands:
            one, other = shares[band][0], others[band]
            if min(count, many) < FEWEST:
                cells.append("-")
                continue
            total += 1
            near = abs(one - other) <= APART
            close += near
            text = f"{100 * one:.0f} / {100 * other:.0f}"
            cells.append(text if near else f"**{text}**")
        error = "-" if accuracy is None else f"{100 * (1 - accuracy):.0f} %"
        shown = attribute.replace("_", " ")
        lines.append(f"| {shown} | {error} | {count} / {many} | {' | '.join(cells)} |")
    return "\n".join([
        *lines, "",
        f"Percent of mixes with the column's value, of seeds / of projected photographs ({faces} "
        f"demo faces that did not train {name}). {close} of {total} are within 10 points; bold are "
        f"the others. Attributes of which fewer than {FEWEST} pairs differ are left out.", "",
    ])  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("classifiers", type=Path)
    parser.add_argument("--faces", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--psi", type=float, default=0.7)
    parser.add_argument("--sure", type=float, default=0.7)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--results", type=Path, default=Path("crossing"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = find_network(given.network).path
    net, digest = load_network(path, drawing=True), weights.file_sha256(path)
    classifiers = load_classifiers(given.classifiers).recognising()
    ws, noise = project_faces(net, given.faces, given.results, digest)
    photos = cross(net, classifiers, ws, noise, given.pairs, given.sure)
    seeds = measure(net, classifiers, given.pairs, given.psi, given.sure)
    bands = list(style_bands(net.config.style_sides))
    text = markdown(seeds, photos, bands, given.faces, f"network {digest[:12]}")
    print(text)
    if given.page:
        write_block(given.page, MARK, text)


if __name__ == "__main__":
    main()
