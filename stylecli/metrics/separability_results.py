"""Linear separability as results: spaces over the same pictures, each with its definition."""

from collections.abc import Mapping, Sequence
from typing import Any

from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.fakes import LabelSource
from stylecli.metrics.metric_tasks import SeparabilityTask
from stylecli.metrics.results import MetricResult
from stylecli.metrics.separability import Separability, measure_separability
from stylecli.networks.stylegan1 import Generator
from stylecli.progress import Progress

# The SVM is judged on the points it was fitted to, as in the paper: with few points for its
# dimensions it learns them by heart. The paper has 195 kept pictures per dimension.
FEW_PER_DIMENSION = 20


def measure_spaces(
    tasks: Sequence[SeparabilityTask],
    G: Generator,
    classifiers: AttributeClassifiers,
    labels: LabelSource | None,
    batch: int,
    common: Mapping[str, Any],
    progress: Progress,
) -> list[MetricResult]:
    """Measure every task; those of one count share their pictures. ``common["seed"]`` is used."""
    results = []
    for samples in dict.fromkeys(task.samples for task in tasks):
        chosen = [task for task in tasks if task.samples == samples]
        found = measure_separability(
            G,
            classifiers,
            spaces=[task.space for task in chosen],
            samples=samples,
            seed=int(common["seed"]),
            batch=batch,
            labels=labels,
            progress=progress,
        )
        results += [_result(task, found[task.space], G, classifiers, common) for task in chosen]
    return results


def _result(
    task: SeparabilityTask,
    found: Separability,
    G: Generator,
    classifiers: AttributeClassifiers,
    common: Mapping[str, Any],
) -> MetricResult:
    config, kept = G.config, task.samples // 2
    dimensions = config.z_dim if task.space == "z" else config.w_out_dim
    notes = [task.note] if task.note else []
    if kept < FEW_PER_DIMENSION * dimensions:
        notes.append(
            f"{kept} kept pictures are few for {dimensions} dimensions: {task.name} flatters, and "
            f"compares at equal --samples only; {2 * FEW_PER_DIMENSION * dimensions} or more help"
        )
    if left_out := classifiers.info.get("left_out"):
        notes.append(
            f"ls leaves out {', '.join(left_out)}: the classifiers do no better than chance there, "
            "as the pictures do not show it"
        )
    one_class = [one.name for one in found.attributes if one.seen == 1]
    if one_class:
        notes.append(
            f"the surest pictures all have the same {', '.join(one_class)}: nothing to tell, 0 bits"
        )
    definition = {
        **common,
        "noise_mode": "random, per picture",
        "space": task.space,
        "fakes": task.samples,
        "kept": kept,
        "kept_rule": "largest class probability, for each attribute",
        "svm": "linear, squared hinge, C = 1, bias regularised, at the optimum; on all kept points",
        "many_values": "one hyperplane per value against the rest, the largest decision wins (ours)"
        if any(one.values > 2 for one in found.attributes)
        else None,
        "classifiers": "official CelebA" if task.official else "own",
        "classifiers_sha256": classifiers.digest,
        "classifiers_info": dict(classifiers.info),
        "classifiers_px": classifiers.resolution,
        "classifier_accuracy": classifiers.accuracy,
        "bits": found.bits,
        "unexplained": found.unexplained,
        "attributes": {one.name: one.to_dict() for one in found.attributes},
    }
    note = "; ".join(notes) or None
    return MetricResult(task.name, found.score, note=note, definition=definition)
