"""A section of the demo's page: your network beside the one that comes with the package."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stylecli import __version__, shipped
from stylecli.checkpoint import load_network, network_digest
from stylecli.images import WHITE, Pictures
from stylecli.networks.bundle import Bundle
from stylecli.report.content import Commands, Picture, Section, Table
from stylecli.sheets.fakes import draw_fakes

SIDE = 6  # each sheet has 6 × 6 faces
CELL = 96  # px of a face on the page
GAP = 24  # px between the sheets
PSI = 0.7
_NUMBERS = {"kid@": "KID (proxy)", "diversity": "diversity", "ppl": "path length in w"}


def compare_with_shipped(
    net: Bundle, kimg: float, seconds: float, results: Sequence[Mapping[str, Any]]
) -> list[Section]:
    """Return the section about both networks; none where the package came without one.

    ``results`` are the demo's numbers as plain JSON: name, value, std.
    """
    path, record = shipped.shipped_network(), shipped.read_record()
    if path is None or not record:
        return []
    theirs = load_network(path)
    digest = network_digest(path)
    picture = Picture(
        draw_side_by_side(net, theirs),
        "Two sheets of generated cartoon faces: left the network just trained, right the one that "
        "comes with the package, with clearer eyes, mouths and hair",
        f"Left: yours, {format_duration(seconds)}. Right: the network that comes with stylecli, "
        f"{format_duration(record['seconds'])}. Seeds 0 to {SIDE**2 - 1}, uncurated, psi {PSI:g}.",
        provenance={
            "tool": f"stylecli {__version__}",
            "network": {"file": shipped.NAME, "sha256": digest},
            "figure": "the demo's network beside the shipped one",
        },
    )
    credit, dataset = record["credit"], record["dataset"]
    text = (
        f"The network at the right saw {record['kimg'] * 1000:,.0f} pictures, in "
        f"{format_duration(record['seconds'])} by {_processes(record)}, of "
        f"{dataset['pictures']:,} faces; yours saw {kimg * 1000:,.0f}. It is part of the package: "
        f"`--network {shipped.NAME}` draws with it, and so does every command in a folder without "
        "a network of its own."
    )
    thanks = (
        f"Its faces: {credit['pictures']}, {credit['licence']}. "
        f"Trained with stylecli {record['environment']['stylecli']}, "
        f"torch {record['environment']['torch']}"
        + "".join(f"; {remark}" for remark in record.get("remarks", ()))
        + "."
    )
    rows = [
        ("yours", _row(kimg, seconds, results)),
        ("shipped", _row(record["kimg"], record["seconds"], record["metrics"])),
    ]
    table = Table(
        ("network", "images", "training", *_NUMBERS.values()),
        [(name, *cells) for name, cells in rows],
        "Each measured against its own training faces. KID 0 is best; diversity 1 is the "
        "dataset's; path length grows as pictures get sharper.",
    )
    return [
        Section(
            "Your minutes, and hours",
            [text, thanks],
            [picture, table, Commands([record["command"]], "How it was trained.")],
        )
    ]


def draw_side_by_side(left: Bundle, right: Bundle) -> Pictures:
    """Return two sheets of the same seeds in one picture [H, W, C], white between them."""
    sheets = [_sheet(net) for net in (left, right)]
    gap = np.full((sheets[0].shape[0], GAP, 3), WHITE, np.uint8)
    return np.concatenate([sheets[0], gap, sheets[1]], axis=1)


def _sheet(net: Bundle) -> Pictures:
    scale = max(1, CELL // net.config.resolution)
    psi = PSI if net.config.has_w else 1.0
    sheet = draw_fakes(net, range(SIDE**2), SIDE, psi=psi, noise_mode="none", scale=scale)
    # A larger network than the cells have pixels is shown at every n-th pixel.
    step = max(1, sheet.shape[0] // (SIDE * CELL))
    sheet = sheet[::step, ::step]
    canvas = np.full((SIDE * CELL, SIDE * CELL, 3), WHITE, np.uint8)
    canvas[: sheet.shape[0], : sheet.shape[1]] = sheet[: SIDE * CELL, : SIDE * CELL, :3]
    return canvas


def _row(kimg: float, seconds: float, results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    cells = []
    for prefix in _NUMBERS:
        found = next((r for r in results if str(r["name"]).startswith(prefix)), None)
        value = None if found is None else found["value"]
        cells.append("-" if value is None else f"{value:.3g}")
    return (f"{kimg * 1000:,.0f}", format_duration(seconds), *cells)


def _processes(record: Mapping[str, Any]) -> str:
    count = record["processes"]
    if record["device"] != "cpu":
        return f"{count} GPU" + ("s" if count > 1 else "")
    return "one process" if count == 1 else f"{count} processes"


def format_duration(seconds: float) -> str:
    """Write a duration in words: seconds under a minute and a half, minutes, then hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
