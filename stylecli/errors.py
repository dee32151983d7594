"""The error tree: every failure a user can cause or meet, with the exit code it ends with.

    StyleCLIError                1  the command failed
    ├── UsageError               2  the command line or the arguments make no sense
    ├── DataError                3  pictures or a dataset cannot be used
    ├── NetworkError             3  a network file or checkpoint cannot be used
    ├── WeightsError             3  the weights of a feature network are missing or wrong
    ├── DeviceError              4  the device or a kernel is unavailable
    └── Interrupted            130  the user stopped it; run the same command to continue

A message is one sentence: what is wrong, with the value; what was expected; what to run.
``explain`` is the last net: every other error, of the system or of a library, has its sentence too.
``printable`` is for all text that strangers may have written.
"""

import errno
import re
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNUSABLE = 3
    NO_DEVICE = 4
    INTERRUPTED = 130


class StyleCLIError(Exception):
    """Base of every error the toolkit raises on purpose."""

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(StyleCLIError, ValueError):
    """An option or argument is invalid."""

    exit_code = ExitCode.USAGE


class DataError(StyleCLIError):
    """A picture, a folder of pictures or a dataset is missing or unusable."""

    exit_code = ExitCode.UNUSABLE


class NetworkError(StyleCLIError):
    """A network file, a checkpoint or a run is missing or unusable."""

    exit_code = ExitCode.UNUSABLE


class WeightsError(StyleCLIError):
    """The weights of a feature network are missing, damaged or of another kind."""

    exit_code = ExitCode.UNUSABLE


class Interrupted(StyleCLIError):  # noqa: N818  # no error: the user asked for it
    """The user stopped the command; what was done is saved."""

    exit_code = ExitCode.INTERRUPTED


class DeviceError(StyleCLIError):
    """The requested device or kernel is not available."""

    exit_code = ExitCode.NO_DEVICE


INTERRUPTED_TEXT = "interrupted: run the same command to continue"
_LONGEST_CAUSE = 300  # letters of a library's own words
DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error
# By name, as nothing here may import a library: what a damaged file makes libraries raise.
_UNREADABLE = {
    "SafetensorError", "BadZipFile", "UnpicklingError", "UnidentifiedImageError", "EOFError",
    "UnicodeDecodeError", "RecursionError", "DecompressionBombError",
}  # fmt: skip
_UNREADABLE_MODULES = ("zlib", "lzma", "lmdb", "struct", "PIL")
_NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc",
    "unable to find an engine",  # cuDNN, where no algorithm's workspace fits
)  # fmt: skip

# What moves the cursor, colours, rings, turns the direction of writing, hides or begins a line. A
# line break followed by two spaces is kept: so continue the few messages of several lines.
_UNSAFE = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]|\n(?!  )"
)


def printable(text: object) -> str:
    """Return text of strangers as a terminal may have it: control characters as ``\\x1b``.

    Names of files, metadata and other tools' messages hold any character, among them those that
    command a terminal. Letters of all languages stay as they are.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    """Return JSON text as a terminal may have it: the same values, no character that commands."""
    return _UNSAFE.sub(_as_json_escape, text.replace("\n", "\n  ")).replace("\n  ", "\n")


def _as_json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def plural(count: float, one: str, many: str = "") -> str:
    """Return a number and the words that agree with it: "1 file is", "2,000 files are".

    ``many`` is ``one`` with an s unless given.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def unknown_name(kind: str, word: str, choices: Iterable[str]) -> str:
    """Return the sentence about a word that is none of ``choices``: the nearest, else all."""
    import difflib

    known = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), known, 1)
    what = f"unknown {kind} {word!r}"
    if near:
        return f"{what}. Did you mean {known[near[0]]!r}?"
    return f"{what}: expected one of {', '.join(known.values())}"


def explain(error: BaseException) -> tuple[str, ExitCode]:
    """Return the sentence of any error, fit for a terminal, and the exit code it ends with."""
    if isinstance(error, StyleCLIError):
        return printable(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED_TEXT, ExitCode.INTERRUPTED
    cause = _cause(error)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        text = (
            f"the disk or your share of it is full ({cause}): make room and run the command again"
        )
        return text, ExitCode.FAILED
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{cause}: choose another place, such as with --out", ExitCode.FAILED
    if isinstance(error, OSError) and error.errno is not None:
        return cause, ExitCode.FAILED
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if lacks_memory(error):
        text = (
            f"there is not enough memory ({cause or 'no details'}): end other programs, or ask for "
            "less at a time (--batch, --resolution)"
        )
        return text, ExitCode.FAILED
    named = f"{type(error).__name__}: {cause}" if cause else type(error).__name__
    if "AcceleratorError" in kinds or "CUDA error" in cause:
        return f"the GPU failed ({named}): try --device cpu", ExitCode.NO_DEVICE
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if kinds & _UNREADABLE or modules & set(_UNREADABLE_MODULES):
        text = f"a file is damaged or of another kind ({named}): set STYLECLI_DEBUG=1 to see where"
        return text, ExitCode.UNUSABLE
    text = (
        f"stylecli failed unexpectedly ({named}): set STYLECLI_DEBUG=1 to see where, and "
        f"please report it"
    )
    return text, ExitCode.FAILED


def lacks_memory(error: BaseException) -> bool:
    """Say whether memory ran out, of the machine or of a GPU, whoever's words tell it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    cause = _cause(error).lower()
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or any(
        words in cause for words in _NO_MEMORY
    )


def _cause(error: BaseException) -> str:
    """Return the first line of an error's own words."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename is not None else ""
        return printable(f"{name}{error.strerror}")
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    text = printable(lines[0].strip()) if lines else ""
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}..."
