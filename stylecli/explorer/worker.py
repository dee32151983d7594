"""The process that draws: requests come in by its stdin, answers and pictures leave by its stdout.

A message is JSON and bytes behind it, each with its length before it. Both sides use the functions
here; what a request means is handed in.
"""

import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from stylecli.errors import ExitCode, explain
from stylecli.files import parse_json, to_json

_LENGTHS = struct.Struct(">II")
_MOST_BYTES = 1 << 30

Message = tuple[dict[str, Any], bytes]


class Tell(Protocol):
    """Sends something that is not the answer yet: ``event`` says what, such as progress."""

    def __call__(self, event: str, content: bytes = b"", **facts: Any) -> None: ...


Handler = Callable[[Mapping[str, Any], Tell], Message]


def write_message(stream: BinaryIO, facts: Mapping[str, Any], content: bytes = b"") -> None:
    """Send one message."""
    text = to_json(facts, default=str)
    stream.write(_LENGTHS.pack(len(text), len(content)))
    stream.write(text)
    stream.write(content)
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """Return the next message; None where the other side has ended."""
    head = stream.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    lengths = _LENGTHS.unpack(head)
    if max(lengths) > _MOST_BYTES:
        return None
    text, content = (stream.read(length) for length in lengths)
    if len(text) + len(content) < sum(lengths):
        return None
    return parse_json(text.decode(), "a message"), content


def answer_requests(handlers: Mapping[str, Handler]) -> None:
    """Answer one request after the other, each by the handler that its ``do`` names.

    Ends at once when the other side does, even while a request is being answered. What a handler
    raises is answered by its sentence.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this
    requests, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not fall among the messages
    waiting: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        while (message := read_message(requests)) is not None:
            waiting.put(message[0])
        os._exit(ExitCode.DONE)

    threading.Thread(target=listen, daemon=True).start()
    lock = threading.Lock()

    def tell(event: str, content: bytes = b"", **facts: Any) -> None:
        with lock:
            write_message(sink, {"event": event, **facts}, content)

    while True:
        request = waiting.get()
        try:
            facts, content = handlers[str(request["do"])](request, tell)
        except Exception as error:
            text, code = explain(error)
            facts, content = {"error": text, "code": int(code)}, b""
        tell("answer", content, **facts)
