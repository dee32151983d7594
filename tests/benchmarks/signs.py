"""What the signs of ``stylecli info --signs`` are worth on the demo's faces, for docs/info.md.

    python tests/benchmarks/signs.py [NETWORK] [--count 500] [--training 1000]
        [--page docs/info.md] [--results signs.json]

--count demo faces that did not train the network (seeds from 20000 on) and as many generated ones
(the network's own truncation, as the commands draw) are looked at; demo faces from seed 0 on are
the training pictures. The table has the area under the ROC curve of every sign: at 1 it separates
all generated pictures from all real ones, at 0.5 it says nothing, below that real faces show it
more. ``together`` is a linear classifier (SVM) on the signs, fitted on one half and measured on the
other. Every picture is kept in --results, so the same command continues; delete the file for
another network. ``--page`` puts the table between the page's signs marks. Takes some 100
CPU-seconds for a network of 64 px.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from pages import write_block
from PIL import Image

from stylecli import weights
from stylecli.checkpoint import load_network
from stylecli.data.alignment.detectors import installed_detector, load_detector
from stylecli.data.demo_faces import FaceArtist
from stylecli.files import read_json, write_json
from stylecli.rendering import render
from stylecli.sampling import map_seeds
from stylecli.signs import compare_sides, describe_fall, profile_of, small_picture, usual_of
from stylecli.statistics.linear_svm import fit_linear_svm
from stylecli.workspace import find_network

MARK = "signs"
FIRST_FACE = 20_000  # no face that trained
KEPT_EVERY = 25
SIGNS = {
    "fine": "more fine detail than the fall of the spectrum leaves", "fall": "a flatter spectrum",
    "unlike": "a spectrum unlike the training pictures'", "eyes": "eyes that differ",
    "ears": "ears that differ", "nearest": "no training picture near",
}  # fmt: skip


def roc_area(values, generated):
    """Return the share of pairs (generated, real) in which the generated has the larger value."""
    known = ~np.isnan(values)
    values, generated = values[known], generated[known]
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    for value in np.unique(values):  # equal values share their ranks
        same = values == value
        ranks[same] = ranks[same].mean()
    many = int(generated.sum())
    others = len(values) - many
    if not many or not others:
        return float("nan")
    return float((ranks[generated].sum() - many * (many + 1) / 2) / (many * others))


def demo_faces(size, first, count):
    """Yield demo faces [R, R, 3]."""
    artist = FaceArtist(size)
    for number in range(first, first + count):
        yield np.ascontiguousarray(artist(number)[0].transpose(1, 2, 0))


def generated_faces(net, count):
    """Yield generated faces as the commands draw them."""
    config = net.config
    psi, cutoff = (config.truncation_psi, config.truncation_cutoff) if config.has_w else (1.0, None)
    yield from render(net.generator, map_seeds(net.generator, range(count), psi=psi,
                                               psi_cutoff=cutoff))  # fmt: skip


def look(picture, detector, usual, training):
    """Return the value of every sign, larger where generated pictures should have it."""
    image, profile = Image.fromarray(picture), profile_of(picture)
    exponent, fine = describe_fall(profile)
    sides = (compare_sides(image, detector) if detector else None) or {}
    far = np.sqrt(((training - small_picture(picture).ravel()) ** 2).mean(axis=1))
    return {
        "fine": fine, "fall": -exponent, "unlike": usual.far(profile),
        "eyes": 1 - sides.get("eyes", np.nan), "ears": 1 - sides.get("ears", np.nan),
        "nearest": float(far.min()),
    }  # fmt: skip


def measure(net, count, known, results, path):
    """Return the area of every sign and of all together, and the share of faces found.

    Keeps what is seen in each picture in ``path``; what ``results`` has is not looked at again.
    """
    size = net.config.resolution
    training = list(demo_faces(size, 0, known))
    usual = usual_of(np.array([profile_of(one) for one in training]))
    flat = np.array([small_picture(one).ravel() for one in training])
    name = installed_detector()
    detector = load_detector(name) if name else None
    for kind, pictures in (("real", demo_faces(size, FIRST_FACE, count)),
                           ("generated", generated_faces(net, count))):  # fmt: skip
        seen = results.setdefault(kind, [])
        for number, picture in enumerate(pictures):
            if number < len(seen):
                continue
            row = look(picture, detector, usual, flat)
            seen.append({sign: None if np.isnan(far) else far for sign, far in row.items()})
            if number % KEPT_EVERY == KEPT_EVERY - 1 or number == count - 1:
                write_json(path, results)
                print(kind, number + 1, flush=True)
    rows = results["real"][:count] + results["generated"][:count]
    generated = np.arange(2 * count) >= count
    values = {sign: np.array([row[sign] for row in rows], float) for sign in SIGNS}
    areas = {sign: roc_area(column, generated) for sign, column in values.items()}
    return {
        "areas": areas, "together": area_together(values, generated), "detector": name,
        "found": [
            float((~np.isnan(values["eyes"][part])).mean()) for part in (~generated, generated)
        ],
    }  # fmt: skip


def area_together(values, generated):
    """Return the area of a linear classifier on all signs; what is not known is as usual."""
    points = np.stack(list(values.values()), axis=1)
    points = points[:, ~np.isnan(points).all(axis=0)]
    points = (points - np.nanmean(points, axis=0)) / (np.nanstd(points, axis=0) + 1e-9)
    points = np.nan_to_num(points)
    half = np.arange(len(points)) % 2 == 0
    fitted = fit_linear_svm(points[half], generated[half])
    return roc_area(points[~half] @ fitted.weights + fitted.bias, generated[~half])


def table(found, count, known, name):
    """Return the areas as Markdown."""
    real, fake = (f"{100 * share:.0f} %" for share in found["found"])
    lines = [
        f"{count} demo faces that did not train {name}, {count} of its own, and {known} training "
        f"pictures:", "", "| sign | area under the ROC curve |", "|---|---|",
        *(f"| {SIGNS[sign]} | {area:.2f} |" for sign, area in found["areas"].items()),
        f"| all together, fitted on one half and measured on the other | {found['together']:.2f} |",
        "",
        f"`{found['detector'] or 'no detector'}` finds a face in {real} of the real and {fake} of "
        f"the generated pictures; eyes and ears are compared in these.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", type=Path, nargs="?", default=Path("shipped"))
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--training", type=int, default=1000)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--results", type=Path, default=Path("signs.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = find_network(options.network).path
    digest = weights.file_sha256(path)
    results = read_json(options.results) if options.results.exists() else {}
    wanted = {"network": digest, "training": options.training}
    if {name: results.setdefault(name, value) for name, value in wanted.items()} != wanted:
        raise SystemExit(f"{options.results} is of another network or training set: delete it")
    net = load_network(path, drawing=True)
    found = measure(net, options.count, options.training, results, options.results)
    text = table(found, options.count, options.training, f"network {digest[:12]}")
    print(text)
    if options.page:
        write_block(options.page, MARK, text)


if __name__ == "__main__":
    main()
