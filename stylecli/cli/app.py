"""The ``stylecli`` command: one sub-command per file, our errors turned into one sentence each."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stylecli import __version__
from stylecli.cli import (
    bench,
    check,
    convert,
    demo,
    doctor,
    export,
    figures,
    generate,
    info,
    interpolate,
    metrics,
    mix,
    pack,
    plan,
    prepare_ffhq,
    report,
    train,
    weights,
)
from stylecli.cli.output import print_error
from stylecli.errors import ExitCode, explain, printable
from stylecli.workspace import sweep_leftovers

# What typer raises for a wrong command line, of whichever click it carries.
_WrongWords: type[Any] = typer.BadParameter.__bases__[0]


class _Group(TyperGroup):
    """Ends with the error's exit code and one line on stderr instead of a traceback."""

    _words: tuple[str, ...] = ()  # of the command line

    def make_context(self, info_name: Any, args: list[str], *more: Any, **kwargs: Any) -> Any:
        self._words = tuple(args)
        with self._explained():
            return super().make_context(info_name, args, *more, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [_expand_home(text) for text in args]
        if words[:1] == ["help"]:  # as git and others have it
            words = [*words[1:], "--help"]
        elif words == ["version"]:
            words = ["--version"]
        return super().parse_args(ctx, words)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """End with one sentence for a wrong command line, as for every other error."""
        try:
            yield
        except _WrongWords as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            from stylecli.cli.refusals import explain_usage

            print_error(printable(explain_usage(error, self._words)))
            raise typer.Exit(ExitCode.USAGE) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            with self._explained():
                returned = super().invoke(ctx)
                sys.stdout.flush()  # a full disk behind it is found out here
                return returned
        except (_WrongWords, typer.Exit, typer.Abort, SystemExit):
            raise
        except BrokenPipeError:  # the reader of a pipe has left: nothing more to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.FAILED) from None
        except BaseException as error:  # libraries in Rust panic beside Exception
            if os.environ.get("STYLECLI_DEBUG") == "1" and not isinstance(error, KeyboardInterrupt):
                raise
            text, code = explain(error)
            print_error(text)
            raise typer.Exit(code) from None


class GroupedCommand(TyperCommand):
    """A command that lists its options under the ``rich_help_panel`` each of them names.

    Headings come in the order of the parameters; options that name none come last. Typer itself
    draws panels only with rich's boxes, which no log and no documentation page can hold.
    """

    most_used: tuple[str, ...] = ()  # options that come first, under a heading of their own

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options that are used most, then one section per heading."""
        arguments, sections, rest = [], {}, []  # type: ignore[var-annotated]
        often: dict[str, Any] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            record = (re.sub(r" <list\[\w+\]>", " ...", record[0]), record[1])
            heading = getattr(parameter, "rich_help_panel", None)
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif parameter.opts[0] in self.most_used:
                often[parameter.opts[0]] = record
            elif heading:
                sections.setdefault(heading, []).append(record)
            else:
                rest.append(record)
        first = [often[name] for name in self.most_used if name in often]
        shown = {"Arguments": arguments, "Used most": first, **sections, "Options": rest}
        for heading, records in shown.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class _TrainCommand(GroupedCommand):
    """``train``, whose ten options that people use come before its seventy."""

    most_used = (
        "--resolution", "--kimg", "--mirror", "--config", "--preset", "--resume", "--metrics",
        "--gpus", "--out", "--dry-run",
    )  # fmt: skip


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    help="""Train, run and measure StyleGAN (Karras, Laine, Aila 2018).

    Example: stylecli demo

    stylecli help COMMAND explains a command.
    """,
)


def _expand_home(text: str) -> str:
    """Expand the tilde of ``--out=~/x``, which shells leave alone."""
    name, equals, value = text.partition("=")
    if not (name.startswith("--") and equals and value.startswith("~")):
        return text
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise typer.BadParameter(f"{name} {value}: no such home folder; give the full path")
    return f"{name}={expanded}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stylecli {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    sweep_leftovers()


app.command("demo")(demo.command)
app.command("prepare-ffhq")(prepare_ffhq.command)
app.command("pack")(pack.command)
app.command("check")(check.command)
app.command("train", cls=_TrainCommand)(train.command)
app.command("report", cls=GroupedCommand)(report.command)
app.command("plan", cls=GroupedCommand)(plan.command)
app.command("generate")(generate.command)
app.command("mix", cls=GroupedCommand)(mix.command)
app.command("interpolate", cls=GroupedCommand)(interpolate.command)
app.command("figures", cls=GroupedCommand)(figures.command)
app.command("metrics", cls=GroupedCommand)(metrics.command)
app.add_typer(weights.app, name="weights")
app.command("convert")(convert.command)
app.add_typer(export.app, name="export")
app.command("info")(info.command)
app.command("bench")(bench.command)
app.command("doctor")(doctor.command)


def main() -> None:
    """Run the command line."""
    # Idle threads of torch's pool spin by default, which on busy or few cores starves the others:
    # drawing 64 pictures beside a training run was five times slower. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Typer reads options by pydantic, which else looks through all installed packages for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Or torch's C++ tells of a lost rank in pages of stack frames. What it is we say ourselves.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    app()
