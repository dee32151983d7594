"""Numbers that depend on the resolution being trained, as people type them. Stdlib only.

16                          everywhere
8:64,16:32                  there; elsewhere what the preset says
0.001,128:0.0015,256:0.002  the bare number everywhere else
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stylecli.errors import UsageError


@dataclass(frozen=True)
class ByResolution:
    """Values for some resolutions, and one for all others or None."""

    base: float | None = None
    table: Mapping[int, float] = field(default_factory=dict)

    def over(self, table: Mapping[int, float], base: float) -> tuple[dict[int, float], float]:
        """Return a preset's table and base with these values in their place."""
        if self.base is not None:
            return dict(self.table), self.base
        return {**table, **self.table}, base


def parse_by_resolution(text: str, name: str, *, whole: bool = False) -> ByResolution:
    """Read ``16`` or ``0.001,128:0.0015``; ``name`` is the option for messages.

    ``whole`` wants whole numbers. Raises UsageError naming the part at fault.
    """
    base: float | None = None
    table: dict[int, float] = {}
    for part in (piece.strip() for piece in text.split(",")):
        side, colon, value = part.rpartition(":")
        try:
            number = int(value) if whole else float(value)
            if not number > 0 or number == float("inf"):
                raise ValueError
            if not colon:
                if base is not None:
                    raise ValueError
                base = number
                continue
            px = int(side)
            if px < 4 or px & (px - 1) or px in table:
                raise ValueError
            table[px] = number
        except ValueError:
            kind = "a whole number" if whole else "a number"
            example = "64:32,128:16" if whole else "128:0.0015,256:0.002"
            raise UsageError(
                f"{name} {text!r} is not understood at {part!r}: expected {kind} above 0, or pairs "
                f"of pixels and number such as {example}"
            ) from None
    return ByResolution(base, table)
