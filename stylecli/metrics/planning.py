"""What is asked for and what can be done: metric names, sample counts, which network looks."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, get_args

from stylecli import weights
from stylecli.errors import UsageError
from stylecli.features.extractors import STAND_IN
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.path_length import PathSetting
from stylecli.metrics.separability import PAPER_SAMPLES, Space
from stylecli.metrics.tasks import (
    DEFINED_WITH,
    DIVERSITY_ROWS,
    NEIGHBOURS,
    PUBLISHED_FAKES,
    PUBLISHED_PAIRS,
    Kind,
    PathTask,
    PictureTask,
    SeparabilityTask,
    Task,
)
from stylecli.networks.config import NetworkConfig
from stylecli.rendering import Precision

Samples = int | Mapping[str, int] | None
AnyTask = TypeVar("AnyTask", Task, PictureTask)

# What published names say beyond the metric: the count, the neighbours of pr, all reals.
_PRESETS: dict[str, tuple[Kind, bool]] = {
    "fid50k": ("fid", False),
    "fid50k_full": ("fid", True),
    "kid50k": ("kid", False),
    "kid50k_full": ("kid", True),
    "is50k": ("is", False),
    "pr50k3": ("pr", False),
    "pr50k3_full": ("pr", True),
    "fid-clean50k": ("fid", False),
    "fid-clean50k_full": ("fid", True),
    "kid-clean50k": ("kid", False),
    "kid-clean50k_full": ("kid", True),
}
PICTURE_METRICS = (
    *("fid", "kid", "is", "pr", "fid-clean", "kid-clean"),
    *_PRESETS,
    *(f"{kind}@{STAND_IN}" for kind in ("fid", "kid", "is", "pr")),
    "diversity",
)
_PATH = re.compile(r"ppl_([zw])(full|end)(-crop)?(-ada)?")
PATH_METRICS = tuple(
    f"ppl_{space}{sampling}{crop}"
    for crop in ("", "-crop", "-crop-ada")
    for space in "zw"
    for sampling in ("full", "end")
)
_PATH_ALIASES = {"ppl2_wend": "ppl_wend"}  # what StyleGAN2's programs call the one without crop
SEPARABILITY_METRICS = ("ls_z", "ls_w")
NAMES = (*PICTURE_METRICS, "ppl", *PATH_METRICS, *_PATH_ALIASES, "ls", *SEPARABILITY_METRICS)

FID_LEAST = 2048  # fewer pictures than features: the covariance is singular, the bias large
_MOST_REALS = {"kid": 1_000_000, "pr": 200_000}  # of the _full variants
# Fakes (pairs for ppl) where nothing is asked for: on a CPU an answer in about two minutes for a
# 32 px network, on a GPU the published counts.
_CPU_SAMPLES = {"fid": FID_LEAST, "kid": 1000, "is": 1000, "pr": 1000, "diversity": 1000,
                "ppl": 1000, "ls": 10_000}  # fmt: skip
_GPU_SAMPLES = {"fid": PUBLISHED_FAKES, "kid": PUBLISHED_FAKES, "is": PUBLISHED_FAKES,
                "pr": PUBLISHED_FAKES, "diversity": 2000, "ppl": PUBLISHED_PAIRS["later"],
                "ls": PAPER_SAMPLES}  # fmt: skip


def plan(
    names: Sequence[str],
    samples: Samples,
    *,
    dataset_size: int,
    config: NetworkConfig,
    gpu: bool,
    classifiers: AttributeClassifiers | None = None,
    psi: float = 1.0,
    precision: Precision = "float32",
) -> list[Task]:
    """Return what to measure of a network for ``names``, in order, without repeats.

    ``samples`` is a count for all, or counts by name (``fid``, ``kid``, ``is``, ``pr``,
    ``diversity``, ``ppl`` and ``ls`` also stand for their variants). ``ls`` is ``ls_z`` and
    ``ls_w``. With truncation ``psi`` every name says so; path lengths and separability are defined
    without it and skipped. ``precision`` is that of Inception's and VGG16's features; names say
    bf16. Raises UsageError for unknown names, counts below 2, and metrics in w of a network that
    has no w.
    """
    check_names(names)
    tasks: dict[str, Task] = {}
    for name in names:
        asked = _asked(name, samples)
        if base_name(name) == "ls":
            for space_task in _separability_tasks(name, asked, config, gpu, classifiers, psi):
                tasks.setdefault(space_task.name, space_task)
            continue
        task: Task
        if name.startswith("ppl"):
            task = _path_task(name, asked, config.has_w, config.preset, gpu, psi)
        else:
            of_pictures = _picture_task(name, asked, dataset_size, gpu, psi)
            task = _in_precision(of_pictures, precision)
        _add(tasks, task, name)
    return list(tasks.values())


def plan_sets(
    names: Sequence[str],
    samples: Samples,
    *,
    measured: int,
    reference: int,
    precision: Precision = "float32",
) -> list[PictureTask]:
    """Return what to measure of a set of ``measured`` pictures against one of ``reference``.

    All pictures of either count unless a published name or ``samples`` say otherwise. Raises
    UsageError for unknown names, and for metrics that need a network.
    """
    check_names(names)
    tasks: dict[str, PictureTask] = {}
    for name in names:
        if base_name(name) in ("ppl", "ls"):
            raise UsageError(
                f"{name} measures a network, not pictures: leave it out, or give --network"
            )
        count = _asked(name, samples)
        asked = min(measured, count or (PUBLISHED_FAKES if "50k" in name else measured))
        task = _picture_task(name, asked, reference, False, all_reals=count is None,
                             insisted=count is not None)  # fmt: skip
        _add(tasks, _in_precision(task, precision), name)
    return list(tasks.values())


def _add(tasks: dict[str, AnyTask], task: AnyTask, name: str) -> None:
    """Add a task unless its name is there; of one name with other counts, the first stands."""
    first = tasks.setdefault(task.name, task)
    if first != replace(task, note=first.note):
        said = f"{name} is {task.name} of other pictures: measure it in a call of its own"
        tasks[task.name] = replace(first, note="; ".join(filter(None, (first.note, said))))


def check_names(names: Sequence[str]) -> None:
    """Raise UsageError for no names and for unknown ones."""
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f", {near[0]!r} is near" if near else ""
            raise UsageError(
                f"metric {name!r} is unknown{hint}: expected one of {', '.join(NAMES)}"
            )
    if not names:
        raise UsageError(f"no metric is named: expected some of {', '.join(NAMES)}")


def base_name(name: str) -> str:
    """Return fid, kid, is, pr, diversity, ppl or ls."""
    return re.split(r"[0-9_@-]", name)[0]


def _asked(name: str, samples: Samples) -> int | None:
    if isinstance(samples, Mapping):
        asked = samples.get(name, samples.get(base_name(name)))
    else:
        asked = samples
    if asked is not None and asked < 2:
        raise UsageError(f"{name} cannot be measured on {asked} samples: expected at least 2")
    return asked


def _path_task(
    name: str, asked: int | None, has_w: bool, preset: str, gpu: bool, psi: float
) -> PathTask:
    note = None
    name = _PATH_ALIASES.get(name, name)
    if name == "ppl":
        name = "ppl_wfull" if has_w else "ppl_zfull"
        if not has_w:
            note = f"configuration {preset!r} has no w: the path runs in z"
    match = _PATH.fullmatch(name)
    assert match is not None
    space, sampling, crop, later = match.groups()
    if space == "w" and not has_w:
        raise UsageError(
            f"{name} needs an intermediate latent space, which configuration {preset!r} "
            f"does not have: measure {name.replace('_w', '_z')}"
        )
    setting = PathSetting(
        space="z" if space == "z" else "w",
        sampling="full" if sampling == "full" else "end",
        crop=bool(crop),
        rule="later" if later else "paper",
    )
    pairs = asked or _CPU_SAMPLES["ppl"]
    if not asked and gpu:
        pairs = PathTask(setting, pairs).published_pairs
    return PathTask(setting, pairs, note, skipped=_truncated(psi) or _missing("vgg16-lpips"))


def _separability_tasks(
    name: str,
    asked: int | None,
    config: NetworkConfig,
    gpu: bool,
    classifiers: AttributeClassifiers | None,
    psi: float,
) -> list[SeparabilityTask]:
    has_w, preset = config.has_w, config.preset
    if name == "ls_w" and not has_w:
        raise UsageError(
            f"ls_w needs an intermediate latent space, which configuration {preset!r} "
            "does not have: measure ls_z"
        )
    note = skipped = None
    if name == "ls" and not has_w:
        note = f"configuration {preset!r} has no w: separability is that of z alone"
    if psi != 1.0:
        skipped = _truncated(psi)
    elif classifiers is not None and not classifiers.classifiers:
        skipped = (
            "no classifier recognises its attribute better than by chance: train them on more or "
            "larger pictures, or on attributes that can be seen"
        )
    elif classifiers is None:
        skipped = (
            "it needs attribute classifiers: train them on the dataset with stylecli metrics ls "
            "--train-classifiers, or give --classifiers with a file of them or the folder of the "
            "official celebahq-classifier-NN-name.pkl"
        )
    elif classifiers.resolution > config.resolution:
        skipped = (
            f"the classifiers look at {classifiers.resolution} px and the network draws "
            f"{config.resolution} px: train some with --train-classifiers"
        )
    spaces: list[Space] = ["z", "w"] if name == "ls" and has_w else ["w" if "w" in name else "z"]
    samples = asked or (_GPU_SAMPLES if gpu else _CPU_SAMPLES)["ls"]
    official = classifiers is not None and classifiers.is_official
    count = len(classifiers.classifiers) if classifiers else 0
    return [SeparabilityTask(space, samples, official, count, note, skipped) for space in spaces]


def _picture_task(
    name: str,
    asked: int | None,
    dataset_size: int,
    gpu: bool,
    psi: float = 1.0,
    *,
    all_reals: bool = False,
    insisted: bool = True,
) -> PictureTask:
    kind, network, note, skipped = _who_looks(name)
    full, clean = name.endswith("_full"), "-clean" in name
    fakes = asked or (_GPU_SAMPLES if gpu else _CPU_SAMPLES)[kind]
    if name in _PRESETS and network != STAND_IN:
        fakes = asked or PUBLISHED_FAKES
    reals = dataset_size if full or all_reals else min(dataset_size, fakes)
    if full and kind in _MOST_REALS:
        reals = min(reals, _MOST_REALS[kind])
    elif all_reals and "50k" in name and not full:
        reals = min(reals, PUBLISHED_FAKES)
    reals = 0 if kind == "is" else reals
    if kind == "diversity":
        fakes, reals = min(fakes, DIVERSITY_ROWS), min(reals, DIVERSITY_ROWS)
    least = min(fakes, reals) if reals else fakes
    if skipped is None and kind != "is" and min(fakes, dataset_size) < 2:
        skipped = "one picture has no spread: expected at least 2 on either side"
    if skipped is None and kind == "pr" and least <= NEIGHBOURS:
        skipped = f"{least} pictures have no {NEIGHBOURS} neighbours each: expected more"
    if skipped is None and kind == "is" and fakes < 10:
        skipped = f"{fakes} pictures do not make 10 splits: give --samples 10 or more"
    asked_for = asked is not None and insisted
    if skipped is None and kind == "fid" and not asked_for and least < FID_LEAST:
        skipped = (
            f"there are {least} pictures, and below {FID_LEAST} a FID says more "
            f"about the count than about the network; give --samples {least} to have it anyway"
        )
    # All reals with divisor N are StyleGAN2-ADA's; clean-fid divides by N - 1 throughout.
    ddof = 0 if full and kind == "fid" and network != STAND_IN and not clean else 1
    return PictureTask(kind, network, fakes, reals, ddof, full, skipped, note, psi, clean)


def _who_looks(name: str) -> tuple[Kind, str, str | None, str | None]:
    """Return (kind, feature network, note, why not) of a metric on pictures, by what is here."""
    kind: Kind = next(kind for kind in get_args(Kind) if kind == base_name(name))
    network = DEFINED_WITH.get(kind, STAND_IN)
    missing = _missing(network)
    if name.endswith(f"@{STAND_IN}") or network == STAND_IN:
        return kind, STAND_IN, None, _missing(STAND_IN)
    if missing is None:
        return kind, network, None, None
    if "-clean" in name:
        return kind, network, None, f"a stand-in of it would be no clean number: {missing}"
    kind = "kid" if kind == "fid" else kind  # a Fréchet distance of a stand-in is no FID
    return kind, STAND_IN, f"{name} as defined: {missing}", _missing(STAND_IN)


def _in_precision(task: PictureTask, precision: Precision) -> PictureTask:
    """Return the task in a precision; a stand-in's features are too far off in 16 bits."""
    return task if task.network == STAND_IN else replace(task, precision=precision)


def _truncated(psi: float) -> str | None:
    return None if psi == 1.0 else "it is defined without truncation: leave --psi out"


def _missing(network: str) -> str | None:
    if network not in weights.NETWORKS:
        return f"the weights of {network} are not known to this version"
    return None if weights.locate(network) else str(weights.missing(network))
