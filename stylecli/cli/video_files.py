"""Where videos go and in which format: what --out, --format, --codec and --crf come to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import is_done
from stylecli.cli.output import Output
from stylecli.errors import UsageError

if TYPE_CHECKING:
    from stylecli.images import Pictures
    from stylecli.video import Encoding

FILE = "File"  # the help's heading
SUFFIXES = {".mp4": "mp4", ".webm": "webm", ".gif": "gif", ".webp": "webp"}
USUAL_FPS = {"gif": 25.0}  # 30 does not divide into hundredths of a second

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
CrfOption = Annotated[
    int | None,
    typer.Option(
        "--crf",
        min=0,
        help="Quality: 0 is best; 6 more halve the file. Default: h264 16, hevc 18, others 20.",
        rich_help_panel=FILE,
    ),
]


@dataclass(frozen=True)
class VideoTarget:
    """One video file, or a folder of frames (encoding None), and its frames per second."""

    path: Path
    fps: float
    encoding: "Encoding | None"

    @property
    def settings(self) -> dict[str, Any]:
        """The options that give this file again."""
        if self.encoding is None:
            return {"fps": self.fps, "format": "png"}
        chosen = self.encoding
        return {"fps": self.fps, "format": chosen.format, "codec": chosen.codec, "crf": chosen.crf}

    def write(
        self, draw: Callable[[int], Iterable["Pictures"]], total: int, *, loop: bool,
        provenance: dict[str, Any], force: bool, output: Output, title: str,
        size: tuple[int, int],
    ) -> Path:  # fmt: skip
        """Write the frames that ``draw(start)`` yields, unless they are there; return the path.

        ``size`` is their (height, width): what the format or players refuse is said first.
        """
        from stylecli.video import (
            check_frame,
            ffmpeg_program,
            output_options,
            read_video_provenance,
            write_frames,
            write_video,
        )

        refused = check_frame(self.encoding, *size)
        if self.encoding is None:
            with output.progress(title, "frames") as progress:
                new = write_frames(
                    self.path, draw, total, provenance=provenance, force=force, progress=progress
                )
            if new < total:
                output.note(f"{total - new} of {total} frames were already there")
            return self.path
        if is_done(self.path, provenance, force, read_video_provenance):
            output.note(f"{self.path} is already there")
            return self.path
        if refused is not None:
            output.warn(refused)
        ffmpeg_program()  # a missing one is said before anything is drawn,
        output_options(self.encoding, loop)  # and an encoder that it lacks
        frames = draw(0)  # refuses settings before the bar begins
        with output.progress(title, "frames") as progress:
            write_video(
                self.path, frames, self.fps, encoding=self.encoding, loop=loop, total=total,
                provenance=provenance, keep_shorter=True, progress=progress,
            )  # fmt: skip
        return self.path


def resolve_video(
    out: Path | None, folder: Path, stem: str, *, format: str | None = None,
    codec: str | None = None, crf: int | None = None, fps: float | None = None,
) -> VideoTarget:  # fmt: skip
    """Return where a video goes: --out is a file, or a folder (of the frames, with format png).

    Without it ``folder``/``stem``. Raises UsageError for formats that do not exist or contradict.
    """
    named = SUFFIXES.get(out.suffix.lower()) if out is not None else None
    chosen = format or named or ("webm" if codec == "vp9" else "mp4")
    if chosen not in (*SUFFIXES.values(), "png"):
        known = ", ".join([*SUFFIXES.values(), "png"])
        raise UsageError(f"format {chosen!r} is unknown: expected {known}")
    if named is not None and named != chosen:
        raise UsageError(f"--format {format} contradicts --out {out}: leave one of them out")
    if out is not None and named is None and out.suffix and not out.is_dir():
        raise UsageError(
            f"{out} is no video: expected a name in {', '.join(SUFFIXES)}, or a folder"
        )
    rate = USUAL_FPS.get(chosen, 30.0) if fps is None else fps
    if chosen == "png":
        for option, value in (("--codec", codec), ("--crf", crf)):
            if value is not None:
                raise UsageError(f"{option} {value} has no meaning for PNG frames: leave it out")
        if not 0 < rate <= 1000:
            raise UsageError(f"fps {rate:g} is out of range: expected more than 0, at most 1000")
        return VideoTarget(out or folder / stem, rate, None)
    from stylecli.video import resolve_encoding

    encoding = resolve_encoding(chosen, codec, crf, rate)
    path = out if out is not None and named else (out or folder) / f"{stem}.{chosen}"
    return VideoTarget(path, rate, encoding)
