"""The ffmpeg that is here: where it is, what it can write, and how it is started."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from typing import Any

from stylecli.errors import StyleCLIError

FFMPEG_VARIABLE = "IMAGEIO_FFMPEG_EXE"  # imageio's: the ffmpeg to use in place of its own
_LISTING_SECONDS = 60.0  # for an ffmpeg to list what it can; a second is usual
# Programs inside ffmpeg by codec, the quickest first.
ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
}


def ffmpeg_program() -> str:
    """Return the path of ffmpeg; raise StyleCLIError where there is none."""
    import imageio_ffmpeg

    try:
        program = str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise StyleCLIError(
            f"ffmpeg is missing: run pip install imageio-ffmpeg, or set {FFMPEG_VARIABLE} to the "
            f"path of an ffmpeg"
        ) from None
    if shutil.which(program) is None:  # imageio takes the variable on its word
        raise _unusable(program, "which is not a program")
    return program


def _unusable(program: str, why: str) -> StyleCLIError:
    if os.environ.get(FFMPEG_VARIABLE) == program:
        return StyleCLIError(
            f"{FFMPEG_VARIABLE} names {program}, {why}: set it to the path of an ffmpeg, or unset "
            f"it and run pip install imageio-ffmpeg"
        )
    return StyleCLIError(
        f"ffmpeg is {program}, {why}: run pip install --force-reinstall imageio-ffmpeg, or set "
        f"{FFMPEG_VARIABLE} to the path of another one"
    )


def start_ffmpeg(arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start ffmpeg with these arguments and options of Popen; StyleCLIError if that fails."""
    program = ffmpeg_program()
    try:
        return subprocess.Popen([program, *arguments], **options)
    except (OSError, ValueError) as error:  # of another machine, or arguments that do not fit
        raise _unusable(program, f"which does not start ({error})") from None


def run_ffmpeg(arguments: list[str], seconds: float | None = None) -> str:
    """Run ffmpeg in silence, for so long; return the last line it says when it fails, else ""."""
    with tempfile.TemporaryFile() as log:
        process = start_ffmpeg(
            ["-y", "-v", "error", *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            failed = process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            return f"it took over {seconds:g} s"
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        return (lines or ["no reason"])[-1] if failed else ""


def find_encoder(codec: str, candidates: tuple[str, ...]) -> str:
    """Return the first of ``candidates`` that the ffmpeg here has; raise StyleCLIError for none."""
    there = _encoders(ffmpeg_program())
    for name in candidates:
        if not there or name in there:  # an ffmpeg that does not list them is tried
            return name
    able = [codec for codec, names in ENCODERS.items() if there & set(names)]
    raise StyleCLIError(
        f"the ffmpeg here cannot write {codec} (it lacks {' and '.join(candidates)}): "
        f"choose --codec {' or '.join(able) or 'of another ffmpeg'}"
    )


@cache
def _encoders(program: str) -> frozenset[str]:
    """Return the names of the encoders in an ffmpeg: second column of its list."""
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-encoders"], stdin=subprocess.DEVNULL, capture_output=True,
            check=False, timeout=_LISTING_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(program, f"which does not list its encoders ({error})") from None
    rows = [line.split() for line in done.stdout.decode(errors="replace").splitlines()]
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0].startswith("V"))
