"""Fuzz the readers of foreign files, guided by coverage: a script, not a test.

    pip install atheris
    PYTHONPATH=. python tests/interop/fuzz_readers.py CORPUS -max_total_time=900 -rss_limit_mb=2048

CORPUS is a folder that grows; it begins with the files of ``foreign_files.all_kinds`` and those of
``tests/interop/corpus``. Any exception but a StyleCLIError, and any sign that code ran, stops it.
"""

import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["stylecli.interop"]):
    from stylecli.checkpoint import load_network
    from stylecli.interop import conversion
    from tests.interop import foreign_files, reader_checks

from stylecli.errors import StyleCLIError

_FILE = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / f"fuzzed-{id(sys)}"


def one_input(content: bytes) -> None:
    """Give one input to every reader, and watch."""
    _FILE.write_bytes(content)
    with reader_checks.watch():
        read(content)


def read(content: bytes) -> None:
    """Give one input, which lies in the file too, to every reader."""
    if content[:1] == b"\x80" or content[:2] == b"PK":
        reader_checks.check_network(content)
        reader_checks.check_batch(content)
        reader_checks.check_arrays(_FILE)
    else:
        with contextlib.suppress(StyleCLIError):
            load_network(_FILE)


def main() -> None:
    """Fill the corpus with good files and start."""
    conversion._AVERAGED = conversion._CHUNK = 10  # the mean of w is arithmetic, not reading
    corpus = Path(next(word for word in sys.argv[1:] if not word.startswith("-")))
    corpus.mkdir(parents=True, exist_ok=True)
    kinds = {**foreign_files.all_kinds(), "ours": foreign_files.own_network()}
    for name, content in kinds.items():
        (corpus / name).write_bytes(content)
    for content in [*kinds.values(), b"", b"GIF89a.........."]:  # import what is imported late
        _FILE.write_bytes(content)
        read(content)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
