"""Foreign pickles, read by a machine that can build plain values and nothing else.

From top to bottom: why a file is refused and how much it may make us build; what stands for names
and objects; the machine; numpy's arrays; and the simplest user of all, CIFAR's batches.
"""

import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylecli.errors import DataError, plural

# ---- Why a foreign file is not read: it holds what no such file needs, or it is damaged.
#
# The readers raise these two among themselves; whoever opened the file turns them into one sentence
# with its name. ``Budget`` is the cap on what one file may make the reader build: a stream of a few
# bytes can name one long string a million times, so copies are counted, not only the file's size.


class RefusedError(Exception):
    """The file holds something that no file of its kind needs, or asks for too much."""


class DamagedError(Exception):
    """The file ends early or contradicts itself."""


SLACK_BYTES = 16 << 20


def shown(value: object) -> str:
    """Return a short text for a message: numbers and text as they are, else what it is.

    Never ``repr`` of what a file holds: a tuple of two equal tuples, sixty deep, would fill memory.
    """
    if isinstance(value, tuple) and all(type(item) is int for item in value[:9]):
        return str(list(value[:8])) + ("…" if len(value) > 8 else "")
    if isinstance(value, str | bytes):
        return repr(value[:40])
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


@dataclass
class Budget:
    """What is left to one file and everything nested in it."""

    opcodes: int = 1_000_000  # a snapshot of StyleGAN3 at 1024 px has some 40,000
    text_bytes: int = 64 << 20  # all text together; an official file holds under 1 MB
    array_bytes: int = SLACK_BYTES  # arrays copied out of the file

    @staticmethod
    def of(size: int, *, opcodes: int = 1_000_000) -> "Budget":
        """Return the budget of a file of ``size`` bytes: its arrays, at most twice their bytes.

        Twice, for bfloat16 becomes float32.
        """
        return Budget(opcodes=opcodes, array_bytes=2 * size + SLACK_BYTES)

    def spend_opcodes(self, count: int = 1) -> None:
        """Count steps of the stream, and items that one step copies."""
        self.opcodes -= count
        if self.opcodes < 0:
            raise RefusedError("it has more steps than any network needs")

    def spend_text(self, size: int) -> None:
        """Count bytes of text."""
        self.text_bytes -= size
        if self.text_bytes < 0:
            raise RefusedError("it holds more text than any network needs")

    def spend_array(self, size: int) -> None:
        """Count bytes of arrays."""
        self.array_bytes -= size
        if self.array_bytes < 0:
            raise RefusedError("its arrays are larger than the file could hold")


# ---- What stands for the names and objects of a pickle: things of ours that do nothing.
#
# A stream can call a ``GlobalName`` and set the state of a ``Buildable``; all else is plain values.


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


# ---- A machine for pickle streams that can build plain values and nothing else.
#
# Python's unpickler calls whatever a stream names. This one knows the opcodes that data needs
# (protocols 2 to 5) and refuses the rest: INST, OBJ, NEWOBJ_EX, the extension registry, out-of-band
# buffers, DUP. A global name is looked up in a table of stand-ins of ours, by its exact spelling;
# REDUCE and NEWOBJ call such a stand-in, BUILD hands a state to an object that one of them made.
# Lengths are compared with what is left of the file before anything is read, dictionary keys and
# set members are plain (hashing nested tuples takes exponential time), and steps are counted.

_LONGEST_NAME = 200  # module plus name of a global
_LONGEST_INTEGER = 64  # bytes; torch's magic number has ten
_LARGE = 1 << 10  # bytes from which on a slice of the file is not copied
_LARGEST_KEY = 1 << 60  # larger integers can be made to collide, which takes quadratic time


Names = Mapping[tuple[str, str], Any]


def load_pickle(
    content: bytes | memoryview,
    names: Names,
    budget: Budget,
    *,
    start: int = 0,
    refer: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Return the value of the pickle at ``start`` and the position behind it.

    ``names`` maps (module, name) to what stands for it; ``refer`` resolves persistent ids. Text of
    Python 2 is taken as Latin-1; long byte strings come back as memoryviews of ``content``. Raises
    RefusedError and DamagedError, nothing else.
    """
    machine = _Machine(memoryview(content), start, names, budget, refer)
    try:
        return machine.run(), machine.at
    except (RefusedError, DamagedError):
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, struct.error) as error:
        raise DamagedError(f"it contradicts itself ({type(error).__name__})") from None


def _shown(text: str) -> str:
    return (
        text if text.isprintable() and len(text) <= _LONGEST_NAME else ascii(text[:_LONGEST_NAME])
    )


def _is_plain(key: Any) -> bool:
    """Tell whether a value may be a key or a member of a set."""
    if isinstance(key, int):
        return -_LARGEST_KEY < key < _LARGEST_KEY
    return key is None or isinstance(key, str | bytes)


class _Machine:
    def __init__(
        self,
        content: memoryview,
        start: int,
        names: Names,
        budget: Budget,
        refer: Callable[[Any], Any] | None,
    ) -> None:
        self.content, self.at = content, start
        self.names, self.budget, self.refer = names, budget, refer
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if bytes(self.content[self.at : self.at + 1]) != b"\x80":
            raise DamagedError("it does not start like a binary pickle")
        while True:
            code = self.read(1)[0]
            self.budget.spend_opcodes()
            if code == _STOP:
                return self.pop()
            step = _STEPS.get(code)
            if step is None:
                raise RefusedError(f"it uses the opcode {_OTHERS.get(code, f'{code:#04x}')}")
            step(self)

    def read(self, count: int) -> memoryview:
        """Return the next bytes; refuse lengths beyond the end before anything is allocated."""
        if count < 0 or count > len(self.content) - self.at:
            raise DamagedError("it ends too early")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.read(struct.calcsize("<" + form)))[0]

    def line(self) -> str:
        """Return the text up to the end of the line."""
        piece = bytes(self.content[self.at : self.at + _LONGEST_NAME])
        text, newline, _ = piece.partition(b"\n")
        if not newline:
            raise DamagedError("it holds a name without an end")
        self.at += len(text) + 1
        return text.decode("utf-8")

    def text(self, length: int, encoding: str) -> str:
        raw = self.read(length)
        self.budget.spend_text(4 * length)  # one rare sign makes every sign take four bytes
        return str(raw, encoding)

    def python2_text(self, length: int) -> str | memoryview:
        """Return a ``str`` of Python 2: text, or the bytes of an array where it is long."""
        raw = self.read(length)
        if length >= _LARGE:
            return raw
        return str(raw, "latin1")

    def payload(self, length: int) -> bytes | memoryview:
        raw = self.read(length)
        return raw if length >= _LARGE else bytes(raw)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise DamagedError("it uses a value that it never made")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise DamagedError("it uses a value that it never made")
        return self.stack[-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def items(self) -> list[Any]:
        """Return and remove everything above the last mark."""
        if not self.marks:
            raise DamagedError("it closes a group that it never opened")
        height = self.marks.pop()
        found = self.stack[height:]
        del self.stack[height:]
        return found

    def tuple_of(self, count: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(count)])))

    def integer(self, length: int) -> None:
        if length > _LONGEST_INTEGER:
            raise RefusedError(f"it holds an integer of {length:,} bytes")
        self.push(int.from_bytes(self.read(length), "little", signed=True))

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()  # a dict: a large index allocates nothing

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise DamagedError("it recalls a value that it never kept")
        self.push(self.memo[index])

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise DamagedError("it sets the items of something other than a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not _is_plain(key):
                raise RefusedError(f"it has a {type(key).__name__} as a key")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise DamagedError("it appends to something other than a list")
        target.extend(values)

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedError("it names something without a name")
        if (module, name) not in self.names:
            raise RefusedError(f"it names {_shown(module)}.{_shown(name)}")
        self.push(self.names[module, name])

    def find_on_stack(self) -> None:
        name = self.pop()
        self.find(self.pop(), name)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is not a name")
        self.push(function(*arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, GlobalName):
            raise RefusedError("it changes a name")
        if not isinstance(target, Buildable):
            raise RefusedError("it sets the state of a plain value")
        target.set_state(state)

    def refer_outside(self) -> None:
        if self.refer is None:
            raise RefusedError("it refers to something outside the file")
        self.push(self.refer(self.pop()))

    def check_protocol(self) -> None:
        protocol = self.read(1)[0]
        if not 2 <= protocol <= 5:
            raise RefusedError(f"it is of pickle protocol {protocol}, and 2 to 5 are known")

    def check_frame(self) -> None:
        if self.number("Q") > len(self.content) - self.at:
            raise DamagedError("it ends too early")

    def add_members(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is not set or not all(map(_is_plain, values)):
            raise RefusedError("it holds a set of something other than plain values")
        target.update(values)

    def pair(self) -> list[Any]:
        value = self.pop()
        return [self.pop(), value]

    def drop(self) -> None:
        # A tuple that holds itself is written with a mark still open, and POP takes the mark.
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def dictionary(self) -> None:
        pairs = self.items()
        self.push(PlainDict())
        self.set_items(pairs)


_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _Machine.check_protocol,
    0x95: _Machine.check_frame,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): _Machine.drop,
    ord("1"): _Machine.items,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("i")),
    ord("K"): lambda m: m.push(m.number("B")),
    ord("M"): lambda m: m.push(m.number("H")),
    0x8A: lambda m: m.integer(m.number("B")),
    0x8B: lambda m: m.integer(m.number("i")),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.read(8))[0]),
    ord("X"): lambda m: m.push(m.text(m.number("I"), "utf-8")),
    0x8C: lambda m: m.push(m.text(m.number("B"), "utf-8")),
    0x8D: lambda m: m.push(m.text(m.number("Q"), "utf-8")),
    ord("T"): lambda m: m.push(m.python2_text(m.number("i"))),
    ord("U"): lambda m: m.push(m.python2_text(m.number("B"))),
    ord("B"): lambda m: m.push(m.payload(m.number("I"))),
    ord("C"): lambda m: m.push(m.payload(m.number("B"))),
    0x8E: lambda m: m.push(m.payload(m.number("Q"))),
    0x96: lambda m: m.push(m.payload(m.number("Q"))),  # a bytearray, which nothing here changes
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.items())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.items()),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.items()),
    ord("}"): lambda m: m.push(PlainDict()),
    ord("d"): _Machine.dictionary,
    ord("s"): lambda m: m.set_items(m.pair()),
    ord("u"): lambda m: m.set_items(m.items()),
    0x8F: lambda m: m.push(set()),
    0x90: lambda m: m.add_members(m.items()),
    ord("q"): lambda m: m.remember(m.number("B")),
    ord("r"): lambda m: m.remember(m.number("I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number("B")),
    ord("j"): lambda m: m.recall(m.number("I")),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: _Machine.find_on_stack,
    ord("R"): _Machine.call,
    0x81: _Machine.call,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.refer_outside,
}
# The rest, for the message. NEWOBJ_EX, INST and OBJ call classes with arguments nobody needs, EXT
# finds names past the table, buffers lie outside the file.
_OTHERS = {opcode.code.encode("latin1")[0]: opcode.name for opcode in pickletools.opcodes}


# ---- Stand-ins for what numpy puts into pickles, shared by every reader of foreign pickles.
#
# Arrays come into being only from a numeric dtype, a plain shape and exactly as many bytes as those
# two say, which the file's budget is charged for.

NUMERIC = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}
_MAX_DIMENSIONS = 8


class PickledDtype(Buildable):
    """A numeric dtype, from the arguments and the state that numpy pickles."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if isinstance(code, bytes):  # Python 2 wrote text that way
            code = code.decode("latin1")
        if not isinstance(code, str) or code not in NUMERIC:
            raise RefusedError(f"it holds values of type {shown(code)}, and only numbers are read")
        self._code, self._order = code, "="

    def set_state(self, state: Any) -> None:
        """Take the byte order from (version, order, subtype, names, fields, ...)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise RefusedError("it holds a dtype that is not plain")
        self._order = order

    def dtype(self) -> np.dtype[Any]:
        """Return the numpy dtype."""
        return np.dtype(self._order + self._code)


class PickledArray(Buildable):
    """An array, empty until its state (version, shape, dtype, Fortran order, bytes) is set."""

    __slots__ = ("_budget", "value")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.value: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Make the array."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it holds an array in an unknown form")
        _, shape, dtype, fortran, content = state
        order = "F" if fortran is True or fortran == 1 else "C"
        self.value = _build(self._budget, shape, dtype, content, order)


def _build(budget: Budget, shape: Any, dtype: Any, content: Any, order: Any = "C") -> NDArray[Any]:
    if isinstance(content, str):  # Python 2 wrote bytes that way
        content = content.encode("latin1")
    if not isinstance(dtype, PickledDtype) or not isinstance(content, bytes | memoryview):
        raise RefusedError("it holds an array that is not numeric")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError(f"it holds an array of shape {shown(shape)}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise RefusedError(f"it holds an array of shape {shown(shape)}")
    kind = dtype.dtype()
    # Python integers do not overflow, so a shape of 2^40 cannot slip past this comparison.
    if math.prod(shape) * kind.itemsize != len(content):
        raise RefusedError(f"it holds {len(content)} bytes for an array of shape {list(shape)}")
    budget.spend_array(len(content))
    if kind == np.bool_:  # a byte that is neither 0 nor 1 would be an impossible truth value
        truth: NDArray[Any] = np.frombuffer(content, np.uint8) != 0
        return truth.reshape(shape, order=order)
    array = np.frombuffer(content, kind).reshape(shape, order=order)
    return array.astype(kind.newbyteorder("="))


def numpy_names(budget: Budget) -> dict[tuple[str, str], GlobalName]:
    """Return the stand-ins for numpy's names; their arrays are charged to ``budget``."""

    def reconstruct(*_: Any) -> PickledArray:
        return PickledArray(budget)

    def scalar(dtype: Any, content: Any) -> NDArray[Any]:
        return _build(budget, (), dtype, content)

    def from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
        if order not in ("C", "F"):
            raise RefusedError("it holds an array in an unknown form")
        return _build(budget, shape, dtype, content, order)

    def encode(text: Any, encoding: Any = "latin1") -> bytes:  # bytes in protocol 2
        if not isinstance(text, str) or encoding != "latin1":
            raise RefusedError("it encodes text in an unexpected way")
        budget.spend_array(len(text))
        return text.encode("latin1")

    functions: dict[str, Callable[..., Any]] = {"_reconstruct": reconstruct, "scalar": scalar}
    return {
        ("numpy", "ndarray"): GlobalName(_array_type),
        ("numpy", "dtype"): GlobalName(PickledDtype),
        ("_codecs", "encode"): GlobalName(encode),
        **{
            (f"numpy.{core}.multiarray", name): GlobalName(function)
            for core in ("core", "_core")
            for name, function in functions.items()
        },
        **{  # protocol 5
            (f"numpy.{core}.numeric", "_frombuffer"): GlobalName(from_buffer)
            for core in ("core", "_core")
        },
    }


def _array_type(*_: Any) -> Any:
    raise RefusedError("it calls the array type itself")


# ---- Read CIFAR's batches: Python 2 pickles of a dict with pixels and labels, executing nothing.
#
# A batch holds b"data" (uint8 [N, 3072]), b"labels" or b"fine_labels" and b"coarse_labels" (lists
# of integers), b"filenames", b"batch_label"; ``batches.meta`` holds lists of names. Keys come
# back as text, whichever Python wrote them.

MAX_BYTES = 1 << 28  # the largest official batch, CIFAR-100's training set, has 155 MB
_MAX_OPCODES = 2_000_000  # its 50,000 file names and two lists of labels need 350,000
_MAX_ENTRIES = 20  # an official batch has 5


def read_batch_pickle(content: bytes, where: Path | str) -> dict[str, Any]:
    """Return a batch as {text: array, list, number or text}; lists hold numbers or text.

    Raises DataError when the pickle holds anything else or is damaged. Nothing in it is ever run.
    """
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{where} has {len(content):,} bytes: no batch of CIFAR has over {MAX_BYTES:,}"
        )
    budget = Budget.of(len(content), opcodes=_MAX_OPCODES)
    try:
        batch, _ = load_pickle(content, numpy_names(budget), budget)
        if not isinstance(batch, dict):
            raise RefusedError("it holds no dict")
        if len(batch) > _MAX_ENTRIES:  # each may name the same long list, which is copied
            raise RefusedError(f"it holds {plural(len(batch), 'entry', 'entries')}")
        return {_text(key): _plain(value) for key, value in batch.items()}
    except RefusedError as refusal:
        raise DataError(
            f"{where} is not a batch of CIFAR: {refusal}; nothing in it was run"
        ) from None
    except DamagedError as damage:
        raise DataError(f"{where} is damaged or not a batch of CIFAR: {damage}") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise RefusedError(f"it has a {type(value).__name__} where text is expected")


def _plain(value: Any) -> Any:
    if isinstance(value, PickledArray):
        if value.value is None:
            raise RefusedError("it holds an array without data")
        return value.value
    if isinstance(value, list):
        return [entry if type(entry) is int else _text(entry) for entry in value]
    return value if type(value) is int else _text(value)
