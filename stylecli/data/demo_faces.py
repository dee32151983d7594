"""The demo's pictures: cartoon faces drawn from a seeded stream, with their true attributes.

The faces are DiceBear's "toon-head" (after ToonHead by Johan Melin, CC BY 4.0), made by the
packages of the ``demo`` extra, whose versions are pinned because the pixels depend on them. Face i
is drawn from seed i, so the set is the same everywhere.
"""

import colorsys
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from stylecli.data.reader import open_dataset
from stylecli.data.writer import DatasetWriter
from stylecli.errors import DataError, UsageError, plural
from stylecli.files import parse_json
from stylecli.progress import Progress, silent
from stylecli.shapes import SQUARE, Grid, Size

ARTWORK = "ToonHead by Johan Melin, remixed by DiceBear"
AUTHOR = "Johan Melin"
LICENCE = "CC BY 4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by/4.0/"
SOURCE_URL = "https://www.figma.com/community/file/1589627891082866389"

CANVAS = 768  # units on a side of the drawing
CROP = (146, 128, 480)  # left, top, side: hair, ears and beard, and as little else as possible
SUPERSAMPLING = 4  # drawn at 4 x 4 samples a pixel, then box-filtered

# Colours vary continuously: a network draws what lies between two training colours in any case,
# and where no training face has that colour it draws blotches. Stops of each curve, in order.
SKIN = {"pale": "#f3cfb3", "light": "#e3ac86", "tan": "#c68a62", "brown": "#a0694a",
        "deep brown": "#7b4c36", "dark": "#5a3828"}  # fmt: skip
HAIR = {"black": "#2c1b18", "dark brown": "#4f2d20", "red": "#94492a", "light brown": "#b9803f",
        "blond": "#d8b673", "pale blond": "#e8d3a4"}  # fmt: skip
COLOUR_JITTER = 4.0  # standard deviation, grey levels of each channel
DYED_SHARE = 1 / 7  # hair of any hue
HUES = ("red", "yellow", "green", "cyan", "blue", "purple")

# A little pose: standard deviations of the crop's turn, shift and size.
ROLL_DEGREES, SHIFT_SHARE, SCALE_SHARE = 6.0, 0.02, 0.05
LIMIT_SD = 2.5  # draws beyond are cut off: the drawing ends somewhere
TILTED_DEGREES = 3.0  # from here a head counts as tilted

_BEARDS = {"beardProbability": 15}
# What short training gets: wide eyes and a mouth that can be seen at 32 px on every skin (the
# closed ones are a hair's breadth). The rest varies freely.
EASY_OPTIONS: dict[str, Any] = {
    "eyesVariant": ["wide"],
    "mouthVariant": ["agape", "angry", "laugh"],
}

# Attribute -> the drawing's option and, where it needs one, a word for each of its values.
_VARIANTS = {"hair": "hairVariant", "rear_hair": "rearHairVariant", "beard": "beardVariant",
             "eyes": "eyesVariant", "eyebrows": "eyebrowsVariant", "mouth": "mouthVariant",
             "clothes": "clothesVariant"}  # fmt: skip
_CLOTHES_COLOURS = {
    "#151613": "black", "#0b3286": "blue", "#545454": "grey", "#147f3c": "green",
    "#f97316": "orange", "#ec4899": "pink", "#731ac3": "purple", "#b11f1f": "red",
    "#e8e9e6": "white", "#eab308": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class Looks:
    """What a face has beside its drawn parts: colours (RGB, 0 to 255) and pose."""

    skin_tone: float  # place on the curve of stops, 0 (first) to 1 (last)
    skin: tuple[int, int, int]
    hair_tone: float | None  # None where the hair is dyed
    hair: tuple[int, int, int]
    background_hue: float  # 0 to 1
    background: tuple[int, int, int]
    roll_degrees: float  # positive: the head turns clockwise
    shift: tuple[float, float]  # of the face, shares of the picture's side: right, down
    scale: float  # above 1: a larger face

    @classmethod
    def draw(cls, seed: int) -> "Looks":
        """Return the looks of a seed: NumPy's RandomState, whose numbers never change."""
        random = np.random.RandomState(seed)

        def near(centre: float, deviation: float) -> float:
            offset = float(np.clip(random.standard_normal(), -LIMIT_SD, LIMIT_SD))
            return centre + deviation * offset

        skin_tone, hair_tone = float(random.uniform()), float(random.uniform())
        skin, hair = _jittered(_on_curve(SKIN, skin_tone), near), _on_curve(HAIR, hair_tone)
        dyed = random.uniform() < DYED_SHARE
        hue, saturation, value = random.uniform(size=3)
        if dyed:
            hair = _from_hsv(hue, 0.45 + 0.2 * saturation, 0.65 + 0.2 * value)
        hair = _jittered(hair, near)
        hue, saturation, value = random.uniform(size=3)
        return cls(
            skin_tone, _rounded(skin), None if dyed else hair_tone, _rounded(hair),
            float(hue), _rounded(_from_hsv(hue, 0.15 + 0.2 * saturation, 0.85 + 0.13 * value)),
            near(0, ROLL_DEGREES), (near(0, SHIFT_SHARE), near(0, SHIFT_SHARE)),
            near(1, SCALE_SHARE),
        )  # fmt: skip

    def values(self) -> dict[str, Any]:
        """Return the continuous attributes as plain JSON."""
        return {
            "skin_tone": round(self.skin_tone, 4),
            "hair_tone": None if self.hair_tone is None else round(self.hair_tone, 4),
            "skin": _hex(self.skin), "hair": _hex(self.hair),
            "background": _hex(self.background), "background_hue": round(self.background_hue, 4),
            "roll_degrees": round(self.roll_degrees, 3),
            "shift": [round(share, 4) for share in self.shift], "scale": round(self.scale, 4),
        }  # fmt: skip

    def names(self) -> dict[str, str]:
        """Return the same as classes: the nearest stop or hue, and which way the head tilts."""
        tilt = "right" if self.roll_degrees > 0 else "left"
        return {
            "skin": _nearest_stop(SKIN, self.skin_tone),
            "hair_colour": (
                "dyed" if self.hair_tone is None else _nearest_stop(HAIR, self.hair_tone)
            ),
            "background": HUES[round(self.background_hue * len(HUES)) % len(HUES)],
            "tilt": tilt if abs(self.roll_degrees) > TILTED_DEGREES else "upright",
        }  # fmt: skip


def _on_curve(stops: dict[str, str], place: float) -> npt.NDArray[np.float64]:
    """Return the colour at ``place`` (0 to 1) of a curve: linear between neighbouring stops."""
    colours = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in stops.values()])
    at = np.linspace(0, 1, len(colours))
    return np.array([np.interp(place, at, channel) for channel in colours.T])


def _nearest_stop(stops: dict[str, str], place: float) -> str:
    return list(stops)[round(place * (len(stops) - 1))]


def _from_hsv(hue: float, saturation: float, value: float) -> npt.NDArray[np.float64]:
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _jittered(
    colour: npt.NDArray[np.float64], near: Callable[[float, float], float]
) -> npt.NDArray[np.float64]:
    return np.array([near(channel, COLOUR_JITTER) for channel in colour])


def _rounded(colour: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (round(float(channel)) for channel in np.clip(colour, 0, 255))
    return red, green, blue


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def make_demo_dataset(
    path: Path | str,
    *,
    count: int = 2000,
    resolution: int = 32,
    progress: Progress = silent,
    all_styles: bool = False,
    grid: Grid = SQUARE,
) -> Path:
    """Draw ``count`` faces into a dataset at ``path``; an equal one that is there is kept.

    ``all_styles`` draws every style of eyes and mouth: a harder set, for longer training. Another
    ``grid`` makes pictures of another shape, with more of the background. Each
    picture's metadata holds ``attributes`` (classes: hair, mouth, skin, tilt, ...), ``values``
    (the continuous ones: tones, colours, pose), author and licence. Raises DataError when the
    ``demo`` extra is missing, or when other data stands at ``path``.
    """
    path = Path(path)
    if count < 1:
        raise UsageError(f"cannot draw {plural(count, 'face')}: give 1 or more")
    settings = {"kind": "demo-faces", "count": count, "resolution": resolution,
                "all_styles": all_styles, "crop": list(CROP), "looks": "continuous",
                **({} if grid.is_usual else {"base": list(grid)})}  # fmt: skip
    if path.exists():
        if open_dataset(path).info.get("settings") == settings:
            return path
        raise DataError(
            f"{path} does not hold the demo's pictures: remove it, or give another path"
        )
    info = {
        "settings": settings,
        "source": f"{ARTWORK}, drawn by dicebear-core from seeds 0-{count - 1}",
        "author": AUTHOR,
        "licence": LICENCE,
        "licence_url": LICENCE_URL,
        "source_url": SOURCE_URL,
    }
    credit = {key: info[key] for key in ("author", "licence", "licence_url", "source_url")}
    draw = FaceArtist(resolution, all_styles=all_styles, grid=grid)
    writer = DatasetWriter(path, resolution=resolution, channels=3, info=info, grid=grid)
    with writer:
        for seed in range(count):
            pixels, attributes, values = draw(seed)
            facts = {"seed": seed, "attributes": attributes, "values": values}
            writer.add(pixels, metadata={**facts, **credit})
            progress(seed + 1, count)
    return path


class FaceArtist:
    """Draws the face of a seed. Raises DataError when the ``demo`` extra is not installed."""

    def __init__(
        self, resolution: int = 32, *, all_styles: bool = False, grid: Grid = SQUARE
    ) -> None:
        try:
            import dicebear
            import resvg_py

            definition = (files("dicebear_styles") / "toon-head.json").read_text(encoding="utf-8")
        except ImportError as error:
            raise DataError(
                f"the demo faces need the package {error.name!r}: run pip install 'stylecli[demo]'"
            ) from None
        self._style = dicebear.Style(parse_json(definition, "the package dicebear_styles"))
        self._avatar = dicebear.Avatar
        self._render = resvg_py.svg_to_bytes
        self._size = grid.at(resolution)
        self._options = _BEARDS if all_styles else {**_BEARDS, **EASY_OPTIONS}

    def __call__(self, seed: int) -> tuple[npt.NDArray[np.uint8], dict[str, str], dict[str, Any]]:
        """Return (pixels uint8 [3, H, W], true attributes by plain name, continuous values)."""
        looks = Looks.draw(seed)
        options = {"seed": str(seed), "skinColor": [_hex(looks.skin)],
                   "hairColor": [_hex(looks.hair)], **self._options}  # fmt: skip
        drawing = self._avatar(self._style, options).to_json()
        height, width = self._size
        png = self._render(
            svg_string=_posed(drawing["svg"], looks, self._size), width=SUPERSAMPLING * width,
            height=SUPERSAMPLING * height, skip_system_fonts=True,
        )  # fmt: skip
        with Image.open(io.BytesIO(png)) as drawn:
            face = drawn.convert("RGBA")
        whole = Image.new("RGBA", face.size, looks.background)
        whole.alpha_composite(face)
        small = whole.convert("RGB").resize((width, height), Image.Resampling.BOX)
        attributes = {**read_attributes(drawing["options"]), **looks.names()}
        return np.asarray(small).transpose(2, 0, 1), attributes, looks.values()


def _posed(svg: str, looks: Looks, size: Size) -> str:
    """Turn, size and shift the drawing about the crop's centre, and look at the crop alone.

    What the drawing itself cuts off (shoulders at the canvas) stays out of the picture: at the
    limits of every draw the crop's corners still lie within the canvas below.
    """
    head = re.match(rf'<svg [^>]*viewBox="0 0 {CANVAS} {CANVAS}"[^>]*>', svg)
    if head is None or not svg.endswith("</svg>"):
        raise DataError("the drawing has another size: pip install 'stylecli[demo]' again")
    left, top, side = CROP
    x, y = left + side / 2, top + side / 2
    move = (
        f"translate({x + looks.shift[0] * side:.3f} {y + looks.shift[1] * side:.3f}) "
        f"rotate({looks.roll_degrees:.4f}) scale({looks.scale:.5f}) translate({-x} {-y})"
    )
    across = side * size.width / min(size)  # of the drawing; the face keeps its size
    along = side * size.height / min(size)
    seen = f"{x - across / 2:g} {y - along / 2:g} {across:g} {along:g}"
    opening = head[0].replace(f"0 0 {CANVAS} {CANVAS}", seen)
    inner = re.sub(r"<metadata.*?</metadata>", "", svg[head.end() : -6], count=1, flags=re.DOTALL)
    return f'{opening}<g transform="{move}">{inner}</g></svg>'


def read_attributes(options: dict[str, Any]) -> dict[str, str]:
    """Name what a drawing shows in plain words; parts that are absent are ``"none"``."""
    attributes = {name: _words(options.get(option)) for name, option in _VARIANTS.items()}
    colour = options.get("clothesColor", ["none"])[0]
    attributes["clothes_colour"] = _CLOTHES_COLOURS.get(colour, colour)
    return attributes


def _words(variant: str | None) -> str:
    """``"sideComed"`` -> ``"side comed"``; no variant is ``"none"``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", variant).lower() if variant else "none"
