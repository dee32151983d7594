"""Find directions: of style weights, of variance, of labels, and single style channels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stylecli.errors import UsageError, plural
from stylecli.latents.directions import Direction, Directions, Space
from stylecli.latents.judging import (
    EFFECT_FACES,
    LATENTS,
    PICTURES,
    Judge,
    JudgedFaces,
    Label,
    check_w,
    draw_latents,
    joined,
    judged,
    measure_effects,
    same_in_all,
)
from stylecli.networks.model import Generator, StyleMap
from stylecli.progress import Progress, silent
from stylecli.rendering import Edits, device_of, exact_kernels
from stylecli.seeds import format_seeds
from stylecli.statistics.arrays import Float64
from stylecli.statistics.components import (
    LatentRegression,
    PrincipalComponents,
    pointed,
    weight_directions,
)
from stylecli.statistics.linear_svm import fit_linear_svm
from stylecli.styles import BANDS, style_bands

SCALE_SAMPLES = 10_000  # faces whose deviation along a direction is strength 1
GANSPACE_SAMPLES = 300_000  # of the published runs in w
_ACTIVATIONS = 1 << 26  # numbers of a batch of activations
_MOST_FEATURES = 1 << 18  # of one picture, in whose space components are found
_UNSURE = 0.2  # of the faces that a label is known of are left out: those nearest to its middle
_EVERY = 5  # of the rest, one in so many is held out
_LEAST_FACES = 20  # on each side of a label
_TRIED = 20  # channels for each label whose effect is measured
_ROUNDS = 2  # of taking off a leak: pictures are no linear function of w
_MOST_SHARE = 1.0  # strength of a direction that is kept, taken off another's strength 1


def _deviations(G: Generator, vectors: Float64, seed: int) -> Float64:
    """Return the standard deviation of the network's faces along each of the vectors [K, w]."""
    total, squares, count = np.zeros(len(vectors)), np.zeros(len(vectors)), 0
    centre: Any = None  # faces may lie close together, far from zero
    for w in draw_latents(G, SCALE_SAMPLES, seed + 1):
        here = w.numpy().astype(np.float64)
        centre = here.mean(axis=0) if centre is None else centre
        along = (here - centre) @ vectors.T
        total, squares, count = total + along.sum(0), squares + (along**2).sum(0), count + len(w)
    return np.asarray(np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0)))


def _in_w(
    G: Generator, names: Sequence[str], method: str, vectors: Any, layers: Sequence[int],
    found: Sequence[Mapping[str, Any]], seed: int,
) -> list[Direction]:  # fmt: skip
    """Return directions of w with their scales; what no face varies along is left out."""
    units = np.asarray(vectors, np.float64)
    scales = _deviations(G, units, seed)
    return [
        Direction(name, method, unit.astype(np.float32), float(scale), tuple(layers), None, how)
        for name, unit, scale, how in zip(names, units, scales, found, strict=True)
        if scale > 0
    ]


# ---- SeFa


def find_sefa(
    G: Generator, space: Space, layers: str | None = None, count: int = 10, *, seed: int = 0
) -> list[Direction]:
    """Return the directions that change the styles of layers most (SeFa), the largest first.

    ``layers`` is a band or such as 0-3; None: all layers, and each band by itself. Raises
    UsageError where no layer takes a latent through weights alone.
    """
    maps, config = _style_maps(G), G.config
    free = config.w_out_dim if config.has_w else config.z_dim  # what follows z is of the class
    bands: dict[str, list[int]] = {}
    if layers is not None:
        bands[layers] = space.layers(layers)
    else:
        bands["all"] = list(range(space.num_ws))
        if space.style_sides and len(style_bands(space.style_sides)) > 1:
            bands |= style_bands(space.style_sides)
    found: list[Direction] = []
    for name, chosen in bands.items():
        weights = [one.layer.weight for one in maps if one.latent in chosen]
        arrays = [weight.detach().cpu().numpy()[:, :free] for weight in weights]  # type: ignore[operator]
        values, vectors = weight_directions(arrays)
        vectors = np.pad(vectors, ((0, 0), (0, config.w_out_dim - free)))
        most = min(count, len(vectors))
        stem = "sefa" if len(chosen) == space.num_ws else f"sefa-{_layers_word(name, chosen)}"
        found += _in_w(
            G, [f"{stem}.{number}" for number in range(1, most + 1)], "sefa", vectors[:most],
            chosen, [{"eigenvalue": float(value)} for value in values[:most]], seed,
        )  # fmt: skip
    return found


def _layers_word(name: str, layers: Sequence[int]) -> str:
    """Return what the layers are called in a name: a band, else numbers."""
    return name if name in BANDS else format_seeds(layers).replace(",", "_")


def _style_maps(G: Generator) -> list[StyleMap]:
    maps = G.synthesis.style_maps()
    if not maps:
        raise UsageError(
            f"configuration {G.config.preset!r} has no layer that turns a latent into styles: "
            f"directions need one, as networks of --config f or stylegan2 have it"
        )
    return maps


# ---- GANSpace


def find_ganspace(
    G: Generator, count: int = 20, samples: int = GANSPACE_SAMPLES, *, layers: Sequence[int],
    seed: int = 0, progress: Progress = silent,
) -> list[Direction]:  # fmt: skip
    """Return the principal components of w (GANSpace), the largest deviation first.

    ``layers`` are those that edits move. Memory does not grow with ``samples``. Raises UsageError
    for fewer samples or dimensions than components.
    """
    check_w(G)
    found = PrincipalComponents(count)
    for batch in _batches(draw_latents(G, samples, seed), max(LATENTS, 3 * count)):
        found.add(batch.numpy())
        progress(found.points, samples)
    told = [{"share": float(share)} for share in found.shares]
    names = [f"pca.{number}" for number in range(1, count + 1)]
    return _in_w(G, names, "ganspace", found.components, layers, told, seed)


def find_in_activations(
    G: Generator, layer: int, count: int = 20, samples: int = 10_000, *, layers: Sequence[int],
    seed: int = 0, progress: Progress = silent,
) -> list[Direction]:  # fmt: skip
    """Return the components of a layer's activations, carried back to w by least squares.

    As find_ganspace; ``layer`` is the place of a latent, whose last layer is looked at. Draws
    ``samples`` faces as far as that layer, once for the components and once for the regression.
    """
    check_w(G)
    blocks = [one.block for one in _style_maps(G) if one.latent == layer]
    if not blocks:
        raise UsageError(
            f"layer {layer} does not exist: this network has 0 to {G.config.num_ws - 1}"
        )
    first = next(_activations(G, blocks[-1], torch.zeros(1, G.config.w_out_dim)))
    if first.shape[1] > _MOST_FEATURES:
        raise UsageError(
            f"layer {layer} has {first.shape[1]:,} activations, of which components need too much "
            f"memory: expected at most {_MOST_FEATURES:,}, as earlier layers have"
        )
    found = PrincipalComponents(count)
    size = max(3 * count, min(LATENTS, _ACTIVATIONS // first.shape[1]))
    for w in _batches(draw_latents(G, samples, seed), size):
        found.add(torch.cat(list(_activations(G, blocks[-1], w))).numpy())
        progress(found.points, 2 * samples, "components")
    regression = LatentRegression(found)
    done = 0
    for w in _batches(draw_latents(G, samples, seed + 2), size):
        points = torch.cat(list(_activations(G, blocks[-1], w))).numpy()
        regression.add(points, w.numpy())
        done += len(w)
        progress(samples + done, 2 * samples, "back to w")
    told = [{"share": float(share)} for share in found.shares]
    names = [f"pca-layer{layer}.{number}" for number in range(1, count + 1)]
    vectors = pointed(regression.directions())
    return _in_w(G, names, "ganspace", vectors, layers, told, seed)


class _ReachedError(Exception):
    """The layer that was looked for has been drawn."""


def _activations(G: Generator, block: nn.Module, w: Tensor) -> Iterator[Tensor]:
    """Yield the activations [B, C·h·w] of a layer for styles w [N, w_dim], on the CPU."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Tensor) -> None:
        kept.append(output.detach().flatten(1).float().cpu())
        raise _ReachedError

    handle = block.register_forward_hook(keep)
    device = device_of(G)
    try:
        for part in torch.split(w, PICTURES):
            ws = part.to(device)[:, None].expand(-1, G.config.num_ws, -1)
            try:
                with torch.inference_mode(), exact_kernels(device):
                    G.synthesis(ws)
            except _ReachedError:
                yield kept.pop()
    finally:
        handle.remove()


def _batches(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the rows of all parts in batches of ``size``; a short rest joins the last batch."""
    waiting: list[Tensor] = []
    held = 0
    last: Tensor | None = None
    for part in parts:
        waiting.append(part)
        held += len(part)
        while held >= size:
            rows = torch.cat(waiting)
            if last is not None:
                yield last
            last = rows[:size]
            waiting, held = [rows[size:]], len(rows) - size
    yield torch.cat([*([] if last is None else [last]), *waiting])


# ---- labels


def find_labels(
    G: Generator, faces: JudgedFaces, labels: Sequence[Label], *, layers: Sequence[int],
    fit: str = "svm", keep: Sequence[Direction] = (), seed: int = 0, progress: Progress = silent,
) -> tuple[list[Direction], dict[str, str]]:  # fmt: skip
    """Return a direction for every label, and why others have none.

    Of the faces that a label is known of, the fifth nearest to its middle is left out, and one in
    five of the rest held out. The normal of a linear SVM, or the difference of the means, is the
    direction; accuracy is that of the hyperplane on the faces held out. What it shares with the
    directions in ``keep`` is taken away, so that they keep their value: n - P n, where P projects
    onto their span (InterFaceGAN, Shen et al. 2020, section 3.2).
    """
    found: list[Direction] = []
    refused: dict[str, str] = {}
    for number, label in enumerate(labels, 1):
        progress(number, len(labels), label.name)
        score = label.score(faces.seen, faces.values)
        rows = np.flatnonzero(label.known(faces.seen, faces.values))
        middle = np.argsort(np.abs(score[rows]), kind="stable")
        rows = np.sort(rows[middle[int(_UNSURE * len(rows)) :]])
        held = np.arange(len(rows)) % _EVERY == _EVERY - 1
        positive = score[rows] > 0
        train, test = rows[~held], rows[held]
        least = min(np.bincount(positive[~held], minlength=2).min(),
                    np.bincount(positive[held], minlength=2).min())  # fmt: skip
        if least < _LEAST_FACES // 4:
            refused[label.name] = f"too few of {plural(len(faces.w), 'face')} are on one side of it"
            continue
        normal, bias = _hyperplane(faces.w[train], positive[~held], fit)
        right = (faces.w[test] @ normal + bias > 0) == positive[held]
        kept = [one for one in keep if one.name != label.name]
        normal = _without(normal, [one.vector for one in kept])
        commonest = max(positive[held].mean(), 1 - positive[held].mean())
        told = {
            "label": label.text, "attribute": label.attribute, "fit": fit,
            "accuracy": round(float(right.mean()), 4), "commonest": round(float(commonest), 4),
            "held_out": len(test), "faces": len(faces.w), "keeps": [one.name for one in kept],
        }  # fmt: skip
        found += _in_w(G, [label.name], "labels", normal[None], layers, [told], seed)
    return found, refused


def _hyperplane(w: Float64, positive: NDArray[np.bool_], fit: str) -> tuple[Float64, float]:
    """Return the unit normal that points to the positive side, and its bias."""
    centre = w.mean(axis=0)
    if fit == "svm":
        svm = fit_linear_svm(w - centre, positive)
        normal, bias = svm.weights, svm.bias
    else:
        ends = w[positive].mean(axis=0), w[~positive].mean(axis=0)
        normal = ends[0] - ends[1]
        bias = float(-normal @ ((ends[0] + ends[1]) / 2 - centre))
    length = float(np.linalg.norm(normal))
    return normal / length, (bias - float(normal @ centre)) / length


def _without(normal: Float64, others: Sequence[Any]) -> Float64:
    """Return the unit normal without its part in the span of others; UsageError if none is left."""
    if not others:
        return normal
    basis, lengths, _ = np.linalg.svd(np.stack(others, axis=1).astype(np.float64),
                                      full_matrices=False)  # fmt: skip
    basis = basis[:, lengths > 1e-6 * lengths[0]]
    rest = normal - basis @ (basis.T @ normal)
    if (length := float(np.linalg.norm(rest))) < 1e-6:
        raise UsageError("nothing is left of a direction without those that are to be kept")
    return np.asarray(rest / length)


def without_kept(
    G: Generator, one: Direction, kept: Sequence[Direction], *, seed: int = 0
) -> Direction:
    """Return a direction of w without what it shares with those that are to be kept.

    As ``find_labels`` does it with ``keep``. Raises UsageError where nothing is left.
    """
    unit = _without(one.vector.astype(np.float64), [other.vector for other in kept])
    told = {**one.found, "keeps": [other.name for other in kept]}
    (found,) = _in_w(G, [one.name], one.method, unit[None], one.layers, [told], seed)
    return found


def correct_leaks(
    G: Generator, directions: Directions, leaky: Sequence[Direction], kept: Sequence[Direction],
    judge: Judge, values: Mapping[str, Sequence[str]], *, faces: int = EFFECT_FACES, seed: int = 0,
    progress: Progress = silent,
) -> list[Direction]:  # fmt: skip
    """Return directions less as much of the kept ones as, by measurement, each leaks into them.

    Being orthogonal to a hyperplane's normal leaves some of it: what is measured for strength 1,
    over what the kept ones move themselves, is taken off, at most strength 1 of each:
    of one that hardly moves its own label, more would take the aim with it.
    """
    names = [other.name for other in kept]
    every = directions.adding([*kept, *leaky])

    def moves_of(some: Sequence[Direction]) -> Float64:
        """Return how far directions move the labels of the kept ones, [directions, labels]."""
        chosen = [one.name for one in some]
        found = measure_effects(
            G, every.adding(some), chosen, judge, values, faces=faces, seed=seed
        )
        return np.array([[found[row]["moves"].get(name, 0.0) for name in names] for row in chosen])

    own = moves_of(kept).T
    better = []
    for number, one in enumerate(leaky, 1):
        shares, found = np.zeros(len(names)), one
        for _ in range(_ROUNDS):
            (leak,) = moves_of([found])
            shares = np.clip(
                shares + np.linalg.lstsq(own, leak, rcond=1e-2)[0], -_MOST_SHARE, _MOST_SHARE
            )
            step = one.scale * one.vector.astype(np.float64)
            for share, other in zip(shares, kept, strict=True):
                step -= share * other.scale * other.vector
            told = {**one.found, "less": dict(zip(names, shares.round(4).tolist(), strict=True))}
            unit = (step / np.linalg.norm(step))[None]
            (found,) = _in_w(G, [one.name], one.method, unit, one.layers, [told], seed)
        better.append(found)
        progress(number, len(leaky), one.name)
    return better


# ---- style channels


def find_channels(
    G: Generator, space: Space, faces: JudgedFaces, labels: Sequence[Label], judge: Judge, *,
    count: int = 5, tried: int = _TRIED, pictures: int = 48, seed: int = 0,
    progress: Progress = silent,
) -> list[Direction]:  # fmt: skip
    """Return for every label the single style channels that move it most for their deviation.

    Channels are first ranked by how far apart the two sides of the label are in them, in their
    deviations (StyleSpace, Wu et al. 2021, section 4); of the best ``tried`` the effect on
    ``pictures`` faces is measured: the mean change of the label's score for two deviations, over
    its spread. The best ``count`` are called LABEL.LAYER.CHANNEL.
    """
    maps = _style_maps(G)
    if any(one.layer.bias is None for one in maps):
        raise UsageError(f"configuration {G.config.preset!r} has no styles: use --method sefa")
    w = torch.from_numpy(faces.w).float()
    with torch.inference_mode(), exact_kernels(device_of(G)):
        there = w.to(device_of(G))
        styles = [one.layer(there).cpu().numpy().astype(np.float64) for one in maps]
    places = [(at, channel) for at, part in enumerate(styles) for channel in range(part.shape[1])]
    table = np.concatenate(styles, axis=1)  # [N, channels of all layers]
    deviations = np.maximum(table.std(axis=0), 1e-12)
    ws = same_in_all(G, w[:pictures])
    plain = joined(list(judged(G, ws, judge)))
    found: list[Direction] = []
    for number, label in enumerate(labels):
        score = label.score(faces.seen, faces.values)
        rows = label.known(faces.seen, faces.values)
        high, low = rows & (score > 0), rows & (score <= 0)
        if not high.any() or not low.any():
            continue
        apart = (table[high].mean(axis=0) - table[low].mean(axis=0)) / deviations
        spread = max(float(label.score(plain, faces.values).std()), 1e-6)
        best: list[tuple[float, int]] = []
        for step, at in enumerate(np.argsort(-np.abs(apart))[:tried]):
            place, channel = places[at]
            shift = torch.zeros(styles[place].shape[1])
            shift[channel] = 2.0 * deviations[at] * (1.0 if apart[at] > 0 else -1.0)
            seen = joined(list(judged(G, ws, judge, Edits(shifts={place: shift}))))
            moved = float(
                (label.score(seen, faces.values) - label.score(plain, faces.values)).mean()
            )
            best.append((moved / 2 / spread, int(at)))
            progress(number * tried + step + 1, len(labels) * tried, label.name)
        best.sort(key=lambda row: -abs(row[0]))
        for moved, at in best[:count]:
            place, channel = places[at]
            vector = np.zeros(styles[place].shape[1], np.float32)
            vector[channel] = np.sign(apart[at]) * (1.0 if moved >= 0 else -1.0)
            found.append(Direction(
                f"{label.name}.{place}.{channel}", "channels", vector, float(deviations[at]),
                (maps[place].latent,), place,
                {"label": label.text, "attribute": label.attribute, "moved": round(abs(moved), 4),
                 "apart": round(float(abs(apart[at])), 4), "faces": len(faces.w)},
            ))  # fmt: skip
    return found
