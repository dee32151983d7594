"""Perceptual path length: how far the picture moves when the latent moves a little.

PPL = E[d(G(x(t)), G(x(t + ε))) / ε²] with ε = 1e-4 and d the squared perceptual distance (LPIPS);
StyleGAN (Karras, Laine, Aila 2018), section 4.1, Eqs. 2-3.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stylecli import __version__
from stylecli.errors import StyleCLIError, UsageError
from stylecli.features.vgg16 import LPIPS, MIN_SIDE
from stylecli.images import over_white
from stylecli.interop.feature_weights import obtain
from stylecli.metrics import NAMES_OF, OLD_PATHS
from stylecli.metrics.collecting import Collector, Pass, Rows, digest_of
from stylecli.metrics.picture_sets import LabelSource
from stylecli.metrics.tasks import Metric, MetricResult, Subject, is_published, why_missing
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent

Distance = Callable[[Tensor, Tensor], Tensor]

NETWORK = "vgg16-lpips"
PUBLISHED_PAIRS = {"paper": 100_000, "later": 50_000}  # of the StyleGAN paper, of its successors
EPSILON = 1e-4
MAX_SIDE = 256  # larger pictures are shrunk before the distance
_NAME = re.compile(r"ppl_([zw])(full|end)(-crop)?(-ada)?")
# What StyleGAN2's programs call the ones without crop: published, so on the published pairs.
_TRIM = (1.0, 99.0)  # percentiles; what lies outside is dropped


@dataclass(frozen=True)
class PathSetting:
    """Which paths are walked: the latent space, from where, and what of the picture is seen."""

    space: Literal["z", "w"] = "w"
    sampling: Literal["full", "end"] = "full"  # t ~ U(0, 1), or t = 0
    crop: bool = False  # the face's place in an FFHQ picture only
    epsilon: float = EPSILON
    rule: Literal["paper", "later"] = "paper"  # how large pictures are shrunk, see ``_seen``

    @property
    def name(self) -> str:
        """The metric's name: ppl_wfull, ppl_zend-crop, ppl_wend-crop-ada, ..."""
        later = "-ada" * (self.rule == "later")
        return f"ppl_{self.space}{self.sampling}" + "-crop" * self.crop + later


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the point at ``t`` on the great circle through a and b [N, d]; unit length.

    ``t`` [N, 1]. Inputs are normalised first; parallel ones give a. Shoemake 1985.
    """
    a, b = _normalised(a), _normalised(b)
    cosine = (a * b).sum(dim=1, keepdim=True).clamp(-1.0, 1.0)
    angle = t * torch.acos(cosine)
    across = _normalised(b - cosine * a)
    return _normalised(a * torch.cos(angle) + across * torch.sin(angle))


def ppl_trim(distances: Any) -> float:
    """Return the mean of the distances [N] between their 1st and 99th percentile, inclusive.

    The lower bound is the order statistic below the percentile, the upper the one above, as in
    the official metric. Raises UsageError for no values, another shape, or NaN.
    """
    values = np.asarray(distances, np.float64)
    if values.ndim != 1 or not values.size or np.isnan(values).any():
        raise UsageError(f"distances have shape {list(values.shape)}: expected numbers [N], N > 0")
    low = np.percentile(values, _TRIM[0], method="lower")
    high = np.percentile(values, _TRIM[1], method="higher")
    return float(values[(values >= low) & (values <= high)].mean())


def measure_path_distances(
    G: Generator,
    distance: Distance,
    setting: PathSetting,
    *,
    samples: int,
    batch: int = 8,
    seed: int = 0,
    labels: LabelSource | None = None,
    first: int = 0,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return d/ε² of ``samples`` random pairs from number ``first`` on, untrimmed [samples].

    ``distance`` takes two batches of images [N, 3, H, W] about [-1, 1] and returns [N]. No
    truncation; noise maps and labels are drawn again for each pair and shared by both ends.
    Everything random comes from ``seed``; the global random states are neither read nor changed,
    and ``batch`` (pairs at a time) changes nothing but speed. Raises UsageError for a W path in a
    network that has no w.
    """
    if setting.space == "w" and not G.config.has_w:
        raise UsageError(
            f"{setting.name} needs an intermediate latent space, which configuration "
            f"{G.config.preset!r} does not have: measure ppl_z{setting.sampling}"
        )
    device = next(G.parameters()).device
    distances: list[Tensor] = []
    with torch.inference_mode():
        for start in range(first, first + samples, batch):
            pairs = range(start, min(start + batch, first + samples))
            ws, noise = _endpoints(G, setting, pairs, seed, labels, device)
            images = G.synthesis(ws, noise=noise)  # [2 pairs, C, H, W]: both ends in one batch
            a, b = _seen(images, setting.crop, setting.rule).chunk(2)
            distances.append(
                distance(a, b).cpu().double() / setting.epsilon**2
            )  # MPS has no float64
            progress(pairs.stop - first, samples)
    return torch.cat(distances).numpy()


def _endpoints(
    G: Generator,
    setting: PathSetting,
    pairs: range,
    seed: int,
    labels: LabelSource | None,
    device: torch.device,
) -> tuple[Tensor, list[Tensor] | None]:
    """Return (ws [2 pairs, num_ws, w_dim], noise maps) of these pairs: all starts, then all ends.

    Pair i draws everything from (seed, i), so that no number depends on the batch.
    """
    randoms = [np.random.Generator(np.random.Philox(key=[seed, pair])) for pair in pairs]
    z = torch.from_numpy(np.stack([r.standard_normal((2, G.config.z_dim)) for r in randoms]))
    t = torch.from_numpy(np.stack([r.random(1) for r in randoms]))  # [pairs, 1], float64
    t = t if setting.sampling == "full" else torch.zeros_like(t)
    c = torch.cat([labels(r, 1) for r in randoms]).to(device) if labels else None
    c = torch.cat([c, c]) if c is not None else None
    z0, z1 = z[:, 0], z[:, 1]
    if setting.space == "z":
        # In float64: a float32 step of 1e-4 along the sphere would lose four digits.
        steps = torch.cat([slerp(z0, z1, t), slerp(z0, z1, t + setting.epsilon)])
        ws = G.mapping(steps.float().to(device), c)
    else:
        w0, w1 = G.mapping(torch.cat([z0, z1]).float().to(device), c).chunk(2)
        t = t.float().to(device)[:, :, None]  # [pairs, 1, 1]: the same t in every layer
        ws = torch.cat([torch.lerp(w0, w1, t), torch.lerp(w0, w1, t + setting.epsilon)])
    if not G.config.has_noise:
        return ws, None
    noise = []
    for shape in G.config.noise_shapes():
        maps = np.stack([r.standard_normal(shape[1:], np.float32) for r in randoms])
        noise.append(torch.from_numpy(np.concatenate([maps, maps])).to(device))
    return ws, noise


def _seen(images: Tensor, crop: bool, rule: str = "paper") -> Tensor:
    """Return what the distance looks at: [N, 3, h, w], cropped, at most 256 px, in colour.

    The crop is rows 3/8 to 7/8 and columns 2/8 to 6/8. Box means shrink by the cropped size over
    256 in the paper's programs and by the whole picture's over 256 in later ones, which so see
    half as much of a crop. Smaller pictures stay as they are.
    """
    whole = max(images.shape[2:])
    images = over_white(images)
    if crop:
        down, across = (side // 8 for side in images.shape[2:])
        images = images[:, :, 3 * down : 7 * down, 2 * across : 6 * across]
    factor = (whole if rule == "later" else max(images.shape[2:])) // MAX_SIDE
    return F.avg_pool2d(images, factor) if factor > 1 else images


def _normalised(x: Tensor) -> Tensor:
    unit: Tensor = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-30)
    return unit


@dataclass(frozen=True)
class PathTask:
    """A perceptual path length."""

    setting: PathSetting
    pairs: int
    note: str | None = None
    skipped: str | None = None
    called: str | None = None  # what later programs call it, where that was asked for

    @property
    def published_pairs(self) -> int:
        """How many pairs the definition averages: 100,000 in the paper, 50,000 later."""
        of_paper = self.setting.crop and self.setting.rule == "paper"
        return PUBLISHED_PAIRS["paper" if of_paper else "later"]

    @property
    def name(self) -> str:
        """The result's name: bare only with the published number of pairs."""
        few = self.skipped is None and self.pairs != self.published_pairs
        return (self.called or self.setting.name) + f"@{self.pairs}" * few

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results."""
        return (self.name,)


class PathLength(Metric):
    """PPL of every space and sampling, with and without the crop of the face."""

    kind = "ppl"
    names = NAMES_OF["ppl"]
    cpu_samples, gpu_samples = 1000, PUBLISHED_PAIRS["later"]

    def plan(self, name: str, asked: int | None, subject: Subject) -> list[PathTask]:
        """Return the task; ppl is ppl_wfull, of a network without w ppl_zfull."""
        assert subject.config is not None
        has_w, preset, note = subject.config.has_w, subject.config.preset, None
        published, called = is_published(name), name
        name = OLD_PATHS.get(name, name)
        if name == "ppl":
            name = "ppl_wfull" if has_w else "ppl_zfull"
            if not has_w:
                note = f"configuration {preset!r} has no w: the path runs in z"
        match = _NAME.fullmatch(name)
        assert match is not None
        space, sampling, crop, later = match.groups()
        if space == "w" and not has_w:
            raise UsageError(
                f"{called} needs an intermediate latent space, which configuration {preset!r} "
                f"does not have: measure {called.replace('_w', '_z')}"
            )
        setting = PathSetting(
            space="z" if space == "z" else "w",
            sampling="full" if sampling == "full" else "end",
            crop=bool(crop),
            rule="later" if later else "paper",
        )
        pairs = asked or self.cpu_samples
        if not asked and (subject.gpu or published):
            pairs = PathTask(setting, pairs).published_pairs
        skipped = subject.truncated or why_missing(NETWORK)
        return [PathTask(setting, pairs, note, skipped, called if called in OLD_PATHS else None)]


PPL = PathLength()


def measure_path(
    task: PathTask,
    G: Generator,
    labels: LabelSource | None,
    batch: int | None,
    identity: str,
    common: Mapping[str, Any],
    how: Collector,
) -> MetricResult:
    """Measure one path length; ``identity`` tells the network from others, empty if unknown."""
    seed, setting = int(common["seed"]), task.setting
    seen = _side_seen(max(G.config.size), task)
    if _side_seen(max(G.config.size), task) * min(G.config.size) // max(G.config.size) < MIN_SIDE:
        reason = f"LPIPS needs pictures of at least {MIN_SIDE} px; these have {seen} px"
        return MetricResult(task.name, None, skipped=reason, definition=common)
    try:
        arrays, sha256 = obtain(NETWORK)
        distance = LPIPS.from_state_dict(arrays).to(how.device)
        size = batch or _pair_batch(G.config.resolution, how.device)
        name = digest_of(identity, setting.name, sha256, str(task.pairs), __version__)
        shown = Pass(
            lambda pairs: [
                measure_path_distances(
                    G,
                    distance,
                    setting,
                    samples=len(pairs),
                    batch=size,
                    seed=seed,
                    labels=labels,
                    first=pairs.start,
                )[:, None]
            ],
            size,
            task.name,
        )
        distances = Rows(task.pairs)
        shown.keep(NETWORK, lambda found: found, distances, name=name if identity else None)
        how.run(shown)
        value = ppl_trim(distances.compute()[:, 0]) if how.ranks.is_main else None
    except StyleCLIError as error:
        if how.ranks.count > 1:
            raise  # the other ranks would wait for what does not come
        return MetricResult(task.name, None, skipped=str(error), definition=common)
    definition = {
        **common,
        "noise_mode": "random per pair, the same at both ends",
        "features": NETWORK,
        "features_sha256": sha256,
        "resize": f"box means to {seen} px" if seen != _whole(G, task) else "none",
        "pairs": task.pairs,
        "space": setting.space,
        "sampling": setting.sampling,
        "crop": setting.crop,
        "published_as": _published_name(setting),
        "epsilon": setting.epsilon,
        "trimmed": "below the 1st and above the 99th percentile",
    }
    phrase = (
        f"change of the picture per step in {setting.space}, lower is smoother; {_which(setting)}"
    )
    return MetricResult(task.name, value, note=task.note, definition=definition, phrase=phrase)


def _whole(G: Generator, task: PathTask) -> int:
    return max(G.config.size) // (2 if task.setting.crop else 1)


def _side_seen(resolution: int, task: PathTask) -> int:
    """Return the longer side in pixels of what LPIPS is shown."""
    cropped = resolution // 2 if task.setting.crop else resolution
    factor = (resolution if task.setting.rule == "later" else cropped) // 256
    return cropped // max(1, factor)


def _published_name(setting: PathSetting) -> str:
    """Return what the programs of the papers call this one."""
    what = f"{setting.space}{setting.sampling}"
    if not setting.crop:
        return f"ppl2_{what} of StyleGAN2 and later"
    return f"ppl_{what} of " + (
        "StyleGAN" if setting.rule == "paper" else "StyleGAN2-ADA and later"
    )


def _which(setting: PathSetting) -> str:
    """Say which of the definitions this is, and which is the StyleGAN paper's."""
    if setting.crop and setting.rule == "paper":
        return f"face crop, {_published_name(setting)}"
    seen = "face crop shrunk further" if setting.crop else "whole picture"
    of_paper = replace(setting, crop=True, rule="paper").name
    return f"{seen}, {_published_name(setting)}; the StyleGAN paper's is {of_paper}"


def _pair_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 32
    return max(1, min(8, 1024 // resolution))
