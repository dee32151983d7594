"""Spoil JSON as crashes, other versions and strangers do, for tests of whatever reads it."""

import copy
import json
from collections.abc import Iterator
from typing import Any

WHOLE = {
    "empty": b"",
    "letters": b"\xff\xfe\x00 no JSON",
    "nested": b"[" * 5000,
    "a list": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "an empty object": b"{}",
}
EVIL = "a\x1b]0;PWN\x07\x9b2J\udc80\u202e/../b"
WRONG: tuple[Any, ...] = (None, 3.5, -(10**70), EVIL, "", [], [EVIL], {}, {EVIL: 1}, True)


def spoilt_documents(document: Any) -> Iterator[tuple[str, bytes]]:
    """Yield (what is wrong, content): the file as a whole, then value by value."""
    content = json.dumps(document).encode()
    yield from WHOLE.items()
    yield "cut off", content[: len(content) // 2]
    yield "NaN", content.replace(b":", b": NaN, ", 1)
    for place in _places(document):
        shown = ".".join(map(str, place))
        for value in WRONG:
            yield f"{shown} is {value!r:.20}", _encoded(_changed(document, place, value))
        yield f"no {shown}", _encoded(_without(document, place))


def spoilt_rows(rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Yield (what is wrong, content of the file of rows); one row in the middle is spoilt."""
    middle = len(rows) // 2
    before = b"".join(_encoded(row) + b"\n" for row in rows[:middle])
    after = b"".join(_encoded(row) + b"\n" for row in rows[middle + 1 :])
    for what, content in spoilt_documents(rows[middle]):
        yield what, before + content + b"\n" + after
        yield f"last: {what}", before + content


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _places(item, (*path, key))


def _changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    target = changed
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return changed


def _without(document: Any, place: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(document)
    target = changed
    for key in place[:-1]:
        target = target[key]
    del target[place[-1]]
    return changed


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
