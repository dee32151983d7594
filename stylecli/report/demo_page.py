"""The demo's page: what was trained, how it went, what came out, and what to make of it."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylecli import __version__, shipped
from stylecli.checkpoint import load_network
from stylecli.data.demo_faces import AUTHOR, LICENCE
from stylecli.errors import plural
from stylecli.images import WHITE, Pictures
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.progress import Progress, describe_seconds
from stylecli.rendering import Drawing
from stylecli.report.content import (
    Block,
    Chart,
    Clip,
    Commands,
    Line,
    Number,
    Numbers,
    Picture,
    Report,
    Section,
    Slides,
    Table,
)
from stylecli.report.page import write_report
from stylecli.report.run_curves import list_shading
from stylecli.sheets.fakes import draw_fakes
from stylecli.sheets.mixing import draw_mixing_sheet
from stylecli.styles import style_bands
from stylecli.training.run_folder import load_settings, read_statistics
from stylecli.workspace import list_sheets, list_snapshots, saved_at

MEANINGS = {
    "kid": "Distance between fakes and dataset as an ImageNet network sees them: 0 is best. "
    "A stand-in for the paper's FID, not comparable with any FID.",
    "diversity": "How different the fakes are from each other: 1 means as varied as the dataset, "
    "0 means all alike.",
    "ppl": "Perceptual path length: how much a picture changes per small step in w. Lower is "
    "smoother; compare it only between networks of the same resolution.",
}
SIDE = 6  # each sheet has 6 × 6 faces
CELL = 128  # px of a face on the page; a multiple of both networks' sizes
GAP = 24  # px between the sheets
PSI = 0.7
REFRESH_SECONDS = 15
LOOK_SECONDS = 5.0  # between two looks for new sheets
_NUMBERS = {"kid@": "KID (proxy)", "diversity": "diversity", "ppl": "path length in w"}


class WaitingPage:
    """``report.html`` until the demo is done: what the network that comes with stylecli draws.

    The browser loads it again by itself, and at the end finds the demo's own page in its place.
    """

    def __init__(self, folder: Path) -> None:
        """Draw with the network that comes with stylecli, which must be there."""
        self.path, self._run = folder / "report.html", folder / "run"
        network = shipped.shipped_network()
        assert network is not None
        G = load_network(network).generator
        source = {"file": shipped.NAME, "sha256": network_digest(network)}
        self._record = {"tool": f"stylecli {__version__}", "network": source}
        drawing = Drawing(psi=PSI, noise_mode="none")
        self.faces = draw_fakes(Bundle(G.config, G_ema=G), range(SIDE**2), SIDE, drawing)
        self._bands = [
            (name, draw_mixing_sheet(G, range(100, 103), range(200, 206), layers, drawing))
            for name, layers in style_bands(G.config.style_sides).items()
            if layers
        ]
        self._seen: list[Path] = []
        self._next_look = 0.0

    def first_faces(self, count: int = 3) -> Pictures:
        """Return the first faces of the sheet side by side, [H, W, C]."""
        height, width = self.faces.shape[0] // SIDE, self.faces.shape[1] // SIDE
        return self.faces[:height, : count * width]

    def write(self, doing: str) -> None:
        """Write the page; ``doing`` is the sentence about what happens at the moment."""
        record = shipped.read_record()
        blocks: list[Block] = []
        sheets = list_sheets(self._run)
        if sheets:
            labels = [f"{(saved_at(path.name) or 0) / 1000:.1f} kimg" for path in sheets]
            blocks.append(
                Slides(labels, sheets, "Sheet of the network that is being trained",
                       "The same 64 seeds throughout training.")
            )  # fmt: skip
        mixed = [
            Picture(sheet, f"Grid of faces: rows mixed with columns in the {name} layers",
                    f"The {name} styles of the faces on top, everything else from the left.",
                    provenance={**self._record, "figure": f"style mixing: {name}"})
            for name, sheet in self._bands
        ]  # fmt: skip
        report = Report(
            title="Faces, while yours are being trained",
            lead=f"{doing} This page loads itself again every few seconds and shows your own "
            "network when it is done. If the command was stopped, run it again: it continues.",
            hero=Picture(
                self.faces,
                f"Sheet of {SIDE**2} generated cartoon faces",
                f"Drawn by the network that comes with stylecli, which saw "
                f"{record['kimg'] * 1000:,.0f} pictures. Seeds 0 to {SIDE**2 - 1}, uncurated.",
                provenance={**self._record, "figure": "uncurated faces"},
            ),
            sections=[
                *([Section("Your network so far", [], blocks)] if blocks else []),
                Section("Mixed by their styles", [], mixed),
            ],
            footer=f"Training faces: Toon Head by {AUTHOR}, {LICENCE}, drawn with DiceBear.",
            refresh_seconds=REFRESH_SECONDS,
        )
        write_report(self.path, report)
        self._seen = sheets

    def follow(self, progress: Progress) -> Progress:
        """Return a progress callback that writes the page again when the run has a new sheet."""

        def report(done: float, total: float, note: str = "") -> None:
            progress(done, total, note)
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + LOOK_SECONDS
                if list_sheets(self._run) != self._seen:
                    self.write("Your network is training.")

        return report


def write_demo_page(folder: Path, minutes: float, results: list[dict[str, Any]]) -> Path:
    """Write report.html from what lies in the demo folder; return its path."""
    run = folder / "run"
    settings, rows = load_settings(run), read_statistics(run)
    net = load_network(list_snapshots(run)[-1])
    parameters = sum(p.numel() for p in net.generator.parameters())
    kimg, seconds = rows[-1]["kimg"], rows[-1]["seconds"]
    spent = describe_seconds(seconds)
    report = Report(
        title="A StyleGAN, grown here",
        lead=f"This computer drew faces, learned from them for {spent} and now makes faces of its "
        "own. Nothing was downloaded; it drew every picture below, except one sheet for "
        "comparison from a network trained for hours.",
        hero=Picture(
            folder / "fakes.png",
            "Grid of 64 generated cartoon faces",
            f"64 faces of seeds 0 to 63, uncurated, psi {0.7:g}, {settings.network.resolution} px.",
        ),
        facts=[
            ("training", spent),
            ("images shown", f"{kimg * 1000:,.0f}"),
            ("generator", f"{parameters:,} parameters"),
            ("resolution", f"{settings.network.resolution} px"),
            ("processes", str(settings.ranks)),
        ],
        sections=[
            _honesty(minutes, kimg),
            *compare_with_shipped(net, kimg, seconds, results),
            _growth(run, settings, rows),
            _mixing(folder),
            _space(folder),
            _numbers(results),
            _next(),
        ],
        footer=f"Made by stylecli {__version__}. Training faces: Toon Head by {AUTHOR}, {LICENCE}, "
        "drawn with DiceBear. Method: Karras, Laine, Aila, “A Style-Based Generator Architecture "
        "for Generative Adversarial Networks”, 2018.",
    )
    path = folder / "report.html"
    write_report(path, report)
    return path


# What was seen in runs of the demo on faces of 32 px: schedules of 52 and 66 kimg ended with two
# eyes and a mouth in every head, one of 579 with hairstyles that differ.
FACES_KIMG, CLEAR_KIMG = 50.0, 500.0


def describe_faces(kimg: float) -> str:
    """Say what the network draws after so many thousand images, whatever time they took."""
    if kimg < FACES_KIMG / 2:
        return "patches of colour in the shape of heads"
    if kimg < FACES_KIMG:
        return "heads, hair and skin in many colours, with the eyes only hinted at"
    if kimg < CLEAR_KIMG:
        return "heads, hair and skin in many colours, two eyes and a hint of a mouth"
    return "eyes, mouths and hairstyles that differ from face to face; beards come last"


def _honesty(minutes: float, kimg: float) -> Section:
    text = (
        f"The network saw {kimg * 1000:,.0f} pictures; the paper's saw 25 million. After "
        f"{kimg * 1000:,.0f}, expect {describe_faces(kimg)}."
    )
    if kimg >= CLEAR_KIMG:
        return Section("What this is, and what it is not", [text])
    goal = FACES_KIMG if kimg < FACES_KIMG else CLEAR_KIMG
    longer = math.ceil(minutes * goal / max(kimg, 0.01) * 1.1)
    more = (
        f"At the speed of this run, `stylecli demo --minutes {longer} --out longer` shows "
        f"{goal:g} thousand pictures: {describe_faces(goal)}."
    )
    return Section("What this is, and what it is not", [text, more])


def _growth(run: Path, settings: Any, rows: list[dict[str, Any]]) -> Section:
    kimg = [row["kimg"] for row in rows]
    stages = list_shading(settings, kimg[-1])
    shift = max(1, len(rows) // 20)
    losses = Chart(
        "Losses",
        [
            Line("generator", kimg, [row["loss_G"] for row in rows], smoothing=shift),
            Line("discriminator", kimg, [row["loss_D"] for row in rows], smoothing=shift),
        ],
        x_label="kimg (thousand images shown)",
        stages=stages,
        caption="The two networks play against each other, so neither loss falls to zero: what "
        "matters is that both stay finite and the pictures improve. Shaded: the resolution "
        "being "
        "trained; lighter while it fades in.",
    )
    logits = Chart(
        "What the discriminator thinks",
        [
            Line("of real pictures", kimg, [row["real_logits"] for row in rows], smoothing=shift),
            Line("of fakes", kimg, [row["fake_logits"] for row in rows], smoothing=shift),
        ],
        x_label="kimg",
        y_label="logit",
        stages=stages,
        caption="Above zero means real. The closer the two curves, the better the fakes fool it.",
    )
    sheets = list_sheets(run)
    slides = Slides(
        [f"{(saved_at(path.name) or 0) / 1000:.1f} kimg" for path in sheets],
        sheets,
        "Sample sheet of the same 64 seeds at this moment of training",
        "The same 64 seeds throughout training. Move the slider: first colours at 8 × 8 pixels, "
        "then heads, then faces.",
    )
    text = (
        "Training starts with 8 × 8 pixels, then fades in 16 × 16 and 32 × 32 (progressive "
        "growing). Big shapes come first, details later."
    )
    return Section("How it grew", [text], [slides, losses, logits])


def _mixing(folder: Path) -> Section:
    text = (
        "Every picture is made of styles, one per layer. In each block below, the faces at the "
        "left keep everything except some layers' styles, which come from the faces on top: the "
        "coarse "
        "layers (4–8 px) in the first block, the middle ones (16 px) in the second, the fine ones "
        "(32 px) in the third. Coarse styles carry the shape of head and hair, fine ones colours; "
        "longer training separates them more cleanly."
    )
    picture = Picture(
        folder / "mix.png",
        "Three grids of faces: rows mixed with columns in coarse, middle and fine layers",
        "Style mixing, from top to bottom: coarse, middle, fine.",
    )
    return Section("Style mixing", [text], [picture])


def _space(folder: Path) -> Section:
    return Section(
        "Between the faces",
        [
            "Every point between two faces is a face too. In the video each cell walks a "
            "closed loop through three of them.",
            "Truncation trades variety for safety: psi 1 is the full range, psi 0 the average "
            "face, negative psi the opposite of a face.",
        ],
        [
            Clip(
                folder / "interpolation.mp4",
                "Faces turning into one another",
                "Interpolation in w: a periodic spline through the seeds' styles.",
            ),
            Picture(
                folder / "truncation.png",
                "Rows: seeds; columns: psi from 1 to -1",
                "Truncation sweep: psi 1, 0.7, 0.5, 0, -0.5, -1.",
            ),
        ],
    )  # fmt: skip


def _numbers(results: list[dict[str, Any]]) -> Section:
    numbers, skipped = [], []
    for result in results:
        meaning = next(text for key, text in MEANINGS.items() if result["name"].startswith(key))
        if result["value"] is None:
            skipped.append(f"{result['name']} was skipped: {result['skipped']}")
            continue
        value = f"{result['value']:.4g}"
        if result["std"] is not None:
            value += f" ± {result['std']:.2g}"
        count = result["definition"].get("fakes") or result["definition"].get("samples")
        detail = f"{count} samples" if count else ""
        numbers.append(Number(result["name"], value, meaning, detail))
    return Section(
        "Numbers",
        ["Measured on few samples to take only a minute: good for comparing two of your own runs, "
            "not for publication.", *skipped],
        [Numbers(numbers)] if numbers else [],
    )  # fmt: skip


def _next() -> Section:
    lines = [
        "stylecli generate --seeds 0-15 --grid",
        "stylecli mix --rows 5",
        "stylecli interpolate",
        "stylecli metrics fid ppl",
        "stylecli train photos/ --resolution 64",
    ]
    return Section(
        "Try it yourself",
        ["In this folder, these commands find the network that you just trained; the last one "
            "trains on your own pictures."],
        [Commands(lines)],
    )  # fmt: skip


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
        "Two sheets of generated cartoon faces: left from the network just trained, right from "
        "the one that comes with the package, with clearer eyes, mouths and hair",
        f"Left: yours, {describe_seconds(seconds)}. Right: the network that comes with stylecli, "
        f"{describe_seconds(record['seconds'])}. Seeds 0 to {SIDE**2 - 1}, uncurated, psi {PSI:g}.",
        provenance={
            "tool": f"stylecli {__version__}",
            "network": {"file": shipped.NAME, "sha256": digest},
            "figure": "the demo's network next to the shipped one",
        },
    )
    credit, dataset = record["credit"], record["dataset"]
    text = (
        f"The network at the right saw {record['kimg'] * 1000:,.0f} pictures, in "
        f"{describe_seconds(record['seconds'])} by {_processes(record)}, of "
        f"{plural(dataset['pictures'], 'face')}; yours saw {kimg * 1000:,.0f}. It is part of the "
        f"package: "
        f"`--network {shipped.NAME}` draws with it, and so does every command in a folder without "
        "a network of its own."
    )
    thanks = (
        f"Its faces: {credit['pictures']}, {credit['licence']}. `stylecli info {shipped.NAME}` "
        "shows how it was trained."
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
            "Your run, and a longer one",
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
    sheet = draw_fakes(net, range(SIDE**2), SIDE, Drawing(psi=psi, noise_mode="none", scale=scale))
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
    return (f"{kimg * 1000:,.0f}", describe_seconds(seconds), *cells)


def _processes(record: Mapping[str, Any]) -> str:
    count = record["processes"]
    if record["device"] != "cpu":
        return f"{count} GPU" + ("s" if count > 1 else "")
    return "one process" if count == 1 else f"{count} processes"
