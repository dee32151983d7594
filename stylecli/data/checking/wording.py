"""The facts of a check: rows of (what, value) for people, and the same as JSON."""

from collections import Counter
from typing import Any

from stylecli.data.checking.judgement import Duplicates, count_groups, suggest_resolution
from stylecli.data.checking.subjects import Subject
from stylecli.data.checking.tally import ASPECTS, Extreme, Tally

CLASSES_SHOWN = 12
GROUPS_TOLD = 1000  # in JSON
_ASPECT_NAMES = [*(name for _, name in ASPECTS), "tall"]


def describe(subject: Subject, tally: Tally, duplicates: Duplicates) -> list[tuple[str, str]]:
    """Return (what, value) rows, from the general to the particular."""
    rows = [*subject.rows(), ("pictures", _count(tally))]
    if subject.kind == "source" and tally.usable:
        rows += _size_rows(subject, tally)
    if names := subject.class_names:
        rows.append(("classes", _classes(names, tally)))
    if tally.traits["grey"] and tally.traits["grey"] < tally.usable:
        rows.append(("grey among colour", f"{tally.traits['grey']:,}"))
    rows.append(("exact duplicates", _groups(duplicates.exact)))
    near = _groups(duplicates.near) if duplicates.searched else "not searched for"
    rows.append(("near duplicates", near))
    return rows


def collect_facts(subject: Subject, tally: Tally, duplicates: Duplicates) -> dict[str, Any]:
    """Return everything counted, for programs."""
    return {
        **subject.facts(),
        "count": tally.count,
        "looked_at": tally.looked_at,
        "usable": tally.usable,
        "faults": dict(tally.faults),
        "shorter_side": {
            "smallest": _extreme(subject, tally.smallest),
            "median": median_side(tally.sides),
            "largest": _extreme(subject, tally.largest),
        },
        "aspects": {name: tally.aspects[name] for name in _ASPECT_NAMES if tally.aspects[name]},
        "modes": dict(tally.modes),
        "formats": dict(tally.formats),
        "traits": dict(tally.traits),
        "classes": {
            name: tally.classes[label] for label, name in enumerate(subject.class_names or [])
        },
        "unlabelled": tally.unlabelled,
        "exact_duplicates": [_named(subject, group) for group in duplicates.exact[:GROUPS_TOLD]],
        "near_duplicates": (
            [_named(subject, group) for group in duplicates.near[:GROUPS_TOLD]]
            if duplicates.searched
            else None
        ),
    }


def median_side(sides: Counter[int]) -> int | None:
    """Return the (lower) median of the shorter sides."""
    half, seen = (sides.total() + 1) // 2, 0
    for side in sorted(sides):
        seen += sides[side]
        if seen >= half:
            return side
    return None


def _count(tally: Tally) -> str:
    text = f"{tally.count:,}"
    if tally.looked_at < tally.count:
        text += f", {tally.looked_at:,} of them looked at"
    if bad := tally.looked_at - tally.usable:
        text += f", {bad:,} damaged or unusable"
    return text


def _size_rows(subject: Subject, tally: Tally) -> list[tuple[str, str]]:
    assert tally.smallest is not None and tally.largest is not None
    smallest, largest = ("{} x {}".format(*e.size) for e in (tally.smallest, tally.largest))
    small_name = subject.name_of(tally.smallest.index)
    aspects = [
        f"{name} {tally.aspects[name] / tally.usable:.0%}"
        for name in _ASPECT_NAMES
        if tally.aspects[name]
    ]
    return [
        ("smallest", f"{smallest} px ({small_name})"),
        ("median side", f"{median_side(tally.sides):,} px"),
        ("largest", f"{largest} px"),
        ("shapes", ", ".join(aspects)),
        ("kinds", f"{_shares(tally.formats)}; {_shares(tally.modes)}"),
        ("packs to", f"{suggest_resolution(tally)} px, unless --resolution says otherwise"),
    ]


def _shares(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common(6))


def _classes(names: list[str], tally: Tally) -> str:
    sizes = [(name, tally.classes[label]) for label, name in enumerate(names)]
    shown = ", ".join(f"{name} ({size:,})" for name, size in sizes[:CLASSES_SHOWN])
    more = ", ..." if len(sizes) > CLASSES_SHOWN else ""
    filled = [size for _, size in sizes if size]
    ratio = f"; largest / smallest {max(filled) / min(filled):.1f}" if len(filled) > 1 else ""
    return f"{len(names)}: {shown}{more}{ratio}"


def _groups(groups: list[list[int]]) -> str:
    if not groups:
        return "none"
    return f"{sum(map(len, groups)):,} pictures in {count_groups(groups)}"


def _extreme(subject: Subject, extreme: Extreme | None) -> dict[str, Any] | None:
    if extreme is None:
        return None
    return {"size": list(extreme.size), "name": subject.name_of(extreme.index)}


def _named(subject: Subject, group: list[int]) -> list[str]:
    return [subject.name_of(index) for index in group[:GROUPS_TOLD]]
