"""The error tree: every failure a user can cause or meet, with the exit code it ends with.

    StyleCLIError                1  the command failed
    ├── UsageError               2  the command line or the arguments make no sense
    ├── DataError                3  pictures or a dataset cannot be used
    ├── NetworkError             3  a network file or checkpoint cannot be used
    ├── WeightsError             3  the weights of a feature network are missing or wrong
    ├── DeviceError              4  the device or a kernel is unavailable
    └── Interrupted            130  the user stopped it; the same command goes on

A message is one sentence: what is wrong, with the value; what was expected; what to run.
"""

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
