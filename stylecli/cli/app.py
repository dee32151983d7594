"""The ``stylecli`` command: one sub-command per file, our errors turned into one sentence each."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stylecli import __version__
from stylecli.cli import (
    check_data,
    convert_network,
    draw_figures,
    generate_images,
    interpolate_video,
    measure,
    mix_styles,
    pack_pictures,
    plan_run,
    prepare_ffhq,
    run_bench,
    run_demo,
    show_health,
    show_info,
    train_network,
    weights_cache,
    write_report,
)
from stylecli.cli.grouped_help import GroupedCommand
from stylecli.errors import ExitCode, StyleCLIError


class _Group(TyperGroup):
    """Ends with the error's exit code and one line on stderr instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except StyleCLIError as error:
            if os.environ.get("STYLECLI_DEBUG") == "1":
                raise
            print(f"stylecli: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:  # the reader of a pipe has left: nothing more to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.FAILED) from None
        except OSError as error:  # a full disk, a folder that cannot be written, ...
            if os.environ.get("STYLECLI_DEBUG") == "1":
                raise
            print(f"stylecli: {error}", file=sys.stderr)
            raise typer.Exit(ExitCode.FAILED) from None
        except KeyboardInterrupt:
            print("stylecli: interrupted: the same command goes on", file=sys.stderr)
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
    help="""Train, run and measure StyleGAN (Karras, Laine, Aila 2018).

    Example: stylecli demo
    """,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stylecli {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None: ...


app.command("demo")(run_demo.command)
app.command("prepare-ffhq")(prepare_ffhq.command)
app.command("pack")(pack_pictures.command)
app.command("check")(check_data.command)
app.command("train", cls=GroupedCommand)(train_network.command)
app.command("report")(write_report.command)
app.command("plan", cls=GroupedCommand)(plan_run.command)
app.command("generate")(generate_images.command)
app.command("mix", cls=GroupedCommand)(mix_styles.command)
app.command("interpolate", cls=GroupedCommand)(interpolate_video.command)
app.command("figures")(draw_figures.command)
app.command("metrics")(measure.command)
app.add_typer(weights_cache.app, name="weights")
app.command("convert")(convert_network.command)
app.command("info")(show_info.command)
app.command("bench")(run_bench.command)
app.command("doctor")(show_health.command)


def main() -> None:
    """Run the command line."""
    # Idle threads of torch's pool spin by default, which on busy or few cores starves the others:
    # drawing 64 pictures beside a training run was five times slower. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
