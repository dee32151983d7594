"""`stylecli generate`: pictures of seeds or saved styles, one file each or one sheet."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import USUAL_DRAWING, DrawingOptions, OpenedNetwork, takes_drawing
from stylecli.cli.faces import check_faces, find_faces, shown_words
from stylecli.cli.options import OutOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_files
from stylecli.cli.targets import FormatOption, QualityOption, Target, is_done, resolve_target
from stylecli.errors import Interrupted, UsageError, plural
from stylecli.provenance import shown_path
from stylecli.seeds import format_seeds, parse_seeds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from stylecli.images import Pictures
    from stylecli.rendering import Drawing

DEFAULT_SEEDS = "0-15"


@dataclass(frozen=True)
class Order:
    """Everything that decides the pictures, resolved for one network."""

    source: OpenedNetwork
    option: str  # what names a picture: "seeds", or "ws_rows" of a file
    numbers: list[int]
    drawing: "Drawing"
    settings: dict[str, Any]  # the options that give exactly these pictures
    target: Target
    sheet: dict[str, Any]  # the options of one sheet of all; none: a file each
    inputs: dict[str, Path] = field(default_factory=dict)
    rows: "Tensor | None" = None  # styles of the file [N, num_ws, w_dim]
    near: dict[str, Any] = field(default_factory=dict)  # the seed that all are like, and how much
    noise: "list[Tensor] | None" = None  # the file's noise maps [N, 1, h, w], one for each layer
    mixed: "Sequence[tuple[list[int], Tensor]]" = ()  # layers whose styles are another face's

    def name(self, number: int) -> str:
        """Return the name of a picture's file, without its suffix."""
        if self.near:
            return f"{self._near_name}-{number:04d}"
        return f"{'seed' if self.rows is None else 'row'}{number:04d}"

    @property
    def path_of_sheet(self) -> Path:
        """Where the sheet goes."""
        return self.target.path(f"{self._near_name}-grid" if self.near else "grid")

    @property
    def _near_name(self) -> str:
        return f"like{self.near['like']:04d}"

    def ws(self, numbers: "Sequence[int]") -> "Iterator[Tensor]":
        """Yield the styles [num_ws, w_dim] of pictures."""
        from stylecli.sampling import mix_ws, seed_ws, truncate_ws

        G, how = self.source.bundle.generator, self.drawing
        if self.rows is None:
            rows = seed_ws(G, numbers, how.label, **how.truncation, **self.near)
        else:
            rows = iter(truncate_ws(G, self.rows[list(numbers)], **how.truncation))
        for ws in rows:
            for layers, other in self.mixed:
                ws = mix_ws(ws[None], other, layers)[0]
            yield ws

    def pictures(self, numbers: "Sequence[int]") -> "Iterator[Pictures]":
        """Yield the pictures [H, W, C]; random noise is each one's own unless a seed was given."""
        from stylecli.rendering import render

        G = self.source.bundle.generator
        maps = None
        if self.noise is not None:
            own = self.noise
            maps = ([layer[number : number + 1] for layer in own] for number in numbers)
        return render(G, self.ws(numbers), self.drawing, noise_seeds=numbers, noise=maps)

    def sized(self, picture: "Pictures") -> "Pictures":
        """Return a picture [H, W, C] at the size that was asked for."""
        from stylecli.images import enlarge

        canvas = self.drawing.canvas
        if canvas is None:
            return enlarge(picture, self.drawing.scale or 1)
        return canvas.lay_out([picture])

    def provenance(self, numbers: "Sequence[int]", **more: Any) -> dict[str, Any]:
        """Return what a file of these pictures carries."""
        settings = {self.option: format_seeds(numbers), **self.settings, **more}
        return self.source.provenance("generate", settings, inputs=self.inputs)


@takes_drawing()
def command(
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Such as 0-15 (the default) or 1,4-7.")
    ] = None,
    like: Annotated[
        int | None,
        typer.Option(
            "--like", min=0, help="Draw faces like this seed's; --seeds number the variations."
        ),
    ] = None,
    vary: Annotated[
        float | None,
        typer.Option("--vary", help="With --like: 0 = the same face, 1 = any face. Default 0.3."),
    ] = None,
    how: DrawingOptions = USUAL_DRAWING,
    ws: Annotated[
        Path | None,
        typer.Option("--ws", help="Draw the styles of a .npz, .npy or .pt file instead of seeds."),
    ] = None,
    ws_rows: Annotated[
        str | None, typer.Option("--ws-rows", help="Which of its faces, from 0. Default: all.")
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            "--mix",
            help="Take some styles from another face: coarse:7 those of seed 7. The face may be a "
            "file of styles or a photograph; may be repeated.",
            metavar="STYLES:FACE",
        ),
    ] = None,
    save_ws: Annotated[
        Path | None, typer.Option("--save-ws", help="Also write the pictures' styles to a .npz.")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Write one sheet instead of files.")] = False,
    columns: Annotated[
        int | None, typer.Option("--columns", min=1, help="Columns of the sheet.")
    ] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Write the seeds on the sheet. Default: yes.",
            show_default=False,
        ),
    ] = None,
    format: FormatOption = None,
    quality: QualityOption = None,
    out: OutOption = None,
) -> None:
    """Draw the pictures of seeds.

    Example: stylecli generate --seeds 0-31 --grid

    A seed gives the same face in every StyleGAN tool. Files are named seed0000.png; each records
    how it was made (stylecli info FILE). With --noise-mode random, a picture's seed chooses its
    noise.
    """
    output = how.output()
    order = resolve_order(
        how, output, seeds=seeds, ws=ws, ws_rows=ws_rows, like=like, vary=vary, mix=mix, grid=grid,
        columns=columns, labels=labels, format=format, quality=quality, out=out,
    )  # fmt: skip
    saved = [] if save_ws is None else [save_styles(order, save_ws, how.force, output)]
    if grid:
        paths = [_write_sheet(order, how.force, output)]
    else:
        paths = _write_files(order, how.force, output)
    made = [str(path) for path in [*paths, *saved]]
    document = {"network": str(order.source.path), order.option: order.numbers, **order.settings,
                **order.target.settings, "paths": made}  # fmt: skip
    output.result(document, made)


def resolve_order(
    how: DrawingOptions, output: Output, *, seeds: str | None = None, ws: Path | None = None,
    ws_rows: str | None = None, like: int | None = None, vary: float | None = None,
    mix: "Sequence[str] | None" = None, grid: bool = False, columns: int | None = None,
    labels: bool | None = None, format: str | None = None, quality: int | None = None,
    out: Path | None = None,
) -> Order:  # fmt: skip
    """Return everything that decides the pictures, with the network opened; the options' meaning.

    Raises UsageError for options that contradict each other, or that the network cannot follow.
    """
    sheet = _choose_sheet(grid, columns, labels, how.crop)
    wanted = _wanted(seeds, ws, ws_rows, how.label, like, vary)
    check_files(ws=ws)
    resolve_target(out, Path(), format, quality, grid, 1 if ws else len(wanted))
    others = [_split_mix(word) for word in mix or ()]
    how.check()
    opened = how.open(output, usual_psi=None if ws is None else 1.0)  # saved: as they were meant
    source = opened.source
    from stylecli.sampling import VARY, check_drawing, check_like

    rows, noise = None, None
    if ws is not None:
        from stylecli.sampling import load_styles
        from stylecli.saved_ws import load_noise

        rows = load_styles(source.bundle, ws, latents=True, tell=source.note)
        if how.noise_mode is None and how.noise_seed is None:
            noise = load_noise(ws, source.config.noise_shapes(), len(rows))
    settings = dict(opened.settings)
    if noise is not None:
        settings["noise_mode"] = None  # said, it would mean the network's noise
    near: dict[str, Any] = {}
    if like is not None:
        near = {"like": like, "vary": VARY if vary is None else vary}
        check_like(source.config, **near)
    check_drawing(source.config, opened.drawing)
    saved_in = {} if ws is None else {"ws": ws}
    mixed, words, mixed_in = _find_mixed(source, others, opened.drawing)
    numbers = _chosen(wanted, rows, ws_rows)
    return Order(
        source, "seeds" if ws is None else "ws_rows", numbers, opened.drawing,
        {**{name: shown_path(path) for name, path in saved_in.items()}, **settings, **near,
         "mix": words or None},
        resolve_target(out, source.folder, format, quality, grid, len(numbers)), sheet,
        opened.inputs | saved_in | mixed_in, rows, near, noise, mixed,
    )  # fmt: skip


def _split_mix(word: str) -> tuple[str, str]:
    """Return (styles, face) of ``coarse:7``; refuse, before torch loads, what is no such thing."""
    styles, colon, face = word.partition(":")
    if not colon or not styles or not face:
        raise UsageError(
            f"cannot read --mix {word}: expected styles and a face, such as coarse:7 or "
            "0-3:photo.npz"
        )
    check_faces("--mix", [face])
    return styles, face


def _find_mixed(
    source: OpenedNetwork, others: "Sequence[tuple[str, str]]", drawing: "Drawing"
) -> "tuple[list[tuple[list[int], Tensor]], list[str], dict[str, Path]]":
    """Return whose styles are taken in which layers, the words that say so again, and the files."""
    from stylecli.styles import style_layers

    mixed: list[tuple[list[int], Tensor]] = []
    words: list[str] = []
    files: dict[str, Path] = {}
    for number, (styles, face) in enumerate(others):
        found, named = find_faces(source, "mix", [face], drawing)
        if len(found) != 1:
            raise UsageError(
                f"--mix {styles}:{face} has {plural(len(found), 'face')}: give a file of one"
            )
        mixed.append((style_layers(styles, source.config.style_sides), found.ws))
        words.append(f"{styles}:{shown_words([face])[0]}")
        files |= {f"{name}_of_{number}": path for name, path in named.items()}
    return mixed, words, files


def _wanted(
    seeds: str | None, ws: Path | None, ws_rows: str | None, label: int | None,
    like: int | None, vary: float | None,
) -> list[int]:  # fmt: skip
    """Return the numbers of seeds, or of a file's rows, once each."""
    wanted = list(dict.fromkeys(parse_seeds(_names(seeds, ws, ws_rows, label, like))))
    if vary is not None and like is None:
        raise UsageError(f"--vary {vary:g} needs a face to vary: add one, such as --like 7")
    return wanted


def _choose_sheet(
    grid: bool, columns: int | None, labels: bool | None, crop: bool
) -> dict[str, Any]:
    """Return the options of a sheet, none where there is none; refuse what is for sheets only."""
    if not grid and columns is not None:
        raise UsageError(f"--columns {columns} is for a sheet: add --grid")
    if not grid and labels is not None:
        raise UsageError(f"--{'' if labels else 'no-'}labels is for a sheet: add --grid")
    if crop and labels:
        raise UsageError("--crop may cut off the seeds that --labels writes: leave out one of them")
    if not grid:
        return {}
    return {"grid": True, "columns": columns, "labels": not crop if labels is None else labels}


def _names(
    seeds: str | None, ws: Path | None, ws_rows: str | None, label: int | None, like: int | None
) -> str:
    """Return the list of seeds, or of a file's rows; refuse options that contradict each other."""
    if ws is None:
        if ws_rows is not None:
            raise UsageError(f"--ws-rows {ws_rows} names faces of a file: give --ws FILE too")
        return DEFAULT_SEEDS if seeds is None else seeds
    for option, value in (("--seeds", seeds), ("--class", label), ("--like", like)):
        if value is not None:
            raise UsageError(
                f"{option} {value} and --ws {ws} are two sources of faces: give one of them"
            )
    return ws_rows or "0"


def _chosen(wanted: list[int], rows: "Tensor | None", ws_rows: str | None) -> list[int]:
    """Return the numbers of the pictures; raise UsageError for rows that the file lacks."""
    if rows is None:
        return wanted
    if ws_rows is None:
        return list(range(len(rows)))
    if max(wanted) >= len(rows):
        raise UsageError(f"--ws-rows {ws_rows}: the file has faces 0 to {len(rows) - 1}")
    return wanted


def _write_files(order: Order, force: bool, output: Output) -> list[Path]:
    from stylecli.images import Beside, check_size

    canvas, target = order.drawing.canvas, order.target
    if canvas is not None:
        canvas.check(order.source.config.size)
        check_size(target.format, canvas.height, canvas.width)
    made = {
        number: (
            target.path(order.name(number)),
            order.provenance([number], **target.settings),
        )
        for number in order.numbers
    }
    missing = [number for number in order.numbers if not is_done(*made[number], force)]
    if len(missing) < len(made):
        output.note(f"already drawn: {len(made) - len(missing)} of {plural(len(made), 'picture')}")
    done = 0

    def save(number: int, picture: "Pictures") -> None:
        path, provenance = made[number]
        target.save(path, order.sized(picture), provenance)

    try:
        with output.progress("generate", "pictures") as progress:

            def saved() -> None:
                nonlocal done
                done += 1
                progress(done, len(missing))

            with Beside(saved) as beside:
                for number, picture in zip(missing, order.pictures(missing), strict=True):
                    beside(save, number, picture)
    except KeyboardInterrupt:
        there = len(made) - len(missing) + done
        raise Interrupted(
            f"interrupted: {there} of {plural(len(made), 'picture')} written; run the same "
            f"command to draw the rest"
        ) from None
    return [path for path, _ in made.values()]


def _write_sheet(order: Order, force: bool, output: Output) -> Path:
    from stylecli.images import check_size
    from stylecli.sheets.fakes import lay_out_fakes, sheet_size

    config, how, target, path = (
        order.source.config, order.drawing, order.target, order.path_of_sheet
    )  # fmt: skip
    columns, named = order.sheet["columns"], order.sheet["labels"]
    provenance = order.provenance(order.numbers, **order.sheet, **target.settings)
    count = len(order.numbers)
    check_size(target.format, *sheet_size(count, config.size, columns, how, named=named))
    if is_done(path, provenance, force):
        output.note(f"{path} already exists")
        return path
    pictures = []
    with output.progress("generate", "pictures") as progress:
        for picture in order.pictures(order.numbers):
            pictures.append(picture)
            progress(len(pictures), count)
    names = [str(number) for number in order.numbers] if named else []
    sheet = lay_out_fakes(pictures, columns, scale=how.scale, canvas=how.canvas, names=names)
    target.save(path, sheet, provenance)
    return path


def save_styles(order: Order, path: Path, force: bool, output: Output) -> Path:
    """Write the styles of all pictures to one file, as they are after truncation."""
    import torch

    from stylecli.saved_ws import read_ws_provenance, save_ws

    config = order.source.config
    if not config.has_w:
        raise UsageError(f"configuration {config.preset!r} has no styles: leave out --save-ws")
    provenance = order.provenance(order.numbers)
    if is_done(path, provenance, force, read_ws_provenance):
        output.note(f"{path} already exists")
        return path
    ws = torch.stack(list(order.ws(order.numbers)))
    if (edits := order.drawing.edits) is not None:
        if edits.shifts:
            raise UsageError(
                f"--edit {order.settings['edit']} moves single styles, which are not part of w: "
                f"leave out --save-ws"
            )
        ws = edits.move(ws)
    noise = () if order.noise is None else [maps[order.numbers] for maps in order.noise]
    save_ws(path, ws, noise=noise, provenance=provenance)  # a projected photograph's own
    return path
