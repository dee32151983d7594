"""Linear separability as results: spaces over the same pictures, each with its definition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylecli import __version__
from stylecli.errors import StyleCLIError
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.collecting import Collected, Needs, Wanted, digest_of
from stylecli.metrics.pictures import Beside, Measuring
from stylecli.metrics.results import MetricResult
from stylecli.metrics.separability import SPACES, SampleRows, Separability, separability_of
from stylecli.metrics.tasks import SeparabilityTask
from stylecli.networks.config import NetworkConfig

# The SVM is judged on the points it was fitted to, as in the paper: with few points for its
# dimensions it learns them by heart. The paper has 195 kept pictures per dimension.
FEW_PER_DIMENSION = 20
SHARE = 0.25  # of a picture's time in the progress, which fitting the hyperplanes takes


@dataclass(frozen=True)
class SharedSamples:
    """The rows of all samples, collected in the pass that other metrics make over the fakes."""

    what: SampleRows
    beside: Beside


def share_samples(
    tasks: Sequence[SeparabilityTask],
    config: NetworkConfig,
    classifiers: AttributeClassifiers,
    identity: str,
) -> SharedSamples:
    """Return what the pass over the fakes is to collect for ``tasks``.

    Both latent spaces are kept, whichever is asked for, so that the other can be measured later.
    ``identity`` tells the network from others, empty if unknown.
    """
    what = SampleRows(config, classifiers, SPACES if config.has_w else ("z",))
    count = max(task.samples for task in tasks)
    name = digest_of(identity, "samples", classifiers.digest, str(count), __version__)
    collected = Collected(count, Needs("rows", count))
    beside = Beside(what.extract, Wanted("classifiers", collected, name if identity else None))
    return SharedSamples(what, beside)


def judge_spaces(
    tasks: Sequence[SeparabilityTask],
    shared: SharedSamples,
    config: NetworkConfig,
    common: Mapping[str, Any],
    how: Measuring,
) -> list[MetricResult]:
    """Return the results of ``tasks`` from what was collected; those of one count go together."""
    results = []
    for samples in dict.fromkeys(task.samples for task in tasks):
        chosen = [task for task in tasks if task.samples == samples]
        try:
            if shared.beside.problem is not None:
                raise StyleCLIError(shared.beside.problem)
            found = separability_of(
                shared.beside.wanted.collected.rows[:samples],
                shared.what,
                [task.space for task in chosen],
                progress=how.meter.share(SHARE * samples),
            )
        except StyleCLIError as error:
            results += [MetricResult(task.name, None, skipped=str(error), definition=common)
                        for task in chosen]  # fmt: skip
            continue
        results += [
            _result(task, found[task.space], config, shared.what.classifiers, common)
            for task in chosen
        ]
    return results


def _result(
    task: SeparabilityTask,
    found: Separability,
    config: NetworkConfig,
    classifiers: AttributeClassifiers,
    common: Mapping[str, Any],
) -> MetricResult:
    kept = task.samples // 2
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
