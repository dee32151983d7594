"""The ``stylecli`` command: one sub-command per file, our errors turned into one sentence each."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from stylecli import __version__
from stylecli.cli.output import print_error
from stylecli.cli.parameters import PlainCommand, ReadsWords, TrainCommand
from stylecli.errors import ExitCode, UsageError, explain, printable
from stylecli.workspace import sweep_leftovers

# What typer raises for a wrong command line, of whichever click it carries.
_WrongWords: type[Any] = typer.BadParameter.__bases__[0]


# In the order of the help. Each is the file of its name.
COMMANDS = (
    "demo", "prepare-ffhq", "pack", "check", "train", "report", "plan", "explore", "generate",
    "mix", "interpolate", "project", "sharpen", "directions", "figures", "metrics", "weights",
    "convert", "export", "hub", "info", "bench", "doctor",
)  # fmt: skip


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for: a refusal needs one of them."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            if name not in COMMANDS:
                raise KeyError(name)
            home = importlib.import_module(f"stylecli.cli.{name.replace('-', '_')}")
            if (group := getattr(home, "app", None)) is None:
                group = typer.Typer(add_completion=False, rich_markup_mode=None)
                group.command(cls=TrainCommand if name == "train" else PlainCommand)(home.command)
            self._built[name] = get_command(group)
            self._built[name].name = name
        return self._built[name]


_COMMANDS = _Commands()


def read_words(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the values of a command's options, by parameter, without running the command.

    Raises UsageError, with the sentence that the command line would end with, for wrong words.
    """
    try:
        return dict(_COMMANDS[name].make_context(name, list(words)).params)
    except _WrongWords as error:
        from stylecli.cli.refusals import explain_usage

        raise UsageError(explain_usage(error, words)) from None


class _Group(ReadsWords, TyperGroup):
    """Ends with the error's exit code and one line on stderr instead of a traceback."""

    _words: tuple[str, ...] = ()  # of the command line

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _COMMANDS  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names without importing them."""
        return list(self.commands)

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
