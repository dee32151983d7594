"""`stylecli mix`: sheets of mixed styles, Figure 3 of the StyleGAN paper."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import USUAL_DRAWING, DrawingOptions, OpenedNetwork, takes_drawing
from stylecli.cli.faces import check_faces, find_faces, is_seed, shown_words
from stylecli.cli.options import OutOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files
from stylecli.cli.targets import (
    FormatOption,
    QualityOption,
    Target,
    is_done,
    resolve_target,
    resolve_video,
)
from stylecli.errors import UsageError, unknown_name
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds
from stylecli.styles import band_rows, style_bands, style_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stylecli.images import Pictures
    from stylecli.rendering import Drawing
    from stylecli.sheets.mixing import Sources


USUAL = 5  # rows, and columns
FACES, STYLES, VIDEO = "Faces", "Styles", "Video"  # headings of the help

RowsOption = Annotated[
    str | None,
    typer.Option(
        "--rows", help="Number of rows; with a comma or dash, their seeds. Default 5.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
ColsOption = Annotated[
    str | None,
    typer.Option(
        "--cols", help="Number of columns, or their seeds. Default 5.", rich_help_panel=FACES
    ),
]
RowSeedsOption = Annotated[
    str | None,
    typer.Option("--row-seeds", help="Seeds of the rows, such as 888.", rich_help_panel=FACES),
]
ColSeedsOption = Annotated[
    str | None,
    typer.Option("--col-seeds", help="Seeds of the columns.", rich_help_panel=FACES),
]
RowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--row",
        help="A face for a row: a seed, a file of styles or a photograph; may be repeated. "
        "With a number of --rows, seeds fill the others.",
        metavar="FACE",
        rich_help_panel=FACES,
    ),
]
ColOption = Annotated[
    list[str] | None,
    typer.Option("--col", help="Such a face for a column.", metavar="FACE", rich_help_panel=FACES),
]
RowWsOption = Annotated[
    Path | None,
    typer.Option(
        "--row-ws", help="Rows from the styles of a .npz, .npy or .pt file.", rich_help_panel=FACES
    ),
]
ColWsOption = Annotated[
    Path | None,
    typer.Option("--col-ws", help="Columns from the styles of such a file.", rich_help_panel=FACES),
]
StylesOption = Annotated[
    str | None,
    typer.Option(
        "--styles",
        help="Styles taken from the columns: coarse, middle, fine, layers such as 0-3, or several "
        "with commas. Default: all, a sheet for each of the three.",
        rich_help_panel=STYLES,
    ),
]
BandsOption = Annotated[
    str | None,
    typer.Option(
        "--bands",
        help="One sheet whose rows copy different styles: coarse:3,middle:2,fine:1 is Figure 3; "
        "without numbers, the rows are divided evenly.",
        metavar="STYLES:ROWS,...",
        rich_help_panel=STYLES,
    ),
]
EachOption = Annotated[
    bool, typer.Option("--each", help="Also write a picture of every pair: ROW-COLUMN.png.")
]
LabelsOption = Annotated[
    bool, typer.Option("--labels/--no-labels", help="Write seeds and bands next to the pictures.")
]
MoverOption = Annotated[
    str | None,
    typer.Option(
        "--video",
        help="Also write a looping video in which one side (cols or rows) moves through its faces.",
        metavar="SIDE",
        rich_help_panel=VIDEO,
    ),
]
KeySecondsOption = Annotated[
    float | None,
    typer.Option("--key-seconds", help="Time from face to face. Default 2.", rich_help_panel=VIDEO),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second. Default 30, GIF 25.", rich_help_panel=VIDEO),
]
VideoFormatOption = Annotated[
    str | None,
    typer.Option(
        "--video-format", help="mp4, webm, gif or webp. Default mp4.", rich_help_panel=VIDEO
    ),
]


@dataclass(frozen=True)
class Mix:
    """Everything that decides the sheets, resolved for one network."""

    source: OpenedNetwork
    rows: "Sources"
    columns: "Sources"
    drawing: "Drawing"
    settings: dict[str, Any]  # the options that are the same for all files
    sides: tuple[dict[str, Any], dict[str, Any]]  # the options that name rows and columns
    inputs: dict[str, Path]
    target: Target
    force: bool
    output: Output

    def provenance(self, option: Mapping[str, str], **more: Any) -> dict[str, Any]:
        """Return what a file carries that shows all rows and columns."""
        settings = {**self.sides[0], **self.sides[1], **option, **self.settings, **more}
        return self.source.provenance("mix", settings, inputs=self.inputs)


@takes_drawing(without=("size", "crop", "pixels"))
def command(
    rows: RowsOption = None,
    cols: ColsOption = None,
    row_seeds: RowSeedsOption = None,
    col_seeds: ColSeedsOption = None,
    row: RowOption = None,
    col: ColOption = None,
    row_ws: RowWsOption = None,
    col_ws: ColWsOption = None,
    styles: StylesOption = None,
    bands: BandsOption = None,
    video: MoverOption = None,
    key_seconds: KeySecondsOption = None,
    fps: FpsOption = None,
    video_format: VideoFormatOption = None,
    each: EachOption = False,
    labels: LabelsOption = True,
    how: DrawingOptions = USUAL_DRAWING,
    format: FormatOption = None,
    quality: QualityOption = None,
    out: OutOption = None,
) -> None:
    """Mix the styles of rows and columns of faces.

    Example: stylecli mix --rows 5 --styles coarse

    The top row and the left column show the sources. Each cell is its row's face with some styles
    of its column: coarse ones carry pose, shape and hair, middle ones features, fine ones colours.
    Rows take seeds from 0, columns the next ones. Writes mix-coarse.png, mix-middle.png,
    mix-fine.png.
    """
    output, mover = how.output(), _mover(video, bands, video_format)
    _check_clip(mover, {"fps": fps, "key-seconds": key_seconds, "video-format": video_format})
    if mover is not None:
        resolve_video(None, Path(), "mix", format=video_format, fps=fps)
    mix, sheets = resolve_mix(
        how, output, rows=rows, cols=cols, row_seeds=row_seeds, col_seeds=col_seeds, row=row,
        col=col, row_ws=row_ws, col_ws=col_ws, styles=styles, bands=bands, format=format,
        quality=quality, out=out,
    )  # fmt: skip
    paths: list[Path] = []
    for name, (option, layers) in sheets.items():
        path = sheet_path(mix, name, sheets)
        paths += _write_pictures(mix, option, layers, path, each, labels)
        if mover is not None:
            clip = (mover, key_seconds, fps, video_format)
            paths.append(_write_video(mix, option, layers, path, clip))
    document = {
        "network": str(mix.source.path), **mix.sides[0], **mix.sides[1], **mix.settings,
        "layers": {name: layers if bands else layers[0] for name, (_, layers) in sheets.items()},
        "paths": [str(path) for path in paths],
    }  # fmt: skip
    output.result(document, [str(path) for path in paths])


Sheets = dict[str, tuple[dict[str, str], list[list[int]]]]  # by name: see choose_sheets


def resolve_mix(
    how: DrawingOptions, output: Output, *, rows: str | None = None, cols: str | None = None,
    row_seeds: str | None = None, col_seeds: str | None = None, row: Sequence[str] | None = None,
    col: Sequence[str] | None = None, row_ws: Path | None = None, col_ws: Path | None = None,
    styles: str | None = None, bands: str | None = None, format: str | None = None,
    quality: int | None = None, out: Path | None = None,
) -> tuple[Mix, Sheets]:  # fmt: skip
    """Return everything that decides the sheets, with the network opened, and what they show.

    Raises UsageError for options that contradict each other, or that the network cannot follow.
    """
    check_files(row_ws=row_ws, col_ws=col_ws)
    check_faces("--row", row or ())
    check_faces("--col", col or ())
    resolve_target(out, Path(), format, quality, True, 1)
    how.check()
    opened = how.open(output)
    source, drawing = opened.source, opened.drawing
    style_sides = source.config.style_sides
    sides = choose_sides(
        rows,
        cols,
        row_seeds,
        col_seeds,
        row_ws,
        col_ws,
        banded_rows(bands, style_sides),
        row or (),
        col or (),
    )
    own_noise = how.noise_mode is None and how.noise_seed is None
    (row_faces, row_files), (column_faces, column_files) = (
        side.sources(source, drawing, own_noise=own_noise) for side in sides
    )
    sheets = choose_sheets(styles, bands, len(row_faces), style_sides, output.warn)
    target = resolve_target(out, source.folder, format, quality, True, 1)
    settings = dict(opened.settings)
    if any([*row_faces.noise, *column_faces.noise]):
        settings["noise_mode"] = None  # said, it would mean the network's noise
    mix = Mix(
        source, row_faces, column_faces, drawing, settings,
        (sides[0].settings, sides[1].settings),
        opened.inputs | row_files | column_files, target, how.force, output,
    )  # fmt: skip
    return mix, sheets


def _write_pictures(
    mix: Mix, option: Mapping[str, str], layers: list[list[int]], path: Path, each: bool,
    labels: bool,
) -> list[Path]:  # fmt: skip
    """Write a sheet, and every pair where wanted; draw nothing when all of them are there."""
    from stylecli.images import enlarge
    from stylecli.rendering import render
    from stylecli.sheets.mixing import lay_out, mixed_noise, mixed_styles

    provenance = mix.provenance(option, labels=labels, **mix.target.settings)
    pairs = _pairs(mix, layers, path) if each else []
    missing = [pair for pair in pairs if not is_done(pair[1], pair[2], mix.force)]
    sheet_done = is_done(path, provenance, mix.force)
    if sheet_done:
        mix.output.note(f"{path} already exists")
    made = [path, *(pair for _, pair, _ in pairs)]
    if sheet_done and not missing:
        return made
    ws = list(mixed_styles(mix.rows, mix.columns, layers))
    cells: list[Pictures] = []
    with mix.output.progress(path.stem, "pictures") as progress:
        G = mix.source.bundle.generator
        for picture in render(G, ws, mix.drawing, noise=mixed_noise(G, mix.rows, mix.columns)):
            cells.append(picture)
            progress(len(cells), len(ws))
    scale = mix.drawing.scale
    for index, pair, how in missing:
        mix.target.save(pair, enlarge(cells[index], scale or 1), how)
    if not sheet_done:
        sheet = lay_out(G, cells, mix.rows, mix.columns, layers, scale=scale, names=labels)
        mix.target.save(path, sheet, provenance)
    return made


def _pairs(mix: Mix, layers: list[list[int]], path: Path) -> list[tuple[int, Path, dict[str, Any]]]:
    """Return (place among the cells, path, provenance) of every mixed picture of a sheet."""
    from stylecli.sheets.mixing import name_apart
    from stylecli.styles import name_layers

    pairs = []
    across = len(mix.columns)
    stems = iter(name_apart([f"{a}-{b}" for a in mix.rows.names for b in mix.columns.names]))
    for row in range(len(mix.rows)):
        styles = name_layers(layers[row], mix.source.config.style_sides)
        for column in range(across):
            index = across + row * (across + 1) + 1 + column
            sides = {**_one(mix.sides[0], mix.rows, row), **_one(mix.sides[1], mix.columns, column)}
            settings = {**sides, "styles": styles, "each": True, **mix.settings,
                        **mix.target.settings}  # fmt: skip
            how = mix.source.provenance("mix", settings, inputs=mix.inputs)
            pairs.append((index, path.with_suffix("") / f"{next(stems)}{path.suffix}", how))
    return pairs


def _one(side: Mapping[str, Any], faces: "Sources", place: int) -> dict[str, Any]:
    """Return the option that names a single face: its seed, or the file it is in."""
    named = {
        option: faces.names[place] if option.endswith("seeds") else file
        for option, file in side.items()
    }
    return {
        option: [faces.words[place]] if isinstance(word, list) else word
        for option, word in named.items()
    }


def _write_video(
    mix: Mix, option: Mapping[str, str], layers: list[list[int]], sheet: Path,
    clip: tuple[str, float | None, float | None, str | None],
) -> Path:  # fmt: skip
    """Write the video in which one side moves, beside the sheet: NAME-cols.mp4."""
    from stylecli.sheets.mixing import draw_mixing_walk, mixing_walk_size

    mover, key_seconds, fps, format = clip
    target = resolve_video(None, sheet.parent, f"{sheet.stem}-{mover}", format=format, fps=fps)
    moving = mix.columns if mover == "cols" else mix.rows
    still = mix.rows if mover == "cols" else mix.columns
    frames, length = target.count_frames(len(moving), None, key_seconds, loop=True)
    more = {**length, "video": mover, "fps": target.fps, "video_format": format}

    def draw(start: int) -> "Iterator[Pictures]":
        return draw_mixing_walk(
            mix.source.bundle.generator, mix.rows, mix.columns, layers, frames, mix.drawing,
            mover="columns" if mover == "cols" else "rows",
        )  # fmt: skip

    return target.write(
        draw, frames, loop=True, provenance=mix.provenance(option, **more), force=mix.force,
        output=mix.output, title=target.path.stem,
        size=mixing_walk_size(mix.source.config, len(still), mix.drawing.scale),
    )  # fmt: skip


def _mover(video: str | None, bands: str | None, format: str | None) -> str | None:
    """Return cols, rows or None, as --video says; refuse what cannot move or be written."""
    word = {"columns": "cols"}.get(video or "", video)
    if word not in (None, "cols", "rows"):
        raise UsageError(unknown_name("--video", video or "", ("cols", "rows")))
    if word == "rows" and bands is not None:
        raise UsageError(
            f"rows of --bands {bands} copy different styles and cannot move: use --video cols"
        )
    if format is not None and format not in ("mp4", "webm", "gif", "webp"):
        raise UsageError(unknown_name("video format", format, ("mp4", "webm", "gif", "webp")))
    return word


def _check_clip(mover: str | None, clip: Mapping[str, object]) -> None:
    """Refuse settings of a video where none is made: they would be ignored silently."""
    for name, value in clip.items():
        if mover is None and value is not None:
            raise UsageError(f"--{name} {value} is for a video: add --video cols or --video rows")


def sheet_path(mix: Mix, name: str, sheets: Sheets) -> Path:
    """Return where a sheet goes; several sheets share a name that --out gave."""
    target = mix.target
    if target.file is None:
        return target.path(f"mix-{name}")
    if len(sheets) == 1:
        return target.file
    return target.file.with_name(f"{target.file.stem}-{name}{target.file.suffix}")


@dataclass(frozen=True)
class Side:
    """The faces of the rows or of the columns, not mapped yet."""

    option: str  # "row" or "col"
    seeds: list[int]
    file: Path | None = None
    words: tuple[str, ...] = ()  # anything that names faces
    count: int | None = None  # how many faces the words are to be; None: as many as they are

    @property
    def settings(self) -> dict[str, Any]:
        """The option that names these faces."""
        if self.words:
            return {self.option: shown_words(self.words)}
        if self.file is not None:
            return {f"{self.option}_ws": shown_path(self.file)}
        return {f"{self.option}_seeds": format_seeds(self.seeds)}

    def sources(
        self, source: OpenedNetwork, drawing: "Drawing", *, own_noise: bool
    ) -> "tuple[Sources, dict[str, Path]]":
        """Return styles and names, and the files they come from, by names for a record.

        Saved styles stay as they are, seeds are truncated. ``own_noise`` keeps the noise maps that
        belong to a projected photograph. Raises UsageError for another number of faces than asked.
        """
        from stylecli.sampling import map_seeds
        from stylecli.sheets.mixing import Sources, check_styles, open_sources

        check_styles(source.config)
        if self.words:
            found, files = find_faces(source, self.option, self.words, drawing)
            if self.count is not None and len(found) != self.count:
                raise UsageError(
                    f"--{self.option}s {self.count} is not the number of faces that "
                    f"--{self.option} {' '.join(self.words)} makes, which is {len(found)}: a file "
                    f"can hold several, so leave --{self.option}s out and name every seed by "
                    f"--{self.option}"
                )
            noise = found.noise if own_noise else ()
            return replace(found, noise=noise, words=tuple(shown_words(found.words))), files
        if self.file is not None:
            found = open_sources(source.bundle, self.file, tell=source.note)
            names = tuple(f"w{row}" for row in range(len(found)))
            found = replace(found, names=names, noise=found.noise if own_noise else ())
            return found, {f"{self.option}_ws": self.file}
        G = source.bundle.generator
        ws = map_seeds(G, self.seeds, label=drawing.label, **drawing.truncation)
        return Sources(ws, tuple(str(seed) for seed in self.seeds)), {}


def choose_sides(
    rows: str | None, cols: str | None, row_seeds: str | None, col_seeds: str | None,
    row_ws: Path | None, col_ws: Path | None, usual_rows: int,
    row: Sequence[str] = (), col: Sequence[str] = (),
) -> tuple[Side, Side]:  # fmt: skip
    """Return rows and columns; counts are filled with seeds 0, 1, 2, ... without repeats."""
    first = _side("row", "--rows", rows, row_seeds, row_ws, usual_rows, set(), row)
    counted = (
        first.file is None and row_seeds is None and (rows is None or rows.strip().isdecimal())
    )
    taken = {*first.seeds, *_seeds_among(first.words)} if counted else set()
    return first, _side("col", "--cols", cols, col_seeds, col_ws, USUAL, taken, col)


def _seeds_among(words: Sequence[str]) -> set[int]:
    return {int(word) for word in words if is_seed(word)}


def _free_seeds(number: int, taken: Container[int]) -> list[int]:
    """Return the first seeds, 0, 1, 2, ..., that are not taken."""
    return list(islice((seed for seed in count(0) if seed not in taken), number))


def choose_sheets(
    styles: str | None,
    bands: str | None,
    rows: int,
    sides: Sequence[int],
    tell: Callable[[str], None],
) -> dict[str, tuple[dict[str, str], list[list[int]]]]:
    """Return, by the name of its file, each sheet's option and the layers of every row."""
    if bands is not None:
        if styles is not None:
            raise UsageError(
                f"--styles {styles} and --bands {bands} exclude each other: give one of them"
            )
        return {"bands": ({"bands": bands}, band_rows(bands, sides, rows, clamp=tell))}
    wanted = "all" if styles is None else styles
    names = list(style_bands(sides)) if wanted == "all" else [wanted]
    return {
        name.replace(",", "+").replace(" ", ""): (
            {"styles": name},
            [style_layers(name, sides, clamp=tell)] * rows,
        )
        for name in names
    }


def banded_rows(bands: str | None, sides: Sequence[int]) -> int:
    """Return how many rows ``bands`` asks for by its numbers, the usual ones where it has none."""
    if bands is None or ":" not in bands:
        return USUAL
    return len(band_rows(bands, sides, clamp=lambda _: None))


def _side(
    option: str, count_option: str, number: str | None, seeds: str | None, file: Path | None,
    usual: int, taken: set[int], named: Sequence[str] = (),
) -> Side:  # fmt: skip
    given = [value for value in (number, seeds, file) if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"{count_option}, --{option}-seeds and --{option}-ws exclude each other: give one of "
            f"them"
        )
    if named:
        return _named_side(option, count_option, number, given, taken, tuple(named))
    if file is not None:
        return Side(option, [], file)
    if seeds is not None:
        return Side(option, parse_seeds(seeds))
    text = (number or str(usual)).strip()
    if not text.isdecimal():
        return Side(option, parse_seeds(text))
    if not 1 <= int(text) <= 100:
        raise UsageError(
            f"{count_option} {text} is a count from 1 to 100: for one seed give "
            f"--{option}-seeds {text}"
        )
    return Side(option, _free_seeds(int(text), taken))


def _named_side(
    option: str, count_option: str, number: str | None, given: Sequence[object], taken: set[int],
    named: tuple[str, ...],
) -> Side:  # fmt: skip
    """Return the faces that were named, and seeds up to the number that was asked for."""
    if given != ([] if number is None else [number]):
        raise UsageError(
            f"--{option} {named[0]} excludes --{option}-seeds and --{option}-ws: name every face "
            f"by --{option}"
        )
    if number is None:
        return Side(option, [], words=named)
    if not number.strip().isdecimal() or int(number) < len(named):
        raise UsageError(
            f"{count_option} {number} is less than --{option} names, which is {len(named)}: "
            f"give how many there are to be"
        )
    seeds = _free_seeds(int(number) - len(named), taken | _seeds_among(named))
    return Side(option, seeds, words=(*named, *map(str, seeds)), count=int(number))
