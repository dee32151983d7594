"""``python -m stylecli``, and where the console script begins."""

import os
import sys

from stylecli.errors import explain
from stylecli.lazy import hold_back_interrupts_while_loading


def main() -> None:
    """Run the command line; nothing ends it with a traceback, even while modules load."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
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
