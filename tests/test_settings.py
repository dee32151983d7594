"""Settings declared once: what follows from a declaration, and that all are declared."""

from dataclasses import dataclass, fields
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from stylecli.cli.options import network_settings, settings_for, takes_settings
from stylecli.errors import UsageError
from stylecli.settings import (
    LOSS,
    ByResolution,
    Setting,
    above_zero,
    asked_for,
    check_settings,
    parse_by_resolution,
    setting,
    settings_of,
    spelled,
    with_tables,
)
from stylecli.training.config import Session, TrainingConfig

TRAIN = [*settings_for(TrainingConfig), *network_settings(), *settings_for(Session)]


@dataclass(frozen=True)
class Baking:
    """Settings of no network."""

    weight: float = setting(2.5, flag="--weight", heading=LOSS, help="In kg.", check=above_zero)
    crust: bool = setting(False, flag="--crust/--soft", heading=LOSS, after="flour", help="Dark?")
    kind: str | bool = setting(
        "auto", flag="--kind", help="Which.", **spelled({"auto": "auto", "on": True, "off": False})
    )

    def __post_init__(self) -> None:
        check_settings(self)


def bake(*words: str) -> Any:
    app, seen = typer.Typer(rich_markup_mode=None), []

    @app.command()
    @takes_settings(baking=settings_for(Baking))
    def command(
        flour: Annotated[str, typer.Option("--flour", rich_help_panel=LOSS)] = "rye",
        *,
        baking: dict[str, Any],
    ) -> None:
        seen.append((flour, baking))

    result = CliRunner().invoke(app, list(words))
    return seen[0] if seen else result


def test_a_declared_setting_is_an_option_and_only_what_is_asked_for_arrives() -> None:
    assert bake() == ("rye", {})
    assert bake("--weight", "3", "--soft", "--kind", "off") == (
        "rye",
        {"weight": 3.0, "crust": False, "kind": False},
    )
    lines = bake("--help").stdout
    assert lines.index("--weight") < lines.index("--flour") < lines.index("--crust")


def test_a_declared_check_names_the_value() -> None:
    with pytest.raises(UsageError, match=r"weight -1 is not above zero"):
        Baking(weight=-1)


@pytest.mark.parametrize("name", ["total_kimg", "hold_kimg", "fade_kimg", "r1_gamma", "lr_base"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_number_of_training_is_without_end(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("config", [TrainingConfig, Session])
def test_every_setting_of_training_is_declared(config: type) -> None:
    assert list(settings_of(config)) == [item.name for item in fields(config)]


def test_no_two_settings_share_a_flag_and_each_is_explained() -> None:
    flags = [flag for item in TRAIN for flag in item.switches if flag]
    assert len(set(flags)) == len(flags) > 30
    assert all(item.help and item.heading for item in TRAIN)


@pytest.mark.parametrize("item", TRAIN, ids=lambda item: item.name)
def test_the_words_of_a_value_are_read_as_that_value(item: Setting) -> None:
    if item.base or item.default is None:
        return  # tables: by write_by_resolution
    _, *text = item.words(item.default)
    typed = text[0] if item.read else item.default
    assert asked_for({item.name: typed}, [item]) == {item.name: item.default}


def test_numbers_by_resolution_go_over_a_table() -> None:
    under = {"lr": {128: 0.1, 256: 0.2}, "lr_base": 0.3}
    some = with_tables({"lr": ByResolution(None, {256: 9.0})}, under, TrainingConfig)
    assert some == {"lr": {128: 0.1, 256: 9.0}, "lr_base": 0.3}
    all_of_them = with_tables({"lr": ByResolution(9.0)}, under, TrainingConfig)
    assert all_of_them == {"lr": {}, "lr_base": 9.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16", ByResolution(16)),
        ("8:64, 16:32", ByResolution(None, {8: 64, 16: 32})),
        ("0.001,128:0.0015", ByResolution(0.001, {128: 0.0015})),
    ],
)
def test_text_is_read(text: str, expected: ByResolution) -> None:
    assert parse_by_resolution(text, "--lr") == expected


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "12:3", "8:1,8:2", "1,2", "inf", "8:", "nan"])
def test_mistakes_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot read .* in --lr"):
        parse_by_resolution(text, "--lr")


def test_batches_are_whole() -> None:
    with pytest.raises(UsageError, match="a whole number"):
        parse_by_resolution("8:1.5", "--batch", whole=True)
