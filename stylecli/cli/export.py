"""``stylecli export``: a network as the state dict of another program, back out of here."""

from pathlib import Path
from typing import Annotated

import typer

from stylecli.cli.options import ForceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, PlainGroup
from stylecli.errors import UsageError, unknown_name

_LAYOUTS = ("nvidia", "rosinality")
_NETWORKS = ("G_ema", "G", "D")

app = typer.Typer(
    cls=PlainGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Write a network for another program.

    Example: stylecli export state-dict cats.pkl
    """,
)


@app.callback()
def _root() -> None:
    """Keep ``state-dict`` a sub-command while there is no other."""


@app.command("state-dict", cls=PlainCommand)
def export_state_dict(
    network: Annotated[
        Path,
        typer.Argument(help="A StyleGAN2 or StyleGAN3 network: any file, or a run's folder."),
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Whose names and shapes: nvidia (stylegan3, stylegan2-ada-pytorch), or rosinality "
            "(StyleGAN2 alone).",
        ),
    ] = "nvidia",
    which: Annotated[
        str, typer.Option("--which", help="The network to write: G_ema, G or D.")
    ] = "G_ema",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write. Default: NETWORK-WHICH-LAYOUT.safetensors beside it.",
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write one network's tensors under the names of NVIDIA's or rosinality's program.

    Example: stylecli export state-dict cats.safetensors --layout rosinality

    The file is safetensors, never a pickle; its header holds the class and the arguments that build
    the module there. The page of this command gives the three lines that load it.
    """
    for given, known, what in ((layout, _LAYOUTS, "layout"), (which, _NETWORKS, "network")):
        if given not in known:
            raise UsageError(unknown_name(what, given, known))
    from stylecli.workspace import find_network

    source = find_network(network).path
    target = out or source.with_name(f"{source.stem}-{which}-{layout}.safetensors")
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"--out {target} does not end in .safetensors, the only format written")
    if target.exists() and target.samefile(source):
        raise UsageError(f"--out {target} is the network itself: give another name")
    if target.exists() and not force:
        raise UsageError(f"{target} exists: give another --out, or --force")
    from stylecli.checkpoint import write_state_dict_file

    facts = write_state_dict_file(source, target, which=which, layout=layout)
    output = Output(json=json, quiet=quiet)
    if facts["note"]:
        output.warn(facts["note"])
    shown = {"network": f"{which} of {source}", "layout": layout, "tensors": facts["tensors"],
             "class": facts["class_name"], "licence": facts["source_licence"]}  # fmt: skip
    lines = [f"{name.ljust(8)} {value}" for name, value in shown.items() if value is not None]
    output.result({"file": str(target), **facts}, [*lines, str(target)])
