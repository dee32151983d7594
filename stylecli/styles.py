"""Which layers are coarse, middle and fine styles, and how people write lists of layers."""

from stylecli.errors import UsageError
from stylecli.seeds import parse_seeds

BANDS = ("coarse", "middle", "fine")


def style_bands(resolution: int) -> dict[str, list[int]]:
    """Return the layers of the coarse, middle and fine styles; bands without layers are left out.

    Coarse is 4-8 px, fine 64 px and up, middle between (Figure 3 of the paper). Networks under
    128 px call their last resolution fine: at 32 px layers 0-3, 4-5 and 6-7.
    """
    bands: dict[str, list[int]] = {name: [] for name in BANDS}
    for layer in range(2 * (resolution.bit_length() - 1) - 2):
        side = 2 ** (layer // 2 + 2)
        if side >= 64 or side == resolution > 4:
            bands["fine"].append(layer)
        else:
            bands["coarse" if side <= 8 else "middle"].append(layer)
    return {name: layers for name, layers in bands.items() if layers}


def style_layers(text: str, resolution: int) -> list[int]:
    """Return the layers meant by ``"coarse"``, ``"0-3"`` or a comma list of such, in order.

    Raises UsageError for anything else and for layers the network does not have.
    """
    bands = style_bands(resolution)
    last = 2 * (resolution.bit_length() - 1) - 3
    layers: set[int] = set()
    for part in text.lower().split(","):
        word = part.strip()
        if word in BANDS and word not in bands:
            raise UsageError(f"a {resolution} px network has no {word} styles: use {list(bands)}")
        if word not in bands and not word[:1].isdecimal():
            raise UsageError(
                f"styles {text!r} are not readable at {word!r}: "
                "expected coarse, middle, fine or layers such as 0-3"
            )
        layers.update(bands[word] if word in bands else parse_seeds(word))
    if max(layers) > last:
        raise UsageError(
            f"styles {text!r} name layer {max(layers)}: a {resolution} px network has layers "
            f"0-{last}"
        )
    return sorted(layers)
