"""What is asked for and what can be done: the table of all metrics, and a task for each name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stylecli.errors import UsageError
from stylecli.hardware import Precision
from stylecli.metrics import check_names
from stylecli.metrics.class_scores import IS
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.diversity import DIVERSITY
from stylecli.metrics.equivariance import EQUIVARIANCES
from stylecli.metrics.frechet import FID
from stylecli.metrics.kernel import KID
from stylecli.metrics.path_length import PPL
from stylecli.metrics.precision_and_recall import PR
from stylecli.metrics.separability import LS
from stylecli.metrics.swd import SWD
from stylecli.metrics.tasks import Metric, PictureTask, Subject, Task
from stylecli.networks.config import NetworkConfig

Samples = int | Mapping[str, int] | None

METRICS: tuple[Metric, ...] = (FID, KID, IS, PR, SWD, DIVERSITY, PPL, LS, *EQUIVARIANCES)
BY_NAME = {name: metric for metric in METRICS for name in metric.names}


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
    stand_in: bool = False,
) -> list[Task]:
    """Return what to measure of a network for ``names``, in order, without repeats.

    ``samples`` is a count for all, or counts by name (``fid``, ``kid``, ``is``, ``pr``, ``swd``,
    ``diversity``, ``ppl``, ``ls``, ``eqt_int``, ``eqt_frac`` and ``eqr`` also stand for their
    variants). ``ls`` is ``ls_z`` and ``ls_w``. With truncation ``psi`` every name says so; path
    lengths, separability and equivariance are defined without it and skipped. ``precision`` is that
    of Inception's and VGG16's features; names say bf16. A published name whose weights are not here
    is skipped, unless a ``stand_in`` may answer. Raises UsageError for unknown names, counts below
    2, metrics in w of a network that has no w, and equivariance of one whose pictures cannot move.
    """
    subject = Subject(dataset_size, config, gpu=gpu, classifiers=classifiers, psi=psi,
                      precision=precision, stand_in=stand_in)  # fmt: skip
    return _plan(names, samples, subject)


def plan_sets(
    names: Sequence[str],
    samples: Samples,
    *,
    measured: int,
    reference: int,
    sizes: tuple[str, ...] = (),
    precision: Precision = "float32",
    stand_in: bool = False,
) -> list[PictureTask]:
    """Return what to measure of a set of ``measured`` pictures against one of ``reference``.

    All pictures of either count unless a published name or ``samples`` say otherwise. Raises
    UsageError for unknown names, and for metrics that need a network.
    """
    check_names(names)
    for name in names:
        if not BY_NAME[name].of_pictures:
            raise UsageError(
                f"{name} measures a network, not pictures: leave it out, or give --network"
            )
    subject = Subject(reference, measured=measured, precision=precision, stand_in=stand_in,
                      sizes=sizes)  # fmt: skip
    return _plan(names, samples, subject)


def _plan(names: Sequence[str], samples: Samples, subject: Subject) -> list[Any]:
    check_names(names)
    tasks: dict[str, Task] = {}
    for name in names:
        for task in BY_NAME[name].plan(name, _asked(name, samples), subject):
            _add(tasks, task, name)
    return list(tasks.values())


def _add(tasks: dict[str, Task], task: Any, name: str) -> None:
    """Add a task unless its name is there; of one name with other counts, the first stands."""
    first: Any = tasks.setdefault(task.name, task)
    same: dict[str, Any] = {"note": first.note}
    if isinstance(first, PictureTask):
        same["instead_of"] = first.instead_of
        if task.instead_of and task.instead_of != first.instead_of:  # it answers for both
            names = ",".join(filter(None, (first.instead_of, task.instead_of)))
            tasks[task.name] = first = replace(first, instead_of=names)
            same["instead_of"] = names
    if first != replace(task, **same):
        said = f"{name} needs other pictures than {task.name}: measure it in a separate command"
        tasks[task.name] = replace(first, note="; ".join(filter(None, (first.note, said))))


def base_name(name: str) -> str:
    """Return fid, kid, is, pr, swd, diversity, ppl, ls, eqt_int, eqt_frac or eqr."""
    return BY_NAME[name].kind


def _asked(name: str, samples: Samples) -> int | None:
    if isinstance(samples, Mapping):
        asked = samples.get(name, samples.get(base_name(name)))
    else:
        asked = samples
    if asked is not None and asked < 2:
        raise UsageError(f"{name} cannot be measured on {asked} samples: expected at least 2")
    return asked
