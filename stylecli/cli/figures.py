"""`stylecli figures`: the StyleGAN paper's figures for any network, and a page of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import (
    USUAL_DRAWING,
    DrawingOptions,
    OpenedNetwork,
    open_source,
    takes_drawing,
)
from stylecli.cli.options import OutOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import find_and_check
from stylecli.cli.targets import is_done
from stylecli.errors import Interrupted, UsageError, plural
from stylecli.seeds import check_seed, format_seeds, parse_seeds
from stylecli.sheets import name_figures

if TYPE_CHECKING:
    from stylecli.rendering import Drawing
    from stylecli.report.network_pages import Drawn
    from stylecli.sheets.paper import Figure


@takes_drawing(
    only=("network", "psi", "psi_cutoff", "label", "batch", "device", "precision", "json", "force",
          "quiet"),
    instead={
        "psi": Annotated[
            float | None,
            typer.Option(
                "--psi",
                help="Truncation. Default: the network's own for uncurated figures, 1 for others.",
            ),
        ]
    },
)  # fmt: skip
def command(
    which: Annotated[
        list[str] | None,
        typer.Argument(
            help="Numbers in the paper (2 3 4 5 8 10 11 12) or names: uncurated mixing "
            "noise-detail noise-layers truncation bedrooms cars cats layers. Default: all.",
            metavar="FIGURE",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Faces of figures 4, 5 and 8.")
    ] = None,
    row_seeds: Annotated[
        str | None, typer.Option("--row-seeds", help="Rows of figure 3 and of layers.")
    ] = None,
    col_seeds: Annotated[
        str | None, typer.Option("--col-seeds", help="Columns of figure 3, sources of layers.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Random seed of the uncurated figures 2, 10, 11, 12."),
    ] = None,
    how: DrawingOptions = USUAL_DRAWING,
    out: OutOption = None,
) -> None:
    """Draw the StyleGAN paper's figures with a network.

    Example: stylecli figures 3 8 --network karras2019stylegan-ffhq-1024x1024.pkl

    Layouts and seeds are the published ones, scaled down for networks under 256 px. Writes a PNG
    for each figure, and index.html, which explains what to look for. Figures that the network
    cannot show are left out.
    """
    output = how.output()
    name_figures(which or [])
    how.check()
    overrides = {
        "seeds": _checked(seeds), "row_seeds": _checked(row_seeds),
        "col_seeds": _checked(col_seeds), "seed": None if seed is None else check_seed(seed),
        "psi": how.psi, "psi_cutoff": how.psi_cutoff, "label": how.label,
    }  # fmt: skip
    found = find_and_check(how.network, output)
    from stylecli.rendering import Drawing
    from stylecli.report.network_pages import FIGURES_PAGE, write_figures_page
    from stylecli.sheets.paper import describe_lack, find_figures

    figures = find_figures(which or [])
    _refuse_unused(figures, overrides)
    source = open_source(found.path, how.device, output)
    precision = source.resolve_precision(how.precision, how.force)
    lacks = {figure.key: describe_lack(figure, source.config) for figure in figures}
    for figure in figures:
        if lacks[figure.key] and which:
            raise UsageError(f"{figure.heading} cannot be drawn: {lacks[figure.key]}")
        if lacks[figure.key]:
            output.note(f"{figure.heading} is left out: {lacks[figure.key]}")
    chosen = [figure for figure in figures if not lacks[figure.key]]
    folder = out or source.folder / "figures"
    drawing = Drawing(batch=how.batch, precision=precision or "float32")  # type: ignore[arg-type]
    drawn = _draw(source, chosen, folder, overrides, drawing, how.force, output)
    page = folder / FIGURES_PAGE
    shown = _gather(source, folder, {d.figure.key: d for d in drawn}, lacks)
    write_figures_page(page, source.path, source.digest, source.config, shown)
    paths = [str(d.path) for d in drawn]
    document = {"network": str(source.path), "figures": {d.figure.key: str(d.path) for d in drawn},
                "left_out": {key: why for key, why in lacks.items() if why},
                "page": str(page)}  # fmt: skip
    output.result(document, [*paths, str(page)])


def _checked(text: str | None) -> str | None:
    """Return a list of seeds in its short form; None stays None."""
    return None if text is None else format_seeds(parse_seeds(text))


def _refuse_unused(figures: "list[Figure]", overrides: dict[str, Any]) -> None:
    for name, value in overrides.items():
        if value is not None and not any(name in figure.settings for figure in figures):
            option = "--class" if name == "label" else f"--{name.replace('_', '-')}"
            names = ", ".join(figure.key for figure in figures)
            raise UsageError(f"{option} {value} has no effect on {names}: leave it out")


def _draw(
    source: OpenedNetwork, figures: "list[Figure]", folder: Path, overrides: dict[str, Any],
    drawing: "Drawing", force: bool, output: Output,
) -> "list[Drawn]":  # fmt: skip
    """Draw what is not there yet, one figure after the other, each written when it is done."""
    from stylecli.images import save_png
    from stylecli.report.network_pages import Drawn
    from stylecli.sampling import seed_labels
    from stylecli.sheets.paper import draw_figure, figure_settings

    seed_labels(source.config, [0], overrides["label"])  # refused before anything is drawn
    precision = None if drawing.precision == "float32" else drawing.precision
    plan = []
    for figure in figures:
        settings = figure_settings(figure, source.config, overrides)
        provenance = source.provenance(
            "figures", {**settings, "device": source.device, "precision": precision},
            arguments=[figure.key],
        )  # fmt: skip
        path = folder / figure.file
        plan.append((figure, settings, Drawn(figure, path, provenance)))
    done = {
        drawn.figure.key for _, _, drawn in plan
        if is_done(folder / drawn.figure.file, drawn.provenance or {}, force)
    }  # fmt: skip
    if done:
        output.note(f"already drawn: {len(done)} of {plural(len(plan), 'figure')}")
    for figure, settings, drawn in plan:
        if figure.key in done:
            continue
        try:
            with output.progress(figure.heading, "pictures") as progress:
                sheet = draw_figure(
                    figure, source.bundle.generator, settings, drawing, progress
                )  # fmt: skip
            save_png(folder / figure.file, sheet, drawn.provenance)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {len(done)} of {plural(len(plan), 'figure')} written; run the same "
                f"command to draw the rest"
            ) from None
        done.add(figure.key)
    return [drawn for _, _, drawn in plan]


def _gather(
    source: OpenedNetwork, folder: Path, drawn: "dict[str, Drawn]", lacks: dict[str, str]
) -> "list[Drawn]":
    """Return what the page shows: figures of this call, and earlier ones of the same network."""
    from stylecli.images import read_provenance
    from stylecli.report.network_pages import Drawn
    from stylecli.sheets.paper import FIGURES

    shown = []
    for figure in FIGURES:
        path = folder / figure.file
        if figure.key in drawn:
            shown.append(drawn[figure.key])
        elif lacks.get(figure.key):
            shown.append(Drawn(figure, None, lack=lacks[figure.key]))
        elif path.is_file():
            provenance = read_provenance(path)
            network = (provenance or {}).get("network")
            if isinstance(network, dict) and network.get("sha256") == source.digest:
                shown.append(Drawn(figure, path, provenance))
    return shown
