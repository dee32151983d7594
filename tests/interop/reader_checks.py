"""Give bytes to every reader of foreign files and watch: one sentence or a result, nothing run.

``watch`` counts events of Python's audit hooks that no reader causes: starting processes, compiling
and executing code, importing, connecting, writing files. The hook stays for the life of a process.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylecli.errors import StyleCLIError
from stylecli.interop.families import recognise, unwrap
from stylecli.interop.feature_weights import read_array_pickle
from stylecli.interop.pickles import read_batch_pickle
from stylecli.interop.trees import parse_foreign

_FORBIDDEN = ("os.", "subprocess.", "exec", "compile", "import", "socket.", "shutil.", "ctypes.",
              "pickle.find_class", "marshal.", "code.__new__", "webbrowser.")  # fmt: skip
_HARMLESS = ("os.scandir", "os.listdir", "os.stat")
_watching: list[list[str]] = []
_hooked: list[bool] = []


class CodeRanError(BaseException):
    """Something happened that only running code from the file could cause."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _watching[-1].append(f"open {arguments[0]!r}")
    elif event.startswith(_FORBIDDEN) and event not in _HARMLESS:
        _watching[-1].append(f"{event} {arguments!r:.200}")


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """Raise CodeRanError when the block does what no reader does."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    events: list[str] = []
    _watching.append(events)
    try:
        yield
    except SystemExit:
        events.append("the process was ended")
    finally:
        _watching.remove(events)
    if events:
        raise CodeRanError("; ".join(events))


def check_network(content: bytes) -> str:
    """Parse, recognise, describe and convert; return the family or the error's sentence."""
    path = Path("file")
    try:
        tree = unwrap(parse_foreign(content, path), path)
        family = recognise(tree, path)
        family.facts(tree)
        family.convert(tree, path.name)
    except StyleCLIError as error:
        return str(error)
    return family.name


def check_batch(content: bytes) -> None:
    """Read as a batch of CIFAR."""
    with contextlib.suppress(StyleCLIError):
        read_batch_pickle(content, "file")


def check_arrays(path: Path) -> None:
    """Read as a pickle of arrays."""
    with contextlib.suppress(StyleCLIError):
        read_array_pickle(path)
