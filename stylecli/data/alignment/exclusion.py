"""Lists of pictures to leave out: people ask that their photographs be removed."""

import re
import unicodedata
from pathlib import Path

from stylecli.errors import DataError

# FFHQ's own names: 00042.png, in-the-wild-images/00000/00042.png, also of pictures saved anew
_NUMBERED = re.compile(r"(?:(?:.*/)?\d{5}/)?(\d{5,8})\.\w+")
_MAX_ENTRY = 4096  # characters; longer are neither names nor addresses
_SCHEME = re.compile(r"^https?://(www\.)?", re.IGNORECASE)


class Exclusions:
    """What a list names: pictures by number, by file name or by the address of the photograph.

    One entry a line; ``#`` begins a comment, but not within an address. Upper and lower case count
    as the same, and so do addresses with and without ``www`` and a last slash.
    """

    def __init__(self, entries: list[str]) -> None:
        self._entries = {_normal(entry): entry for entry in entries}
        self._numbered = {
            int(match.group(1)): key for key in self._entries if (match := _NUMBERED.fullmatch(key))
        }
        self._used: set[str] = set()

    def excludes(self, *, number: int | None = None, name: str = "", url: str = "") -> bool:
        """Tell whether a picture is named by its number, its name or path, or its address.

        ``number`` is FFHQ's; it is found in the list as such or as any of FFHQ's file names.
        """
        path = _normal(name)
        candidates = [path, path.rpartition("/")[2]]
        if number is not None:
            candidates += [str(number), self._numbered.get(number, "")]
        if url:
            candidates.append(_normal(url))
        found = [candidate for candidate in candidates if candidate in self._entries]
        self._used.update(found)
        return bool(found)

    def unused(self) -> list[str]:
        """Return the entries that named none of the pictures asked about."""
        return [entry for key, entry in self._entries.items() if key not in self._used]

    def __len__(self) -> int:
        return len(self._entries)


def read_exclusions(path: Path | str) -> Exclusions:
    """Read a list from a text file. Raises DataError when it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the list {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"the list {path} is not UTF-8 text: give one entry a line") from None
    entries = [re.split(r"(?:^|\s)#", line)[0].strip() for line in text.splitlines()]
    for number, entry in enumerate(entries, 1):
        if len(entry) > _MAX_ENTRY:
            raise DataError(
                f"the list {path} has {len(entry):,} characters in line {number}, "
                f"{entry[:20]}...: expected the number, the name or the address of a picture"
            )
    return Exclusions([entry for entry in entries if entry])


def _normal(entry: str) -> str:
    entry = entry.strip().replace("\\", "/")
    if _SCHEME.match(entry):
        return "//" + _SCHEME.sub("", entry).rstrip("/").lower()
    entry = unicodedata.normalize("NFC", entry).lower()  # macOS writes accents apart
    if entry.isascii() and entry.isdigit():
        return entry.lstrip("0") or "0"
    return entry
