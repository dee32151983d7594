"""Ctrl-C during training: finish the step, save, then stop."""

import contextlib
import signal
import threading
import types
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the user asked to stop (Ctrl-C or SIGTERM).

    The first request is only noted; a second Ctrl-C interrupts at once, as without this.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signal handlers belong to the main thread
        return
    previous = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: types.FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for name in previous:
        signal.signal(name, note)
    try:
        yield asked.is_set
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
