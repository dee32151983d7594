"""The tensors of a TorchScript program: its modules are objects without behaviour, of any class.

A program names its own classes below ``__torch__``; what they are called does not matter, for only
the attributes that the file lists are kept. The program's text is never read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.interop.refusal import RefusedError
from stylecli.interop.stand_ins import GlobalName, PlainObject

_MODULE = GlobalName(lambda *_: PlainObject("TorchScript module"))
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist",
          "restore_type_tag")  # fmt: skip
_MAX_TENSORS = 10_000


class _ScriptNames(dict[tuple[str, str], Any]):
    """The names of the other files, and every class of a program."""

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (isinstance(key, tuple) and _is_class(key))

    def __missing__(self, key: tuple[str, str]) -> Any:
        if _is_class(key):
            return _MODULE
        raise KeyError(key)


def _is_class(key: tuple[Any, ...]) -> bool:
    return isinstance(key[0], str) and key[0].split(".")[0] == "__torch__"


def script_names(names: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Return ``names`` with those that TorchScript's own files need."""

    def as_it_is(value: Any = (), *_: Any) -> Any:
        return value

    return _ScriptNames(
        names | {("torch.jit._pickle", name): GlobalName(as_it_is) for name in _LISTS}
    )


def named_tensors(program: PlainObject) -> dict[str, NDArray[Any]]:
    """Return a program's tensors by the path of attributes that leads to each.

    Raises RefusedError for more than 10,000 steps: modules may be shared, and paths to them double
    with every level.
    """
    found: dict[str, NDArray[Any]] = {}
    for steps, (name, value) in enumerate(_walk("", program)):
        if steps > _MAX_TENSORS:
            raise RefusedError("it has more parts than any network needs")
        if isinstance(value, np.ndarray):
            found[name] = value
    return found


def _walk(prefix: str, module: PlainObject) -> Iterator[tuple[str, Any]]:
    for name, value in module.state.items():
        path = f"{prefix}{name}"
        yield path, value
        if isinstance(value, PlainObject):
            yield from _walk(f"{path}.", value)
