"""`stylecli convert`: another program's network file becomes one safetensors file of ours."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli.cli.options import ForceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.errors import NetworkError, UsageError
from stylecli.workspace import missing


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="An official pickle (.pkl) or a torch checkpoint (.model, .pth, .pt).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write. Default: SOURCE.safetensors beside it."),
    ] = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Convert another program's network to one safetensors file.

    Example: stylecli convert karras2019stylegan-ffhq-1024x1024.pkl

    Reads NVIDIA's StyleGAN, StyleGAN2, StyleGAN3 and Progressive GAN pickles, R3GAN's snapshots,
    rosinality's checkpoints (StyleGAN, StyleGAN2), lucidrains' (StyleGAN2) and huangzh13's state
    dicts. Runs no code in them. Prints the licence of the weights and keeps it in the file.
    Converting is optional: every command reads these files directly.
    """
    output = Output(json=json, quiet=quiet)
    target = out if out is not None else source.with_suffix(".safetensors")
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"--out {target} does not end in .safetensors, the only format written")
    from stylecli.networks.headers import is_foreign

    if not source.is_file():
        raise NetworkError(missing(source, "give a network file"))
    is_foreign(source)  # raises for what a download leaves in a file's place
    done = _is_done(source, target)
    if done:
        output.note(f"{source} is already converted to {target}")
    else:
        if target.exists() and not force:
            raise UsageError(f"{target} exists: give another --out, or --force")
        from stylecli.checkpoint import convert_network

        convert_network(source, target)
        output.note("written, read back and found equal")
    from stylecli.checkpoint import describe_network

    facts = {"converted": not done, **describe_network(target)}
    shown = ("source_family", "configuration", "resolution", "size", "classes", "G_ema parameters",
             "G parameters", "D parameters", "left_out", "w_avg", "source_licence")  # fmt: skip
    rows = {name.replace("source_", ""): facts[name] for name in shown if name in facts}
    width = max(map(len, rows))
    lines = [f"{name.ljust(width)}  {_text(value)}" for name, value in rows.items()]
    output.result(facts, [*lines, str(target)])


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _is_done(source: Path, target: Path) -> bool:
    """Tell whether the target is this source's conversion by this version."""
    if not source.is_file() or not target.is_file():
        return False
    from stylecli import __version__
    from stylecli.networks.headers import network_digest, read_header

    try:
        info = read_header(target).get("info")
    except NetworkError:
        return False
    if not isinstance(info, dict) or info.get("stylecli") != __version__:
        return False
    return bool(info.get("source_sha256") == network_digest(source))
