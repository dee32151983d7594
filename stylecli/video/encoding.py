"""Formats, codecs and what to tell ffmpeg about them."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

from stylecli.errors import StyleCLIError, UsageError
from stylecli.images import check_size

FFMPEG_VARIABLE = "IMAGEIO_FFMPEG_EXE"  # imageio's: the ffmpeg to use in place of its own

# Which codecs a format holds, the usual one first.
CODECS: dict[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "av1", "vp9"),
    "webm": ("vp9", "av1"),
    "gif": (),
    "webp": (),
}
FORMATS = tuple(CODECS)
# Programs inside ffmpeg by codec, the quickest first; and (usual, highest) constant rate factors.
ENCODERS = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
}
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
_SECONDS = 60.0  # for an ffmpeg to list what it can; a second is usual
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
        raise UsageError(f"format {format!r} is unknown: expected {', '.join(FORMATS)}")
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
            raise UsageError(f"crf {crf} has no meaning for {format}: leave it out")
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
            f"frames of {width} x {height} pixels do not fit into {name}, which ends at {widest:,} "
            f"x {highest:,}: give {smaller}, or --format png"
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
        return ["-c:v", _encoder("webp", ("libwebp_anim",)), "-quality", "90",
                "-loop", "0" if loop else "1", "-f", "webp"]  # fmt: skip
    assert encoding.codec is not None
    encoder = _encoder(encoding.codec, ENCODERS[encoding.codec])
    options = ["-vf", _BT709, "-c:v", encoder, *_SPEED[encoder], "-crf", str(encoding.crf),
               "-pix_fmt", "yuv420p", "-f", encoding.format]  # fmt: skip
    if encoding.format == "mp4":  # the index comes first, so that browsers start at once
        options += ["-movflags", "+faststart"]
    return options


def ffmpeg_program() -> str:
    """Return the path of ffmpeg; raise StyleCLIError where there is none."""
    import imageio_ffmpeg

    try:
        program = str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise StyleCLIError(
            "ffmpeg is missing: run pip install imageio-ffmpeg, which brings one, or set "
            f"{FFMPEG_VARIABLE} to the path of yours"
        ) from None
    if shutil.which(program) is None:  # imageio takes the variable on its word
        raise _unusable(program, "which is not a program")
    return program


def _unusable(program: str, why: str) -> StyleCLIError:
    if os.environ.get(FFMPEG_VARIABLE) == program:
        return StyleCLIError(
            f"{FFMPEG_VARIABLE} names {program}, {why}: set it to the path of an ffmpeg, or unset "
            "it and run pip install imageio-ffmpeg, which brings one"
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


def _encoder(codec: str, candidates: tuple[str, ...]) -> str:
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
            check=False, timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(program, f"which does not list its encoders ({error})") from None
    rows = [line.split() for line in done.stdout.decode(errors="replace").splitlines()]
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0].startswith("V"))
