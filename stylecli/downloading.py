"""Download one file whose hash is known: resumed where it stopped, kept only when it is right.

Bytes go to ``<name>.part`` beside the target, which stays when the connection breaks and is gone
on with by the next call (HTTP Range). The target appears by a rename, after its SHA-256 was
compared; a whole file with another hash is renamed to ``<name>.rejected``.
"""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from stylecli.errors import WeightsError
from stylecli.progress import Progress, silent

_CHUNK = 1 << 20
_MAX_BYTES = 4 << 30  # no weight file is larger: a server that says so is the wrong one
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    progress: Progress = silent,
    timeout_seconds: float = 30.0,
    attempts: int = 3,
) -> Path:
    """Return ``path`` once it holds the file behind ``url`` (http or https).

    ``sha256`` is its hash in hex, or the beginning of it; ``progress`` counts megabytes. A broken
    connection is tried again ``attempts`` times. Raises WeightsError when the server cannot be
    reached, does not have the file, or sends another one.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is no address to download from: expected http or https")
    if path.is_file() and _hash_of(path).startswith(sha256):
        return path
    partial = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(attempts):
        try:
            _receive(url, partial, progress, timeout_seconds)
            break
        except urllib.error.HTTPError as error:
            with error:
                if error.code < 500 or attempt + 1 == attempts:
                    raise _failed(url, partial, f"HTTP {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == attempts:
                reason = getattr(error, "reason", None) or error
                raise _failed(url, partial, str(reason) or type(error).__name__) from None
        time.sleep(min(0.5 * 2**attempt, 5.0))
    found = _hash_of(partial)
    if not found.startswith(sha256):
        rejected = path.with_name(path.name + ".rejected")
        partial.replace(rejected)
        raise WeightsError(
            f"{url} has SHA-256 {found[:16]}..., expected {sha256[:16]}...: it is not used and "
            f"kept as {rejected}; the same command begins anew"
        )
    partial.replace(path)
    return path


def _receive(url: str, partial: Path, progress: Progress, timeout_seconds: float) -> None:
    """Add what is missing to ``partial``; raise OSError when the connection ends too early."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "stylecli", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing behind what is here: its hash will tell
            error.close()
            return
        raise
    with response:
        have, total = _place(response, have)
        if (total or 0) > _MAX_BYTES:
            raise WeightsError(f"{url} has {total:,} bytes: no weight file is over 4 GiB")
        with open(partial, "r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if have > _MAX_BYTES:
                    raise WeightsError(f"{url} does not end: no weight file is over 4 GiB")
                progress(have / 1e6, max(total or 0, have) / 1e6)
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _place(response: Any, have: int) -> tuple[int, int | None]:
    """Return where the answer's bytes begin in the file, and how many the file has in all."""
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match and int(match[1]) == have:
            return have, int(match[2]) if match[2].isdigit() else None
        raise ConnectionError("the server answered with another part of the file")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _failed(url: str, partial: Path, reason: str) -> WeightsError:
    kept = partial.stat().st_size if partial.exists() else 0
    rest = (
        f"bring {partial.stem} here in another way, then run: stylecli weights add {partial.stem}"
    )
    if kept:
        rest = f"{kept:,} bytes are kept in {partial}: run the same command to go on"
    return WeightsError(f"{url} could not be fetched ({reason}); {rest}")


def _hash_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
