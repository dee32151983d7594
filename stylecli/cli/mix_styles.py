"""`stylecli mix`: sheets of mixed styles, Figure 3 of the StyleGAN paper."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli.cli.drawing import (
    LabelOption,
    LodOption,
    NoiseModeOption,
    PrecisionOption,
    ScaleOption,
    Source,
    is_done,
    open_source,
    resolve_noise,
    truncation,
    truncation_settings,
)
from stylecli.cli.options import (
    BatchOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    NetworkOption,
    OutOption,
    PsiCutoffOption,
    PsiOption,
    QuietOption,
)
from stylecli.cli.output import Output
from stylecli.errors import UsageError
from stylecli.seeds import format_seeds, parse_seeds
from stylecli.styles import style_bands, style_layers


def command(
    network: NetworkOption = None,
    rows: Annotated[
        str, typer.Option("--rows", help="How many rows, or seeds where it has a comma or dash.")
    ] = "5",
    cols: Annotated[str, typer.Option("--cols", help="The same for columns.")] = "5",
    row_seeds: Annotated[
        str | None, typer.Option("--row-seeds", help="Seeds of the rows, such as 888.")
    ] = None,
    col_seeds: Annotated[
        str | None, typer.Option("--col-seeds", help="Seeds of the columns.")
    ] = None,
    styles: Annotated[
        str,
        typer.Option(
            "--styles",
            help="What comes from the columns: all (a sheet each for coarse, middle, fine), one "
            "of these, or layers such as 0-3.",
        ),
    ] = "all",
    psi: PsiOption = None,
    psi_cutoff: PsiCutoffOption = None,
    label: LabelOption = None,
    noise_mode: NoiseModeOption = None,
    noise_seed: Annotated[
        int | None, typer.Option("--noise-seed", min=0, help="Noise of all cells; means random.")
    ] = None,
    lod: LodOption = None,
    scale: ScaleOption = None,
    out: OutOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Mix the styles of rows and columns of faces.

    Example: stylecli mix --rows 5 --styles coarse

    Top row and left column are the sources. A cell is its row's face with the named styles of its
    column: coarse carries pose, shape and hair, middle features, fine colours. Counted rows take
    seeds from 0, counted columns those after. Writes mix-coarse.png, mix-middle.png, mix-fine.png.
    """
    output = Output(json=json, quiet=quiet)
    row_list, column_list = _choose_seeds(rows, cols, row_seeds, col_seeds)
    mode = resolve_noise(noise_mode, noise_seed)
    source = open_source(network, device, output)
    resolution = source.config.resolution
    names = list(style_bands(resolution)) if styles == "all" else [styles]
    layers = {name: style_layers(name, resolution) for name in names}
    strength, cutoff = truncation(source.config, psi, psi_cutoff)
    options: dict[str, Any] = {"label": label, "noise_mode": mode, "lod": lod, "scale": scale}
    settings = {
        "row_seeds": format_seeds(row_list), "col_seeds": format_seeds(column_list),
        **truncation_settings(strength, cutoff), **options,
        "noise_seed": noise_seed, "device": source.device, "precision": precision,
    }  # fmt: skip
    draw = {
        "psi": strength, "psi_cutoff": cutoff, "batch": batch, "noise_seed": noise_seed or 0,
        "precision": precision or "float32", **options,
    }  # fmt: skip
    paths = [
        _write_sheet(
            source, (row_list, column_list, layers[name]), _sheet_path(out, source, name, names),
            {"styles": name, **settings}, draw, force, output,
        )
        for name in names
    ]  # fmt: skip
    document = {
        "network": str(source.path), **settings, "layers": layers,
        "paths": [str(path) for path in paths],
    }  # fmt: skip
    output.result(document, [str(path) for path in paths])


def _choose_seeds(
    rows: str, cols: str, row_seeds: str | None, col_seeds: str | None
) -> tuple[list[int], list[int]]:
    """Return the seeds of rows and columns; counts are filled with 0, 1, 2, ... without repeats."""
    row_list = parse_seeds(row_seeds) if row_seeds else _seeds_or_count(rows, "--rows", 0)
    after = 0 if row_seeds or not rows.isdecimal() else len(row_list)
    column_list = parse_seeds(col_seeds) if col_seeds else _seeds_or_count(cols, "--cols", after)
    return row_list, column_list


def _seeds_or_count(text: str, option: str, first: int) -> list[int]:
    if not text.strip().isdecimal():
        return parse_seeds(text)
    count = int(text)
    if not 1 <= count <= 100:
        raise UsageError(
            f"{option} {count} is a count from 1 to 100: for one seed give "
            f"{'--row-seeds' if option == '--rows' else '--col-seeds'} {count}"
        )
    return list(range(first, first + count))


def _write_sheet(
    source: Source, what: tuple[list[int], list[int], list[int]], path: Path,
    settings: dict[str, Any], draw: dict[str, Any], force: bool, output: Output,
) -> Path:  # fmt: skip
    from stylecli.figures.mixing import draw_mixing_sheet
    from stylecli.images import save_png

    provenance = source.provenance("mix", settings)
    if is_done(path, provenance, force):
        output.note(f"{path} is already there")
        return path
    with output.progress(f"mix {settings['styles']}", "pictures") as progress:
        sheet = draw_mixing_sheet(source.bundle.generator, *what, progress=progress, **draw)
    save_png(path, sheet, provenance)
    return path


def _sheet_path(out: Path | None, source: Source, name: str, names: list[str]) -> Path:
    file = f"mix-{name.replace(',', '+')}"
    if out is None:
        return source.folder / f"{file}.png"
    if out.suffix.lower() != ".png":
        return out / f"{file}.png"
    return out if len(names) == 1 else out.with_name(f"{out.stem}-{name}{out.suffix}")
