"""Where pictures and videos go, how large, in which format, and whether they are there already."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from stylecli.cli.output import Output
from stylecli.errors import UsageError, plural, unknown_name

if TYPE_CHECKING:
    from stylecli.images import Pictures
    from stylecli.video import Encoding

FORMATS = ("png", "jpeg", "webp")  # images.PICTURE_FORMATS, which --help must not load
_PICTURE_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_OTHER_SUFFIXES = (".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".svg", ".pdf")
_VIDEO_SUFFIXES = {".mp4": "mp4", ".webm": "webm", ".gif": "gif", ".webp": "webp"}
_FILES = (*_PICTURE_SUFFIXES, *_OTHER_SUFFIXES, *_VIDEO_SUFFIXES, ".npz", ".npy", ".safetensors")
_USUAL_FPS = {"gif": 25.0}  # 30 does not divide into hundredths of a second
_KEY_SECONDS = 2.0  # from one key face to the next

FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="png, jpeg or webp. Default: what --out ends in, else png."),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "--quality",
        min=1,
        max=100,
        help="Quality of JPEG and WebP; WebP at 100 is exact. Default 95.",
    ),
]


@dataclass(frozen=True)
class Target:
    """A folder or one file, and a format."""

    folder: Path
    file: Path | None  # the one name that --out gave
    format: Literal["png", "jpeg", "webp"]
    quality: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """The options that give this format again; none for PNG."""
        if self.format == "png":
            return {}
        return {"format": self.format, "quality": self.quality}

    def path(self, stem: str) -> Path:
        """Return the path of a picture named ``stem``."""
        if self.file is not None:
            return self.file
        return self.folder / f"{stem}.{'jpg' if self.format == 'jpeg' else self.format}"

    def save(self, path: Path, picture: "Pictures", provenance: dict[str, Any]) -> None:
        """Write one picture [H, W, C] with how it was made, atomically."""
        from stylecli.images import save_picture

        save_picture(path, picture, provenance, quality=self.quality)


def resolve_target(
    out: Path | None, folder: Path, format: str | None, quality: int | None, sheet: bool, count: int
) -> Target:
    """Return where ``count`` pictures go, or one sheet of them, by default into ``folder``.

    An --out that ends like a picture is one file. Raises UsageError when that is too few, or when
    formats contradict each other.
    """
    named = None if out is None else _PICTURE_SUFFIXES.get(out.suffix.lower())
    chosen = format or named or "png"
    if chosen == "jpg":
        chosen = "jpeg"
    if chosen not in FORMATS:
        raise UsageError(unknown_name("--format", format or "", FORMATS))
    if named is not None and chosen != named:
        raise UsageError(f"--format {format} contradicts --out {out}: leave one of them out")
    if quality is not None and chosen == "png":
        raise UsageError(f"--quality {quality} is for JPEG and WebP: add --format jpeg")
    if named is not None and not sheet and count > 1:
        raise UsageError(
            f"--out {out} is one file for {plural(count, 'picture')}: add --grid, or give a folder"
        )
    if out is not None and named is None:
        _check_folder(out)
    file = out if named is not None else None
    kind = cast(Literal["png", "jpeg", "webp"], chosen)
    return Target(out or folder, file, kind, quality)


def _check_folder(out: Path) -> None:
    """Raise UsageError for a name that is meant as, or is, a file that cannot be written."""
    names = ", ".join(_PICTURE_SUFFIXES)
    if out.suffix.lower() in _OTHER_SUFFIXES:
        raise UsageError(f"cannot write {out}: give --out a name that ends in {names}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder, or a name that ends in {names}")


def check_only_folder(out: Path | None) -> None:
    """Raise UsageError where --out is, or is named like, a file and a folder is wanted."""
    if out is not None and not out.is_dir() and (out.exists() or out.suffix.lower() in _FILES):
        raise UsageError(f"--out {out} is a file or named like one: give a folder")


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

    def count_frames(
        self, keys: int, seconds: float | None, key_seconds: float | None, *, loop: bool
    ) -> tuple[int, dict[str, Any]]:
        """Return the frames of a walk through ``keys`` faces, and the options that give as many.

        By --key-seconds every face has a frame of its own; a single one gets twice the time.
        """
        if seconds is not None and key_seconds is not None:
            raise UsageError(
                f"--seconds {seconds:g} and --key-seconds {key_seconds:g} both set the length: "
                "give one"
            )
        steps = 2 if keys == 1 else keys if loop else keys - 1
        between = _KEY_SECONDS if key_seconds is None else key_seconds
        length = between * steps if seconds is None else seconds
        if not 0 < length <= 86_400 or not 0 < between:
            raise UsageError(
                f"{length:g} seconds at {self.fps:g} frames per second make no video: give more "
                f"than 0 and at most a day"
            )
        if seconds is not None:
            return max(1, round(seconds * self.fps)), {"seconds": seconds}
        frames = max(1, round(between * self.fps)) * steps
        return frames if loop else frames + 1, {"key_seconds": between}

    def check_music(self, music: Path) -> None:
        """Refuse music for a format without sound, and a file without any."""
        from stylecli.video import check_music

        check_music(self.encoding, music)

    def write(
        self, draw: Callable[[int], Iterable["Pictures"]], total: int, *, loop: bool,
        provenance: dict[str, Any], force: bool, output: Output, title: str,
        size: tuple[int, int], music: Path | None = None,
    ) -> Path:  # fmt: skip
        """Write the frames that ``draw(start)`` yields, unless they are there; return the path.

        ``size`` is their (height, width): what the format or players refuse is said first.
        ``music`` is a file whose sound the video gets.
        """
        from stylecli.ffmpeg import ffmpeg_program
        from stylecli.video import (
            check_frame,
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
                output.note(f"already drawn: {total - new} of {plural(total, 'frame')}")
            return self.path
        if is_done(self.path, provenance, force, read_video_provenance):
            output.note(f"{self.path} already exists")
            return self.path
        if refused is not None:
            output.warn(refused)
        ffmpeg_program()  # a missing one is said before anything is drawn,
        output_options(self.encoding, loop)  # and an encoder that it lacks
        frames = draw(0)  # refuses settings before the bar begins
        with output.progress(title, "frames") as progress:
            write_video(
                self.path, frames, self.fps, encoding=self.encoding, loop=loop, total=total,
                provenance=provenance, keep_shorter=True, music=music, progress=progress,
            )  # fmt: skip
        return self.path


def resolve_video(
    out: Path | None, folder: Path, stem: str, *, format: str | None = None,
    codec: str | None = None, crf: int | None = None, fps: float | None = None,
) -> VideoTarget:  # fmt: skip
    """Return where a video goes: --out is a file, or a folder (of the frames, with format png).

    Without it ``folder``/``stem``. Raises UsageError for formats that do not exist or contradict.
    """
    named = _VIDEO_SUFFIXES.get(out.suffix.lower()) if out is not None else None
    chosen = format or named or ("webm" if codec == "vp9" else "mp4")
    if chosen not in (*_VIDEO_SUFFIXES.values(), "png"):
        raise UsageError(unknown_name("format", chosen, [*_VIDEO_SUFFIXES.values(), "png"]))
    if named is not None and named != chosen:
        raise UsageError(f"--format {format} contradicts --out {out}: leave one of them out")
    if out is not None and named is None and out.suffix and not out.is_dir():
        raise UsageError(
            f"cannot write a video to {out}: expected a name that ends in "
            f"{', '.join(_VIDEO_SUFFIXES)}, or a folder"
        )
    rate = _USUAL_FPS.get(chosen, 30.0) if fps is None else fps
    if chosen == "png":
        for option, value in (("--codec", codec), ("--crf", crf)):
            if value is not None:
                raise UsageError(f"{option} {value} has no effect on PNG frames: leave it out")
        if not 0 < rate <= 1000:
            raise UsageError(f"fps {rate:g} is out of range: expected more than 0, at most 1000")
        return VideoTarget(out or folder / stem, rate, None)
    from stylecli.video import resolve_encoding

    encoding = resolve_encoding(chosen, codec, crf, rate)
    path = out if out is not None and named else (out or folder) / f"{stem}.{chosen}"
    return VideoTarget(path, rate, encoding)


def is_done(
    path: Path,
    provenance: Mapping[str, Any],
    force: bool,
    read: Callable[[Path], Mapping[str, Any] | None] | None = None,
) -> bool:
    """Tell whether ``path`` already holds exactly this; raise UsageError when it holds other.

    So the same command again continues where it was interrupted, and nothing is lost unasked.
    ``read`` returns what a file of another kind than pictures says of how it was made.
    """
    if force or not path.exists():
        return False
    from stylecli.images import read_provenance

    if path.is_file() and (read or read_provenance)(path) == provenance:
        return True
    raise UsageError(
        f"{path} exists and was made with other settings: give another --out, or --force"
    )
