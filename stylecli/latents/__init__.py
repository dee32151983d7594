"""Walks through latent space, truncation and noise: everything is a function of the frame.

The words that choose a walk are here, because a command line is checked against them before torch
loads.
"""

from typing import Literal, get_args

from stylecli.errors import UsageError, unknown_name

Method = Literal["spline", "lerp", "slerp", "circle"]
METHODS: tuple[Method, ...] = get_args(Method)
Motion = Literal["still", "flicker", "drift"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
Space = Literal["w", "z"]
SPACES: tuple[Space, ...] = get_args(Space)


def check_walk(space: str | None = None, method: str | None = None) -> None:
    """Raise UsageError for a space or a method that does not exist; None stands for the usual."""
    if space is not None and space not in SPACES:
        raise UsageError(unknown_name("space", space, SPACES))
    if method is not None and method not in METHODS:
        raise UsageError(unknown_name("method", method, METHODS))
