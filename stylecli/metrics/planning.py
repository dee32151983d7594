"""What is asked for and what can be done: metric names, sample counts, which network looks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stylecli import weights
from stylecli.errors import UsageError
from stylecli.metrics.features import INCEPTION, STAND_IN
from stylecli.metrics.path_length import PathSetting

Samples = int | Mapping[str, int] | None

PICTURE_METRICS = ("fid", "fid50k", "fid50k_full", "kid", f"kid@{STAND_IN}", "diversity")
PATH_METRICS = tuple(
    f"ppl_{space}{sampling}{crop}"
    for crop in ("", "-crop")
    for space in "zw"
    for sampling in ("full", "end")
)
NAMES = (*PICTURE_METRICS, "ppl", *PATH_METRICS)

FID_SAMPLES = 50_000  # what a published FID is computed from
FID_LEAST = 2048  # fewer pictures than features: the covariance is singular, the bias large
# Fakes (pairs for ppl) where nothing is asked for: on a CPU an answer in about two minutes for a
# 32 px network, on a GPU the published counts.
_CPU_SAMPLES = {"fid": FID_LEAST, "kid": 1000, "diversity": 1000, "ppl": 1000}
_GPU_SAMPLES = {"fid": 50_000, "kid": 50_000, "diversity": 2000, "ppl": 50_000}
_PATH = re.compile(r"ppl_([zw])(full|end)(-crop)?")


@dataclass(frozen=True)
class PictureTask:
    """A metric on features of pictures."""

    kind: Literal["fid", "kid", "diversity"]
    network: str  # feature network
    fakes: int
    reals: int
    ddof: int = 1
    full: bool = False  # fid50k_full: all reals
    skipped: str | None = None
    note: str | None = None

    @property
    def name(self) -> str:
        """The result's name: it says the network and, off the published count, the count."""
        if self.network != INCEPTION:
            return f"{self.kind}@{self.network}"
        if self.fakes == FID_SAMPLES:
            return f"{self.kind}50k" + "_full" * self.full
        return f"{self.kind}" + "_full" * self.full + f"@{self.fakes}"


@dataclass(frozen=True)
class PathTask:
    """A perceptual path length."""

    setting: PathSetting
    pairs: int
    note: str | None = None
    skipped: str | None = None

    @property
    def name(self) -> str:
        """The result's name."""
        return self.setting.name


Task = PictureTask | PathTask


def plan(
    names: Sequence[str],
    samples: Samples,
    *,
    dataset_size: int,
    has_w: bool,
    preset: str,
    gpu: bool,
) -> list[Task]:
    """Return what to measure for ``names``, in order, without repeats.

    ``samples`` is a count for all, or counts by name (``fid``, ``kid``, ``diversity``, ``ppl`` also
    stand for their variants). Raises UsageError for unknown names, counts below 2, and W paths of
    a network that has no w.
    """
    for name in names:
        if name not in NAMES:
            raise UsageError(f"metric {name!r} is unknown: expected one of {', '.join(NAMES)}")
    if not names:
        raise UsageError(f"no metric is named: expected some of {', '.join(NAMES)}")
    tasks: dict[str, Task] = {}
    for name in names:
        asked = _asked(name, samples)
        task: Task
        if name.startswith("ppl"):
            task = _path_task(name, asked, has_w, preset, gpu)
        else:
            task = _picture_task(name, asked, dataset_size, gpu)
        tasks.setdefault(task.name, task)
    return list(tasks.values())


def base_name(name: str) -> str:
    """Return fid, kid, diversity or ppl."""
    return re.split(r"[0-9_@-]", name)[0]


def _asked(name: str, samples: Samples) -> int | None:
    if isinstance(samples, Mapping):
        asked = samples.get(name, samples.get(base_name(name)))
    else:
        asked = samples
    if asked is not None and asked < 2:
        raise UsageError(f"{name} cannot be measured on {asked} samples: expected at least 2")
    return asked


def _path_task(name: str, asked: int | None, has_w: bool, preset: str, gpu: bool) -> PathTask:
    note = None
    if name == "ppl":
        name = "ppl_wfull" if has_w else "ppl_zfull"
        if not has_w:
            note = f"configuration {preset!r} has no w: the path runs in z"
    match = _PATH.fullmatch(name)
    assert match is not None
    space, sampling, crop = match.groups()
    if space == "w" and not has_w:
        raise UsageError(
            f"{name} needs an intermediate latent space, which configuration {preset!r} "
            f"does not have: measure {name.replace('_w', '_z')}"
        )
    pairs = asked or (_GPU_SAMPLES if gpu else _CPU_SAMPLES)["ppl"]
    setting = PathSetting(
        space="z" if space == "z" else "w",
        sampling="full" if sampling == "full" else "end",
        crop=bool(crop),
    )
    return PathTask(setting, pairs, note, skipped=_missing("vgg16-lpips"))


def _picture_task(name: str, asked: int | None, dataset_size: int, gpu: bool) -> PictureTask:
    base = base_name(name)
    kind: Literal["fid", "kid", "diversity"] = (
        "fid" if base == "fid" else "kid" if base == "kid" else "diversity"
    )
    has_inception = weights.locate(INCEPTION) is not None
    note = None
    if kind != "diversity" and not has_inception and "@" not in name:
        kind = "kid"
        note = f"{name} with Inception: {_missing(INCEPTION)}"
    network = INCEPTION if note is None and "@" not in name and kind != "diversity" else STAND_IN
    fakes = asked or (_GPU_SAMPLES if gpu else _CPU_SAMPLES)[kind]
    full = name == "fid50k_full" and network == INCEPTION
    if name.startswith("fid50k") and network == INCEPTION:
        fakes = asked or FID_SAMPLES
    reals = dataset_size if full else min(dataset_size, fakes)
    skipped = _missing(network)
    if skipped is None and dataset_size < 2:
        skipped = f"the dataset holds {dataset_size} pictures: expected at least 2"
    if skipped is None and kind == "fid" and asked is None and min(fakes, reals) < FID_LEAST:
        skipped = (
            f"the dataset holds {dataset_size} pictures, and below {FID_LEAST} a FID says more "
            f"about the count than about the network; give --samples {reals} to have it anyway"
        )
    return PictureTask(kind, network, fakes, reals, 0 if full else 1, full, skipped, note)


def _missing(network: str) -> str | None:
    return None if weights.locate(network) else str(weights.missing(network))
