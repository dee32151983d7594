"""From sums to sentences: which findings are problems and what helps, and the facts told.

Every problem ends with the command or flag that helps. What is asked for often comes from the
complaints people have about other tools: see docs/from-pictures-to-training.md.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from stylecli.data.checking.findings import (
    ASPECTS,
    Extreme,
    Problem,
    Severity,
    Tally,
    worst_first,
)
from stylecli.data.checking.subjects import Subject
from stylecli.data.format import MIN_RESOLUTION
from stylecli.data.preparation import most_of
from stylecli.data.reader import Dataset
from stylecli.errors import plural
from stylecli.networks.config import MAX_RESOLUTION
from stylecli.shapes import propose_shape

FEW_PICTURES = 1000
IMBALANCE = 10  # largest class : smallest class
SMALL_CLASS = 50  # pictures
_MANY_NEAR = 0.01  # of the pictures; fewer hardly weigh
_MOST = 0.5  # a trait of so many of the pictures is a matter of the whole set

_SINGULAR = (
    ("and are ", "and is "), ("their pixels are", "its pixels are"), ("their", "its"),
    ("they are", "it is"), ("levels that are", "levels that are"),
)  # fmt: skip
CLASSES_SHOWN = 12
GROUPS_TOLD = 1000  # in JSON
_ASPECT_NAMES = [*(name for _, name in ASPECTS), "tall"]


@dataclass(frozen=True)
class Duplicates:
    """Groups of equal and of nearly equal pictures, by index."""

    exact: list[list[int]]
    near: list[list[int]]
    searched: bool = True  # for nearly equal ones


@dataclass(frozen=True)
class Case:
    """What is judged: the sums, and the words for the commands that help."""

    tally: Tally
    kind: str  # "dataset" or "source"
    path: Path
    count: int
    name: str
    class_names: list[str] | None
    keeps_duplicates: bool  # a dataset packed to keep them
    padded: bool  # a dataset packed with borders on purpose
    samples: str = ""  # where some pictures can be looked at
    sheet: str = ""  # where near duplicates can be looked at
    labels: str = ""  # the file of labels that was given with the pictures
    source: str = ""  # of a dataset, the pictures it was packed from, where they are here
    packed: tuple[Dataset, ...] = ()  # of a source, the datasets made of it, the newest first

    @property
    def pack(self) -> str:
        """The command that packs the pictures, again or for the first time."""
        labels = f" --labels {quote(self.labels)}" if self.labels else ""
        if self.kind == "source":
            return f"stylecli pack {quote(str(self.path))}{labels}"
        source = quote(self.source) if self.source else "SRC"
        return f"stylecli pack {source} --out {quote(str(self.path))} --force"

    @property
    def train(self) -> str:
        """The command that trains on them."""
        return f"stylecli train {quote(str(self.path))}"


def judge(case: Case, duplicates: Duplicates) -> list[Problem]:
    """Return the problems of a set of pictures, without names."""
    return [
        *_judge_faults(case),
        *_judge_amount(case),
        *_judge_labels(case),
        *_judge_duplicates(case, duplicates),
        *_judge_traits(case),
    ]


def _judge_faults(case: Case) -> Iterator[Problem]:
    faults, again = case.tally.faults, case.pack
    words: dict[str, tuple[Severity, str]] = {
        "pixels": ("error", "are damaged: their pixels are not what was packed"),
        "level": ("error", "have smaller levels that are not made from their pixels"),
        "label": ("error", "have a label that differs from the list of labels"),
        "metadata": ("warning", "have unreadable metadata (author, licence, source)"),
    }
    for kind, (severity, text) in words.items():
        if count := faults[kind]:
            yield Problem(severity, f"damaged-{kind}", _some(case, count, text), again, count)
    if unusable := faults["unusable"]:
        if unusable == case.tally.looked_at:
            text = "no picture can be used"
            yield Problem("error", "unusable", text, f"fix them, then {again}", unusable)
        else:
            yield Problem(
                "warning",
                "unusable",
                _some(case, unusable, "cannot be used and will be left out"),
                "fix or remove them (stylecli pack skips them otherwise)",
                unusable,
            )


def _judge_amount(case: Case) -> Iterator[Problem]:
    side = max(case.tally.sides, default=0)
    if case.kind == "dataset" and side > MAX_RESOLUTION:
        text = f"the pictures have {side} px; networks have at most {MAX_RESOLUTION}"
        fix = f"{case.pack} --resolution {MAX_RESOLUTION}"
        advised = (f"--resolution {MAX_RESOLUTION}",)
        yield Problem("error", "too-large", text, fix, case.count, pack=advised)
    usable = case.count - case.tally.faults["unusable"]
    if 0 < usable < FEW_PICTURES:
        yield Problem(
            "warning",
            "few-pictures",
            f"{plural(usable, 'picture is', 'pictures are')} few: a network memorises them below "
            f"about "
            f"{FEW_PICTURES:,}, even with the augmentation that training turns on for them",
            f"add pictures, or double them by {case.train} --mirror",
            usable,
            train=("--mirror",),
        )


def _judge_labels(case: Case) -> Iterator[Problem]:
    names, classes = case.class_names, case.tally.classes
    if not names or not classes:
        return
    if missing := case.tally.unlabelled:
        yield Problem(
            "error" if case.kind == "dataset" else "warning",
            "unlabelled",
            _some(case, missing, "have no label"),
            f"{case.pack} --labels FILE, or --no-labels",
            missing,
            pack=("--no-labels",),
        )
    sizes = {name: classes[label] for label, name in enumerate(names)}
    empty = [name for name, size in sizes.items() if not size]
    if empty and case.tally.looked_at == case.count:
        yield Problem(
            "warning",
            "empty-classes",
            f"no picture in {len(empty)} of {plural(len(names), 'class', 'classes')} "
            f"({_list(empty)}): a network cannot learn them",
            f"remove them and {case.pack}, or train without --labels",
            len(empty),
        )
    filled = {name: size for name, size in sizes.items() if size}
    smallest, largest = (pick(filled, key=lambda name: filled[name]) for pick in (min, max))
    ratio = filled[largest] / filled[smallest]
    if ratio >= IMBALANCE:
        yield Problem(
            "warning",
            "imbalance",
            f"the classes are uneven: {largest} has {plural(filled[largest], 'picture')} and "
            f"{smallest} has {filled[smallest]:,}, {ratio:.0f} times fewer",
            "add pictures to the small ones, or train without --labels",
            filled[smallest],
        )
    elif filled[smallest] < SMALL_CLASS and len(filled) > 1:
        yield Problem(
            "note",
            "small-classes",
            f"class {smallest} has {plural(filled[smallest], 'picture')}, few to learn from",
            "add pictures, or train without --labels",
            filled[smallest],
        )


def _judge_duplicates(case: Case, duplicates: Duplicates) -> Iterator[Problem]:
    if extra := sum(len(group) - 1 for group in duplicates.exact):
        text = _some(case, extra, "repeat another exactly")
        if case.kind == "source":
            yield Problem(
                "note",
                "duplicates",
                f"{text} and will be left out",
                f"to keep them: {case.pack} --keep-duplicates",
                extra,
            )
        elif not case.keeps_duplicates:
            yield Problem("warning", "duplicates", text, case.pack, extra)
    if duplicates.near:
        pictures = sum(map(len, duplicates.near))
        look = f"look at {case.sheet}, " if case.sheet else ""
        yield Problem(
            "warning" if pictures >= _MANY_NEAR * case.count else "note",
            "near-duplicates",
            f"{_some(case, pictures, 'nearly repeat another')} ({count_groups(duplicates.near)})",
            f"{look}remove the surplus, then {case.pack}",
            pictures,
        )


def _judge_traits(case: Case) -> Iterator[Problem]:
    traits, usable, again = case.tally.traits, max(1, case.tally.usable), case.pack
    remove = f"remove what should not be learned, then {again}"
    for trait, text in (
        ("blank", "are of one plain colour"),
        ("dark", "are almost black"),
    ):
        if count := traits[trait]:
            yield Problem("warning", trait, _some(case, count, text), remove, count)
    if (count := traits["bars"]) and not case.padded:
        text = _some(case, count, "have plain bars on two opposite sides, which a network learns")
        yield Problem("warning", "bars", text, f"crop them, then {again}", count)
    colour = usable - sum(case.tally.modes[mode] for mode in ("grey", "L", "1", "I;16", "LA"))
    if traits["grey"] and traits["grey"] == colour == usable:
        text = "all pictures are grey but stored in colour, three times the work"
        fix, advised = f"{again} --channels 1", ("--channels 1",)
        yield Problem("warning", "grey-as-colour", text, fix, traits["grey"], pack=advised)
    if traits["opaque"] and traits["opaque"] == usable:
        text = "the alpha channel is opaque in all pictures"
        fix, advised = f"{again} --channels 3", ("--channels 3",)
        yield Problem("warning", "opaque-alpha", text, fix, usable, pack=advised)
    if case.kind == "source":
        yield from _judge_choices(case, usable)


def _judge_choices(case: Case, usable: int) -> Iterator[Problem]:
    """Judge what packing decides by its options."""
    traits, again = case.tally.traits, case.pack
    for trait, text, fix in (
        (
            "rotated",
            "are sideways or upside down as stored, and are turned upright by EXIF",
            f"to leave them so: {again} --as-stored",
        ),
        (
            "profile",
            "have a colour profile, which is converted to sRGB",
            f"to leave colours as stored: {again} --icc ignore",
        ),
        (
            "transparent",
            "are transparent, which becomes white",
            f"{again} --background COLOUR, or --channels 4 to keep it",
        ),
    ):
        if count := traits[trait]:
            yield Problem("note", trait, _some(case, count, text), fix, count)
    if shape := cuts_much_off(case.tally):
        count = case.tally.aspects[shape]
        look = f" (see {case.samples})" if case.samples else ""
        yield Problem(
            "note",
            f"mostly-{shape}",
            f"{count / usable:.0%} of the pictures are {shape}: the central square cuts much off, "
            "and letterboxing draws black bars into every picture the network makes",
            f"to cut a square towards the subject{look}: {again} --transform subject"
            f"{_or_native(case)}",
            count,
            pack=("--transform subject",),
        )
    resolution = suggest_resolution(case.tally)
    small = sum(count for side, count in case.tally.sides.items() if side < resolution)
    if small:
        text = _some(case, small, f"are smaller than {resolution} px and will be left out")
        yield Problem(
            "warning",
            "too-small",
            text,
            f"to keep them: {again} --enlarge, or --resolution {resolution // 2}",
            small,
        )
    elif resolution < MIN_RESOLUTION * 2:
        tiny = sum(count for side, count in case.tally.sides.items() if side < 2 * MIN_RESOLUTION)
        middle = sorted(case.tally.sides.elements())[usable // 2]
        larger = 1 << (min(middle, MAX_RESOLUTION).bit_length() - 1)
        advised: tuple[str, ...] = (f"--resolution {larger}",)
        if larger < 2 * MIN_RESOLUTION:
            advised = ("--resolution 32", "--enlarge")
        yield Problem(
            "error",
            "too-small",
            _some(case, tiny, f"are smaller than {MIN_RESOLUTION * 2} px, too many to decide by"),
            f"{again} {' '.join(advised)}",
            tiny,
            pack=advised,
        )


def join_advice(case: Case, problems: list[Problem]) -> str:
    """Return the one command that does all that the problems advise; "" where none is ready.

    Packing comes first where it has anything to do, then training, which packs what is not packed.
    """
    options: dict[str, str] = {}
    for problem in reversed(worst_first(problems)):  # what is worse has the last word
        options |= {option.partition(" ")[0]: option for option in problem.pack}
    train = " ".join([case.train, *(option for problem in problems for option in problem.train)])
    stopped = any(problem.severity == "error" and not problem.pack for problem in problems)
    if case.kind == "dataset":
        repack = any(
            problem.severity != "note" and case.pack in problem.fix for problem in problems
        )
        if not options and not repack:
            return "" if stopped else train
        if not case.source:
            return ""
        return " ".join([case.pack, *options.values()]) + f" && {train}"
    if stopped:
        return ""
    if any(_holds(dataset, options) for dataset in case.packed):
        return train
    words = [case.pack, *options.values()]
    folder = Path("datasets")
    if (folder / f"{case.name}.lmdb").exists():
        number = next(n for n in range(2, 10**6) if not (folder / f"{case.name}-{n}.lmdb").exists())
        words.append(f"--out {quote(str(folder / f'{case.name}-{number}.lmdb'))}")
    pack = " ".join(words)
    if train == case.train:
        return pack
    return train if len(words) == 1 and not case.labels else f"{pack} && {train}"


def _holds(dataset: Dataset, options: dict[str, str]) -> bool:
    """Whether a dataset was packed with these options."""
    settings = dataset.info.get("settings") or {}
    for name, option in options.items():
        value = option.partition(" ")[2]
        stored = settings.get(name.removeprefix("--"))
        if name == "--no-labels":
            if settings.get("labels") is not False:
                return False
        elif str(stored) != value:
            return False
    return True


def cuts_much_off(tally: Tally) -> str:
    """Return "wide" or "tall" where most pictures are so and a square in the middle loses much."""
    usable = max(1, tally.usable)
    return next((name for name in ("wide", "tall") if tally.aspects[name] >= _MOST * usable), "")


def _or_native(case: Case) -> str:
    """Say how to keep the pictures' own shape, where one would keep much more than a square."""
    grid = case.tally.fitting_grid
    return (
        "" if grid.is_usual else f"; to train in their own shape: {case.pack} --shape {grid.ratio}"
    )


def suggest_resolution(tally: Tally) -> int:
    """Return the resolution that packing chooses for central squares.

    The rule of ``preparation.choose_resolution``, from counts of sides instead of all sizes.
    """
    resolution = MIN_RESOLUTION
    while resolution < MAX_RESOLUTION:
        larger = 2 * resolution
        reaching = sum(count for side, count in tally.sides.items() if side >= larger)
        if reaching < most_of(tally.usable):
            break
        resolution = larger
    return resolution


def count_groups(groups: list[list[int]]) -> str:
    """Say "1 group" or "2 groups"."""
    return plural(len(groups), "group")


def _some(case: Case, count: int, what: str) -> str:
    """Say "12 of 2,000 pictures are ...", "1 of 2,000 pictures is ..."; of what was looked at."""
    if count == 1:
        verb, _, rest = what.partition(" ")
        one = {
            "are": "is",
            "have": "has",
            "repeat": "repeats",
        }.get(verb, verb)
        for many, single in _SINGULAR:
            rest = rest.replace(many, single)
        what = f"{one} {rest}"
    return f"{count:,} of {plural(case.tally.looked_at, 'picture')} {what}"


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ..." if len(names) > 5 else shown


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
        "fitting_shape": tally.fitting_grid.ratio if tally.usable else None,
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
        text += f", {tally.looked_at:,} of them checked"
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
        *((("fitting shape", text),) if (text := propose_shape(tally.sizes)) else ()),
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
    return f"{plural(sum(map(len, groups)), 'picture')} in {count_groups(groups)}"


def _extreme(subject: Subject, extreme: Extreme | None) -> dict[str, Any] | None:
    if extreme is None:
        return None
    return {"size": list(extreme.size), "name": subject.name_of(extreme.index)}


def _named(subject: Subject, group: list[int]) -> list[str]:
    return [subject.name_of(index) for index in group[:GROUPS_TOLD]]
