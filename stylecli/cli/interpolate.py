"""`stylecli interpolate`: a video that walks from face to face and back to the first."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import USUAL_DRAWING, DrawingOptions, OpenedNetwork, takes_drawing
from stylecli.cli.faces import check_faces, find_faces, shown_words
from stylecli.cli.options import OutOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files
from stylecli.cli.targets import VideoTarget, resolve_video
from stylecli.errors import DataError, UsageError, unknown_name
from stylecli.latents import MOTIONS, check_walk
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from stylecli.images import Pictures

KEYS = 6  # key faces of a cell where no seeds are given
PATH, NOISE, TRUNCATION, FILE = "Path", "Noise", "Truncation", "File"  # headings of the help

SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds", help="Faces to visit. Default: six per cell, from 0.", rich_help_panel=PATH
    ),
]
WsOption = Annotated[
    Path | None,
    typer.Option(
        "--ws", help="Visit the styles of a .npz, .npy or .pt file instead.", rich_help_panel=PATH
    ),
]
WsRowsOption = Annotated[
    str | None,
    typer.Option(
        "--ws-rows", help="Which of its faces, from 0. Default: all.", rich_help_panel=PATH
    ),
]
ThroughOption = Annotated[
    list[str] | None,
    typer.Option(
        "--through",
        help="A face to visit: a seed, a file of styles or a photograph; repeat it for each.",
        metavar="FACE",
        rich_help_panel=PATH,
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Class of each face, such as 0,3; with one face, the classes it goes through.",
        rich_help_panel=PATH,
    ),
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space", help="Walk in w or z. Default w.", metavar="SPACE", rich_help_panel=PATH
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="spline, lerp, slerp, or circle around two faces. Default: spline in w, slerp in z.",
        metavar="METHOD",
        rich_help_panel=PATH,
    ),
]
LoopOption = Annotated[
    bool,
    typer.Option(
        "--loop/--no-loop", " /--open", help="End at the first face.", rich_help_panel=PATH
    ),
]
GridOption = Annotated[
    str,
    typer.Option(
        "--grid", help="Cells, WxH, that share the faces.", metavar="WxH", rich_help_panel=PATH
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds", help="Length of the video. Default: by --key-seconds.",
        rich_help_panel=PATH,
    ),
]  # fmt: skip
KeySecondsOption = Annotated[
    float | None,
    typer.Option("--key-seconds", help="Time from face to face. Default 2.", rich_help_panel=PATH),
]
PsiToOption = Annotated[
    float | None,
    typer.Option(
        "--psi-to", help="Move psi from --psi to this, and back in a loop.",
        rich_help_panel=TRUNCATION,
    ),
]  # fmt: skip
PulsesOption = Annotated[
    int | None,
    typer.Option(
        "--pulses", min=1, help="Move psi there and back this many times. Default: once in a loop.",
        rich_help_panel=TRUNCATION,
    ),
]  # fmt: skip
NoiseSeedOption = Annotated[
    int | None,
    typer.Option(
        "--noise-seed",
        min=0,
        help="Noise of the video; implies random noise.",
        rich_help_panel=NOISE,
    ),
]
NoiseMotionOption = Annotated[
    str | None,
    typer.Option(
        "--noise-motion",
        help="still, flicker (new in every frame) or drift (smooth). Default still.",
        metavar="MOTION",
        rich_help_panel=NOISE,
    ),
]
NoiseSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--noise-seconds",
        help="With drift: seconds until the noise is new. Default 1.",
        rich_help_panel=NOISE,
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second. Default 30, GIF 25.", rich_help_panel=FILE),
]
CodecOption = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="h264, hevc, av1 or vp9. Default: h264 in MP4, vp9 in WebM.",
        rich_help_panel=FILE,
    ),
]
MusicOption = Annotated[
    Path | None,
    typer.Option(
        "--music", help="Sound file to add; cut to the length of the video.",
        rich_help_panel=FILE,
    ),
]  # fmt: skip
CrfOption = Annotated[
    int | None,
    typer.Option(
        "--crf",
        min=0,
        help="Quality: 0 is best; 6 more halve the file. Default: h264 16, hevc 18, others 20.",
        rich_help_panel=FILE,
    ),
]


@takes_drawing(instead={"noise_seed": NoiseSeedOption})
def command(
    seeds: SeedsOption = None,
    ws: WsOption = None,
    ws_rows: WsRowsOption = None,
    through: ThroughOption = None,
    classes: ClassesOption = None,
    space: SpaceOption = None,
    method: MethodOption = None,
    loop: LoopOption = True,
    grid: GridOption = "1x1",
    seconds: SecondsOption = None,
    key_seconds: KeySecondsOption = None,
    how: DrawingOptions = USUAL_DRAWING,
    psi_to: PsiToOption = None,
    pulses: PulsesOption = None,
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
    music: MusicOption = None,
    out: OutOption = None,
) -> None:
    """Make a video that walks through faces, an endless loop.

    Example: stylecli interpolate --seeds 0-5 --seconds 12 --out walk.mp4

    The path is a cubic spline through the faces' styles; noise stands still unless --noise-motion
    moves it. A video of any length fits into memory. Ctrl-C keeps the frames so far as a shorter
    video; for a folder of frames, run the same command to continue.
    """
    output = how.output()
    check_files(DataError, music=music)
    walk = resolve_walk(
        how, output, seeds=seeds, ws=ws, ws_rows=ws_rows, through=through, classes=classes,
        space=space, method=method, loop=loop, grid=grid, seconds=seconds, key_seconds=key_seconds,
        psi_to=psi_to, pulses=pulses, noise_motion=noise_motion, noise_seconds=noise_seconds,
        fps=fps, format=format, codec=codec, crf=crf, music=music, out=out,
    )  # fmt: skip
    source = walk.source
    path = walk.target.write(
        walk.draw, walk.frames, loop=loop, provenance=walk.provenance, force=how.force,
        output=output, title="interpolate", size=walk.size, music=music,
    )  # fmt: skip
    document = {"network": str(source.path), **walk.settings, "frames": walk.frames,
                "path": str(path)}  # fmt: skip
    output.result(document, [str(path)])


@dataclass(frozen=True)
class Walk:
    """Everything that decides a video, resolved for one network."""

    source: OpenedNetwork
    target: VideoTarget
    frames: int
    keys: int  # faces that every cell visits
    size: tuple[int, int]  # (height, width) of a frame
    settings: dict[str, Any]  # the options that give exactly this video
    inputs: dict[str, Path]
    draw: "Callable[[int], Iterator[Pictures]]"  # the frames from one on

    @property
    def provenance(self) -> dict[str, Any]:
        """What the video carries."""
        return self.source.provenance("interpolate", self.settings, inputs=self.inputs)


def resolve_walk(
    how: DrawingOptions, output: Output, *, seeds: str | None = None, ws: Path | None = None,
    ws_rows: str | None = None, through: Sequence[str] | None = None, classes: str | None = None,
    space: str | None = None, method: str | None = None, loop: bool = True, grid: str = "1x1",
    seconds: float | None = None, key_seconds: float | None = None, psi_to: float | None = None,
    pulses: int | None = None, noise_motion: str | None = None,
    noise_seconds: float | None = None, fps: float | None = None, format: str | None = None,
    codec: str | None = None, crf: int | None = None, music: Path | None = None,
    out: Path | None = None,
) -> Walk:  # fmt: skip
    """Return everything that decides the video, with the network opened; the options' meaning.

    Raises UsageError for options that contradict each other, or that the network cannot follow.
    """
    cells, labels = parse_grid(grid), choose_classes(classes, how.label)
    how, moving = resolve_motion(how, noise_motion, noise_seconds)
    check_files(ws=ws)
    check_through(through, {"--seeds": seeds, "--ws": ws, "--psi-to": psi_to, "--pulses": pulses})
    how.check()
    check_walk(space, method)
    file: dict[str, Any] = {"format": format, "codec": codec, "crf": crf, "fps": fps}
    resolve_video(out, Path(), "interpolation", **file)  # refused before torch loads
    opened = how.open(output, usual_psi=None if ws is None else 1.0)  # saved: as they were meant
    source, drawing = opened.source, opened.drawing
    target = resolve_video(out, source.folder, "interpolation", **file)
    if music is not None:
        target.check_music(music)
    one_face = labels is not None and len(labels) > 1
    usual = 2 if method == "circle" else 1 if one_face else KEYS
    if through:
        # Seeds are truncated where they are mapped; saved faces stay as they are.
        found, named = find_faces(source, "through", through, drawing)
        keys: list[int] | Tensor = found.ws
        faces: dict[str, Any] = {"through": shown_words(through)}
        drawing = replace(drawing, psi=1.0, psi_cutoff=None, centre=None)
    else:
        named = {}
        keys, faces = choose_faces(source, seeds, ws, ws_rows, usual * cells[0] * cells[1])
    share = len(keys) // (cells[0] * cells[1])
    stops = len(labels) if labels and share == 1 else share
    frames, length = target.count_frames(max(1, stops), seconds, key_seconds, loop=loop)
    route: dict[str, Any] = {
        "space": space or ("z" if method == "circle" or not source.config.has_w else "w"),
        "method": method, "loop": loop, "psi_to": psi_to, "pulses": pulses,
    }  # fmt: skip
    settings = {
        **faces, "classes": classes, **route, "grid": grid, **length, **opened.settings, **moving,
        **target.settings, "music": None if music is None else shown_path(music),
    }  # fmt: skip

    def draw(start: int) -> "Iterator[Pictures]":
        from stylecli.latents.walks import Route, draw_walk

        return draw_walk(
            source.bundle.generator, keys, frames, Route(**route), drawing, grid=cells,
            labels=labels, noise_motion=moving["noise_motion"] or "still",
            noise_draws=max(4, round(frames / target.fps / (noise_seconds or 1.0))), start=start,
        )  # fmt: skip

    from stylecli.latents.walks import walk_size

    frame_size = walk_size(source.config, cells, drawing)
    files = (("ws", ws), ("music", music))
    inputs = opened.inputs | named | {name: file for name, file in files if file is not None}
    return Walk(source, target, frames, max(1, stops), frame_size, settings, inputs, draw)


def check_through(through: Sequence[str] | None, others: Mapping[str, object]) -> None:
    """Raise, before torch loads, for faces that are not there and what they exclude."""
    if not through:
        return
    check_faces("--through", through)
    for option, value in others.items():
        if value is not None:
            raise UsageError(f"--through {through[0]} and {option} {value} exclude each other")


def parse_grid(text: str) -> tuple[int, int]:
    """Return (columns, rows) from ``4x2``."""
    match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text.strip().lower())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"cannot read grid {text!r}: give columns x rows, such as 4x2")
    return int(match[1]), int(match[2])


def resolve_motion(
    how: DrawingOptions, motion: str | None, seconds: float | None
) -> tuple[DrawingOptions, dict[str, Any]]:
    """Return how to draw and the settings of moving noise; noise that moves is random noise."""
    if motion is not None and motion not in MOTIONS:
        raise UsageError(unknown_name("noise motion", motion, MOTIONS))
    if seconds is not None and (motion != "drift" or not 0 < seconds <= 86_400):
        raise UsageError(
            f"--noise-seconds {seconds:g} sets how fast noise drifts: give more than 0, with "
            f"--noise-motion drift"
        )
    if motion in (None, "still"):
        return how, {"noise_motion": None, "noise_seconds": seconds}
    if how.noise_mode not in (None, "random"):
        raise UsageError(f"--noise-motion {motion} needs --noise-mode random, not {how.noise_mode}")
    return replace(how, noise_mode="random"), {"noise_motion": motion, "noise_seconds": seconds}


def choose_classes(classes: str | None, label: int | None) -> list[int] | None:
    """Return the classes that --classes or --class ask for."""
    if classes is not None and label is not None:
        raise UsageError(f"--classes {classes} and --class {label} both choose: give one of them")
    return parse_seeds(classes) if classes else None if label is None else [label]


def choose_faces(
    source: OpenedNetwork, seeds: str | None, ws: Path | None, ws_rows: str | None, usual: int
) -> tuple["list[int] | Tensor", dict[str, Any]]:
    """Return the faces to visit, seeds or saved styles, and the options that name them.

    ``usual`` seeds from 0 where nothing is given. Raises UsageError for contradictions.
    """
    if ws is None:
        if ws_rows is not None:
            raise UsageError(f"--ws-rows {ws_rows} names faces of a file: give --ws FILE too")
        chosen = parse_seeds(seeds) if seeds else list(range(usual))
        return chosen, {"seeds": format_seeds(chosen)}
    if seeds is not None:
        raise UsageError(f"--seeds {seeds} and --ws {ws} are two sources of faces: give one")
    from stylecli.sampling import load_styles

    rows = load_styles(source.bundle, ws, tell=source.note)
    settings = {"ws": shown_path(ws), "ws_rows": ws_rows}
    if ws_rows is None:
        return rows, settings
    chosen = parse_seeds(ws_rows)
    if max(chosen) >= len(rows):
        raise UsageError(f"--ws-rows {ws_rows}: the file has faces 0 to {len(rows) - 1}")
    return rows[chosen], settings
