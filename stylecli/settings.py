"""A setting is declared once: its dataclass field says how it is asked for, checked and explained.

From these declarations the command line has its options, ``--dry-run`` and ``plan`` their reasons,
and the report the line that trains a run again. Stdlib only.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from stylecli.errors import UsageError, unknown_name

# Headings of the help, in their order.
NETWORK = "Network"
SCHEDULE = "Schedule"
OPTIMIZERS = "Optimizers"
LOSS = "Losses"
PICTURES = "Pictures"
RUN = "Run"
WATCHING = "Watching and saving"
MACHINE = "Machine"
HEADINGS = (NETWORK, SCHEDULE, OPTIMIZERS, LOSS, PICTURES, RUN, WATCHING, MACHINE)

PAPER = "the paper's"  # the reason of a default
SWITCH = "/"  # between the flags for yes and no, as typer has it
Check = Callable[[str, Any], None]  # of a name and a value; raises UsageError


def _exact(value: Any) -> str:
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else repr(value)
    return str(value)


@dataclass(frozen=True)
class Setting:
    """What is declared of one field."""

    flag: str = ""  # --gamma, or for a switch --mirror/--no-mirror; "": not for the command line
    help: str = ""
    heading: str = ""
    after: str = ""  # the option that it follows in the help; "": the one declared before it
    least: int | None = None  # that the command line takes
    read: Callable[[str, str], Any] | None = None  # of flag and text, where the value is another
    write: Callable[[Any], str] = _exact  # the text that is read as this value
    check: Check | None = None
    reason: str = "the default"  # why its default is what it is
    base: str = ""  # of a table by resolution: the field that holds for all other resolutions
    costs: bool = False  # decides what training costs, so that plan takes it too
    common: bool = False  # an option of many commands, which cli/options.py has
    from_dataset: bool = False  # not to be asked for: the dataset decides
    unset: str = "-"  # how people read None
    fixed: bool = False  # no preset changes its default, which the help shows
    tried: bool = (
        False  # where nobody asks for it, a trial on the machine that starts a run decides
    )
    # From the field itself:
    name: str = ""
    kind: Any = None
    default: Any = None

    @property
    def switches(self) -> tuple[str, str]:
        """The flag; of a switch that for yes and that for no."""
        on, *off = self.flag.split(SWITCH)
        return on, "".join(off)

    def words(self, value: Any) -> list[str]:
        """Return the words of a command line that ask for a value."""
        on, off = self.switches
        if off:
            return [on if value else off]
        return [on, self.write(value)]


def setting(default: Any = MISSING, *, factory: Any = MISSING, **declared: Any) -> Any:
    """Return a dataclass field with its declaration, whose names are those of ``Setting``."""
    own = {"default": default} if factory is MISSING else {"default_factory": factory}
    return field(**own, metadata={"setting": Setting(**declared)})


def settings_of(config: type) -> Mapping[str, Setting]:
    """Return what is declared of a dataclass's fields, by name and in their order."""
    return {
        item.name: replace(
            item.metadata["setting"],
            name=item.name,
            kind=item.type,
            default=None if item.default is MISSING else item.default,
        )
        for item in fields(config)
        if "setting" in item.metadata
    }


def of_dataset(config: Any) -> list[str]:
    """Return the fields of a configuration that the dataset decides."""
    return [name for name, item in settings_of(type(config)).items() if item.from_dataset]


def check_settings(config: Any) -> None:
    """Check the fields of a dataclass as they are declared; raise UsageError for the first."""
    for name, declared in settings_of(type(config)).items():
        if declared.check is not None:
            declared.check(name, getattr(config, name))


def above_zero(name: str, value: Any) -> None:
    """Refuse zero and less, in a table too; None is not given."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            above_zero(f"{name} at {key} px", item)
    elif value is not None and not value > 0:
        raise UsageError(f"{name} {value!r} is not above zero")
    elif value == math.inf:
        raise UsageError(f"{name} {value!r} is not a finite number")


def not_negative(name: str, value: Any) -> None:
    """Refuse less than zero."""
    if not value >= 0:
        raise UsageError(f"{name} {value!r} is negative")
    if value == math.inf:
        raise UsageError(f"{name} {value!r} is not a finite number")


def below_one(name: str, value: Any) -> None:
    """Refuse what is not from 0 to below 1."""
    if not 0 <= value < 1:
        raise UsageError(f"{name} {value!r} is not within 0 to 1")


def power_of_two(name: str, value: Any) -> None:
    """Refuse sides in pixels that no network is grown to."""
    if value < 4 or value & (value - 1):
        raise UsageError(f"{name} {value} is not a power of two from 4 on")


def one_of(*choices: str, called: str = "") -> Check:
    """Return a check for one of some words; ``called`` names the setting to people."""

    def check(name: str, value: Any) -> None:
        if value not in choices:
            raise UsageError(unknown_name(called or name, str(value), choices))

    return check


def spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a setting is read and written that people spell in words of their own."""

    def read(text: str, flag: str) -> Any:
        if text not in values:
            raise UsageError(unknown_name(flag, text, values))
        return values[text]

    def write(value: Any) -> str:
        return next(word for word, meant in values.items() if meant is value or meant == value)

    return {"read": read, "write": write}


@dataclass(frozen=True)
class ByResolution:
    """Numbers that depend on the resolution being trained: for some, and for all others or None.

    As people type them:

    16                          everywhere
    8:64,16:32                  there; elsewhere what the preset says
    0.001,128:0.0015,256:0.002  the bare number everywhere else
    """

    base: float | None = None
    table: Mapping[int, float] = field(default_factory=dict)

    def over(self, table: Mapping[int, float], base: float) -> tuple[dict[int, float], float]:
        """Return a preset's table and base with these values in their place."""
        if self.base is not None:
            return dict(self.table), self.base
        return {**table, **self.table}, base


def parse_by_resolution(text: str, name: str, *, whole: bool = False) -> ByResolution:
    """Read ``16`` or ``0.001,128:0.0015``; ``name`` is the option for messages.

    ``whole`` needs whole numbers. Raises UsageError naming the part at fault.
    """
    base: float | None = None
    table: dict[int, float] = {}
    for part in (piece.strip() for piece in text.split(",")):
        side, colon, value = part.rpartition(":")
        try:
            number = int(value) if whole else float(value)
            if not number > 0 or number == math.inf:
                raise ValueError
            if not colon:
                if base is not None:
                    raise ValueError
                base = number
                continue
            px = int(side)
            if px < 4 or px & (px - 1) or px in table:
                raise ValueError
            table[px] = number
        except ValueError:
            kind = "a whole number" if whole else "a number"
            example = "64:32,128:16" if whole else "128:0.0015,256:0.002"
            raise UsageError(
                f"cannot read {part!r} in {name} {text!r}: expected {kind} above 0, or pairs "
                f"of pixels and number such as {example}"
            ) from None
    return ByResolution(base, table)


def write_by_resolution(table: Mapping[int, Any], base: Any) -> str:
    """Return the text that ``parse_by_resolution`` reads as these numbers."""
    return ",".join([_exact(base), *(f"{side}:{_exact(value)}" for side, value in table.items())])


def with_tables(given: Mapping[str, Any], under: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Return settings with every ``ByResolution`` laid over the table and base of ``under``."""
    declared, found = settings_of(config), dict(given)
    for name, value in given.items():
        if isinstance(value, ByResolution):
            base = declared[name].base
            table, rest = value.over(under[name], under[base])
            found |= {name: table, base: rest}
    return found


def asked_for(options: Mapping[str, Any], declared: Iterable[Setting]) -> dict[str, Any]:
    """Return the settings that typed options ask for, read; an option that is None is not given."""
    found = {}
    for item in declared:
        value = options[item.name]
        if value is not None:
            on = item.switches[0]
            found[item.name] = item.read(value, on) if item.read is not None else value
    return found
