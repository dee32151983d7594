"""Frames to a moving picture: encoded by ffmpeg as they come, or one PNG file each.

A video says what made it by JSON in the comment that its format has. MP4 and WebM: the ``comment``
tag; GIF: a comment extension; WebP: a property of the XMP packet, as in still pictures. A reader
that knows nothing of it shows or skips it.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image

from stylecli.data.pictures import open_picture, quiet
from stylecli.errors import DISK_FULL, DataError, Interrupted, StyleCLIError, UsageError
from stylecli.ffmpeg import ENCODERS, find_encoder, run_ffmpeg, start_ffmpeg
from stylecli.files import parse_json, replacing, to_json
from stylecli.images import (
    Beside,
    Pictures,
    check_size,
    encode_picture,
    read_provenance,
    save_png,
)
from stylecli.progress import Progress, silent

# Which codecs a format holds, the usual one first.
CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "av1", "vp9"),
    "webm": ("vp9", "av1"),
    "gif": (),
    "webp": (),
}
FORMATS = tuple(CODECS)
# How the formats with sound hold it.
_AUDIO = {
    "mp4": ["-c:a", "aac", "-b:a", "192k"], "webm": ["-c:a", "libopus", "-b:a", "160k"]
}  # fmt: skip
# (Usual, highest) constant rate factors.
CRF = {"h264": (16, 51), "hevc": (18, 51), "vp9": (20, 63), "av1": (20, 63)}
MAX_FPS = {"gif": 50}  # a GIF counts hundredths of a second, and browsers slow down 1/100
# (Least side, widest, highest) that an encoder takes.
_SIDES = {
    "h264": (2, 16_384, 16_384), "hevc": (16, 16_384, 16_384), "vp9": (2, 65_534, 65_534),
    "av1": (2, 16_384, 8_704), "gif": (1, 65_535, 65_535), "webp": (1, 16_383, 16_383),
}  # fmt: skip
# Pixels of a frame up to which players commonly go: the largest frame of H.264's level 5.2 (36,864
# macroblocks of 16 x 16), of HEVC's and VP9's level 6.2 and AV1's 6.3 (8192 x 4352).
PLAYED_PIXELS = {"h264": 36_864 << 8, "hevc": 8_192 * 4_352, "vp9": 8_192 * 4_352,
                 "av1": 8_192 * 4_352}  # fmt: skip
_SPEED = {
    "libx264": [],
    "libx265": ["-tag:v", "hvc1", "-x265-params", "log-level=error"],  # the tag that Apple plays
    "libvpx-vp9": ["-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1"],
    "libsvtav1": ["-preset", "8"],
    "libaom-av1": ["-b:v", "0", "-cpu-used", "6", "-row-mt", "1"],
}
# Colours as BT.709 and labelled so: players guess BT.601 or 709 by size otherwise.
_BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
# A palette for every frame, made as frames come, so that memory does not grow with the length; an
# ordered dither stands still where the picture does.
_PALETTE = (
    "split[a][b];[a]palettegen=stats_mode=single[p];"
    "[b][p]paletteuse=new=1:dither=bayer:bayer_scale=5"
)
PIXEL_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}
_READING_SECONDS = 20.0  # for ffmpeg to read a video's comment; a tenth is usual
_POLL_SECONDS = 0.3  # ffmpeg reports its progress twice a second
_MAX_COMMENT = 8 << 20  # bytes
_XMP_FLAG = 0x04  # in the first byte of a WebP's VP8X chunk


@dataclass(frozen=True)
class Encoding:
    """How a video is written: format, codec (None in gif and webp) and quality, all resolved."""

    format: str
    codec: str | None
    crf: int | None  # constant rate factor: 0 is best, about 6 more halves the file

    @property
    def even(self) -> bool:
        """Whether width and height must be even, because colour has half the resolution."""
        return self.codec is not None


def resolve_encoding(
    format: str = "mp4", codec: str | None = None, crf: int | None = None, fps: float = 30.0
) -> Encoding:
    """Return the encoding that was asked for, with the format's usual codec and quality.

    Raises UsageError for what does not exist or does not go together.
    """
    if format not in CODECS:
        raise UsageError(f"unknown format {format!r}: expected {', '.join(FORMATS)}")
    if not 0 < fps <= MAX_FPS.get(format, 1000):
        raise UsageError(
            f"fps {fps:g} is out of range: expected more than 0, at most "
            f"{MAX_FPS.get(format, 1000)} for {format}"
        )
    codecs = CODECS[format]
    if codec is not None and codec not in codecs:
        held = f"expected {', '.join(codecs)}" if codecs else "leave --codec out"
        raise UsageError(f"codec {codec!r} does not go into {format}: {held}")
    if not codecs:
        if crf is not None:
            raise UsageError(f"crf {crf} has no effect on {format}: leave it out")
        return Encoding(format, None, None)
    chosen = codec or codecs[0]
    usual, highest = CRF[chosen]
    if crf is not None and not 0 <= crf <= highest:
        raise UsageError(f"crf {crf} is out of range: expected 0 to {highest} for {chosen}")
    return Encoding(format, chosen, usual if crf is None else crf)


def check_frame(encoding: Encoding | None, height: int, width: int) -> str | None:
    """Say before the work what a frame of this many pixels leads to; None: plays everywhere.

    ``encoding`` None stands for PNG frames. Raises UsageError for what cannot be written.
    """
    if encoding is None:
        check_size("png", height, width)
        return None
    name = encoding.codec or encoding.format
    smaller = "a smaller --scale or fewer cells"
    least, widest, highest = _SIDES[name]
    if min(height, width) < least:
        raise UsageError(
            f"frames of {width} x {height} pixels are too small for {name}, which starts at "
            f"{least} on a side: give a larger --scale"
        )
    # The second: ffmpeg counts the bits of a frame, with its margins, in 31 bits.
    if width > widest or height > highest or (width + 128) * (height + 128) >= 1 << 28:
        raise UsageError(
            f"frames of {width} x {height} pixels do not fit into {name}, which has at most "
            f"{widest:,} x {highest:,}: give {smaller}, or --format png"
        )
    played = PLAYED_PIXELS.get(name)
    if played is None or height * width <= played:
        return None
    others = [codec for codec in CODECS[encoding.format]
              if height * width <= PLAYED_PIXELS[codec]]  # fmt: skip
    or_codec = f", or --codec {' or '.join(others)}" if others else ""
    return (
        f"many players refuse {name} frames of {width} x {height} pixels (over {played:,}): "
        f"give {smaller}{or_codec}"
    )


def output_options(encoding: Encoding, loop: bool) -> list[str]:
    """Return ffmpeg's options for the output; ``loop`` repeats a GIF or WebP for ever.

    Raises StyleCLIError when the ffmpeg that is here cannot write this.
    """
    if encoding.format == "gif":
        return ["-filter_complex", _PALETTE, "-loop", "0" if loop else "-1", "-f", "gif"]
    if encoding.format == "webp":
        return ["-c:v", find_encoder("webp", ("libwebp_anim",)), "-quality", "90",
                "-loop", "0" if loop else "1", "-f", "webp"]  # fmt: skip
    assert encoding.codec is not None
    encoder = find_encoder(encoding.codec, ENCODERS[encoding.codec])
    return [
        "-vf", _BT709, "-c:v", encoder, *_SPEED[encoder], "-crf", str(encoding.crf),
        "-pix_fmt", "yuv420p", *_container_options(encoding),
    ]  # fmt: skip


def _container_options(encoding: Encoding) -> list[str]:
    """Return ffmpeg's options for the container of MP4 and WebM."""
    options = ["-f", encoding.format]
    if encoding.format == "mp4":  # the index comes first, so that browsers start at once
        return [*options, "-movflags", "+faststart"]
    return [*options, "-fflags", "+bitexact"]  # else every file gets a random number


def check_music(encoding: Encoding | None, music: Path) -> None:
    """Raise UsageError for a format without sound, DataError for a file that holds none."""
    if encoding is None or encoding.format not in _AUDIO:
        name = "png" if encoding is None else encoding.format
        raise UsageError(f"--music {music} does not go into {name}, which is silent: give .mp4")
    arguments = [*_sound_of(music), "-map", "0:a:0", "-t", "0.1", "-f", "null", "-"]
    if run_ffmpeg(arguments, _READING_SECONDS):
        raise DataError(f"--music {music} holds no sound that ffmpeg can read: give another file")


def _sound_of(music: Path) -> list[str]:
    """Return ffmpeg's options that read a file's sound: no other file, whatever a playlist says."""
    return ["-protocol_whitelist", "file,pipe", "-vn", "-sn", "-dn", "-i", f"file:{music}"]


def _add_music(video: Path, encoding: Encoding, music: Path, seconds: float) -> None:
    """Give a silent video of so many seconds the sound of a file, and silence after its end."""
    with replacing(video) as temporary:
        failed = run_ffmpeg(
            ["-i", f"file:{video}", *_sound_of(music), "-map", "0:v:0", "-map", "1:a:0",
             "-map_metadata", "0", "-map_metadata:s:a", "-1", "-map_chapters", "-1",
             "-c:v", "copy", *_AUDIO[encoding.format], "-af", f"apad,atrim=end={seconds:.6f}",
             *_container_options(encoding), f"file:{temporary}"]
        )  # fmt: skip
        if failed:
            raise StyleCLIError(f"ffmpeg could not add {music} to the video: {failed}")


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
    music: Path | None = None,
    progress: Progress = silent,
) -> int:
    """Write frames [H, W, C] of 0 to 255 to a video; return their count.

    It is silent, or has the sound of the file ``music`` for as long as it lasts (MP4 and WebM).

    By default H.264 in MP4 of quality ``crf``; ``encoding`` is any other. Frames are taken one at a
    time, so any length fits in memory. Odd sizes gain a repeated row or column where colour has
    half the resolution. ``loop`` lets a GIF or WebP repeat; ``total`` is for ``progress`` only;
    ``provenance`` goes into the file (see video.marking).
    Ctrl-C leaves nothing; with ``keep_shorter`` the frames until then become a whole video of their
    own, ``NAME-first-N-frames``, and Interrupted says so.
    Raises UsageError without frames, when they change size or are too large for the format,
    DataError for music without sound, StyleCLIError when ffmpeg fails.
    """
    path = Path(path)
    encoding = encoding or resolve_encoding("mp4", crf=crf, fps=fps)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise UsageError(f"there are no frames for {path}: give at least one seed and second")
    if first.ndim != 3 or first.shape[2] not in PIXEL_FORMATS:
        raise UsageError(f"a frame of shape {first.shape} is not a picture: expected [H, W, C]")
    check_frame(encoding, *first.shape[:2])
    stream = _Stream(first, iterator, encoding.even, total, progress, keep_shorter)
    if music is not None:
        check_music(encoding, music)
    options = [*output_options(encoding, loop), *comment_options(encoding, provenance)]
    stopped: Path | None = None
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        try:
            _encode(stream, temporary, fps, options, path)
        except KeyboardInterrupt:
            if not keep_shorter or stream.count < 2 or stream.cut:
                raise
            stopped = path.with_name(f"{path.stem}-first-{stream.count}-frames{path.suffix}")
        if music is not None:
            stream.tell("adding the music")
            _add_music(temporary, encoding, music, stream.count / fps)
        mark_video(temporary, encoding, provenance)
        if stopped is not None:
            with replacing(stopped) as shorter:
                shutil.copyfile(temporary, shorter)
            raise Interrupted(
                f"interrupted: {stopped} holds the first {stream.count} of {total or 'all'} "
                "frames; run the same command to make the complete video"
            )
    stream.progress(stream.count, stream.total or stream.count)
    return stream.count


class _Stream:
    """Frames on their way into ffmpeg, counted: while they are drawn, then as they are written.

    ffmpeg looks ahead, so that the last frame may be drawn long before the file is whole. Nobody
    is told that all is done before it is.
    """

    def __init__(
        self, first: Pictures, rest: Iterable[Pictures], even: bool, total: int | None,
        progress: Progress, keep: bool,
    ) -> None:  # fmt: skip
        self.keep = keep  # what is there when it is interrupted
        self.first, self.rest, self.total, self.progress = first, rest, total, progress
        height, width = first.shape[:2]
        self.missing = (height % 2, width % 2) if even else (0, 0)
        self.size = f"{width + self.missing[1]}x{height + self.missing[0]}"
        self.count = 0  # fed
        self.written = 0  # of these, by what ffmpeg says
        self.cut = False  # ffmpeg was killed: the file has no end

    def tell(self, note: str = "") -> None:
        """Report how far it is; with a note, of the work that follows drawing."""
        total = self.total or self.count + 1
        self.progress(min(self.written if note else self.count, total - 1), total, note)

    def follow(self, lines: IO[bytes]) -> None:
        """Take down what ffmpeg says of its progress, to its end."""
        for line in lines:
            name, _, value = line.partition(b"=")
            if name == b"frame" and value.strip().isdigit():
                self.written = int(value)

    def feed(self, pipe: IO[bytes]) -> None:
        """Write every frame; raise UsageError when one has another size than the first."""
        self._write(pipe, self.first)
        for frame in self.rest:
            if frame.shape != self.first.shape:
                raise UsageError(
                    f"frame {self.count} is {frame.shape}, the first was {self.first.shape}"
                )
            self.tell()
            self._write(pipe, frame)

    def _write(self, pipe: IO[bytes], frame: Pictures) -> None:
        if any(self.missing):
            frame = np.pad(frame, (*((0, side) for side in self.missing), (0, 0)), mode="edge")
        pipe.write(frame.tobytes())
        self.count += 1


def _encode(stream: _Stream, temporary: Path, fps: float, options: list[str], path: Path) -> None:
    """Run ffmpeg over the stream. After Ctrl-C the file is whole and holds what was fed."""
    # "file:", for a name with a colon would be taken for a protocol.
    arguments = [
        "-y", "-loglevel", "error", "-nostats", "-progress", "pipe:1",
        "-f", "rawvideo", "-pix_fmt", PIXEL_FORMATS[stream.first.shape[2]], "-s", stream.size,
        "-r", f"{fps:g}", "-i", "-", "-an", *options, f"file:{temporary}",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        # Its own session: Ctrl-C is for us alone, who then let it finish the file.
        process = start_ffmpeg(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            env={**os.environ, "SVT_LOG": "1"}, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        following = threading.Thread(target=stream.follow, args=(process.stdout,), daemon=True)
        following.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # its exit code and its words tell why
                stream.feed(process.stdin)
            _finish(process, stream, spared=1 if stream.keep else 0)  # all is drawn
        except KeyboardInterrupt:
            _finish(process, stream)
            raise
        except BaseException:
            process.kill()
            _finish(process, stream)
            raise
        finally:
            following.join()
            process.stdout.close()
        if process.returncode != 0:
            log.seek(0)
            words = log.read().decode(errors="replace")
            if -process.returncode & 0xFF in DISK_FULL or os.strerror(errno.ENOSPC) in words:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            reason = (words.strip().splitlines() or ["no reason"])[-1]
            code = process.returncode
            raise StyleCLIError(f"ffmpeg could not write {path}: {reason} (code {code})")


def _finish(process: "subprocess.Popen[bytes]", stream: _Stream, spared: int = 0) -> None:
    """Close the pipe, and wait until ffmpeg has written the rest of the file.

    Ctrl-C ends ffmpeg, after it was pressed ``spared`` times.
    """
    assert process.stdin is not None
    while True:
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_SECONDS)
                    break
                stream.tell("writing the video")
            return
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and spared:
                spared -= 1
                continue
            stream.cut = True
            process.kill()
            process.wait()
            raise


def write_frames(
    folder: Path | str,
    draw: Callable[[int], Iterable[Pictures]],
    total: int,
    *,
    provenance: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> int:
    """Write ``total`` frames as ``frame-000000.png``, ... into a folder; return how many were new.

    ``draw(start)`` yields the frames from number ``start`` on. Frames that are there with the same
    provenance are kept, so that an interrupted folder continues where it stopped. Raises UsageError
    when the folder holds frames of something else, unless ``force``, which replaces them, and
    Interrupted on Ctrl-C.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: frames need a folder")
    there = sorted(folder.glob("frame-*.png"))
    if force:
        for path in there:
            path.unlink()
        there = []
    start = _count_kept(folder, there, total, provenance)
    folder.mkdir(parents=True, exist_ok=True)
    done = start

    def saved() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    try:
        frames = draw(start) if start < total else ()
        with Beside(saved) as beside:
            for number, frame in enumerate(frames, start):
                beside(save_png, frame_path(folder, number), frame, provenance)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {done} of {total} frames are in {folder}: run the same command to "
            "continue"
        ) from None
    return done - start


def frame_path(folder: Path, frame: int) -> Path:
    """Return where frame ``frame`` of a folder lies."""
    return folder / f"frame-{frame:06d}.png"


def _count_kept(
    folder: Path, there: list[Path], total: int, provenance: dict[str, Any] | None
) -> int:
    """Return how many frames from the first on are done; refuse those of something else."""
    wanted = {frame_path(folder, frame) for frame in range(total)}
    for path in there:
        try:
            same = provenance is not None and read_provenance(path) == provenance
        except DataError:
            same = False
        if not same or path not in wanted:
            raise UsageError(f"{path} was made with other settings: give another --out, or --force")
    kept = 0
    while kept < total and frame_path(folder, kept).exists():
        kept += 1
    return kept


def comment_options(encoding: Encoding, provenance: dict[str, Any] | None) -> list[str]:
    """Return ffmpeg's options that write provenance, none where mark_video does."""
    if provenance is None or encoding.codec is None:
        return []
    return ["-metadata", f"comment={to_json(provenance, ascii=True).decode()}"]


def mark_video(path: Path, encoding: Encoding, provenance: dict[str, Any] | None) -> None:
    """Add provenance to a GIF or WebP file; leave other formats to ffmpeg."""
    if provenance is None or encoding.codec is not None:
        return
    with open(path, "r+b") as file:
        if encoding.format == "gif":
            _add_gif_comment(file, to_json(provenance, ascii=True))
        else:
            _add_webp_xmp(file, _xmp_packet(provenance))


def read_video_provenance(path: Path | str) -> dict[str, Any] | None:
    """Return what ``write_video`` wrote about how a video was made, None if it carries nothing.

    Reads MP4, WebM, GIF and animated WebP. Raises DataError when the file is not a video.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".webp":
        return read_provenance(path)
    text = _gif_comment(path) if suffix == ".gif" else _comment_tag(path)
    try:
        provenance: dict[str, Any] = parse_json(text or "", path)
    except DataError:
        return None
    return provenance


def _comment_tag(path: Path | str) -> str | None:
    """Return the comment of an MP4 or WebM file.

    Files come from strangers: ffmpeg would follow a script or a playlist to other files and
    addresses, so it is told the one container to read, and to open nothing but this file.
    """
    demuxer = _container(path)
    if demuxer is None:
        raise _unreadable(path)
    # ffmpeg's own text format: one key=value per line, special characters behind a backslash.
    arguments = [
        "-v", "error", "-protocol_whitelist", "file,pipe", "-f", demuxer, "-i", f"file:{path}",
        "-map_chapters", "-1", "-f", "ffmetadata", "-",
    ]  # fmt: skip
    with tempfile.TemporaryFile() as dump:
        process = start_ffmpeg(
            arguments, stdin=subprocess.DEVNULL, stdout=dump, stderr=subprocess.DEVNULL
        )
        try:
            code = process.wait(_READING_SECONDS)
        except subprocess.TimeoutExpired:
            raise DataError(
                f"{path} is not readable: ffmpeg took over {_READING_SECONDS:g} s"
            ) from None
        finally:
            process.kill()
            process.wait()
        if code:
            raise _unreadable(path)
        dump.seek(0)
        text = dump.read(_MAX_COMMENT).decode(errors="replace")
    found = re.search(r"^comment=(.*)$", text, re.MULTILINE | re.IGNORECASE)
    return re.sub(r"\\([=;#\\])", r"\1", found[1]) if found else None


def _container(path: Path | str) -> str | None:
    """Return ffmpeg's name of the container that a file's first bytes say, None for no video."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return None
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "mov" if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide") else None


def _unreadable(path: Path | str) -> DataError:
    return DataError(f"{path} is not a readable video: expected MP4, WebM, GIF or WebP")


def _gif_comment(path: Path | str) -> str | None:
    try:
        with quiet(), open_picture(Path(path)) as image:
            comment = image.info.get("comment")
    except DataError:
        raise DataError(f"{path} is not a readable video: expected a GIF file") from None
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else None


def _add_gif_comment(file: BinaryIO, text: bytes) -> None:
    """Insert a comment extension before the first frame, without taking the file into memory."""
    head = file.read(13)
    table = 3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0  # the palette for all frames
    start = 13 + table
    blocks = [text[at : at + 255] for at in range(0, len(text), 255)]
    comment = b"".join(bytes([len(block)]) + block for block in blocks)
    with tempfile.TemporaryFile() as rest:
        file.seek(start)
        shutil.copyfileobj(file, rest)
        rest.seek(0)
        file.seek(start)
        file.write(b"\x21\xfe" + comment + b"\x00")
        shutil.copyfileobj(rest, file)


def _add_webp_xmp(file: BinaryIO, packet: bytes) -> None:
    """Append an XMP chunk to a RIFF file that starts with VP8X, as every animation does."""
    head = file.read(21)
    if head[:4] != b"RIFF" or head[12:16] != b"VP8X":
        return  # a single frame without a header for extensions
    chunk = b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    file.seek(0, io.SEEK_END)
    file.write(chunk)
    size = file.tell() - 8
    file.seek(4)
    file.write(struct.pack("<I", size))
    file.seek(20)
    file.write(bytes([head[20] | _XMP_FLAG]))


def _xmp_packet(provenance: dict[str, Any]) -> bytes:
    """Return the XMP that a still picture of the same provenance carries."""
    dot = encode_picture(np.zeros((1, 1, 3), np.uint8), provenance, format="webp")
    with Image.open(io.BytesIO(dot)) as image:
        packet: bytes = image.info["xmp"]
    return packet
