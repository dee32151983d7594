"""Walk official TensorFlow pickles without running anything that is in them.

An official file is a pickle of ``Network`` objects whose state holds numpy arrays and the source
text that the original loader executes. This reader maps every global to an inert stand-in of our
own by exact name, refuses all others, and never looks at the source text (docs: spec of the
format in ``docs/formats.md``).
"""

import pickle
import pickletools
from pathlib import Path
from typing import Any

from stylecli.errors import NetworkError
from stylecli.interop.pickled_arrays import NUMPY_NAMES, GlobalName, PickledArray, RefusedError

MAX_FILE_BYTES = 4 << 30
MAX_DEPTH = 64


class TFNetwork:
    """Stand-in for ``dnnlib.tflib.network.Network``: keeps the state and does nothing."""

    state: dict[str, Any] | None = None  # set by __setstate__; pickle calls no __init__

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise RefusedError("it holds a Network without a state")
        self.state = state


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("it encodes text in an unexpected way")
    return text.encode("latin1")


class _EasyDict(dict[str, Any]):
    """Stand-in for dnnlib's attribute dictionary."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


# The two classes are real ones, as the NEWOBJ opcode demands; a BUILD on them fails, because their
# __setstate__ wants an instance.
_ALLOWED: dict[tuple[str, str], GlobalName | type] = {
    ("dnnlib.tflib.network", "Network"): TFNetwork,
    ("tfutil", "Network"): TFNetwork,
    ("network", "Network"): TFNetwork,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("collections", "OrderedDict"): GlobalName(dict),
    ("_codecs", "encode"): GlobalName(_encode),
    **NUMPY_NAMES,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch_utils.persistence":
            raise RefusedError("it is StyleGAN2-ADA's or StyleGAN3's, which are not run yet")
        if (module, name) not in _ALLOWED:
            raise RefusedError(
                f"it asks for {module}.{name}, which no network needs and which was not run"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise RefusedError("it refers to data outside itself")


def read_tf_pickle(path: Path) -> object:
    """Return the content of an official TensorFlow pickle with every Network as a TFNetwork.

    Runs no code from the file. Raises NetworkError for anything unexpected.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise NetworkError(f"{path} is larger than 4 GiB: not a network pickle")
    try:
        _refuse_extensions(path)
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return _resolve(content, 0)
    except RefusedError as refusal:
        raise NetworkError(f"{path} is not a network this can read: {refusal}") from None
    except Exception as error:  # damaged pickles raise almost anything
        raise NetworkError(f"{path} is not a readable pickle: {error}") from None


def _refuse_extensions(path: Path) -> None:
    """Look at the opcodes before loading: extension codes could name globals past find_class."""
    with open(path, "rb") as file:
        for opcode, _, _ in pickletools.genops(file):
            if opcode.name.startswith("EXT"):
                raise RefusedError("it uses extension codes")


def _resolve(value: Any, depth: int) -> Any:
    """Replace array stand-ins by arrays throughout."""
    if depth > MAX_DEPTH:
        raise RefusedError("it is nested too deeply")
    match value:
        case PickledArray():
            if value.value is None:
                raise RefusedError("it holds an array without data")
            return value.value
        case TFNetwork():
            value.state = _resolve(value.state, depth + 1)
        case dict():
            return {key: _resolve(item, depth + 1) for key, item in value.items()}
        case tuple() | list():
            return type(value)(_resolve(item, depth + 1) for item in value)
    return value
