"""The kernel source as one text, which is what NVRTC is given and what the cache is keyed by."""

import re
from functools import cache
from importlib import resources

_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)


@cache
def kernel_source() -> str:
    """Return kernels.cuh with every file it includes put in place once; nothing else is included.

    The host compiler's own headers stay behind the preprocessor's conditions of shim.cuh.
    """
    seen: set[str] = set()

    def flat(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda match: flat(match[1]), text.replace("#pragma once\n", ""))

    return flat("kernels.cuh")
