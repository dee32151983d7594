"""Frames to one video file: streamed into ffmpeg, renamed when whole."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from stylecli.errors import Interrupted, StyleCLIError, UsageError
from stylecli.files import replacing
from stylecli.images import Pictures
from stylecli.progress import Progress, silent
from stylecli.video.encoding import (
    Encoding,
    check_frame,
    output_options,
    resolve_encoding,
    start_ffmpeg,
)
from stylecli.video.marking import comment_options, mark_video

PIXEL_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}


def write_video(
    path: Path | str,
    frames: Iterable[Pictures],
    fps: float = 30.0,
    *,
    encoding: Encoding | None = None,
    crf: int | None = None,
    loop: bool = True,
    total: int | None = None,
    provenance: dict[str, Any] | None = None,
    keep_shorter: bool = False,
    progress: Progress = silent,
) -> int:
    """Write frames [H, W, C] of 0 to 255 to a video without sound; return their count.

    By default H.264 in MP4 of quality ``crf``; ``encoding`` is any other. Frames are taken one at a
    time, so any length fits in memory. Odd sizes gain a repeated row or column where colour has
    half the resolution. ``loop`` lets a GIF or WebP repeat; ``total`` is for ``progress`` only;
    ``provenance`` goes into the file (see video.marking).
    Ctrl-C leaves nothing; with ``keep_shorter`` the frames until then become a whole video of their
    own, ``NAME-first-N-frames``, and Interrupted says so.
    Raises UsageError without frames, when they change size or are too large for the format,
    StyleCLIError when ffmpeg fails.
    """
    path = Path(path)
    encoding = encoding or resolve_encoding("mp4", crf=crf, fps=fps)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise UsageError(f"there are no frames for {path}: give at least one seed and second")
    if first.ndim != 3 or first.shape[2] not in PIXEL_FORMATS:
        raise UsageError(f"a frame of shape {first.shape} is no picture: expected [H, W, C]")
    check_frame(encoding, *first.shape[:2])
    stream = _Stream(first, iterator, encoding.even, total, progress)
    options = [*output_options(encoding, loop), *comment_options(encoding, provenance)]
    stopped: Path | None = None
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        try:
            _encode(stream, temporary, fps, options, path)
        except KeyboardInterrupt:
            if not keep_shorter or stream.count < 2:
                raise
            stopped = path.with_name(f"{path.stem}-first-{stream.count}-frames{path.suffix}")
        mark_video(temporary, encoding, provenance)
        if stopped is not None:
            with replacing(stopped) as shorter:
                shutil.copyfile(temporary, shorter)
            raise Interrupted(
                f"interrupted: {stopped} holds the first {stream.count} of {total or 'all'} "
                "frames; the same command makes the whole video, from the beginning"
            )
    return stream.count


class _Stream:
    """Frames on their way into ffmpeg, counted."""

    def __init__(
        self, first: Pictures, rest: Iterable[Pictures], even: bool, total: int | None,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.first, self.rest, self.total, self.progress = first, rest, total, progress
        height, width = first.shape[:2]
        self.missing = (height % 2, width % 2) if even else (0, 0)
        self.size = f"{width + self.missing[1]}x{height + self.missing[0]}"
        self.count = 0

    def feed(self, pipe: IO[bytes]) -> None:
        """Write every frame; raise UsageError when one has another size than the first."""
        self._write(pipe, self.first)
        for frame in self.rest:
            if frame.shape != self.first.shape:
                raise UsageError(
                    f"frame {self.count} is {frame.shape}, the first was {self.first.shape}"
                )
            self.progress(self.count, self.total or self.count + 1)
            self._write(pipe, frame)
        self.progress(self.count, self.total or self.count)

    def _write(self, pipe: IO[bytes], frame: Pictures) -> None:
        if any(self.missing):
            frame = np.pad(frame, (*((0, side) for side in self.missing), (0, 0)), mode="edge")
        pipe.write(frame.tobytes())
        self.count += 1


def _encode(stream: _Stream, temporary: Path, fps: float, options: list[str], path: Path) -> None:
    """Run ffmpeg over the stream. After Ctrl-C the file is whole and holds what was fed."""
    # "file:", for a name with a colon would be taken for a protocol.
    arguments = [
        "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", PIXEL_FORMATS[stream.first.shape[2]], "-s", stream.size,
        "-r", f"{fps:g}", "-i", "-", "-an", *options, f"file:{temporary}",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        # Its own session: Ctrl-C is for us alone, who then let it finish the file.
        process = start_ffmpeg(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
            env={**os.environ, "SVT_LOG": "1"}, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # its exit code and its words tell why
                stream.feed(process.stdin)
        except KeyboardInterrupt:
            _finish(process)
            raise
        except BaseException:
            process.kill()
            _finish(process)
            raise
        if _finish(process) != 0:
            log.seek(0)
            reason = log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no reason"]
            raise StyleCLIError(
                f"ffmpeg could not write {path}: {reason[0]} (code {process.returncode})"
            )


def _finish(process: "subprocess.Popen[bytes]") -> int:
    """Close the pipe, so that ffmpeg writes the end of the file; return its exit code."""
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait()
    except BaseException:  # a second Ctrl-C
        process.kill()
        process.wait()
        raise
