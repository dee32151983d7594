"""A search for directions from beginning to end, as ``stylecli directions find`` makes it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stylecli import __version__
from stylecli.errors import UsageError, plural
from stylecli.latents import Search
from stylecli.latents.directions import Direction, Directions, unknown_direction
from stylecli.latents.finding import (
    correct_leaks,
    find_channels,
    find_ganspace,
    find_in_activations,
    find_labels,
    find_sefa,
)
from stylecli.latents.judging import (
    JudgedFaces,
    Judging,
    Label,
    judge_faces,
    measure_effects,
    parse_label,
    usual_labels,
)
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.provenance import shown_path


def run_search(
    search: Search, G: Generator, known: Directions, judging: Judging | None = None, *,
    faces: JudgedFaces | None = None, tell: Callable[[str], None] = lambda why: None,
    progress: Progress = silent,
) -> list[Direction]:  # fmt: skip
    """Return new directions of a network, with how they were found.

    ``known`` are those that it has, which ``search.keep`` may name; ``faces`` are as many as the
    search asks for, where they were judged before; ``tell`` gets a sentence for each label without
    a direction. Raises UsageError for what the network or the classifiers lack,
    and for labels without ``judging``.
    """
    search.check()
    if search.labelled:
        if judging is None:
            raise UsageError(f"method {search.method} needs classifiers: give some")
        return _find_labelled(search, G, known, judging, faces, tell, progress)
    asked, space = search.settings, known.space
    if search.method == "sefa":
        new = find_sefa(G, space, search.layers, asked["count"], seed=search.seed)
        return _recorded(search, new, None)
    moved = space.layers(search.layers) if search.layers else range(space.num_ws)
    if search.activations is None:
        new = find_ganspace(G, asked["count"], asked["samples"], layers=moved, seed=search.seed,
                            progress=progress)  # fmt: skip
    else:
        new = find_in_activations(
            G, search.activations, asked["count"], asked["samples"], layers=moved,
            seed=search.seed, progress=progress,
        )  # fmt: skip
    return _recorded(search, new, None)


def _find_labelled(
    search: Search, G: Generator, known: Directions, judging: Judging,
    faces: JudgedFaces | None, tell: Callable[[str], None], progress: Progress,
) -> list[Direction]:  # fmt: skip
    """Find by what is seen in pictures, and measure what else changes."""
    judge, values = judging.judge, judging.values
    labels, asked = _labels(search, judging), search.settings
    first, second, third = (
        _part(progress, place, 3, title) for place, title in enumerate(("faces", "", "effects of"))
    )
    _check_kept(search, known, labels)
    faces = faces or judge_faces(
        G, asked["samples"], judge, values, seed=search.seed, progress=first
    )  # fmt: skip
    kept: list[Direction] = []
    if search.method == "channels":
        new = find_channels(G, known.space, faces, labels, judge, count=asked["count"],
                            seed=search.seed, progress=second)  # fmt: skip
    else:
        new, kept = _find_hyperplanes(search, G, known, faces, labels, tell, second)
    new = _recorded(search, new, judging)
    if not search.effects:
        return new
    how: dict[str, Any] = {"judge": judge, "values": values, "seed": search.seed, "progress": third}
    leaky = [one for one in new if kept and one.name not in search.keep]
    if leaky:
        own = [one for one in new if one.name in search.keep]
        new = [*own, *correct_leaks(G, known.adding(new), leaky, kept, **how)]
    measured = measure_effects(G, known.adding(new), [one.name for one in new], **how)
    return [replace(one, found={**one.found, **measured[one.name]}) for one in new]


def _find_hyperplanes(
    search: Search, G: Generator, known: Directions, faces: JudgedFaces, labels: Sequence[Label],
    tell: Callable[[str], None], progress: Progress,
) -> tuple[list[Direction], list[Direction]]:  # fmt: skip
    """Return the directions of labels, and those to be kept, of these labels or known before.

    Of these labels, those to be kept are found first, and the others without what they share with
    them.
    """
    layers = known.space.layers(search.layers) if search.layers else range(known.space.num_ws)
    found: list[Direction] = []
    kept: list[Direction] = []
    refused: dict[str, str] = {}
    for to_keep in (True, False):
        aims = [label for label in labels if (label.name in search.keep) == to_keep]
        more, causes = find_labels(
            G, faces, aims, layers=layers, fit=search.fit, keep=kept, seed=search.seed,
            progress=progress,
        )  # fmt: skip
        found, refused = found + more, refused | causes
        for name in search.keep if to_keep else ():
            if name in refused:
                raise UsageError(f"--keep {name}: {refused[name]}; give more --samples")
            kept.append(known.adding(found)[name])
    for name, cause in refused.items():
        if not found:
            raise UsageError(f"{name} has no direction: {cause}; give more --samples")
        tell(f"{name} is left out: {cause}")
    return found, kept


def _check_kept(search: Search, known: Directions, labels: Sequence[Label]) -> None:
    """Raise UsageError, before faces are judged, for what no direction can leave alone."""
    for name in search.keep:
        if any(label.name == name for label in labels):
            continue
        if name not in known.by_name:
            there = [*known.by_name, *(label.name for label in labels)]
            raise UsageError(f"--keep: {unknown_direction(name, there)}")
        if known[name].style_map is not None:
            raise UsageError(
                f"--keep {name}: it moves single styles, which are not part of w: name a direction "
                f"of w"
            )


def _labels(search: Search, judging: Judging) -> list[Label]:
    return [parse_label(text, judging.values) for text in search.labels] or usual_labels(
        judging.values
    )


def _record(search: Search, judging: Judging | None) -> dict[str, Any]:
    """Return what a direction's entry says of how it was found, beside numbers of its own."""
    settings = dict(search.settings)
    if judging is not None:
        settings |= {
            "labels": [one.text for one in _labels(search, judging)], "fit": search.fit,
            "keep": list(search.keep), "classifiers": judging.digest,
        }  # fmt: skip
    return {"tool": f"stylecli {__version__}", "method": search.method, "settings": settings}


def _recorded(search: Search, new: Sequence[Direction], judging: Judging | None) -> list[Direction]:
    record = _record(search, judging)
    return [replace(one, found={**one.found, **record}) for one in new]


def found_before(search: Search, known: Directions, judging: Judging | None = None) -> list[str]:
    """Return the names of the directions that the same search found before."""
    record = _record(search, judging)
    return [
        name for name, one in known.by_name.items()
        if all(one.found.get(key) == value for key, value in record.items())
    ]  # fmt: skip


def check_new(new: Sequence[Direction], known: Directions) -> None:
    """Raise UsageError where a new direction has the name of another one."""
    taken = [
        one.name for one in new
        if (other := known.by_name.get(one.name)) is not None and not _is_same(one, other)
    ]  # fmt: skip
    if taken:
        where = "the file" if known.path is None else shown_path(known.path)
        raise UsageError(
            f"{where} has another {taken[0]!r}: give --force to replace "
            f"{plural(len(taken), 'direction')}, or another --directions FILE"
        )


def _is_same(one: Direction, other: Direction) -> bool:
    """Whether two directions move faces alike: the same search with another count finds both."""
    return (
        (one.layers, one.style_map) == (other.layers, other.style_map)
        and one.vector.shape == other.vector.shape
        and bool(np.allclose(one.vector, other.vector, atol=1e-4))
        and math.isclose(one.scale, other.scale, rel_tol=1e-3)
    )


def _part(progress: Progress, number: int, parts: int, title: str = "") -> Progress:
    """Return a progress of one part as a share of all."""

    def report(done: float, total: float, note: str = "") -> None:
        share = (number + done / max(total, 1e-9)) / parts
        progress(round(min(share, 0.999), 3), 1.0, f"{title} {note}".strip())

    return report
