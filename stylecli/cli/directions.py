"""``stylecli directions``: find directions of a network, list them, show them, apply them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli import shipped
from stylecli.cli.options import JsonOption, NetworkOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, PlainGroup
from stylecli.cli.refusals import check_files, find_and_check
from stylecli.provenance import shown_path

if TYPE_CHECKING:
    from stylecli.latents.directions import Directions

app = typer.Typer(
    cls=PlainGroup,
    add_completion=False,
    rich_markup_mode=None,
    help="""Directions of a network: along one of them, one thing in every face changes.

    Example: stylecli directions list

    They have names, which --edit of generate, mix and interpolate takes: --edit smile:+2.
    """,
)

DirectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--directions", help="Their file. Default: out/NETWORK/directions.safetensors, or shipped."
    ),
]


@app.callback()
def _group() -> None:
    pass


@app.command("list", cls=PlainCommand)
def list_directions(
    network: NetworkOption = None,
    directions: DirectionsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the directions of a network.

    Example: stylecli directions list

    Layers are those that an edit moves, unless it names others (smile@4-7:+2). "1 is" says how far
    strength 1 goes: one standard deviation of the network's faces, in w or in a style.
    """
    output = Output(json=json, quiet=quiet)
    found = _find(network, directions, output)
    rows = found.describe()
    document = {
        "file": str(found.path), "network": found.space.network, "sha256": found.space.sha256,
        "directions": rows,
    }  # fmt: skip
    output.result(document, _table(rows, output))


def _find(network: Path | None, directions: Path | None, output: Output) -> "Directions":
    """Return the directions of a network that is not loaded: its header and hash are enough."""
    if directions != Path(shipped.NAME):
        check_files(directions=directions)
    from stylecli.latents.directions import find_directions
    from stylecli.networks.headers import check_header
    from stylecli.weights import remember_digest
    from stylecli.workspace import folder_of

    path = find_and_check(network, output).path
    config = check_header(path)
    if config is None:  # another program's: its sizes are known once it is read
        from stylecli.checkpoint import load_network

        config = load_network(path, drawing=True).config
    found = find_directions(folder_of(path), remember_digest(path), config, directions)
    assert found.path is not None
    output.note(f"directions: {shown_path(found.path)}")
    return found


def _table(rows: Sequence[Mapping[str, Any]], output: Output) -> list[str]:
    header = ["name", "method", "layers", "1 is", "accuracy"]
    lines = []
    for row in rows:
        accuracy = row.get("accuracy")
        shown = f"{100 * accuracy:.1f} %" if isinstance(accuracy, int | float) else "-"
        lines.append([row["name"], row["method"], row["band"], f"{row['scale']:.3g}", shown])
    return output.table(header, lines)
