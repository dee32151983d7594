"""What stands for the names and objects of a pickle: things of ours that do nothing.

A stream can call a ``GlobalName`` and set the state of a ``Buildable``; all else is plain values.
"""

from collections.abc import Callable
from typing import Any

from stylecli.interop.refusal import RefusedError


class GlobalName:
    """Stands for a global name and calls a function of ours; a stream cannot change it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class Buildable:
    """Base of the stand-ins that take a state from BUILD."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Take the state; raise RefusedError if it is of an unknown form."""
        raise NotImplementedError


class PlainDict(dict[Any, Any], Buildable):
    """OrderedDict and dnnlib's EasyDict; attributes set on them (torch's metadata) are dropped."""

    def set_state(self, state: Any) -> None:
        """Forget it."""


class PlainObject(Buildable):
    """An object of a class we only know by name: keeps its state, does nothing."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: dict[Any, Any] = {}

    def set_state(self, state: Any) -> None:
        """Take the attributes."""
        if not isinstance(state, dict):
            raise RefusedError(f"it holds a {self.name} in an unknown form")
        self.state = state
