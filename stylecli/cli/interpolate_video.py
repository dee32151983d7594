"""`stylecli interpolate`: a video that walks from seed to seed and back to the first."""

import re
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

KEYS = 6  # key faces of a cell where no seeds are given


def command(
    network: NetworkOption = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Faces to visit. Default: six per cell from 0.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of the video.")] = 12.0,
    fps: Annotated[float, typer.Option("--fps", help="Frames per second.")] = 30.0,
    space: Annotated[
        str | None,
        typer.Option("--space", help="Walk in w or z. Default w.", metavar="SPACE"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="spline, lerp or slerp. Default: spline in w, slerp in z.",
            metavar="METHOD",
        ),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop/--no-loop", help="End where it began.")] = True,
    grid: Annotated[str, typer.Option("--grid", help="Cells, WxH.", metavar="WxH")] = "1x1",
    psi: PsiOption = None,
    psi_cutoff: PsiCutoffOption = None,
    label: LabelOption = None,
    noise_mode: NoiseModeOption = None,
    noise_seed: Annotated[
        int | None, typer.Option("--noise-seed", min=0, help="Noise of all frames; means random.")
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
    """Make a video that walks through faces, an endless loop.

    Example: stylecli interpolate --seeds 0-5 --seconds 12 --out walk.mp4

    The path is a cubic spline through the seeds' truncated styles; noise is held still, so that
    only the face changes. Frames stream into the file: any length fits in memory.
    """
    output = Output(json=json, quiet=quiet)
    cells = _parse_grid(grid)
    chosen = parse_seeds(seeds) if seeds else list(range(KEYS * cells[0] * cells[1]))
    frames = _count_frames(seconds, fps)
    mode = resolve_noise(noise_mode, noise_seed)
    source = open_source(network, device, output)
    strength, cutoff = truncation(source.config, psi, psi_cutoff)
    options: dict[str, Any] = {
        "space": space or ("w" if source.config.has_w else "z"), "method": method, "loop": loop,
        "label": label, "noise_mode": mode, "lod": lod, "scale": scale,
    }  # fmt: skip
    settings = {
        "seeds": format_seeds(chosen), "seconds": seconds, "fps": fps, "grid": grid, **options,
        **truncation_settings(strength, cutoff), "noise_seed": noise_seed, "device": source.device,
        "precision": precision,
    }  # fmt: skip
    draw = {
        "grid": cells, "psi": strength, "psi_cutoff": cutoff, "noise_seed": noise_seed or 0,
        "batch": batch, "precision": precision or "float32", **options,
    }  # fmt: skip
    path = _video_path(out, source)
    _write(source, chosen, frames, path, settings, draw, force, output)
    document = {"network": str(source.path), **settings, "frames": frames, "path": str(path)}
    output.result(document, [str(path)])


def _write(
    source: Source, seeds: list[int], frames: int, path: Path, settings: dict[str, Any],
    draw: dict[str, Any], force: bool, output: Output,
) -> None:  # fmt: skip
    from stylecli.figures.walking import draw_walk
    from stylecli.video import read_video_provenance, write_video

    provenance = source.provenance("interpolate", settings)
    if is_done(path, provenance, force, read_video_provenance):
        output.note(f"{path} is already there")
        return
    walk = draw_walk(source.bundle.generator, seeds, frames, **draw)
    with output.progress("interpolate", "frames") as progress:
        write_video(
            path, walk, settings["fps"], total=frames, provenance=provenance, progress=progress
        )


def _count_frames(seconds: float, fps: float) -> int:
    if not 0 < seconds <= 86_400 or not 0 < fps <= 1000:
        raise UsageError(
            f"{seconds:g} seconds at {fps:g} frames per second make no video: "
            "give more than 0 of both, at most a day and 1000"
        )
    return max(1, round(seconds * fps))


def _parse_grid(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text.strip().lower())
    if match is None or "0" in (match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"):
        raise UsageError(f"grid {text!r} is not readable: give columns x rows, such as 4x2")
    return int(match[1]), int(match[2])


def _video_path(out: Path | None, source: Source) -> Path:
    if out is None:
        return source.folder / "interpolation.mp4"
    if out.suffix.lower() not in ("", ".mp4"):
        raise UsageError(f"{out} is not an MP4: give --out FILE.mp4 or a folder")
    return out if out.suffix else out / "interpolation.mp4"
