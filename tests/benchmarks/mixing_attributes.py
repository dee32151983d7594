"""Which attributes follow the source when coarse, middle or fine styles are mixed.

    python tests/benchmarks/mixing_attributes.py NETWORK CLASSIFIERS [--pairs 1000] [--psi 0.7]
        [--sure 0.7] [--page docs/mix.md]

For many pairs of faces (row seed i, column seed PAIRS + i) every band's styles of the row are
replaced by the column's, as ``stylecli mix`` does, and attribute classifiers (a file of
``stylecli metrics ls --train-classifiers``) look at row, column and mix. Among pairs whose row and
column differ in an attribute, with both probabilities at least ``--sure``, the table says how often
the mix shows the column's value (the source of the band) and how often the row's. What is missing
to 100 is a third value. Attributes that the classifiers cannot see are left out. Prints the table
as Markdown; ``--page`` puts it between the page's mixing-attributes marks.
"""

import argparse
from pathlib import Path

import numpy as np
from pages import write_block

from stylecli.checkpoint import load_network
from stylecli.metrics.classifiers import load_classifiers
from stylecli.networks.headers import network_digest
from stylecli.rendering import render
from stylecli.sampling import map_seeds, mix_ws
from stylecli.styles import style_bands

MARK = "mixing-attributes"


def classify(G, classifiers, ws, noise=None):
    """Return attribute -> probabilities [N, K] of the pictures of styles ws [N, num_ws, w_dim].

    ``noise`` are the noise maps of each, where they have their own.
    """
    found = {name: [] for name in classifiers.values}
    batch = []
    maps = iter(noise) if noise is not None and G.config.has_noise else None
    for picture in render(G, ws, noise=maps):
        batch.append(picture.transpose(2, 0, 1))
        if len(batch) == 100:
            collect(classifiers, batch, found)
    collect(classifiers, batch, found)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def collect(classifiers, batch, found):
    """Classify the pictures of ``batch`` into ``found`` and empty it."""
    if batch:
        for name, p in classifiers.predict(np.stack(batch)).items():
            found[name].append(p)
        batch.clear()


def compare(row, column, mixed, sure):
    """Return (pairs that differ, share of mixes as the column, share as the row)."""
    row_value, column_value, value = (p.argmax(axis=1) for p in (row, column, mixed))
    certain = np.minimum(row.max(axis=1), column.max(axis=1)) >= sure
    chosen = (row_value != column_value) & certain
    count = int(chosen.sum())
    if not count:
        return 0, float("nan"), float("nan")
    as_column = (value == column_value)[chosen].mean()
    as_row = (value == row_value)[chosen].mean()
    return count, float(as_column), float(as_row)


def measure(bundle, classifiers, pairs, psi, sure):
    """Return attribute -> (accuracy, pairs, {band: (as column, as row)})."""
    G, cutoff = bundle.generator, bundle.config.truncation_cutoff
    rows = map_seeds(G, range(pairs), psi=psi, psi_cutoff=cutoff)
    columns = map_seeds(G, range(pairs, 2 * pairs), psi=psi, psi_cutoff=cutoff)
    seen_rows, seen_columns = (classify(G, classifiers, ws) for ws in (rows, columns))
    table = {name: [accuracy, 0, {}] for name, accuracy in classifiers.accuracy.items()}
    for band, layers in style_bands(bundle.config.style_sides).items():
        mixed = classify(G, classifiers, mix_ws(rows, columns, layers))
        for name, line in table.items():
            count, as_column, as_row = compare(
                seen_rows[name], seen_columns[name], mixed[name], sure
            )
            line[1], line[2][band] = count, (as_column, as_row)
    return table


def markdown(table, bands, pairs, psi, sure, network):
    """Return the table with what it was made from."""
    head = " | ".join(f"{name} ({span(layers)})" for name, layers in bands.items())
    lines = [f"| attribute | classifier | pairs | {head} |", "|" + "---|" * (3 + len(bands))]
    for name, (accuracy, count, shares) in table.items():
        known = "-" if accuracy is None else f"{100 * accuracy:.0f} %"
        cells = [
            "-" if not count else mark(as_column, as_row) for as_column, as_row in shares.values()
        ]
        lines.append(f"| {name.replace('_', ' ')} | {known} | {count} | {' | '.join(cells)} |")
    source = (
        "Percent of mixes with the column's value / with the row's. "
        f"`{network.name}`, SHA-256 {network_digest(network)[:12]}..., {pairs} pairs, psi {psi:g}, "
        f"classifiers at least {100 * sure:.0f} % sure of row and column; made by "
        "`tests/benchmarks/mixing_attributes.py`."
    )
    return "\n".join([*lines, "", source])


def mark(as_column, as_row):
    """Return "column / row" in percent, bold where most mixes follow the column."""
    text = f"{100 * as_column:.0f} / {100 * as_row:.0f}"
    return f"**{text}**" if as_column > 0.5 else text


def span(layers):
    """Return the layers of a band as people write them."""
    return f"layers {layers[0]}-{layers[-1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("classifiers", type=Path)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--psi", type=float, default=0.7)
    parser.add_argument("--sure", type=float, default=0.7)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    bundle = load_network(given.network)
    classifiers = load_classifiers(given.classifiers).recognising()
    table = measure(bundle, classifiers, given.pairs, given.psi, given.sure)
    bands = style_bands(bundle.config.style_sides)
    text = markdown(table, bands, given.pairs, given.psi, given.sure, given.network)
    print(text)
    if given.page:
        write_block(given.page, MARK, f"{text}\n")


if __name__ == "__main__":
    main()
