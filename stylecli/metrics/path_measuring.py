"""Perceptual path lengths as results, each with its definition."""

from collections.abc import Mapping
from typing import Any

import torch

from stylecli import __version__
from stylecli.errors import StyleCLIError
from stylecli.features.lpips import LPIPS, MIN_SIDE
from stylecli.interop.feature_weights import obtain
from stylecli.metrics.collecting import Collected, Needs, Wanted, digest_of, run_pass
from stylecli.metrics.fakes import LabelSource
from stylecli.metrics.path_length import measure_path_distances, ppl_trim
from stylecli.metrics.pictures import Measuring
from stylecli.metrics.results import MetricResult
from stylecli.metrics.tasks import PathTask
from stylecli.networks.model import Generator

NETWORK = "vgg16-lpips"


def measure_path(
    task: PathTask,
    G: Generator,
    labels: LabelSource | None,
    batch: int | None,
    identity: str,
    common: Mapping[str, Any],
    how: Measuring,
) -> MetricResult:
    """Measure one path length; ``identity`` tells the network from others, empty if unknown."""
    seed, setting = int(common["seed"]), task.setting
    seen = _side_seen(G.config.resolution, task)
    if seen < MIN_SIDE:
        reason = f"LPIPS needs pictures of at least {MIN_SIDE} px, and here it would see {seen} px"
        return MetricResult(task.name, None, skipped=reason, definition=common)
    try:
        arrays, sha256 = obtain(NETWORK)
        distance = LPIPS.from_state_dict(arrays).to(how.device)
        size = batch or _pair_batch(G.config.resolution, how.device)
        name = digest_of(identity, task.name, sha256, str(task.pairs), __version__)
        needs = Needs("rows", task.pairs)
        wanted = Wanted(NETWORK, Collected(task.pairs, needs), name if identity else None)
        run_pass(
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
            {NETWORK: lambda distances: distances},
            [wanted],
            batch=size,
            cache=how.cache,
            ranks=how.ranks,
            add=lambda count: how.meter.add(count, task.name),
        )
        value = ppl_trim(wanted.collected.rows[:, 0]) if how.ranks.is_main else None
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
        "published_as": _published_name(task),
        "epsilon": setting.epsilon,
        "trimmed": "below the 1st and above the 99th percentile",
    }
    return MetricResult(task.name, value, note=task.note, definition=definition)


def _whole(G: Generator, task: PathTask) -> int:
    return G.config.resolution // (2 if task.setting.crop else 1)


def _side_seen(resolution: int, task: PathTask) -> int:
    """Return the side in pixels of what LPIPS is shown."""
    cropped = resolution // 2 if task.setting.crop else resolution
    factor = (resolution if task.setting.rule == "later" else cropped) // 256
    return cropped // max(1, factor)


def _published_name(task: PathTask) -> str:
    """Return what the programs of the papers call this one."""
    what = f"{task.setting.space}{task.setting.sampling}"
    if not task.setting.crop:
        return f"ppl2_{what} of StyleGAN2 and later"
    return f"ppl_{what} of " + (
        "StyleGAN" if task.setting.rule == "paper" else "StyleGAN2-ADA and later"
    )


def _pair_batch(resolution: int, device: torch.device) -> int:
    if device.type == "cuda" and resolution <= 256:
        return 32
    return max(1, min(8, 1024 // resolution))
