"""`stylecli generate`: pictures of seeds, one file each or one sheet."""

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
from stylecli.seeds import format_seeds, parse_seeds


def command(
    network: NetworkOption = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Such as 0-15 or 1,4-7.")] = "0-15",
    psi: PsiOption = None,
    psi_cutoff: PsiCutoffOption = None,
    label: LabelOption = None,
    noise_mode: NoiseModeOption = None,
    noise_seed: Annotated[
        int | None,
        typer.Option("--noise-seed", min=0, help="One noise for all; alone means random noise."),
    ] = None,
    lod: LodOption = None,
    grid: Annotated[bool, typer.Option("--grid", help="One sheet instead of files.")] = False,
    columns: Annotated[
        int | None, typer.Option("--columns", min=1, help="Columns of the sheet.")
    ] = None,
    scale: ScaleOption = None,
    out: OutOption = None,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw the pictures of seeds.

    Example: stylecli generate --seeds 0-31 --grid

    A seed is the same face in every StyleGAN tool. Files are named seed0000.png; each says how it
    was made (stylecli info FILE). With --noise-mode random a picture's noise comes from its seed.
    """
    output = Output(json=json, quiet=quiet)
    chosen = list(dict.fromkeys(parse_seeds(seeds)))
    mode = resolve_noise(noise_mode, noise_seed)
    source = open_source(network, device, output)
    strength, cutoff = truncation(source.config, psi, psi_cutoff)
    options: dict[str, Any] = {
        "label": label, "noise_mode": mode, "noise_seed": noise_seed, "lod": lod,
    }  # fmt: skip
    settings = {**truncation_settings(strength, cutoff), **options, "device": source.device,
                "precision": precision}  # fmt: skip
    draw = {"psi": strength, "psi_cutoff": cutoff, "batch": batch,
            "precision": precision or "float32", **options}  # fmt: skip
    if grid:
        settings |= {"grid": True, "columns": columns, "scale": scale}
        path = _sheet_path(out, source)
        paths = [_write_sheet(source, chosen, path, settings, draw, force, output)]
    else:
        folder = out or source.folder
        settings |= {"scale": scale}
        paths = _write_files(source, chosen, folder, settings, draw, force, output)
    document = {
        "network": str(source.path), "seeds": chosen, **settings, "paths": [str(p) for p in paths]
    }  # fmt: skip
    output.result(document, [str(path) for path in paths])


def _write_files(
    source: Source, seeds: list[int], folder: Path, settings: dict[str, Any],
    draw: dict[str, Any], force: bool, output: Output,
) -> list[Path]:  # fmt: skip
    from stylecli.images import enlarge, save_png
    from stylecli.sampling import generate

    generate(source.bundle, seeds, **draw)  # refuses options that do not fit before files matter
    made = {}
    for seed in seeds:
        provenance = source.provenance("generate", {"seeds": str(seed), **settings})
        made[seed] = (folder / f"seed{seed:04d}.png", provenance)
    missing = [seed for seed in seeds if not is_done(*made[seed], force)]
    if len(missing) < len(seeds):
        output.note(f"{len(seeds) - len(missing)} of {len(seeds)} pictures are already there")
    with output.progress("generate", "pictures") as progress:
        for done, (seed, picture) in enumerate(generate(source.bundle, missing, **draw), 1):
            path, provenance = made[seed]
            save_png(path, enlarge(picture, settings["scale"] or 1), provenance)
            progress(done, len(missing))
    return [made[seed][0] for seed in seeds]


def _write_sheet(
    source: Source, seeds: list[int], path: Path, settings: dict[str, Any],
    draw: dict[str, Any], force: bool, output: Output,
) -> Path:  # fmt: skip
    from stylecli.figures.fakes import draw_fakes
    from stylecli.images import save_png

    provenance = source.provenance("generate", {"seeds": format_seeds(seeds), **settings})
    if is_done(path, provenance, force):
        output.note(f"{path} is already there")
        return path
    with output.progress("generate", "pictures") as progress:
        sheet = draw_fakes(
            source.bundle, seeds, settings["columns"], scale=settings["scale"],
            progress=progress, **draw,
        )  # fmt: skip
    save_png(path, sheet, provenance)
    return path


def _sheet_path(out: Path | None, source: Source) -> Path:
    if out is None:
        return source.folder / "grid.png"
    return out if out.suffix.lower() == ".png" else out / "grid.png"
