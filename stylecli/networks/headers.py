"""What a network file says before its numbers are read: enough to refuse it without torch."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stylecli import __version__, files
from stylecli.errors import NetworkError
from stylecli.networks.config import NetworkConfig
from stylecli.networks.registry import config_from_dict

FORMAT = 1
STATE_DICT = "state_dict"  # entry of a file that is for another program


def is_foreign(path: Path | str) -> bool:
    """Tell by its first bytes whether a file is a pickle or a torch zip, and so not one of ours.

    Raises NetworkError for what a download leaves in place of a file: a page, a pointer, nothing.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise NetworkError(f"{path} is not readable: {error.strerror}") from None
    if wrong := files.name_failed_download(start):
        raise NetworkError(f"{path} {wrong}")
    # Ours start with the length of their JSON, 8 bytes whose first is 0x80 in one file of 32.
    is_safetensors = start[5:9] == b"\0\0\0{"
    return not is_safetensors and start.startswith((b"\x80", b"PK\3\4"))


def read_header(path: Path | str) -> dict[str, Any]:
    """Read the JSON header of one of our files without its tensors."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            text = metadata.get("stylecli")
    except (SafetensorError, OSError, ValueError) as error:
        cause: object = error
        if isinstance(error, SafetensorError) and not _begins_like_safetensors(path):
            cause = "it is of another kind; networks are .safetensors, .pkl or .pt files"
        raise NetworkError(f"{path} is not a readable safetensors file: {cause}") from None
    if text is None and STATE_DICT in metadata:
        raise NetworkError(
            f"{path} is a network for another program, as stylecli export writes it: give the file "
            "that it was made from"
        )
    if text is None:
        raise NetworkError(f"{path} was not written by stylecli: it has no stylecli header")
    header: dict[str, Any] = files.parse_json(
        text, f"the stylecli header of {path}", error=NetworkError
    )
    if header.get("format") != FORMAT:
        raise NetworkError(
            f"{path} has format version {header.get('format')!r}: this "
            f"stylecli {__version__} reads {FORMAT}"
        )
    return header


def _begins_like_safetensors(path: Path | str) -> bool:
    """Whether the first bytes of a file are the length of a JSON object, and this object."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def network_digest(path: Path | str) -> str:
    """Return the SHA-256 of a network file as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_header(path: Path | str) -> NetworkConfig | None:
    """Return the configuration that a network file of ours says it has; None of a foreign one.

    Raises NetworkError as reading its numbers would, as far as the header tells.
    """
    if is_foreign(path):
        return None
    return config_of(path, read_header(path))


def config_of(path: Path | str, header: dict[str, Any]) -> NetworkConfig:
    """Return the configuration in a header; raise NetworkError when there is none to use."""
    if "config" not in header:
        what = header.get("kind")
        held = f"holds {what}" if isinstance(what, str) and what.isalpha() else "holds other things"
        raise NetworkError(f"{path} {held}, not a network: give another file")
    try:
        return config_from_dict(header["config"])
    except (KeyError, TypeError, ValueError) as error:  # UsageError is a ValueError
        raise NetworkError(f"{path} has no usable network configuration: {error}") from None
