"""Walks through latent space, searches in it for what draws a photograph, and directions.

The words that choose a walk, a search or an edit are here, because a command line is checked
against them before torch loads.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stylecli.errors import UsageError, unknown_name

Method = Literal["spline", "lerp", "slerp", "circle"]
METHODS: tuple[Method, ...] = get_args(Method)
Motion = Literal["still", "flicker", "drift"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
Space = Literal["w", "z"]
SPACES: tuple[Space, ...] = get_args(Space)
SearchSpace = Literal["w", "w+", "z"]  # of a projection
SEARCH_SPACES: tuple[SearchSpace, ...] = get_args(SearchSpace)
SEARCH_PRESETS = ("fast", "official")
METHODS_OF_FINDING = ("sefa", "ganspace", "labels", "channels")
FITS = ("svm", "mean")
_LABELLED = ("labels", "channels")
_USUAL_SAMPLES = {"ganspace": 300_000, "labels": 10_000, "channels": 10_000}
_ACTIVATION_SAMPLES = 10_000
_USUAL_COUNT = {"sefa": 10, "ganspace": 20, "labels": 1, "channels": 5}
MAX_STRENGTH = 100.0  # beyond it there are no pictures
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")  # of a direction
# Of sharpening: faces, and searches for each of them; as published: steps, and the mean squared
# difference, colours 0 to 1, within which shrunk pictures count as equal.
CANDIDATES, STARTS, SHARPENING_STEPS, BOUND = 5, 4, 100, 0.002


def check_walk(space: str | None = None, method: str | None = None) -> None:
    """Raise UsageError for a space or a method that does not exist; None stands for the usual."""
    if space is not None and space not in SPACES:
        raise UsageError(unknown_name("space", space, SPACES))
    if method is not None and method not in METHODS:
        raise UsageError(unknown_name("method", method, METHODS))


@dataclass(frozen=True)
class Edit:
    """One part of an edit: how far along which direction, and in which layers."""

    name: str
    strength: float
    layers: str | None = None  # as typed; None: the direction's own

    def __str__(self) -> str:
        where = "" if self.layers is None else f"@{self.layers}"
        return f"{self.name}{where}:{_signed(self.strength)}"


def _signed(strength: float) -> str:
    """Return a strength with its sign and all its digits: +2, -0.25."""
    return f"{'' if strength < 0 else '+'}{strength!r}".removesuffix(".0")


def parse_edits(text: str) -> list[Edit]:
    """Return the parts of ``smile:+2,pose@coarse:-1,hair@0-3,6:1``.

    Raises UsageError for anything else, and for strengths beyond 100.
    """
    parts: list[Edit] = []
    waiting: list[str] = []
    for part in text.split(","):
        waiting.append(part)
        if ":" not in part:
            continue
        word = ",".join(waiting).strip()
        waiting = []
        name, _, number = word.rpartition(":")
        name, at, layers = name.partition("@")
        try:
            strength = float(number)
        except ValueError:
            strength = math.nan
        if not abs(strength) <= MAX_STRENGTH:
            raise UsageError(
                f"{word!r} in edit {text!r} has no strength from -{MAX_STRENGTH:g} to "
                f"{MAX_STRENGTH:g} behind its colon: expected such as smile:+2"
            )
        if not NAME.fullmatch(name.strip()) or (at and not layers.strip()):
            raise UsageError(
                f"cannot read {word!r} in edit {text!r}: expected NAME:STRENGTH or "
                f"NAME@LAYERS:STRENGTH, such as smile:+2 or smile@coarse:+2"
            )
        parts.append(Edit(name.strip(), strength, layers.strip() or None))
    if waiting:
        word = ",".join(waiting).strip()
        raise UsageError(
            f"{word!r} in edit {text!r} has no strength: expected such as smile:+2,pose:-1"
        )
    return parts


def format_edits(edits: Mapping[str, float] | str) -> str:
    """Return edits as text, from text or from strengths by name (``smile`` or ``smile@4-7``)."""
    if isinstance(edits, str):
        return edits
    return ",".join(f"{name}:{_signed(float(strength))}" for name, strength in edits.items())


def check_name(name: str) -> str:
    """Return a name that a direction may have; raise UsageError for another."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name of a direction: expected letters, digits, dots, dashes and "
            f"underscores"
        )
    return name


@dataclass(frozen=True)
class Search:
    """Directions that are to be found, as ``stylecli directions find`` has them."""

    method: str = "sefa"
    layers: str | None = None  # that edits move: a band or numbers; None: all
    activations: int | None = None  # the layer whose activations have components
    count: int | None = None
    samples: int | None = None
    labels: tuple[str, ...] = ()  # NAME=ATTRIBUTE:VALUES[/OTHER VALUES]
    fit: str = "svm"
    keep: tuple[str, ...] = ()  # names of directions that are not to change
    effects: bool = True
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError, before torch loads, for options that mean nothing together."""
        if self.method not in METHODS_OF_FINDING:
            raise UsageError(unknown_name("method", self.method, METHODS_OF_FINDING))
        if self.fit not in FITS:
            raise UsageError(unknown_name("--fit", self.fit, FITS))
        for option, given, fits in (
            ("--activations", self.activations is not None, self.method == "ganspace"),
            ("--samples", self.samples is not None, self.method != "sefa"),
            ("--label", bool(self.labels), self.labelled),
            ("--fit", self.fit != FITS[0], self.method == "labels"),
            ("--keep", bool(self.keep), self.method == "labels"),
            ("--count", self.count is not None, self.method != "labels"),
            ("--layers", self.layers is not None, self.method != "channels"),
        ):
            if given and not fits:
                raise UsageError(
                    f"{option} has no meaning with --method {self.method}: leave it out"
                )
        for name in self.keep:
            check_name(name)

    @property
    def labelled(self) -> bool:
        """Whether it needs what classifiers see."""
        return self.method in _LABELLED

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the result, beside network and classifiers."""
        samples = _USUAL_SAMPLES.get(self.method)
        if self.activations is not None:
            samples = _ACTIVATION_SAMPLES
        given = {
            "layers": self.layers, "activations": self.activations,
            "count": self.count or _USUAL_COUNT[self.method], "samples": self.samples or samples,
            "seed": self.seed,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}
