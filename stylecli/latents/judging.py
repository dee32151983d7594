"""What classifiers see in a network's faces, and what a direction changes of it.

Pictures are judged by a function that is handed in: images [N, C, H, W] about [-1, 1] to the
probabilities [N, K] of each attribute's K values, such as the metrics' classifiers return.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylecli.errors import UsageError, unknown_name
from stylecli.latents import Edit, check_name
from stylecli.latents.directions import Direction, Directions, resolve
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import Edits, device_of, exact_kernels, prepare_synthesis
from stylecli.sampling import one_hot, seed_labels, truncate_ws
from stylecli.statistics.arrays import Float64

Probabilities = dict[str, NDArray[np.float32]]  # attribute -> [N, K]
Judge = Callable[[Tensor], Mapping[str, Tensor]]

LATENTS = 2000  # mapped at a time
PICTURES = 64  # drawn at a time
EFFECT_FACES = 200


@dataclass(frozen=True)
class Judging:
    """Who says what is in a picture, such as the metrics' classifiers."""

    judge: Judge  # images [N, C, H, W] to probabilities [N, K] of every attribute's values
    values: Mapping[str, Sequence[str]]  # attribute -> names of its K values
    digest: str  # SHA-256 over all that decides the answers


@dataclass(frozen=True)
class Label:
    """What a direction is to change: some values of an attribute against others."""

    name: str
    attribute: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]  # empty: all others

    @property
    def text(self) -> str:
        """As it is written: smile=mouth:laugh/angry,sad."""
        others = f"/{','.join(self.negative)}" if self.negative else ""
        return f"{self.name}={self.attribute}:{','.join(self.positive)}{others}"

    def score(self, seen: Probabilities, values: Mapping[str, Sequence[str]]) -> Float64:
        """Return, for every picture, the probability of the one side less that of the other."""
        known, p = list(values[self.attribute]), seen[self.attribute].astype(np.float64)
        here = p[:, [known.index(value) for value in self.positive]].sum(axis=1)
        others = self.negative or [value for value in known if value not in self.positive]
        there = p[:, [known.index(value) for value in others]].sum(axis=1)
        return np.asarray(here - there)

    def known(self, seen: Probabilities, values: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
        """Return which pictures show a value of either side."""
        if not self.negative:
            return np.ones(len(seen[self.attribute]), bool)
        known, p = list(values[self.attribute]), seen[self.attribute]
        sides = [known.index(value) for value in (*self.positive, *self.negative)]
        return np.asarray(p[:, sides].sum(axis=1) > 0.5)


def parse_label(text: str, values: Mapping[str, Sequence[str]]) -> Label:
    """Read ``smile=mouth:laugh/angry,sad``, ``smile=mouth:laugh`` (against all others).

    Raises UsageError for another form, an attribute or a value that no classifier knows.
    """
    name, equals, rest = text.partition("=")
    attribute, colon, sides = rest.partition(":")
    if not equals or not colon or not sides.strip("/ ,"):
        raise UsageError(
            f"cannot read label {text!r}: expected NAME=ATTRIBUTE:VALUES[/OTHER VALUES], such as "
            f"smile=mouth:laugh/angry,sad"
        )
    attribute = attribute.strip()
    if attribute not in values:
        raise UsageError(unknown_name("attribute", attribute, values))
    words = [tuple(word.strip() for word in side.split(",")) for side in re.split("[/]", sides)]
    positive, negative = words[0], words[1] if words[1:] else ()
    for word in (*positive, *negative):
        if word not in values[attribute]:
            raise UsageError(unknown_name(f"value of {attribute}", word, values[attribute]))
    if len(words) > 2 or set(positive) & set(negative) or len(positive) >= len(values[attribute]):
        raise UsageError(f"label {text!r} does not divide the values of {attribute} into two sides")
    return Label(check_name(name.strip()), attribute, positive, negative)


def usual_labels(values: Mapping[str, Sequence[str]]) -> list[Label]:
    """Return a label for every value of every attribute; of two values for one of them alone."""
    found = []
    for attribute, known in values.items():
        stem = _as_name(attribute)
        if len(known) == 2:
            yes = next((word for word in known if word in ("yes", "positive")), known[-1])
            named = stem if yes in ("yes", "positive") else f"{stem}-{_as_name(yes)}"
            found.append(Label(named, attribute, (yes,), ()))
        else:
            found += [Label(f"{stem}-{_as_name(word)}", attribute, (word,), ()) for word in known]
    return found


def _as_name(text: str) -> str:
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text)
    return "-".join(filter(None, letters.split("-"))).lower() or "x"


# ---- faces


def draw_latents(G: Generator, count: int, seed: int) -> Iterator[Tensor]:
    """Yield w [B, w_out_dim] of ``count`` latents from one stream, classes in turn, on the CPU."""
    random = np.random.RandomState(seed)
    device, config = device_of(G), G.config
    for start in range(0, count, LATENTS):
        size = min(LATENTS, count - start)
        z = torch.from_numpy(random.randn(size, config.z_dim).astype(np.float32)).to(device)
        classes = seed_labels(config, range(start, start + size))
        c = None if classes is None else one_hot(classes, config.label_dim).to(device)
        with torch.inference_mode(), exact_kernels(device):
            yield G.mapping(z, c)[:, 0].cpu()


def check_w(G: Generator) -> None:
    """Raise UsageError for a network without w."""
    if not G.config.has_w:
        raise UsageError(
            f"configuration {G.config.preset!r} has no intermediate latent space, and its z varies "
            f"alike in all directions: use --method sefa"
        )


@dataclass(frozen=True)
class JudgedFaces:
    """Faces of a network with what classifiers see in them."""

    w: Float64  # [N, w_out_dim]
    seen: Probabilities
    values: Mapping[str, Sequence[str]]  # attribute -> names of its K values


def judge_faces(
    G: Generator, samples: int, judge: Judge, values: Mapping[str, Sequence[str]], *, seed: int = 0,
    progress: Progress = silent,
) -> JudgedFaces:  # fmt: skip
    """Draw faces without truncation and have them judged; w and probabilities stay in memory."""
    check_w(G)
    rows = torch.cat(list(draw_latents(G, samples, seed)))
    seen: list[Probabilities] = []
    for part in judged(G, same_in_all(G, rows), judge):
        seen.append(part)
        progress(min(samples, PICTURES * len(seen)), samples)
    return JudgedFaces(rows.numpy().astype(np.float64), joined(seen), values)


def same_in_all(G: Generator, w: Tensor) -> Tensor:
    """Return ws [N, num_ws, w_dim] that have w [N, w_dim] in all layers."""
    return w[:, None].expand(-1, G.config.num_ws, -1)


def judged(
    G: Generator, ws: Tensor, judge: Judge, edits: Edits | None = None
) -> Iterator[Probabilities]:
    """Yield what is seen in the pictures of ws [N, num_ws, w_dim], some at a time."""
    edits, device = edits or Edits(), device_of(G)
    synthesis = prepare_synthesis(edits.shift(G))
    for part in torch.split(ws, PICTURES):
        with torch.inference_mode(), exact_kernels(device):
            images = synthesis(edits.move(part).to(device))
            seen = judge(images)
        yield {name: p.float().cpu().numpy() for name, p in seen.items()}


def joined(parts: Sequence[Probabilities]) -> Probabilities:
    """Return what is seen in all parts together."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ---- effects


def measure_effects(
    G: Generator, directions: Directions, names: Iterable[str], judge: Judge,
    values: Mapping[str, Sequence[str]], *, faces: int = EFFECT_FACES, seed: int = 0,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Return what strength 1 does to faces at the network's usual truncation, by direction.

    ``changes``: of every attribute, the share of the faces that show another value (half the sum
    of what probabilities change by, mean of strengths -1 and +1). ``moves``: of every label, how
    far its score moves, in its own standard deviations over the faces, from -1 to +1 halved.
    """
    ws = truncate_ws(
        G, same_in_all(G, torch.cat(list(draw_latents(G, faces, seed + 3)))),
        G.config.truncation_psi if G.config.truncates else 1.0, G.config.truncation_cutoff,
    )  # fmt: skip
    plain = joined(list(judged(G, ws, judge)))
    labels = {
        name: label for name, one in directions.by_name.items()
        if (label := _label_of(one, values)) is not None
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    chosen = list(names)
    for number, name in enumerate(chosen, 1):
        ends = [
            joined(list(judged(G, ws, judge, resolve([Edit(name, strength)], directions))))
            for strength in (-1.0, 1.0)
        ]
        changes = {
            attribute: round(float(np.mean([
                0.5 * np.abs(end[attribute] - plain[attribute]).sum(axis=1).mean() for end in ends
            ])), 4)
            for attribute in values
        }  # fmt: skip
        moves = {}
        for other, label in labels.items():
            low, high = (label.score(end, values) for end in ends)
            spread = float(label.score(plain, values).std())
            moves[other] = round(float((high - low).mean()) / 2 / max(spread, 1e-6), 4)
        found[name] = {"changes": changes, "moves": moves, "measured_on": faces}
        progress(number, len(chosen), name)
    return found


def _label_of(direction: Direction, values: Mapping[str, Sequence[str]]) -> Label | None:
    """Return the label that a direction was found for; None where these classifiers lack it."""
    text = direction.found.get("label")
    if direction.method != "labels" or not isinstance(text, str):
        return None
    try:
        return parse_label(text, values)
    except UsageError:
        return None
