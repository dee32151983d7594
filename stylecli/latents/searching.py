"""A search for directions from beginning to end, as ``stylecli directions find`` makes it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

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
    judge, values, space = judging.judge, judging.values, known.space
    labels = _labels(search, judging)
    asked = search.settings
    parts = 3
    if faces is None:
        faces = judge_faces(
            G, asked["samples"], judge, values, seed=search.seed,
            progress=_part(progress, 0, parts, "faces"),
        )  # fmt: skip
    seen = faces
    second, third = _part(progress, 1, parts), _part(progress, 2, parts, "effects of")
    if search.method == "channels":
        new = find_channels(G, space, seen, labels, judge, count=asked["count"], seed=search.seed,
                            progress=second)  # fmt: skip
    else:
        how: dict[str, Any] = {
            "layers": space.layers(search.layers) if search.layers else range(space.num_ws),
            "fit": search.fit, "seed": search.seed,
        }  # fmt: skip
        new, refused = find_labels(G, seen, labels, progress=second, **how)
        for name, why in refused.items():
            if not new:
                raise UsageError(f"{name} has no direction: {why}; give more --samples")
            tell(f"{name} is left out: {why}")
        if search.keep:
            new = _keeping(search, known, new, labels, lambda aims, keep: find_labels(
                G, seen, aims, keep=keep, **how)[0])  # fmt: skip
    new = _recorded(search, new, judging)
    if search.effects and search.keep:
        every = known.adding(new)
        kept = [every[name] for name in search.keep]
        new = [
            one if one.name in search.keep else correct_leaks(
                G, every, one, kept, judge, values, seed=search.seed)
            for one in new
        ]  # fmt: skip
    if search.effects and new:
        measured = measure_effects(
            G, known.adding(new), [one.name for one in new], judge, values, seed=search.seed,
            progress=third,
        )  # fmt: skip
        new = [replace(one, found={**one.found, **measured[one.name]}) for one in new]
    progress(1.0, 1.0)
    return new


def _labels(search: Search, judging: Judging) -> list[Label]:
    return [parse_label(text, judging.values) for text in search.labels] or usual_labels(
        judging.values
    )


def _keeping(
    search: Search, known: Directions, new: Sequence[Direction], labels: Sequence[Label],
    find: Callable[[Sequence[Label], Sequence[Direction]], list[Direction]],
) -> list[Direction]:  # fmt: skip
    """Return the directions found again without what they share with those to be kept.

    Those to be kept, of this search or known before, stay as they are.
    """
    everything = {**known.by_name, **{one.name: one for one in new}}
    for name in search.keep:
        if name not in everything:
            raise UsageError(
                f"--keep: {unknown_direction(name, replace(known, by_name=everything))}"
            )
    kept = [everything[name] for name in search.keep]
    fresh = [one for one in new if one.name in search.keep and one.name not in known.by_name]
    return [*fresh, *find([one for one in labels if one.name not in search.keep], kept)]


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
    taken = [one.name for one in new if one.name in known.by_name]
    if taken:
        raise UsageError(
            f"the file has another {taken[0]!r}: give --force to replace "
            f"{plural(len(taken), 'direction')}, or another --directions FILE"
        )


def _part(progress: Progress, number: int, parts: int, title: str = "") -> Progress:
    """Return a progress of one part as a share of all."""

    def report(done: float, total: float, note: str = "") -> None:
        share = (number + done / max(total, 1e-9)) / parts
        progress(round(min(share, 0.999), 3), 1.0, f"{title} {note}".strip())

    return report
