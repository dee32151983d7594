"""`stylecli interpolate`: a video that walks from face to face and back to the first."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import (
    CenterOption,
    LabelOption,
    LodOption,
    NoiseModeOption,
    PrecisionOption,
    PsiLayersOption,
    ScaleOption,
    open_source,
    resolve_truncation,
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
from stylecli.cli.video_files import FILE, CodecOption, CrfOption, FpsOption, resolve_video
from stylecli.cli.walk_options import (
    KEYS,
    ClassesOption,
    GridOption,
    KeySecondsOption,
    LoopOption,
    MethodOption,
    NoiseMotionOption,
    NoiseSecondsOption,
    NoiseSeedOption,
    PsiToOption,
    PulsesOption,
    SecondsOption,
    SeedsOption,
    SpaceOption,
    WsOption,
    WsRowsOption,
    choose_classes,
    count_frames,
    find_faces,
    parse_grid,
    resolve_motion,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stylecli.images import Pictures


def command(
    network: NetworkOption = None,
    seeds: SeedsOption = None,
    ws: WsOption = None,
    ws_rows: WsRowsOption = None,
    classes: ClassesOption = None,
    space: SpaceOption = None,
    method: MethodOption = None,
    loop: LoopOption = True,
    grid: GridOption = "1x1",
    seconds: SecondsOption = None,
    key_seconds: KeySecondsOption = None,
    psi: PsiOption = None,
    psi_cutoff: PsiCutoffOption = None,
    psi_layers: PsiLayersOption = None,
    center: CenterOption = None,
    psi_to: PsiToOption = None,
    pulses: PulsesOption = None,
    noise_seed: NoiseSeedOption = None,
    noise_motion: NoiseMotionOption = None,
    noise_seconds: NoiseSecondsOption = None,
    fps: FpsOption = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="mp4, webm, gif, webp or png (a folder of frames). Default: what --out ends in.",
            rich_help_panel=FILE,
        ),
    ] = None,
    codec: CodecOption = None,
    crf: CrfOption = None,
    label: LabelOption = None,
    noise_mode: NoiseModeOption = None,
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

    The path is a cubic spline through the faces' styles; noise stands still unless told to move.
    Frames stream into the file: any length fits in memory. Ctrl-C keeps the frames until then as a
    shorter video of its own; a folder of frames goes on with the same command.
    """
    output = Output(json=json, quiet=quiet)
    cells, labels = parse_grid(grid), choose_classes(classes, label)
    noise = resolve_motion(noise_mode, noise_seed, noise_motion, noise_seconds)
    source = open_source(network, device, output)
    target = resolve_video(
        out, source.folder, "interpolation", format=format, codec=codec, crf=crf, fps=fps
    )
    if ws is not None and psi is None and psi_layers is None:
        psi = 1.0  # saved styles are what somebody meant
    truncation = resolve_truncation(source, psi, psi_cutoff, psi_layers, center)
    one_face = labels is not None and len(labels) > 1
    usual = 2 if method == "circle" else 1 if one_face else KEYS
    keys, faces = find_faces(source, seeds, ws, ws_rows, usual * cells[0] * cells[1])
    share = len(keys) // (cells[0] * cells[1])
    stops = len(labels) if labels and share == 1 else share
    frames, length = count_frames(max(1, stops), seconds, key_seconds, target.fps, loop)
    route: dict[str, Any] = {
        "space": space or ("z" if method == "circle" or not source.config.has_w else "w"),
        "method": method, "loop": loop, "psi_to": psi_to, "pulses": pulses,
    }  # fmt: skip
    shared = {"lod": lod, "scale": scale}
    settings = {
        **faces, "classes": classes, "label": label, **route, "grid": grid, **length,
        **truncation.settings, **noise, **target.settings, **shared, "device": source.device,
        "precision": precision,
    }  # fmt: skip

    def draw(start: int) -> "Iterator[Pictures]":
        from stylecli.latents.walks import Route
        from stylecli.sheets.walking import draw_walk

        return draw_walk(
            source.bundle.generator, keys, frames, Route(**route), grid=cells, labels=labels,
            **truncation.options, noise_mode=noise["noise_mode"], noise_seed=noise_seed or 0,
            noise_motion=noise["noise_motion"] or "still",
            noise_draws=max(4, round(frames / target.fps / (noise_seconds or 1.0))),
            batch=batch, precision=precision or "float32", start=start, **shared,  # type: ignore[arg-type]
        )  # fmt: skip

    from stylecli.sheets.walking import walk_size

    inputs = truncation.inputs | ({} if ws is None else {"ws": ws})
    provenance = source.provenance("interpolate", settings, inputs=inputs)
    path = target.write(
        draw, frames, loop=loop, provenance=provenance, force=force, output=output,
        title="interpolate", size=walk_size(source.config, cells, scale),
    )  # fmt: skip
    document = {"network": str(source.path), **settings, "frames": frames, "path": str(path)}
    output.result(document, [str(path)])
