"""Lazy package attributes (PEP 562), so that importing a package does not import torch."""

import importlib
from collections.abc import Callable
from typing import Any


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
