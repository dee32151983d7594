"""Style mixing, Figure 3 of the StyleGAN paper: the sheet, its margins, and mixes in motion."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, groupby
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylecli.errors import UsageError
from stylecli.images import WHITE, Pictures, make_grid, visible_scale
from stylecli.latents import Method
from stylecli.latents.walks import follow_path, path_positions
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Bundle, Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import PLAIN, Drawing, render
from stylecli.sampling import load_styles, map_seeds, mix_ws
from stylecli.saved_ws import load_noise
from stylecli.styles import name_layers

INK = 40  # dark grey
SMALLEST, LARGEST = 11, 72  # font sizes in pixels

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Mover = Literal["columns", "rows"]
MOVERS: tuple[Mover, ...] = get_args(Mover)
SCREEN = 1024  # about how wide the picture becomes


def add_margins(
    sheet: Pictures,
    pitch: tuple[int, int],
    cell: tuple[int, int],
    *,
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    groups: Sequence[tuple[str, int, int]] = (),
) -> Pictures:
    """Return a sheet [H, W, C] with names over its columns and beside its rows, in Pillow's font.

    Cells of ``cell`` (height, width) pixels stand every ``pitch`` (down, across) pixels. ``top``
    and ``left`` name them from the first on, an empty name writes nothing. A group (name, first
    row, rows) is written upright at the very left, with a line along its rows. The letters are a
    tenth of a cell high, 11 to 72 pixels, smaller where a name would not fit.
    """
    size = _font_size(min(cell))
    space = size // 2
    over = size + space if any(top) else 0
    names = max((round(_font(size).getlength(name)) for name in left), default=0)
    beside = names + 2 * space if names else 0
    upright = size + 2 * space if groups else 0

    height, width, channels = sheet.shape
    page = Image.new("L", (width + upright + beside, height + over), WHITE)
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(top):
        middle = upright + beside + column * pitch[1] + cell[1] // 2
        draw.text((middle, over // 2), name, INK, _fitting(name, size, cell[1]), anchor="mm")
    for row, name in enumerate(left):
        middle = over + row * pitch[0] + cell[0] // 2
        draw.text((upright + beside - space, middle), name, INK, _font(size), anchor="rm")
    for name, first, rows in groups:
        start, length = over + first * pitch[0], (rows - 1) * pitch[0] + cell[0]
        page.paste(_upright(name, size, (upright - space, length)), (0, start))
        draw.line([(upright - space // 2, start), (upright - space // 2, start + length - 1)], INK)
    result = np.repeat(np.asarray(page, dtype=np.uint8)[:, :, None], channels, axis=2)
    if channels == 4:
        result[..., 3] = 255
    result[over:, upright + beside :] = sheet
    return result


def name_height(side: int) -> int:
    """Return the height of the strip that a name takes below a picture of ``side`` pixels."""
    return round(1.3 * _font_size(side))


def write_below(picture: Pictures, name: str, height: int) -> Pictures:
    """Return a picture [H, W, C] with its name in a white strip of ``height`` pixels below it."""
    high, wide, channels = picture.shape
    strip = Image.new("L", (wide, height), WHITE)
    font = _fitting(name, _font_size(high), wide)
    ImageDraw.Draw(strip).text((wide // 2, height // 2), name, INK, font, anchor="mm")
    result: Pictures = np.full((high + height, wide, channels), WHITE, dtype=np.uint8)
    result[:high] = picture
    colours = min(channels, 3)  # all but transparency
    result[high:, :, :colours] = np.asarray(strip, dtype=np.uint8)[:, :, None]
    return result


def _font_size(side: int) -> int:
    """Return the height of letters beside cells of ``side`` pixels: a tenth of it, legible."""
    return max(SMALLEST, min(LARGEST, side // 10))


def _upright(name: str, size: int, box: tuple[int, int]) -> Image.Image:
    """Return a name that reads from below, in the middle of a box (width, height)."""
    flat = Image.new("L", (box[1], box[0]), WHITE)
    middle = (box[1] // 2, box[0] // 2)
    ImageDraw.Draw(flat).text(middle, name, INK, _fitting(name, size, box[1]), anchor="mm")
    return flat.transpose(Image.Transpose.ROTATE_90)


def _fitting(name: str, size: int, width: int) -> Font:
    """Return the font at ``size``, or smaller where the name is wider than ``width``."""
    length = _font(size).getlength(name)
    return _font(size if length <= width else max(6, int(size * width / length)))


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Sources:
    """Faces to mix: their styles ws [N, num_ws, w_dim], on the CPU, and what to call each."""

    ws: Tensor
    names: tuple[str, ...]
    noise: tuple[Sequence[Tensor] | None, ...] = ()  # the maps that belong to each, if any do
    words: tuple[str, ...] = ()  # what each was named by, where that is not its name

    def __len__(self) -> int:
        return len(self.ws)


def open_sources(
    net: Bundle, path: Path, name: str = "", *, tell: Callable[[str], None] = lambda reading: None
) -> Sources:
    """Return the faces of a file of styles, and their noise maps where it has such.

    They are called by ``name``, else the file's, and numbered where there are several. Raises
    NetworkError for a file that does not fit, UsageError for a network without styles.
    """
    ws = load_styles(net, path, tell=tell)
    maps = load_noise(path, net.config.noise_shapes(), len(ws)) or []
    name = name or path.stem
    names = [name] if len(ws) == 1 else [f"{name}#{place}" for place in range(len(ws))]
    own = [[layer[place : place + 1] for layer in maps] or None for place in range(len(ws))]
    return Sources(ws, tuple(names), tuple(own), (str(path),) * len(ws))


def join_sources(parts: Sequence[Sources]) -> Sources:
    """Return the faces of all parts, one after the other; names are told apart by numbers."""
    return Sources(
        torch.cat([part.ws for part in parts]),
        name_apart([name for part in parts for name in part.names]),
        tuple(maps for part in parts for maps in part.noise or (None,) * len(part)),
        tuple(word for part in parts for word in part.words or part.names),
    )


def name_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which each may be that of a file: s, s, S as s, s(2), S(3)."""
    taken: set[str] = set()
    apart = []
    for name in names:
        tries = chain([name], (f"{name}({number})" for number in count(2)))
        apart.append(next(each for each in tries if each.casefold() not in taken))
        taken.add(apart[-1].casefold())  # some file systems know no capitals
    return tuple(apart)


Maps = Sequence[Tensor]  # the noise maps [1, 1, h, w] of a face, one for each layer
Faces = Sequence[int] | Sources  # seeds, or styles from elsewhere
Layers = Sequence[int] | Sequence[Sequence[int]]  # the same for all rows, or for each row its own


def draw_mixing_sheet(
    G: Generator,
    rows: Faces,
    columns: Faces,
    layers: Layers,
    drawing: Drawing = PLAIN,
    *,
    padding: int | None = None,
    names: bool = False,
    progress: Progress = silent,
) -> Pictures:
    """Draw every row's picture with the styles of ``layers`` taken from every column.

    ``rows`` and ``columns`` are seeds, mapped as ``drawing`` says, or Sources. ``layers`` is
    one list such as [0, 1, 2, 3] for the whole sheet, or one list per row as in Figure 3, where
    three rows copy coarse styles, two middle, one fine. The sheet has the columns' own pictures on
    top, the rows' at the left and a white corner; everything else about a cell (pose, identity, ...
    or colours) is its row's. Every cell has the same noise, or where Sources have noise maps, its
    row's. Without a scale cells are enlarged so
    that they can be looked at; ``names`` writes seeds and bands into margins. Returns [H, W, C].
    Raises UsageError where the network has no styles to mix.
    """
    own, others = name_faces(G, rows, drawing), name_faces(G, columns, drawing)
    per_row = layers_per_row(layers, len(own))
    cells: list[Pictures] = []
    ws = list(mixed_styles(own, others, per_row))
    for picture in render(G, ws, drawing, noise=mixed_noise(G, own, others)):
        cells.append(picture)
        progress(len(cells), len(ws))
    return lay_out(
        G, cells, own, others, per_row, scale=drawing.scale, padding=padding, names=names
    )


def mixed_styles(rows: Sources, columns: Sources, layers: Sequence[list[int]]) -> Iterator[Tensor]:
    """Yield the styles [num_ws, w_dim] of a sheet's pictures: all but the corner, row by row."""
    yield from columns.ws
    for row, chosen in zip(rows.ws, layers, strict=True):
        yield row
        yield from mix_ws(row.expand_as(columns.ws), columns.ws, chosen)


def mixed_noise(G: Generator, rows: Sources, columns: Sources) -> Iterator[Sequence[Tensor]] | None:
    """Yield the noise maps of ``mixed_styles``' pictures; None where no face has its own.

    A mix has those of its row's face, whose picture it changes. Faces without have the network's.
    """
    if not any([*rows.noise, *columns.noise]):
        return None
    stored = _stored_noise(G)
    every = [
        maps for row in _own_noise(rows, stored) for maps in [row] * (len(columns) + 1)
    ]  # fmt: skip
    return iter([*_own_noise(columns, stored), *every])


def _stored_noise(G: Generator) -> Maps:
    return [G.synthesis.stored_noise(layer).cpu() for layer in range(G.config.num_layers)]


def _own_noise(faces: Sources, stored: Maps) -> list[Maps]:
    """Return the noise maps of every face; the network's where it has none of its own."""
    found = faces.noise or (None,) * len(faces)
    return [stored if maps is None else maps for maps in found]


def own_noise(G: Generator, faces: Sources) -> list[Maps] | None:
    """Return the noise maps of every face; None where no face has its own."""
    return _own_noise(faces, _stored_noise(G)) if any(faces.noise) else None


def _noise_between(keys: Sequence[Maps], position: float) -> Maps:
    """Return the noise maps of a face on a closed or open path, ``position`` in units of keys.

    Each turns from one face's into the next's, so that between them it is as strong as they are.
    """
    place = min(int(position), len(keys) - 1)
    along, here, there = position - place, keys[place], keys[(place + 1) % len(keys)]
    if not along or here is there:
        return here
    between = []
    for one, other in zip(here, there, strict=True):
        ends = torch.stack([one.flatten(), other.flatten()]).numpy()
        turned = follow_path(ends, np.array([along]), method="slerp", loop=False)
        between.append(torch.from_numpy(turned[0]).float().view_as(one))
    return between


def lay_out(
    G: Generator,
    cells: Sequence[Pictures],
    rows: Sources,
    columns: Sources,
    layers: Sequence[list[int]],
    *,
    scale: int | None = None,
    padding: int | None = None,
    names: bool = False,
) -> Pictures:
    """Return the sheet [H, W, C] of the pictures of ``mixed_styles``, in their order."""
    scale = scale or visible_scale(max(G.config.size))
    gap = _gap(G.config.size, scale) if padding is None else padding
    corner = np.full_like(cells[0], 255)
    sheet = make_grid([corner, *cells], len(columns) + 1, padding=gap, scale=scale)
    if not names:
        return sheet
    height, width = (side * scale for side in cells[0].shape[:2])
    return add_margins(
        sheet, (height + gap, width + gap), (height, width),
        top=("", *columns.names), left=("", *rows.names),
        groups=_groups(layers, G.config.style_sides),
    )  # fmt: skip


def name_faces(G: Generator, faces: Faces, drawing: Drawing = PLAIN) -> Sources:
    """Return the styles of seeds, named by their numbers; Sources as they are.

    Raises UsageError where the network has no styles to mix.
    """
    check_styles(G.config)
    if isinstance(faces, Sources):
        return faces
    ws = map_seeds(G, faces, label=drawing.label, **drawing.truncation)
    return Sources(ws, tuple(str(seed) for seed in faces))


def check_styles(config: NetworkConfig) -> None:
    """Raise UsageError where a network has no styles to mix."""
    if not config.has_w:
        raise UsageError(
            f"configuration {config.preset!r} has no styles to mix: "
            "use another network, such as one of --config f"
        )


def layers_per_row(layers: Layers, rows: int) -> list[list[int]]:
    """Return one list of layers per row; raise UsageError when there are not as many as rows."""
    if all(isinstance(layer, int) for layer in layers):
        return [list(cast(Sequence[int], layers))] * rows
    each = [list(chosen) for chosen in cast(Sequence[Sequence[int]], layers)]
    if len(each) != rows:
        raise UsageError(f"{len(each)} lists of layers for {rows} rows: give one per row")
    return each


def _groups(layers: Sequence[list[int]], sides: Sequence[int]) -> list[tuple[str, int, int]]:
    """Return (name, first row of the sheet, rows) of neighbouring rows that copy the same."""
    groups, row = [], 1
    for chosen, same in groupby(layers):
        count = len(list(same))
        groups.append((name_layers(chosen, sides), row, count))
        row += count
    return groups


def draw_mixing_walk(
    G: Generator,
    rows: Sources,
    columns: Sources,
    layers: Sequence[list[int]],
    frames: int,
    drawing: Drawing = PLAIN,
    *,
    mover: Mover = "columns",
    method: Method = "spline",
    loop: bool = True,
) -> Iterator[Pictures]:
    """Return an iterator over the frames [H, W, C] of a mixing sheet with one side in motion.

    With mover "columns" the style source moves through the columns while every row's face stays:
    the faces stand on top, the source moves at the left, and beside it are the mixes. With "rows" a
    face moves through the rows while the style sources stay, on top. ``layers`` is one list per
    row; faces that move need the same list for all. A closed path comes back to where it began.
    Raises UsageError otherwise.
    """
    if mover not in MOVERS:
        raise UsageError(f"{mover!r} cannot move: expected columns or rows")
    if mover == "rows" and any(chosen != layers[0] for chosen in layers):
        raise UsageError(
            "rows that copy different styles cannot move into each other: let the columns move"
        )
    moving, still = (columns, rows) if mover == "columns" else (rows, columns)
    if len(moving) < 2:
        raise UsageError(f"one face cannot move: give two or more {mover}")
    positions = path_positions(len(moving), frames, loop=loop)
    still_noise: list[Maps] | None = None
    if any([*rows.noise, *columns.noise]):
        stored = _stored_noise(G)
        still_noise, moving_noise = _own_noise(still, stored), _own_noise(moving, stored)
    tops = list(
        render(G, still.ws, drawing, noise=None if still_noise is None else iter(still_noise))
    )

    def styles() -> Iterator[Tensor]:
        for position in positions:
            point = follow_path(moving.ws.numpy(), np.array([position]), method=method, loop=loop)
            here = torch.from_numpy(point).float()
            yield here[0]
            for index, face in enumerate(still.ws):
                if mover == "columns":
                    yield mix_ws(face[None], here, layers[index])[0]
                else:
                    yield mix_ws(here, face[None], layers[0])[0]

    def noises() -> Iterator[Maps]:
        """Yield those of ``styles``: a mix has its row's, which moves or stands still."""
        assert still_noise is not None
        for position in positions:
            here = _noise_between(moving_noise, float(position))
            yield here
            yield from still_noise if mover == "columns" else [here] * len(still)

    pictures = render(G, styles(), drawing, noise=None if still_noise is None else noises())
    across = len(still) + 1
    return _frames(tops, pictures, across, _factor(G.config, across, drawing.scale))


def mixing_walk_size(config: NetworkConfig, still: int, scale: int | None) -> tuple[int, int]:
    """Return (height, width) of the frames of a walk beside ``still`` faces, drawing none."""
    across = still + 1
    factor = _factor(config, across, scale)
    height, width = config.height * factor, config.width * factor
    gap = _gap(config.size, factor)
    return 2 * height + gap, across * width + still * gap


def _factor(config: NetworkConfig, across: int, scale: int | None) -> int:
    return scale or visible_scale(max(config.width * across, config.height), at_least=SCREEN)


def _gap(size: tuple[int, ...], scale: int) -> int:
    return max(1, max(size) * scale // 64)


def _frames(
    tops: list[Pictures], pictures: Iterator[Pictures], across: int, scale: int
) -> Iterator[Pictures]:
    corner = np.full_like(tops[0], 255)
    gap = _gap(tops[0].shape[:2], scale)
    for moment in zip(*[pictures] * across, strict=True):
        yield make_grid([corner, *tops, *moment], across, padding=gap, scale=scale)
