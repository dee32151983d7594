"""A machine for pickle streams that can build plain values and nothing else.

Python's unpickler calls whatever a stream names. This one knows the opcodes that data needs
(protocols 2 to 5) and refuses the rest: INST, OBJ, NEWOBJ_EX, the extension registry, out-of-band
buffers, DUP. A global name is looked up in a table of stand-ins of ours, by its exact spelling;
REDUCE and NEWOBJ call such a stand-in, BUILD hands a state to an object that one of them made.
Lengths are compared with what is left of the file before anything is read, dictionary keys and set
members are plain (hashing nested tuples takes exponential time), and steps are counted.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from stylecli.interop.refusal import Budget, DamagedError, RefusedError
from stylecli.interop.stand_ins import Buildable, GlobalName, PlainDict

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
            raise DamagedError("it does not begin as a binary pickle does")
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
            raise DamagedError("it takes a value that it never made")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise DamagedError("it takes a value that it never made")
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
            raise DamagedError("it sets the items of something else than a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not _is_plain(key):
                raise RefusedError(f"it has a {type(key).__name__} as a key")
            target[key] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise DamagedError("it appends to something else than a list")
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
            raise RefusedError("it holds a set of something else than plain values")
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
