"""Directions of a network on the demo's faces: the shipped file, tables and pictures of its page.

    python tests/benchmarks/editing.py CLASSIFIERS [--network shipped] [--samples 10000]
        [--faces 200] [--found FILE] [--write stylecli/shipped/directions.safetensors]
        [--page docs/directions.md] [--pictures docs/images/directions]

CLASSIFIERS is a file of ``stylecli metrics ls --train-classifiers`` on the demo's faces. Finds
SeFa's and GANSpace's first directions, a direction for each of ``LABELS`` and the best style
channels of some, and measures: accuracy on faces held out, how far each direction moves every label
for strength 1 (in standard deviations of the label's score over faces), and what moves another
label by 0.1 or more again, on other faces, after leaving all those labels alone whose own
directions move them by as much: by projection, and as ``directions find --keep`` does it. A
direction that moves its own label less than three times as far as the others in the mean is kept as
it is after that. ``--found`` measures the directions of a file instead of finding them. ``--write``
keeps them, at first as found, so that the same command with ``--found`` continues. ``--page`` puts
the tables between the page's editing marks, ``--pictures`` draws its strips.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pages import write_block

from stylecli.checkpoint import load_network
from stylecli.images import save_png
from stylecli.latents import Search
from stylecli.latents.directions import Directions, read_directions, space_of, write_directions
from stylecli.latents.finding import correct_leaks, without_kept
from stylecli.latents.judging import Judging, judge_faces, measure_effects
from stylecli.latents.searching import run_search
from stylecli.metrics.classifiers import load_classifiers
from stylecli.networks.headers import network_digest
from stylecli.provenance import shown_path
from stylecli.sampling import map_seeds
from stylecli.sheets.strips import draw_strips
from stylecli.workspace import find_network

MARK = "editing"
LABELS = (
    "light-hair=hair_colour:light brown,blond,pale blond/black,dark brown,red",
    "light-skin=skin:pale,light,tan/brown,deep brown,dark",
    "smile=mouth:laugh,smile/angry,sad",
    "beard=beard:chin,chin moustache,full beard,long beard,moustache twirl/none",
    "wide-eyes=eyes:wide",
    "bun=hair:bun",
    "long-hair=rear_hair:*/none",
    "tilt=tilt:right/left",
    "blue-background=background:blue,cyan/red,yellow",
)
CHANNELS = ("light-hair", "light-skin", "smile")
LEAK = 0.1  # standard deviations per unit of strength
AIM = 3.0  # times as far as the others in the mean a direction is to move its own label
OTHER_FACES = 1000  # seed of the faces on which what was conditioned is measured
STRIPS = {
    "labels": ("light-hair", "light-skin", "smile", "beard", "wide-eyes", "bun"),
    "sefa": ("sefa.1", "sefa-coarse.1", "sefa-middle.1", "sefa-fine.1", "pca.1", "pca.2"),
}
FACE, FACES = 11, [0, 3, 11, 19]


def labels_of(values):
    """Return the labels whose values the classifiers know; * stands for all but the others."""
    found = []
    for text in LABELS:
        name, _, rest = text.partition("=")
        attribute, _, sides = rest.partition(":")
        if attribute not in values:
            continue
        first, _, second = sides.partition("/")
        known, others = values[attribute], second.split(",") if second else []
        wanted = known if first == "*" else first.split(",")
        first = ",".join(word for word in wanted if word in known and word not in others)
        found.append(f"{name}={attribute}:{first}" + (f"/{second}" if second else ""))
    return found


def find(net, space, judging, faces):
    """Return the directions by all methods, without their effects."""
    known, samples = Directions(space, {}), len(faces.w)
    texts = tuple(labels_of(judging.values))
    named = {text.partition("=")[0]: text for text in texts}
    for search in (
        Search("labels", samples=samples, labels=texts, effects=False),
        Search("channels", samples=samples, count=1, effects=False,
               labels=tuple(named[name] for name in CHANNELS if name in named)),
        Search("sefa", count=5), Search("ganspace", count=10),
    ):  # fmt: skip
        new = run_search(search, net.generator, known, judging, faces=faces, tell=print)
        known = known.adding(new)
        print(search.method, len(new), flush=True)
    return known


def with_effects(net, directions, judging, faces, names):
    """Return the directions with what those of some names change and move."""
    effects = measure_effects(
        net.generator, directions, names, judging.judge, judging.values, faces=faces
    )
    return directions.adding(
        replace(directions[name], found={**directions[name].found, **effects[name]})
        for name in names
    )


def leaks(net, directions, judging, faces):
    """Return name -> (labels it leaks into, what it moves in three ways) and the kept directions.

    As found; without what the directions share; and, as ``directions find --keep`` does it, also
    less what is measured. All leaks of a direction are kept together, and measured on other faces
    than those on which they were corrected. What hardly moves its own label cannot be taken off.
    """
    G, rows, better = net.generator, {}, []
    clear = {
        name for name, one in directions.by_name.items()
        if one.method == "labels" and own_and_others(one)[0] >= LEAK
    }  # fmt: skip
    how = {"judge": judging.judge, "values": judging.values, "faces": faces}
    for name, one in directions.by_name.items():
        moves = one.found.get("moves", {}) if one.method == "labels" else {}
        others = [
            other for other, far in moves.items() if abs(far) >= LEAK and other in clear - {name}
        ]
        if not others:
            continue
        kept = [directions[other] for other in others]
        projected = without_kept(G, one, kept)
        (corrected,) = correct_leaks(G, directions.adding([projected]), [projected], kept, **how)
        found = [
            measure_effects(G, directions.adding([some]), [name], seed=OTHER_FACES, **how)
            for some in (one, projected, corrected)
        ]
        rows[name] = (others, [effects[name]["moves"] for effects in found])
        settings = {**one.found["settings"], "keep": others}
        better.append(replace(corrected, found={**corrected.found, "settings": settings}))
        print(name, *rows[name], flush=True)
    return rows, better


def aimed(net, directions, better, judging, faces):
    """Return the directions, those with a poor aim as they are after --keep."""
    poor = [one for one in better if own_and_others(directions[one.name])[2] < AIM]
    return with_effects(net, directions.adding(poor), judging, faces, [one.name for one in poor])


def own_and_others(one):
    """Return how far a direction moves its own label, the others in the mean, and the ratio."""
    moves = one.found["moves"]
    own = abs(moves[one.name])
    others = float(np.mean([abs(v) for k, v in moves.items() if k != one.name]))
    return own, others, own / max(others, 1e-6)


def markdown(directions, rows, network, faces, classifiers):
    """Return the tables with what they were made from."""
    labelled = [one for one in directions.by_name.values() if one.method == "labels"]
    names, samples = [one.name for one in labelled], labelled[0].found["faces"]
    lines = ["| direction | right | own | others | times | " + " | ".join(names) + " |",
             "|" + "---|" * (5 + len(names))]  # fmt: skip
    for one in labelled:
        own, others, ratio = own_and_others(one)
        cells = [f"{one.found['moves'][name]:+.2f}" for name in names]
        cells[names.index(one.name)] = f"**{cells[names.index(one.name)]}**"
        right = f"{100 * one.found['accuracy']:.1f} % ({100 * one.found['commonest']:.0f} %)"
        kept = f" (`--keep {','.join(one.found['keeps'])}`)" if one.found.get("keeps") else ""
        lines.append(f"| {one.name}{kept} | {right} | {own:.2f} | {others:.2f} | {ratio:.1f} | "
                     f"{' | '.join(cells)} |")  # fmt: skip
    lines += ["", "| direction | leaks into | as found | projected | `--keep` | own label |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for name, (others, found) in rows.items():
        own = ", ".join(f"{moves[name]:+.2f}" for moves in found)
        for other in sorted(others, key=lambda other: -abs(found[0][other])):
            leaked = " | ".join(f"{moves[other]:+.2f}" for moves in found)
            lines.append(f"| {name} | {other} | {leaked} | {own} |")
    accuracy = ", ".join(
        f"{name.replace('_', ' ')} {100 * value:.0f} %"
        for name, value in classifiers.accuracy.items() if value is not None
    )  # fmt: skip
    lines += ["", (
        f"`{shown_path(network)}`, SHA-256 {network_digest(network)[:12]}..., hyperplanes from "
        f"{samples:,} faces, effects on {faces} at the usual psi (second table: {faces} others); "
        f"classifiers right on pictures held out: {accuracy}; made by "
        f"`tests/benchmarks/editing.py`."
    )]  # fmt: skip
    return "\n".join(lines)


def draw(net, directions, folder):
    """Draw the strips of the page."""
    G, config = net.generator, net.config
    how = {"psi": config.truncation_psi, "psi_cutoff": config.truncation_cutoff}
    folder.mkdir(parents=True, exist_ok=True)
    for title, names in STRIPS.items():
        here = [name for name in names if name in directions.by_name]
        save_png(folder / f"{title}.png",
                 draw_strips(G, directions, here, map_seeds(G, [FACE], **how)))  # fmt: skip
    ws = map_seeds(G, FACES, **how)
    for name in ("light-hair", "light-skin"):
        save_png(folder / f"{name}.png", draw_strips(
            G, directions, [name], ws, faces=[str(seed) for seed in FACES]))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("classifiers", type=Path)
    parser.add_argument("--network", type=Path, default=Path("shipped"))
    parser.add_argument("--found", type=Path, help="a file of directions that are not found again")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--only-pictures", type=Path, help="draw those of a file that is there")
    given = parser.parse_args()
    path = find_network(given.network).path
    net = load_network(path, drawing=True)
    if given.only_pictures:
        draw(net, read_directions(given.only_pictures), given.pictures)
        return
    classifiers = load_classifiers(given.classifiers).recognising()
    judging = Judging(classifiers.classify, classifiers.values, classifiers.digest)
    space = space_of(net.config, shown_path(path), network_digest(path))
    if given.found:
        directions = read_directions(given.found)
        directions.check_network(net.config, space.sha256)
    else:
        faces = judge_faces(net.generator, given.samples, judging.judge, judging.values)
        print("judged", given.samples, flush=True)
        directions = find(net, space, judging, faces)
    lacking = [
        name for name, one in directions.by_name.items()
        if one.method in ("labels", "channels") and one.found.get("measured_on") != given.faces
    ]  # fmt: skip
    directions = with_effects(net, directions, judging, given.faces, lacking)
    if given.write:
        write_directions(given.write, directions)
    rows, better = leaks(net, directions, judging, given.faces)
    directions = aimed(net, directions, better, judging, given.faces)
    if given.write:
        write_directions(given.write, directions)
    text = markdown(directions, rows, path, given.faces, classifiers)
    print(text)
    if given.page:
        write_block(given.page, MARK, f"{text}\n")
    if given.pictures:
        draw(net, directions, given.pictures)


if __name__ == "__main__":
    main()
