"""``python -m stylecli``, and where the console script begins."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback even while modules load."""
    try:
        from stylecli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("stylecli: interrupted: the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
