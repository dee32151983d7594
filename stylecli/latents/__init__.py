"""Walks through latent space, and searches in it for what draws a photograph.

The words that choose a walk or a search are here, because a command line is checked against them
before torch loads.
"""

from typing import Literal, get_args

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


def check_walk(space: str | None = None, method: str | None = None) -> None:
    """Raise UsageError for a space or a method that does not exist; None stands for the usual."""
    if space is not None and space not in SPACES:
        raise UsageError(unknown_name("space", space, SPACES))
    if method is not None and method not in METHODS:
        raise UsageError(unknown_name("method", method, METHODS))
