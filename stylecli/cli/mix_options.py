"""The options of ``stylecli mix`` and what they come to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import Source, Truncation
from stylecli.cli.walk_options import load_styles
from stylecli.errors import UsageError
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds
from stylecli.styles import band_rows, style_bands, style_layers

if TYPE_CHECKING:
    from stylecli.sheets.mixing import Sources

USUAL = 5  # rows, and columns
FACES, STYLES, VIDEO = "Faces", "Styles", "Video"  # headings of the help

RowsOption = Annotated[
    str | None,
    typer.Option(
        "--rows", help="How many rows, or seeds where it has a comma or dash. Default 5.",
        rich_help_panel=FACES,
    ),
]  # fmt: skip
ColsOption = Annotated[
    str | None,
    typer.Option("--cols", help="The same for columns.", rich_help_panel=FACES),
]
RowSeedsOption = Annotated[
    str | None,
    typer.Option("--row-seeds", help="Seeds of the rows, such as 888.", rich_help_panel=FACES),
]
ColSeedsOption = Annotated[
    str | None,
    typer.Option("--col-seeds", help="Seeds of the columns.", rich_help_panel=FACES),
]
RowWsOption = Annotated[
    Path | None,
    typer.Option(
        "--row-ws", help="Rows from the styles of a .npz, .npy or .pt file.", rich_help_panel=FACES
    ),
]
ColWsOption = Annotated[
    Path | None,
    typer.Option("--col-ws", help="Columns from such a file.", rich_help_panel=FACES),
]
StylesOption = Annotated[
    str | None,
    typer.Option(
        "--styles",
        help="What comes from the columns: all (the default, a sheet each for coarse, middle, "
        "fine), one of these, or layers such as 0-3; a comma adds up.",
        rich_help_panel=STYLES,
    ),
]
BandsOption = Annotated[
    str | None,
    typer.Option(
        "--bands",
        help="One sheet whose rows copy different styles: coarse:3,middle:2,fine:1 is Figure 3; "
        "without numbers the rows are shared out.",
        metavar="STYLES:ROWS,...",
        rich_help_panel=STYLES,
    ),
]
EachOption = Annotated[
    bool, typer.Option("--each", help="Also a picture of every pair: ROW-COLUMN.png.")
]
LabelsOption = Annotated[
    bool, typer.Option("--labels/--no-labels", help="Write seeds and bands beside the pictures.")
]
MoverOption = Annotated[
    str | None,
    typer.Option(
        "--video",
        help="Also a video in which one side moves through its faces, in a loop: cols or rows.",
        metavar="SIDE",
        rich_help_panel=VIDEO,
    ),
]
KeySecondsOption = Annotated[
    float | None,
    typer.Option("--key-seconds", help="From face to face. Default 2.", rich_help_panel=VIDEO),
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
class Side:
    """The faces of the rows or of the columns, not mapped yet."""

    option: str  # "row" or "col"
    seeds: list[int]
    file: Path | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The option that names these faces."""
        if self.file is not None:
            return {f"{self.option}_ws": shown_path(self.file)}
        return {f"{self.option}_seeds": format_seeds(self.seeds)}

    @property
    def inputs(self) -> dict[str, Path]:
        """The file among the options."""
        return {} if self.file is None else {f"{self.option}_ws": self.file}

    def sources(self, source: Source, truncation: Truncation, label: int | None) -> "Sources":
        """Return styles and names; saved styles stay as they are, seeds are truncated."""
        from stylecli.sampling import map_seeds
        from stylecli.sheets.mixing import Sources, check_styles

        check_styles(source.config)
        if self.file is not None:
            ws = load_styles(source, self.file)
            return Sources(ws, tuple(f"w{row}" for row in range(len(ws))))
        G = source.bundle.generator
        ws = map_seeds(G, self.seeds, label=label, **truncation.options)
        return Sources(ws, tuple(str(seed) for seed in self.seeds))


def choose_sides(
    rows: str | None, cols: str | None, row_seeds: str | None, col_seeds: str | None,
    row_ws: Path | None, col_ws: Path | None, usual_rows: int,
) -> tuple[Side, Side]:  # fmt: skip
    """Return rows and columns; counts are filled with seeds 0, 1, 2, ... without repeats."""
    first = _side("row", "--rows", rows, row_seeds, row_ws, usual_rows, 0)
    counted = (
        first.file is None and row_seeds is None and (rows is None or rows.strip().isdecimal())
    )
    after = len(first.seeds) if counted else 0
    return first, _side("col", "--cols", cols, col_seeds, col_ws, USUAL, after)


def choose_sheets(
    styles: str | None, bands: str | None, rows: int, resolution: int, tell: Callable[[str], None]
) -> dict[str, tuple[dict[str, str], list[list[int]]]]:
    """Return, by the name of its file, each sheet's option and the layers of every row."""
    if bands is not None:
        if styles is not None:
            raise UsageError(f"--styles {styles} and --bands {bands} both choose: give one of them")
        return {"bands": ({"bands": bands}, band_rows(bands, resolution, rows, clamp=tell))}
    wanted = "all" if styles is None else styles
    names = list(style_bands(resolution)) if wanted == "all" else [wanted]
    return {
        name.replace(",", "+").replace(" ", ""): (
            {"styles": name},
            [style_layers(name, resolution, clamp=tell)] * rows,
        )
        for name in names
    }


def banded_rows(bands: str | None, resolution: int) -> int:
    """Return how many rows ``bands`` asks for by its numbers, the usual ones where it has none."""
    if bands is None or ":" not in bands:
        return USUAL
    return len(band_rows(bands, resolution, clamp=lambda _: None))


def _side(
    option: str, count_option: str, count: str | None, seeds: str | None, file: Path | None,
    usual: int, first: int,
) -> Side:  # fmt: skip
    given = [value for value in (count, seeds, file) if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"{count_option}, --{option}-seeds and --{option}-ws all choose: give one of them"
        )
    if file is not None:
        return Side(option, [], file)
    if seeds is not None:
        return Side(option, parse_seeds(seeds))
    text = (count or str(usual)).strip()
    if not text.isdecimal():
        return Side(option, parse_seeds(text))
    if not 1 <= int(text) <= 100:
        raise UsageError(
            f"{count_option} {text} is a count from 1 to 100: for one seed give "
            f"--{option}-seeds {text}"
        )
    return Side(option, list(range(first, first + int(text))))
