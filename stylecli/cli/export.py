"""``stylecli export``: a network as a file that other programs take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli.cli.options import ForceOption, JsonOption, PsiCutoffOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.parameters import PlainCommand, holds_commands
from stylecli.cli.refusals import find_shown
from stylecli.errors import UsageError, unknown_name
from stylecli.networks.config import NETWORK_NAMES

app = holds_commands(
    """Write a network for another program.

    Example: stylecli export state-dict cats.pkl
    """
)


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
    from stylecli.interop.families import LAYOUTS

    for given, known, what in ((layout, LAYOUTS, "layout"), (which, NETWORK_NAMES, "network")):
        if given not in known:
            raise UsageError(unknown_name(what, given, known))
    output = Output(json=json, quiet=quiet)
    source, target = _paths(network, out, f"{which}-{layout}", ".safetensors", force, output)
    from stylecli.checkpoint import write_state_dict_file

    facts = write_state_dict_file(source, target, which=which, layout=layout)
    if facts["note"]:
        output.warn(facts["note"])
    shown = {"network": f"{which} of {source}", "layout": layout, "tensors": facts["tensors"],
             "class": facts["class_name"], "licence": facts["source_licence"]}  # fmt: skip
    _show(output, target, facts, shown)


def _paths(
    network: Path, out: Path | None, what: str, suffix: str, force: bool, output: Output
) -> tuple[Path, Path]:
    """Return the network's file and the one to write; raise UsageError where that cannot be."""
    from stylecli import hub, shipped

    source = find_shown(network, output).path
    # What the cache or the package has is exported into the working folder.
    is_kept = hub.is_address(network) or source == shipped.shipped_network()
    beside = Path(source.name) if is_kept else source
    target = out or beside.with_name(f"{source.stem}-{what}{suffix}")
    if target.exists() and target.samefile(source):
        raise UsageError(f"--out {target} is the network itself: give another name")
    return source, _free_target(target, suffix, force)


def _free_target(target: Path, suffix: str, force: bool) -> Path:
    """Return the file to write; raise UsageError where that cannot be."""
    if target.suffix.lower() != suffix:
        raise UsageError(f"--out {target} does not end in {suffix}, the only format written")
    if target.is_dir():
        raise UsageError(f"--out {target} is a folder: give the name of a file")
    if target.exists() and not force:
        raise UsageError(f"{target} exists: give another --out, or --force")
    return target


def _show(output: Output, target: Path, facts: dict[str, Any], shown: dict[str, Any]) -> None:
    lines = [f"{name.ljust(8)} {value}" for name, value in shown.items() if value is not None]
    output.result({"file": str(target), **facts}, [*lines, str(target)])


# ---- graphs: ONNX, TorchScript, torch.export

NetworkArgument = Annotated[
    Path,
    typer.Argument(
        help="A network of any family: any file, or a run's folder. Or a feature network by its "
        "name in stylecli weights, such as efficientnet-lite0."
    ),
]
WhichOption = Annotated[
    str,
    typer.Option("--which", help="The network to write: G_ema, G, or D, which scores pictures."),
]
LatentsOption = Annotated[
    str,
    typer.Option(
        "--latents", help="What the file takes: z, with labels and psi, or ws, one per layer."
    ),
]
GraphNoiseOption = Annotated[
    str,
    typer.Option(
        "--noise-mode",
        help="const: the stored maps; given: one more input for every layer; none.",
    ),
]
GraphOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", help="File to write. Default: NETWORK-WHICH.SUFFIX beside it.", show_default=False
    ),
]


@app.command("onnx", cls=PlainCommand)
def export_onnx(
    network: NetworkArgument,
    which: WhichOption = "G_ema",
    latents: LatentsOption = "z",
    noise_mode: GraphNoiseOption = "const",
    psi_cutoff: PsiCutoffOption = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="float32, or fp16: weights in half the bytes, computed in float32."
        ),
    ] = "float32",
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operators, 18-23.")] = 18,
    out: GraphOutOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Write a network as ONNX, for onnxruntime, browsers and phones.

    Example: stylecli export onnx cats.safetensors

    Any number of pictures may be asked for at a time. The file holds its weights and says what it
    takes; it is run with onnxruntime and compared with the network before it gets its name.
    """
    _write_graph(
        network, "onnx", which, (latents, noise_mode, psi_cutoff), out, force,
        Output(json=json, quiet=quiet), precision=precision, opset=opset,
    )  # fmt: skip


def _program_command(format: str) -> Callable[..., None]:
    """Return the command that writes one of PyTorch's own formats, which differ in name alone."""

    def export(
        network: NetworkArgument,
        which: WhichOption = "G_ema",
        latents: LatentsOption = "z",
        noise_mode: GraphNoiseOption = "const",
        psi_cutoff: PsiCutoffOption = None,
        out: GraphOutOption = None,
        force: ForceOption = False,
        quiet: QuietOption = False,
        json: JsonOption = False,
    ) -> None:
        _write_graph(
            network, format, which, (latents, noise_mode, psi_cutoff), out, force,
            Output(json=json, quiet=quiet),
        )  # fmt: skip

    return export


_PROGRAMS = {
    "torchscript": """Write a network as TorchScript, for C++ and older PyTorch.

    Example: stylecli export torchscript cats.safetensors

    torch.jit.load reads it without stylecli. Any number of pictures may be asked for at a time.
    """,
    "torch-export": """Write a network as a program of torch.export, for PyTorch's compilers.

    Example: stylecli export torch-export cats.safetensors

    torch.export.load reads it without stylecli. Any number of pictures may be asked for at a time.
    """,
}
for _format, _help in _PROGRAMS.items():
    app.command(_format, cls=PlainCommand, help=_help)(_program_command(_format))


def _write_graph(
    network: Path,
    format: str,
    which: str,
    interface: tuple[str, str, int | None],
    out: Path | None,
    force: bool,
    output: Output,
    **more: Any,
) -> None:
    if which not in NETWORK_NAMES:
        raise UsageError(unknown_name("network", which, NETWORK_NAMES))
    from stylecli.interop.graph_files import FORMATS
    from stylecli.weights import NETWORKS

    looks = str(network) in NETWORKS and not network.exists()
    if looks and (which, *interface) != ("G_ema", "z", "const", None):
        raise UsageError(
            f"{network} takes pictures: leave out --which, --latents, --noise-mode, --psi-cutoff"
        )
    if looks:
        target = _free_target(out or Path(f"{network}{FORMATS[format]}"), FORMATS[format], force)
    else:
        source, target = _paths(network, out, which, FORMATS[format], force, output)
    from stylecli.export import Interface, export_features, export_network

    if looks:
        facts = export_features(str(network), target, format=format, **more)
        shown, name = "largest", str(network)
    else:
        how = Interface(*interface)
        facts = export_network(source, target, format=format, which=which, interface=how, **more)
        shown, name = "range", f"{which} of {source}"
    inputs = ", ".join(
        f"{each} [{', '.join(map(str, shape))}]" for each, shape in facts["inputs"].items()
    )
    checked = " and ".join(map(str, facts["checked"]))
    lines = {"network": name, "inputs": inputs, "opset": facts.get("opset"),
             "apart": f"{facts['apart']:.1e} of the {shown} (at a time: {checked})",
             "licence": facts.get("licence")}  # fmt: skip
    _show(output, target, facts, lines)
