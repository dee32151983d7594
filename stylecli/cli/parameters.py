"""How commands read their words, and list their options in the help.

Typer reads every parameter by pydantic, even one that was not given, and importing that costs
half of what ``stylecli --help`` does. So texts, paths and numbers are read here, to the same
values. Typer reads whatever else there is: odd spellings of a number, other types, and everything
once a release of typer asks its parameters in another way.
"""

import contextlib
import functools
import inspect
import os
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

_LEFT = object()  # to typer
_PATH_CHECKS = ("exists", "writable", "resolve_path", "allow_dash", "path_type")


class MissingWord(typer.BadParameter):
    """An argument or option that is required was not given."""


class ReadsWords:
    """A command or group that reads plain words itself; comes before typer's class."""

    callback: Any

    def get_params(self, ctx: Any) -> list[Any]:
        """Return typer's parameters; from now on each reads its plain words without pydantic."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            theirs = getattr(parameter, "process_value", None)
            if theirs is None or isinstance(theirs, functools.partial):
                continue
            annotation = self._annotations.get(parameter.name)
            with contextlib.suppress(AttributeError):  # where an object takes no attribute
                parameter.process_value = functools.partial(process, parameter, annotation, theirs)
        return parameters

    @functools.cached_property
    def _annotations(self) -> Mapping[str, Any]:
        if self.callback is None:
            return {}
        signature = inspect.signature(self.callback)
        return {name: item.annotation for name, item in signature.parameters.items()}


class PlainGroup(ReadsWords, TyperGroup):
    """A command that has sub-commands."""


def holds_commands(help: str, *, runs_alone: bool = False) -> typer.Typer:
    """Return the app of a command that has sub-commands; without one it shows its help.

    With ``runs_alone`` its callback does what it does without one.
    """
    return typer.Typer(
        cls=PlainGroup, add_completion=False, no_args_is_help=not runs_alone,
        invoke_without_command=runs_alone, rich_markup_mode=None, help=help,
    )  # fmt: skip


class PlainCommand(ReadsWords, TyperCommand):
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


class TrainCommand(PlainCommand):
    """``train``, whose ten options that people use come before its seventy."""

    most_used = (
        "--resolution", "--kimg", "--mirror", "--config", "--preset", "--resume", "--metrics",
        "--gpus", "--out", "--dry-run",
    )  # fmt: skip


def process(parameter: Any, annotation: Any, theirs: Any, *given: Any, **more: Any) -> Any:
    """Return the value of a parameter, as ``theirs`` does: typer's method of the same arguments.

    Raises typer.BadParameter for a number that is none or out of its range, MissingWord for a
    required word that was not given.
    """
    if len(given) != 2 or more:
        return theirs(*given, **more)
    ctx, words = given
    if parameter.required and (words is None or (_takes_several(parameter) and words == ())):
        raise MissingWord("is missing", ctx=ctx, param=parameter)
    try:
        value = _read(parameter, annotation, words)
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx=ctx, param=parameter) from None
    if value is _LEFT:
        return theirs(ctx, words)
    if parameter.callback is not None:
        value = parameter.callback(ctx, parameter, value)
    return value


def _takes_several(parameter: Any) -> bool:
    """Return whether an argument takes many words, or an option may be repeated."""
    return bool(parameter.multiple or parameter.nargs == -1)


def _read(parameter: Any, annotation: Any, words: Any) -> Any:
    """Return what words mean, or _LEFT. Raises ValueError for a number that is wrong."""
    several = _takes_several(parameter)
    if words is None:
        return () if several else None
    kind, info = _kind_of(annotation)
    if several:
        inner = get_args(kind)
        if get_origin(kind) is not list or not isinstance(words, list | tuple):
            return _LEFT
        read = [_read_one(inner[0], info, word) for word in words]
        return _LEFT if any(one is _LEFT for one in read) else read
    return _read_one(kind, info, words) if parameter.nargs == 1 else _LEFT


def _kind_of(annotation: Any) -> tuple[Any, Any]:
    """Return the type that an annotation names beside None, and what it says to typer."""
    info = None
    if get_origin(annotation) is Annotated:
        annotation, info, *_ = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        annotation = kinds[0] if len(kinds) == 1 else None
    return annotation, info


def _read_one(kind: Any, info: Any, word: Any) -> Any:
    """Return one value; a default has its type already."""
    if getattr(info, "parser", None) or getattr(info, "click_type", None):
        return _LEFT
    if kind is bool:
        return word if isinstance(word, bool) else _LEFT
    if kind is str:
        return word if isinstance(word, str) else _LEFT
    if kind is Path:
        return _path(info, word)
    if kind in (int, float):
        return _LEFT if getattr(info, "clamp", None) else _number(info, kind, word)
    return _LEFT


def _path(info: Any, word: Any) -> Any:
    if not isinstance(word, str | Path) or any(
        getattr(info, check, None) for check in _PATH_CHECKS
    ):
        return _LEFT
    if not (getattr(info, "file_okay", True) and getattr(info, "dir_okay", True)):
        return _LEFT
    unreadable = os.path.exists(word) and not os.access(word, os.R_OK)
    return _LEFT if unreadable else Path(word)


def _number(info: Any, kind: type[int] | type[float], word: Any) -> Any:
    if isinstance(word, str):
        number = _number_of(kind, word) if word.isascii() else _LEFT  # digits of all scripts
        if number is _LEFT:
            return _LEFT
    elif type(word) is kind:
        number = word
    else:
        return _LEFT
    least, most = getattr(info, "min", None), getattr(info, "max", None)
    if least is not None and not number >= least:
        raise ValueError(f"expected at least {least}")
    if most is not None and not number <= most:
        raise ValueError(f"expected at most {most}")
    return number


def _number_of(kind: type[int] | type[float], word: str) -> Any:
    """Return the number that a word is; _LEFT for one of the other kind, such as 4.0 for 4."""
    try:
        return kind(word)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        try:
            float(word)
        except ValueError:
            raise ValueError(f"expected {expected}") from None
        return _LEFT
