"""How near photographs come in latent space, how soon, and the pictures of docs/project.md.

    python tests/benchmarks/projection.py [NETWORK] [--parts speed,order,own] [--faces 20]
        [--page docs/project.md] [--pictures docs/images] [--results projection.json]

``speed``: held-out demo faces (seeds from 20005 on) by ``--preset official`` and by the default;
both distances at the end, both CPU seconds, and those after which the default was as near as the
official schedule at its end. ``order``: the distance in W, in W+ and after tuning. ``own``:
pictures of the network itself (psi 1) in W, with the network's noise; PSNR. Each face is kept in
--results at once, so the same command continues; delete the file for another network. ``--page``
puts the tables between the page's projection marks, ``--pictures`` draws its pictures. Takes some
200 CPU-seconds a face for a network of 64 px, 90 of them for the official schedule.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from pages import write_block

from stylecli import weights
from stylecli.checkpoint import load_network
from stylecli.data.alignment.portrait import Portrait
from stylecli.data.demo_faces import FaceArtist
from stylecli.files import read_json, write_json
from stylecli.images import make_grid, save_png, visible_scale
from stylecli.latents.projected_files import lay_out_sheet
from stylecli.latents.projector import Projecting, Projector
from stylecli.rendering import render
from stylecli.sampling import map_seeds, mix_ws
from stylecli.styles import style_bands
from stylecli.workspace import find_network

MARK = "projection"
FIRST_FACE, FIRST_SEED = 20_000, 5_000  # no face that trained, no latent that starts a search
CHOSEN_BY = 5  # of these faces the first few, by which the settings of ``fast`` were chosen
PARTS = ("speed", "order", "own")
WAYS = {
    "official": {"preset": "official"}, "w": {}, "w+": {"space": "w+"},
    "tuned": {"tune": True},
}  # fmt: skip


def project(net, picture, **how):
    """Return (projection, CPU seconds, [(CPU seconds, distance)] of the steps of the last search).

    Those before it may compare smaller pictures.
    """
    began, seen = time.process_time(), []
    projector = Projector(net, Projecting(**how))
    before = sum(plan.steps for plan in projector.plans[:-1])

    def note(done, total, text=""):
        if done > before:
            seen.append((time.process_time() - began, float(text.split()[-1])))

    (found,) = projector.project(picture[None], progress=note)
    return found, time.process_time() - began, seen


def face(artist, number):
    """Return held-out face ``number`` as a picture [R, R, 3]."""
    return np.ascontiguousarray(artist(FIRST_FACE + number)[0].transpose(1, 2, 0))


def measure_face(net, picture, ways):
    """Return what each way came to: distance, psnr, seconds; when w was as near as official."""
    row, steps = {}, {}
    for way in ways:
        found, seconds, steps[way] = project(net, picture, **WAYS[way])
        row[way] = {"distance": found.distance, "psnr": found.psnr, "seconds": seconds,
                    "from_mean": found.from_mean}  # fmt: skip
    if {"official", "w"} <= set(row):
        goal = row["official"]["distance"]
        reached = [second for second, distance in steps["w"] if distance <= goal]
        if not reached and row["w"]["distance"] <= goal:
            reached = [row["w"]["seconds"]]
        row["reached"] = reached[0] if reached else None
    return row


def measure_own(net, number):
    """Return the PSNR of the network's own picture ``number`` found in W again."""
    ws = map_seeds(net.generator, [FIRST_SEED + number])
    (picture,) = render(net.generator, ws)
    found, seconds, _ = project(net, picture, noise=False)
    return {"psnr": found.psnr, "seconds": seconds}


def measure(net, parts, faces, results, path):
    """Measure what ``results`` lacks, and keep every face in ``path`` at once."""
    ways = {"speed": ("official", "w"), "order": ("w", "w+", "tuned")}
    wanted = list(dict.fromkeys(way for part in parts for way in ways.get(part, ())))
    artist = FaceArtist(net.config.resolution)
    for number in range(faces):
        held_out = CHOSEN_BY + number
        here = results.setdefault("faces", {}).setdefault(str(held_out), {})
        if wanted and not set(wanted) <= set(here):
            here |= measure_face(net, face(artist, held_out), wanted)
            write_json(path, results)
            print("face", held_out, here, flush=True)
        own = results.setdefault("own", {})
        if "own" in parts and str(number) not in own:
            own[str(number)] = measure_own(net, number)
            write_json(path, results)
            print("own", number, own[str(number)], flush=True)
    return results


def tables(results, name):
    """Return the results as Markdown."""
    rows = list(results.get("faces", {}).values())
    lines = []
    both = [row for row in rows if "reached" in row]
    if both:
        official, ours = ([row[way] for row in both] for way in ("official", "w"))
        shares = [row["reached"] / row["official"]["seconds"] if row["reached"] else np.inf
                  for row in both]  # fmt: skip
        near, middle = int(np.isfinite(shares).sum()), np.median(shares)
        lines += [
            f"Medians of {len(both)} demo faces that did not train {name}, one thread:",
            "", "| | LPIPS | PSNR | from the mean | CPU-seconds |", "|---|---|---|---|---|",
            *(f"| `--preset {preset}` | {median(some, 'distance'):.3f} | "
              f"{median(some, 'psnr'):.1f} dB | {median(some, 'from_mean'):.2f} | "
              f"{median(some, 'seconds'):.1f} |"
              for preset, some in (("official", official), ("fast", ours))),
            "",
            f"In {near} of {len(both)} faces the default comes as near as the official schedule "
            f"does at its end; " + (f"in the median of all, after {100 * middle:.0f} % of that "
            "schedule's CPU-seconds." if np.isfinite(middle) else "in the median it does not."),
            "",
        ]  # fmt: skip
    order = [row for row in rows if {"w", "w+", "tuned"} <= set(row)]
    if order:
        right = sum(
            row["w"]["distance"] > row["w+"]["distance"] > row["tuned"]["distance"] for row in order
        )
        lines += [
            f"Medians of {len(order)} of these faces; W > W+ > tuned in {right}:", "",
            "| | LPIPS | PSNR | from the mean | CPU-seconds |", "|---|---|---|---|---|",
            *(f"| {way} | {median([r[way] for r in order], 'distance'):.3f} | "
              f"{median([r[way] for r in order], 'psnr'):.1f} dB | "
              f"{median([r[way] for r in order], 'from_mean'):.2f} | "
              f"{median([r[way] for r in order], 'seconds'):.0f} |"
              for way in ("w", "w+", "tuned")),
            "",
        ]  # fmt: skip
    own = [row["psnr"] for row in results.get("own", {}).values()]
    if own:
        lines += [
            f"Of {len(own)} pictures of the network itself (psi 1, its own noise), "
            f"{sum(psnr >= 30 for psnr in own)} are found again in W with 30 dB or more, "
            f"the median with {np.median(own):.1f} dB.", "",
        ]  # fmt: skip
    return "\n".join(lines)


def median(rows, name):
    """Return the median of a number over faces."""
    return float(np.median([row[name] for row in rows]))


def draw(net, folder):
    """Draw the pictures of the page: a face in every way, its sheet, and two faces crossed."""
    artist = FaceArtist(net.config.resolution)
    target, other = face(artist, 0), face(artist, 4)
    ways = {way: project(net, target, **WAYS[way])[0] for way in ("w", "w+", "tuned")}
    lay_out_pictures(net, folder, target, ways, other, project(net, other)[0])


def lay_out_pictures(net, folder, target, ways, other, found):
    """Write the pictures of the page from what was found."""
    one, scale = ways["w"], visible_scale(len(target))
    row = [target, *(way.picture for way in ways.values())]
    save_png(folder / "project-ways.png", make_grid(row, len(row), scale=scale))
    save_png(folder / "project-sheet.png", lay_out_sheet(Portrait(target, None), one.picture))
    bands = style_bands(net.config.style_sides).values()
    mixed = [mix_ws(one.ws[None], found.ws[None], layers)[0] for layers in bands]
    cells = render(net.generator, mixed, noise=iter([one.noise] * len(mixed)))
    row = [target, one.picture, *cells, found.picture, other]
    save_png(folder / "project-crossed.png", make_grid(row, len(row), scale=scale))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", type=Path, nargs="?", default=Path("shipped"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--faces", type=int, default=20)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--results", type=Path, default=Path("projection.json"))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    found = find_network(options.network).path
    net = load_network(found, drawing=True)
    digest = weights.file_sha256(found)
    results = read_json(options.results) if options.results.exists() else {"network": digest}
    if results["network"] != digest:
        raise SystemExit(f"{options.results} is of another network: delete it")
    parts = [part for part in options.parts.split(",") if part]
    results = measure(net, parts, options.faces, results, options.results)
    text = tables(results, f"network {digest[:12]}")
    print(text)
    if options.page:
        write_block(options.page, MARK, text)
    if options.pictures:
        draw(net, options.pictures)


if __name__ == "__main__":
    main()
