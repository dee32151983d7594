"""The demo's pictures: cartoon faces drawn from a seeded stream, with their true attributes.

The faces are DiceBear's "toon-head" (after ToonHead by Johan Melin, CC BY 4.0), made by the
packages of the ``demo`` extra, whose versions are pinned because the pixels depend on them. Face i
is drawn from seed i, so the set is the same everywhere.
"""

import io
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, UsageError
from stylecli.progress import Progress, silent

ARTWORK = "ToonHead by Johan Melin, remixed by DiceBear"
AUTHOR = "Johan Melin"
LICENCE = "CC BY 4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by/4.0/"
SOURCE_URL = "https://www.figma.com/community/file/1589627891082866389"

BACKGROUND = "#b6e3f4"
CANVAS = 768  # units on a side of the drawing
CROP = (146, 128, 480)  # left, top, side: hair, ears and beard, and as little else as possible
SUPERSAMPLING = 4  # drawn at 4 x 4 samples a pixel, then box-filtered

# What short training gets: wide eyes, a mouth that can be seen at 32 px on every skin (the closed
# ones are a hair's breadth), a beard on few. The rest varies freely.
EASY_OPTIONS: dict[str, Any] = {
    "eyesVariant": ["wide"],
    "mouthVariant": ["agape", "angry", "laugh"],
    "beardProbability": 15,
}

# Attribute -> the drawing's option and, where it needs one, a word for each of its values.
_VARIANTS = {"hair": "hairVariant", "rear_hair": "rearHairVariant", "beard": "beardVariant",
             "eyes": "eyesVariant", "eyebrows": "eyebrowsVariant", "mouth": "mouthVariant",
             "clothes": "clothesVariant"}  # fmt: skip
_COLOURS = {
    "skin": ("skinColor", {
        "#f1c3a5": "light", "#c68e7a": "rosy", "#b98e6a": "tan", "#a36b4f": "brown",
        "#5c3829": "dark"}),
    "hair_colour": ("hairColor", {
        "#2c1b18": "black", "#724133": "brown", "#a55728": "red", "#b58143": "light brown",
        "#d6b370": "blond"}),
    "clothes_colour": ("clothesColor", {
        "#151613": "black", "#0b3286": "blue", "#545454": "grey", "#147f3c": "green",
        "#f97316": "orange", "#ec4899": "pink", "#731ac3": "purple", "#b11f1f": "red",
        "#e8e9e6": "white", "#eab308": "yellow"}),
}  # fmt: skip


def make_demo_dataset(
    path: Path | str,
    *,
    count: int = 2000,
    resolution: int = 32,
    progress: Progress = silent,
    all_styles: bool = False,
) -> Path:
    """Draw ``count`` faces into a dataset at ``path``; an equal one that is there is kept.

    ``all_styles`` draws every eye style and more beards: a harder set, for longer training. Each
    picture's metadata holds ``attributes`` (hair, mouth, skin, ...), author and licence. Raises
    DataError when the ``demo`` extra is missing, or when other data stands at ``path``.
    """
    path = Path(path)
    if count < 1:
        raise UsageError(f"count {count} is not a number of faces: give 1 or more")
    settings = {"kind": "demo-faces", "count": count, "resolution": resolution,
                "all_styles": all_styles, "crop": list(CROP)}  # fmt: skip
    if path.exists():
        if open_dataset(path).info.get("settings") == settings:
            return path
        raise DataError(f"{path} holds other pictures than the demo's: remove it or name another")
    info = {
        "settings": settings,
        "source": f"{ARTWORK}, drawn by dicebear-core from seeds 0-{count - 1}",
        "author": AUTHOR,
        "licence": LICENCE,
        "licence_url": LICENCE_URL,
        "source_url": SOURCE_URL,
    }
    credit = {key: info[key] for key in ("author", "licence", "licence_url", "source_url")}
    draw = FaceArtist(resolution, all_styles=all_styles)
    with DatasetWriter(path, resolution=resolution, channels=3, info=info) as writer:
        for seed in range(count):
            pixels, attributes = draw(seed)
            writer.add(pixels, metadata={"seed": seed, "attributes": attributes, **credit})
            progress(seed + 1, count)
    return path


class FaceArtist:
    """Draws the face of a seed. Raises DataError when the ``demo`` extra is not installed."""

    def __init__(self, resolution: int = 32, *, all_styles: bool = False) -> None:
        try:
            import dicebear
            import resvg_py

            definition = (files("dicebear_styles") / "toon-head.json").read_text(encoding="utf-8")
        except ImportError as error:
            raise DataError(
                f"the demo faces need the package {error.name!r}: run pip install 'stylecli[demo]'"
            ) from None
        self._style = dicebear.Style(json.loads(definition))
        self._avatar = dicebear.Avatar
        self._render = resvg_py.svg_to_bytes
        self._resolution = resolution
        self._options: dict[str, Any] = {} if all_styles else EASY_OPTIONS

    def __call__(self, seed: int) -> tuple[npt.NDArray[np.uint8], dict[str, str]]:
        """Return (pixels uint8 [3, R, R], true attributes by plain name)."""
        options = {"seed": str(seed), "backgroundColor": [BACKGROUND], **self._options}
        drawing = self._avatar(self._style, options).to_json()
        left, top, side = CROP
        whole = f'viewBox="0 0 {CANVAS} {CANVAS}"'
        if whole not in drawing["svg"]:
            raise DataError("the drawing has another size: pip install 'stylecli[demo]' again")
        svg = drawing["svg"].replace(whole, f'viewBox="{left} {top} {side} {side}"', 1)
        svg = re.sub(r"<metadata.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
        size = SUPERSAMPLING * self._resolution
        png = self._render(svg_string=svg, width=size, height=size, skip_system_fonts=True)
        with Image.open(io.BytesIO(png)) as large:
            small = large.convert("RGB").resize((self._resolution,) * 2, Image.Resampling.BOX)
        return np.asarray(small).transpose(2, 0, 1), read_attributes(drawing["options"])


def read_attributes(options: dict[str, Any]) -> dict[str, str]:
    """Name what a drawing shows in plain words; parts that are absent are ``"none"``."""
    attributes = {name: _words(options.get(option)) for name, option in _VARIANTS.items()}
    for name, (option, words) in _COLOURS.items():
        colour = options.get(option, ["none"])[0]
        attributes[name] = words.get(colour, colour)
    return attributes


def _words(variant: str | None) -> str:
    """``"sideComed"`` -> ``"side comed"``; no variant is ``"none"``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", variant).lower() if variant else "none"
