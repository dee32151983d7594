"""How to draw: one declaration, and every drawing command has the option and records it."""

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from stylecli import rendering
from stylecli.cli import drawing, figures, generate, interpolate, mix
from stylecli.cli.drawing import DrawingOptions, takes_drawing

# What a command does not have, and says so where it takes the others.
LEFT_OUT = {generate: set(), interpolate: set(), mix: {"size", "crop", "pixels"}}


@pytest.mark.parametrize("module", LEFT_OUT, ids=lambda module: module.__name__.split(".")[-1])
def test_every_way_to_draw_is_an_option_of_the_drawing_commands(module: Any) -> None:
    found = inspect.signature(module.command).parameters
    wanted = {item.name: item for item in fields(DrawingOptions)
              if item.name not in LEFT_OUT[module]}  # fmt: skip

    assert wanted.keys() <= found.keys()
    assert not LEFT_OUT[module] & found.keys()
    for name, item in wanted.items():
        own, shared = (get_args(kind)[1] for kind in (found[name].annotation, item.type))
        assert (own.param_decls, found[name].default) == (shared.param_decls, item.default)


def test_figures_have_what_their_settings_take() -> None:
    found = set(inspect.signature(figures.command).parameters)

    assert {"network", "psi", "psi_cutoff", "label", "precision"} <= found
    assert not {"noise_mode", "lod", "scale"} & found


def test_a_new_way_to_draw_is_its_declaration_and_its_use(
    tiny_network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field here and one of ``Drawing``: no command and no record is touched."""

    @dataclass(frozen=True)
    class Options(DrawingOptions):
        contrast: Annotated[float | None, typer.Option("--contrast")] = None

    @dataclass(frozen=True)
    class Drawing(rendering.Drawing):
        contrast: float = 1.0

    monkeypatch.setattr(drawing, "DrawingOptions", Options)
    monkeypatch.setattr(rendering, "Drawing", Drawing)
    app, seen = typer.Typer(rich_markup_mode=None), []

    @app.command()
    @takes_drawing()
    def command(how: Any = None, out: Annotated[str, typer.Option("--out")] = "here") -> None:
        opened = how.open(how.output())
        seen.append((opened.drawing.contrast, opened.settings["contrast"], out))

    network = ["--network", str(tiny_network_file), "--quiet"]
    for words in ([], ["--contrast", "2.5", "--out", "there"]):
        result = CliRunner().invoke(app, [*network, *words], catch_exceptions=False)
        assert result.exit_code == 0
    assert seen == [(1.0, None, "here"), (2.5, 2.5, "there")]
