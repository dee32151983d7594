"""``python -m stylecli``, and where the console script begins."""

import os
import sys
import threading

from stylecli.errors import explain
from stylecli.lazy import hold_back_interrupts_while_loading


def report_thread(failed: threading.ExceptHookArgs) -> None:
    """Say in one sentence what ended a thread: the last net, under those of the threads' own."""
    error = failed.exc_value
    if os.environ.get("STYLECLI_DEBUG") == "1":
        sys.excepthook(failed.exc_type, error, failed.exc_traceback)  # type: ignore[arg-type]
    elif error is not None and not isinstance(error, SystemExit):
        print(f"stylecli: {explain(error)[0]}", file=sys.stderr)


def main() -> None:
    """Run the command line; nothing ends it with a traceback, even while modules load."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = report_thread
    hold_back_interrupts_while_loading()
    try:
        from stylecli.cli.app import main as run

        run()
    except SystemExit:
        raise
    except BaseException as error:
        if os.environ.get("STYLECLI_DEBUG") == "1" and not isinstance(error, KeyboardInterrupt):
            raise
        text, code = explain(error)
        print(f"stylecli: {text}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
