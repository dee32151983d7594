"""The options of ``stylecli interpolate`` and what they come to."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import Source, resolve_noise
from stylecli.errors import UsageError
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds

if TYPE_CHECKING:
    from torch import Tensor

KEYS = 6  # key faces of a cell where no seeds are given
KEY_SECONDS = 2.0  # from one to the next
PATH, NOISE, TRUNCATION = "Path", "Noise", "Truncation"  # headings of the help

SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds", help="Faces to visit. Default: six per cell from 0.", rich_help_panel=PATH
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
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Class of every face, such as 0,3; with one face its classes in turn.",
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
    typer.Option("--loop/--no-loop", " /--open", help="End where it began.", rich_help_panel=PATH),
]
GridOption = Annotated[
    str,
    typer.Option(
        "--grid", help="Cells, WxH; each has its share.", metavar="WxH", rich_help_panel=PATH
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds", help="Length of the video. Default: --key-seconds decides.",
        rich_help_panel=PATH,
    ),
]  # fmt: skip
KeySecondsOption = Annotated[
    float | None,
    typer.Option("--key-seconds", help="From face to face. Default 2.", rich_help_panel=PATH),
]
PsiToOption = Annotated[
    float | None,
    typer.Option(
        "--psi-to", help="Move psi from --psi to this; a loop also goes back.",
        rich_help_panel=TRUNCATION,
    ),
]  # fmt: skip
PulsesOption = Annotated[
    int | None,
    typer.Option(
        "--pulses", min=1, help="Move psi there and back this often. Default: once in a loop.",
        rich_help_panel=TRUNCATION,
    ),
]  # fmt: skip
NoiseSeedOption = Annotated[
    int | None,
    typer.Option(
        "--noise-seed", min=0, help="Noise of the video; means random.", rich_help_panel=NOISE
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
        "--noise-seconds", help="Drift: until noise is another. Default 1.", rich_help_panel=NOISE
    ),
]


def parse_grid(text: str) -> tuple[int, int]:
    """Return (columns, rows) from ``4x2``."""
    match = re.fullmatch(r"(\d{1,3})x(\d{1,3})", text.strip().lower())
    if match is None or not int(match[1]) or not int(match[2]):
        raise UsageError(f"grid {text!r} is not readable: give columns x rows, such as 4x2")
    return int(match[1]), int(match[2])


def resolve_motion(
    noise_mode: str | None, noise_seed: int | None, motion: str | None, seconds: float | None
) -> dict[str, Any]:
    """Return the settings of noise; noise that moves is random noise."""
    if motion not in (None, "still", "flicker", "drift"):
        raise UsageError(f"noise motion {motion!r} is unknown: expected still, flicker or drift")
    if seconds is not None and (motion != "drift" or not 0 < seconds <= 86_400):
        raise UsageError(
            f"--noise-seconds {seconds:g} is how fast noise drifts: give --noise-motion drift and "
            "more than 0"
        )
    moves = motion in ("flicker", "drift")
    if moves and noise_mode not in (None, "random"):
        raise UsageError(f"--noise-motion {motion} needs --noise-mode random, not {noise_mode}")
    mode = "random" if moves else resolve_noise(noise_mode, noise_seed)
    return {
        "noise_mode": mode, "noise_seed": noise_seed,
        "noise_motion": motion if moves else None, "noise_seconds": seconds,
    }  # fmt: skip


def choose_classes(classes: str | None, label: int | None) -> list[int] | None:
    """Return the classes that --classes or --class ask for."""
    if classes is not None and label is not None:
        raise UsageError(f"--classes {classes} and --class {label} both choose: give one of them")
    return parse_seeds(classes) if classes else None if label is None else [label]


def find_faces(
    source: Source, seeds: str | None, ws: Path | None, ws_rows: str | None, usual: int
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
    rows = load_styles(source, ws)
    settings = {"ws": shown_path(ws), "ws_rows": ws_rows}
    if ws_rows is None:
        return rows, settings
    chosen = parse_seeds(ws_rows)
    if max(chosen) >= len(rows):
        raise UsageError(f"--ws-rows {ws_rows}: the file has faces 0 to {len(rows) - 1}")
    return rows[chosen], settings


def load_styles(source: Source, path: Path) -> "Tensor":
    """Read saved styles ws [N, num_ws, w_dim] that fit the network."""
    from stylecli.sampling import load_ws

    config = source.config
    if not config.has_w:
        raise UsageError(
            f"configuration {config.preset!r} has no styles to draw from {path}: give --seeds"
        )
    return load_ws(path, (config.num_ws, config.w_out_dim), tell=source.note)


def count_frames(
    keys: int, seconds: float | None, key_seconds: float | None, fps: float, loop: bool
) -> tuple[int, dict[str, Any]]:
    """Return the frames of a walk through ``keys`` faces, and the options that give as many.

    By --key-seconds every face has a frame of its own; a single one gets twice the time.
    """
    if seconds is not None and key_seconds is not None:
        raise UsageError(
            f"--seconds {seconds:g} and --key-seconds {key_seconds:g} both set the length: give one"
        )
    steps = 2 if keys == 1 else keys if loop else keys - 1
    between = KEY_SECONDS if key_seconds is None else key_seconds
    length = between * steps if seconds is None else seconds
    if not 0 < length <= 86_400 or not 0 < between:
        raise UsageError(
            f"{length:g} seconds at {fps:g} frames per second make no video: "
            "give more than 0, at most a day"
        )
    if seconds is not None:
        return max(1, round(seconds * fps)), {"seconds": seconds}
    frames = max(1, round(between * fps)) * steps
    return frames if loop else frames + 1, {"key_seconds": between}
