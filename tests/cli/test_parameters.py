"""Words are read as typer reads them, without what it needs for that; the rest is left to typer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from stylecli.cli import parameters
from stylecli.cli.app import app

WORDS = [
    "", "a", "~", "-", "0", "1", "-1", "+3", "007", "1_000", " 5 ", "4.0", "0.5", "-0.7", "1e3",
    "1e999", "nan", "inf", "0x10", "٣", "true", "1,2", "100000000000000000000000",
]  # fmt: skip


def every_parameter() -> Iterator[tuple[Any, Any]]:
    """Yield every command with each of its parameters."""
    group: Any = get_command(app)
    todo = [group]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        # -h too: commands remember the option for help that they were first asked for
        context = typer.Context(command, help_option_names=["-h", "--help"])
        yield from ((context, parameter) for parameter in command.get_params(context))


def outcome(read: Any, context: Any, words: Any) -> Any:
    """Return the value that a reading comes to, or that it is refused."""
    try:
        value = read(context, words)
    except typer.BadParameter:
        return "refused"
    return repr(value)  # nan is not nan


def kinds_of_parameters() -> dict[Any, tuple[Any, Any]]:
    """Return one parameter of every kind that there is, with the context of its command."""
    return {
        (str(kind), getattr(info, "min", None), getattr(info, "max", None)): (context, parameter)
        for context, parameter in every_parameter()
        if parameter.callback is None
        for kind, info in [parameters._kind_of(parameter.process_value.args[1])]
    }


def test_every_word_is_read_as_typer_reads_it() -> None:
    kinds = kinds_of_parameters()
    compared = 0
    for context, parameter in kinds.values():
        theirs = parameter.process_value.args[2]
        several = parameters._takes_several(parameter)
        for word in WORDS:
            words = (word, "x") if several else word
            ours = outcome(parameter.process_value, context, words)
            assert ours == outcome(theirs, context, words), (parameter.name, word)
            compared += 1
        ours = outcome(parameter.process_value, context, None)
        assert ours == outcome(theirs, context, None) or parameter.required

    assert len(kinds) >= 12 and compared >= 250


def test_no_parameter_of_a_command_needs_typer_to_read_it() -> None:
    """Plain words and defaults: a new kind of option would slow down every use of its command."""
    plain = {int: "16", float: "2.5", str: "a", Path: "a"}
    for context, parameter in every_parameter():
        process = parameter.process_value
        _, annotation, _ = process.args
        if parameter.callback or (parameter.required and parameter.default is None):
            continue
        kind, _ = parameters._kind_of(annotation)
        word = plain.get(kind) or (("a", "b") if parameters._takes_several(parameter) else True)
        for words in (parameter.default, word):
            read = parameters._read(parameter, annotation, words)
            assert read is not parameters._LEFT, (context.command.callback, parameter.name)


def command_of(function: Any) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(cls=parameters.PlainCommand)(function)
    return alone


@pytest.mark.parametrize(
    "option",
    [
        typer.Option(exists=True),
        typer.Option(file_okay=False),
        typer.Option(resolve_path=True),
        typer.Option(parser=lambda text: Path(text * 2)),
    ],
    ids=["exists", "folder", "resolved", "parser"],
)
def test_what_typer_alone_can_check_is_left_to_it(option: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = [str(tmp_path / "file"), str(tmp_path / "nope"), "nope"]

    def run(path: Annotated[Path, option]) -> None:
        print(path)

    theirs = typer.Typer(add_completion=False, rich_markup_mode=None)
    theirs.command()(run)
    for word in words:
        ours = CliRunner().invoke(command_of(run), ["--path", word])
        done = CliRunner().invoke(theirs, ["--path", word])
        assert (ours.exit_code, ours.stdout) == (done.exit_code, done.stdout)


def run_everything(
    paths: Annotated[list[Path] | None, typer.Argument()] = None,
    size: Annotated[int | None, typer.Option(min=1)] = None,
    share: Annotated[float, typer.Option(max=1.0)] = 0.5,
    name: str = "a",
    quiet: Annotated[bool, typer.Option("--quiet")] = False,
) -> None:
    print(paths, size, share, name, quiet)


LINES = [
    [],
    ["a", "b", "--size", "7", "--share", "-2", "--name", "x", "--quiet"],
    ["--size", "4.0"],
    ["--size", "0"],
    ["--share", "2"],
    ["--size", "x"],
]


def home_of(method: str) -> Any:
    """Return the class that defines a method of all parameters."""
    return next(kind for kind in TyperOption.__mro__ if method in vars(kind))


def all_outcomes() -> list[tuple[int, str]]:
    done = [CliRunner().invoke(command_of(run_everything), words) for words in LINES]
    return [(one.exit_code, one.stdout) for one in done]


def test_a_typer_that_never_asks_for_our_reading_reads_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = all_outcomes()

    def handle(self: Any, ctx: Any, opts: Any, args: Any) -> Any:
        value, _ = self.consume_value(ctx, opts)
        ctx.params[self.name] = value = type(self).process_value(self, ctx, value)
        if not self.expose_value:
            del ctx.params[self.name]
        return value, args

    monkeypatch.setattr(home_of("handle_parse_result"), "handle_parse_result", handle)
    monkeypatch.setattr(parameters, "process", lambda *_: pytest.fail("ours was asked"))

    assert all_outcomes() == before
    assert [code for code, _ in before] == [0, 0, 0, 2, 2, 2]


def test_a_typer_that_gives_its_readers_more_reads_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = all_outcomes()
    asked = []
    theirs = home_of("process_value").process_value

    def process_value(self: Any, ctx: Any, value: Any, more: str) -> Any:
        asked.append(more)
        return theirs(self, ctx, value)

    def handle(self: Any, ctx: Any, opts: Any, args: Any) -> Any:
        value = self.process_value(ctx, self.consume_value(ctx, opts)[0], more="more")
        if self.expose_value:
            ctx.params[self.name] = value
        return value, args

    monkeypatch.setattr(home_of("process_value"), "process_value", process_value)
    monkeypatch.setattr(home_of("handle_parse_result"), "handle_parse_result", handle)

    assert all_outcomes() == before
    assert asked
