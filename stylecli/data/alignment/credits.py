"""Who made a picture and under which licence: the keys it is kept under, and what follows."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from PIL.PngImagePlugin import PngInfo

# What is known of a picture, in a dataset's metadata and in faces.jsonl.
AUTHOR, LICENCE, LICENCE_URL = "author", "licence", "licence_url"
TITLE, SOURCE_URL, CATEGORY = "title", "source_url", "category"

_PNG_KEYWORDS = {AUTHOR: "Author", LICENCE: "Copyright", SOURCE_URL: "Source", TITLE: "Title"}


def is_non_commercial(metadata: Mapping[str, Any]) -> bool:
    """Tell whether a picture's licence is one of Creative Commons' non-commercial ones."""
    name = str(metadata.get(LICENCE, "")).lower().replace("-", "").replace(" ", "")
    return "noncommercial" in name or "bync" in name or "/by-nc" in _url(metadata)


def licence_notes(pictures: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a user must know of the licences: none, one or two sentences."""
    licences: Counter[str] = Counter()
    total = restricted = attributed = 0
    for metadata in pictures:
        total += 1
        restricted += is_non_commercial(metadata)
        attributed += "/by" in _url(metadata) or " BY" in str(metadata.get(LICENCE, ""))
        licences[str(metadata.get(LICENCE) or "not known")] += 1
    if not total or set(licences) == {"not known"}:
        return []
    counted = ", ".join(f"{name} ({count:,})" for name, count in licences.most_common(6))
    notes = [f"licences of the {total:,} pictures: {counted}"]
    if restricted:
        notes.append(
            f"{restricted:,} of them may not be used commercially; "
            f"{max(attributed, restricted):,} ask that their authors be named"
        )
    return notes


def png_info(metadata: Mapping[str, Any]) -> PngInfo:
    """Return PNG text that names author, licence and origin, so that a file alone says them."""
    info = PngInfo()
    for key, keyword in _PNG_KEYWORDS.items():
        words = [str(metadata[key])] if metadata.get(key) else []
        if key == LICENCE and metadata.get(LICENCE_URL):
            words.append(str(metadata[LICENCE_URL]))
        if words:
            info.add_itxt(keyword, " ".join(words).encode("utf-8", "replace").decode())
    return info


def _url(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(LICENCE_URL, "")).lower()
