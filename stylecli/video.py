"""Frames to an MP4 file: streamed into ffmpeg, renamed when whole."""

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stylecli.atomic import replacing
from stylecli.errors import DataError, StyleCLIError, UsageError
from stylecli.images import Pictures
from stylecli.progress import Progress, silent

PIXEL_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}


def write_video(
    path: Path | str,
    frames: Iterable[Pictures],
    fps: float = 30.0,
    *,
    crf: int = 16,
    total: int | None = None,
    provenance: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> int:
    """Write frames [H, W, C] of 0 to 255 to an H.264 MP4 without sound; return their count.

    Frames are taken one at a time, so any length fits in memory. Odd sizes gain a repeated row or
    column, because 4:2:0 colour needs even ones. ``crf`` is x264's quality, 0 (lossless) to 51.
    The moov atom comes first, so that browsers start at once. ``total`` is for ``progress`` only;
    ``provenance`` goes into the file's comment.
    Raises UsageError without frames or when they change size, StyleCLIError when ffmpeg fails.
    """
    if not 0 < fps <= 1000:
        raise UsageError(f"fps {fps:g} is out of range: expected more than 0, at most 1000")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise UsageError(f"there are no frames for {path}: give at least one seed and second")
    if first.ndim != 3 or first.shape[2] not in PIXEL_FORMATS:
        raise UsageError(f"a frame of shape {first.shape} is no picture: expected [H, W, C]")
    with replacing(path) as temporary, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _ffmpeg_command(temporary, first.shape, fps, crf, provenance),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
        try:
            count = _feed(process, first, iterator, total, progress)
        except BaseException:
            process.kill()
            _close(process)
            process.wait()
            raise
        if process.wait() != 0:
            log.seek(0)
            reason = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no reason"]
            raise StyleCLIError(
                f"ffmpeg could not write {path}: {reason[0]} (code {process.returncode})"
            )
    return count


def read_video_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return what ``write_video`` wrote about how a video was made, None if it carries nothing.

    Raises DataError when the file is not a video.
    """
    # ffmpeg's own text format: one key=value per line, special characters behind a backslash.
    dump = subprocess.run(
        [_ffmpeg(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    if dump.returncode:
        raise DataError(f"{path} is not a readable video: expected an MP4 file")
    comment = re.search(r"^comment=(.*)$", dump.stdout.decode(errors="replace"), re.MULTILINE)
    if comment is None:
        return None
    try:
        provenance = json.loads(re.sub(r"\\([=;#\\])", r"\1", comment[1]))
    except ValueError:
        return None
    return provenance if isinstance(provenance, dict) else None


def _feed(
    process: "subprocess.Popen[bytes]", first: Pictures, rest: Iterable[Pictures],
    total: int | None, progress: Progress,
) -> int:  # fmt: skip
    assert process.stdin is not None
    count = 0
    try:
        process.stdin.write(_even(first).tobytes())
        count = 1
        for frame in rest:
            if frame.shape != first.shape:
                raise UsageError(f"frame {count} is {frame.shape}, the first was {first.shape}")
            progress(count, total or count + 1)
            process.stdin.write(_even(frame).tobytes())
            count += 1
    except BrokenPipeError:
        pass  # ffmpeg has ended early: its exit code and its words tell why
    _close(process)
    progress(count, total or count)
    return count


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _even(frame: Pictures) -> Pictures:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frame


def _ffmpeg_command(
    path: Path, shape: tuple[int, ...], fps: float, crf: int, provenance: dict[str, Any] | None
) -> list[str]:
    program = _ffmpeg()
    comment = [] if provenance is None else ["-metadata", f"comment={json.dumps(provenance)}"]
    height, width = (side + side % 2 for side in shape[:2])
    return [
        program, "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", PIXEL_FORMATS[shape[2]], "-s", f"{width}x{height}",
        "-r", f"{fps:g}", "-i", "-", "-an",
        # Colours as BT.709 and labelled so: players guess BT.601 or 709 by size otherwise.
        "-vf", "scale=out_color_matrix=bt709:out_range=tv,"
               "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709",
        "-c:v", "libx264", "-crf", str(crf), "-pix_fmt", "yuv420p",
        "-movflags", "+faststart", *comment, "-f", "mp4", str(path),
    ]  # fmt: skip


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise StyleCLIError(
            "ffmpeg is missing: install it, or pip install imageio-ffmpeg, which brings one"
        ) from None
