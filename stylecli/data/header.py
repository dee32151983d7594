"""Make a dataset's header; ``layout.parse_header`` reads it."""

from datetime import UTC, datetime
from typing import Any

from stylecli import __version__
from stylecli.data import layout
from stylecli.data.layout import Codec
from stylecli.errors import UsageError


def check_settings(resolution: int, channels: int, codec: str) -> None:
    """Raise UsageError for settings that no dataset can have."""
    low, high = layout.MIN_RESOLUTION, layout.MAX_RESOLUTION
    if not low <= resolution <= high or resolution & (resolution - 1):
        raise UsageError(f"resolution {resolution} is not a power of two from {low} to {high}")
    if channels not in (1, 3, 4):
        raise UsageError(f"channels {channels} is not 1 (grey), 3 (RGB) or 4 (RGBA)")
    if codec not in layout.CODECS:
        raise UsageError(
            f"codec {codec!r} is unknown: expected one of {', '.join(layout.CODECS)}; "
            "lossy ones would spoil FID"
        )


def header_fields(shape: tuple[int, int, int], codec: Codec, levels: int) -> dict[str, Any]:
    """Return the fields that do not depend on the pictures."""
    channels, height, width = shape
    return {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "tool": f"stylecli {__version__}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "channels": channels,
        "height": height,
        "width": width,
        "resolution": height,
        "codec": codec,
        "levels": levels,
        "colour_space": "sRGB",
    }
