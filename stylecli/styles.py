"""Which layers are coarse, middle and fine styles, and how people write lists of layers.

``sides`` are the pixels on a side of every layer of a network, as ``NetworkConfig.style_sides`` has
them: [4, 4, 8, 8] at 8 px.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from stylecli.errors import UsageError
from stylecli.seeds import format_seeds, parse_seeds

BANDS = ("coarse", "middle", "fine")
_SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".pkl")  # of files of styles


def holds_styles(path: Path | str) -> bool:
    """Tell by its name whether a file holds styles; else it is a photograph."""
    return Path(path).suffix.lower() in _SUFFIXES


def style_bands(sides: Sequence[int]) -> dict[str, list[int]]:
    """Return the layers of the coarse, middle and fine styles; bands without layers are left out.

    Coarse is 4-8 px, fine 64 px and up, middle between (Figure 3 of the paper). Networks under
    128 px call their last resolution fine: at 32 px layers 0-3, 4-5 and 6-7.
    """
    bands: dict[str, list[int]] = {name: [] for name in BANDS}
    for layer, side in enumerate(sides):
        if side >= 64 or side == sides[-1] > 4:
            bands["fine"].append(layer)
        else:
            bands["coarse" if side <= 8 else "middle"].append(layer)
    return {name: layers for name, layers in bands.items() if layers}


def name_layers(layers: Sequence[int], sides: Sequence[int]) -> str:
    """Return what to call layers: their band, such as ``coarse``, else their numbers: ``0-5``."""
    chosen = sorted(layers)
    for name, band in style_bands(sides).items():
        if band == chosen:
            return name
    return format_seeds(chosen) or "none"


def style_layers(
    text: str, sides: Sequence[int], *, clamp: Callable[[str], None] | None = None
) -> list[int]:
    """Return the layers meant by ``"coarse"``, ``"0-3"`` or a comma list of such, in order.

    Raises UsageError for anything else and for layers the network does not have; with ``clamp``
    such layers are left out and it is told so, as long as others remain.
    """
    bands, last = style_bands(sides), len(sides) - 1
    layers: set[int] = set()
    for part in text.lower().split(","):
        word = part.strip()
        if word in BANDS and word not in bands:
            raise UsageError(f"this network has no {word} styles: use {', '.join(bands)}")
        if word not in bands and not word[:1].isdecimal():
            raise UsageError(
                f"cannot read {word!r} in styles {text!r}: expected coarse, middle, fine or "
                f"layers such as 0-3"
            )
        layers.update(bands[word] if word in bands else parse_seeds(word))
    there = sorted(layer for layer in layers if layer <= last)
    if len(there) < len(layers):
        words = f"styles {text!r} name layer {max(layers)}: this network has layers 0-{last}"
        if clamp is None or not there:
            raise UsageError(words)
        clamp(f"{words}: using {format_seeds(there)}")
    return there


def layer_strengths(text: str, sides: Sequence[int]) -> dict[int, float]:
    """Return the number of each layer that ``"coarse:1,4-5:0.7,6,7:0.5"`` names.

    Layers are written as for style_layers, a colon and the number behind them. Raises UsageError
    for anything else, for layers that the network lacks and for layers named twice.
    """
    strengths: dict[int, float] = {}
    for layers, strength in _numbered(text):
        for layer in style_layers(layers, sides):
            if layer in strengths:
                raise UsageError(f"{text!r} names layer {layer} twice: give it one number")
            strengths[layer] = strength
    return strengths


def band_rows(
    text: str, sides: Sequence[int], rows: int | None = None, *,
    clamp: Callable[[str], None] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Return the layers of every row of a sheet whose rows copy different styles.

    ``"coarse:3,middle:2,fine:1"`` is three rows, two and one, as in Figure 3; layers are written as
    for style_layers. Without numbers, ``"coarse,middle,fine"``, ``rows`` rows (default: one each)
    are shared out, the first bands getting what is over. Raises UsageError where the numbers do not
    come to ``rows``.
    """
    if ":" in text:
        bands = _numbered(text)
    else:
        names = text.split(",")
        each, over = divmod(rows or len(names), len(names))
        bands = [(name, each + (index < over)) for index, name in enumerate(names)]
    layers: list[list[int]] = []
    for name, count in bands:
        if count != int(count) or not 1 <= count <= 100:
            raise UsageError(f"{name.strip()!r} in {text!r} gets {count:g} rows: give it 1 to 100")
        layers += [style_layers(name, sides, clamp=clamp)] * int(count)
    if rows is not None and len(layers) != rows:
        raise UsageError(f"bands {text!r} have {len(layers)} rows, but {rows} are asked for")
    return layers


def _numbered(text: str) -> list[tuple[str, float]]:
    """Split ``"coarse:1,6,7:0.5"`` into (layers, number): a comma before the colon is theirs."""
    pairs: list[tuple[str, float]] = []
    waiting: list[str] = []
    for part in text.split(","):
        layers, colon, number = part.partition(":")
        waiting.append(layers)
        if not colon:
            continue
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"{part.strip()!r} in {text!r} has no number behind the colon")
        pairs.append((",".join(waiting), value))
        waiting = []
    if waiting:
        raise UsageError(
            f"{','.join(waiting)!r} in {text!r} has no number: expected such as 0-3:1,4-7:0.7"
        )
    return pairs
