"""How a video says what made it: JSON in the comment that its format has.

MP4 and WebM: the ``comment`` tag; GIF: a comment extension; WebP: a property of the XMP packet, as
in still pictures. A reader that knows nothing of it shows or skips it.
"""

import io
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from stylecli.errors import DataError
from stylecli.files import parse_json, to_json
from stylecli.images import encode_picture, read_provenance
from stylecli.video.encoding import Encoding, start_ffmpeg

_SECONDS = 20.0  # for ffmpeg to read a video's comment; a tenth is usual
_MAX_COMMENT = 8 << 20  # bytes
_XMP_FLAG = 0x04  # in the first byte of a WebP's VP8X chunk


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
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            raise DataError(f"{path} is not readable: ffmpeg took over {_SECONDS:g} s") from None
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
        with Image.open(path) as image:
            comment = image.info.get("comment")
    except (
        OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError,
    ):  # fmt: skip
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
    """Append an XMP chunk to a RIFF file that begins with VP8X, as every animation does."""
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
