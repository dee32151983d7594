"""Modules on first use: lazy package attributes (PEP 562), and torch loading undisturbed."""

import contextlib
import importlib
import importlib.machinery
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_UNDISTURBED = {"numpy", "torch"}
Waiting = Callable[[str], contextlib.AbstractContextManager[None]]  # of a module's name
_waiting: list[Waiting] = []


def lazy_attributes(package: str, where: dict[str, str]) -> Callable[[str], Any]:
    """Return a module ``__getattr__`` that imports a name from its module on first use.

    ``where`` maps a public name to the module that defines it; an empty string means that the
    name is itself a sub-package.
    """

    def __getattr__(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = where[name]
        if not module:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(module), name)

    return __getattr__


@contextlib.contextmanager
def holding_back_interrupts() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the end of this, then obey the first that came.

    Only the main thread can; in others nothing is held back.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if came:
        signal.raise_signal(came[0])


class _Undisturbed:
    """Finds numpy and torch as Python does, and lets interrupts wait while they load.

    Their start is C code that loses an exception, and continues with half a numpy, or aborts.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _UNDISTURBED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_undisturbed(module: Any) -> None:
                shown = _waiting[-1](name) if _waiting else contextlib.nullcontext()
                with holding_back_interrupts(), shown:
                    load(module)

            spec.loader.exec_module = load_undisturbed  # type: ignore[method-assign]
        return spec


def show_while_loading(waiting: Waiting | None) -> None:
    """From now on let ``waiting`` say that torch loads; None: nothing is said."""
    _waiting[:] = [] if waiting is None else [waiting]


def hold_back_interrupts_while_loading() -> None:
    """From now on Ctrl-C waits for the second in which torch loads, whichever command needs it."""
    if not any(isinstance(finder, _Undisturbed) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Undisturbed())
