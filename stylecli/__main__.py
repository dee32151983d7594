"""``python -m stylecli``: the same as the console script."""

from stylecli.cli.app import main

if __name__ == "__main__":
    main()
