"""Linear separability: how well a hyperplane in latent space tells what is in the picture.

StyleGAN (Karras, Laine, Aila 2018), section 4.2: generate pictures, classify their attributes, keep
the most confident half, fit a linear SVM to the latents, and ask how much is left to know of the
attribute once the SVM has spoken. The score is 2^(Σ H(attribute | SVM)), H in bits; 1 is perfect.

What it looks at in a picture is one row: z, w, and class probabilities. Rows are collected in the
pass that other metrics make over the same pictures, so a picture is drawn once for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli import __version__
from stylecli.errors import StyleCLIError, UsageError, plural
from stylecli.metrics import NAMES_OF
from stylecli.metrics.classifiers import OFFICIAL_CLASSIFIERS, AttributeClassifiers
from stylecli.metrics.collecting import Collector, Pass, Rows, digest_of
from stylecli.metrics.picture_sets import LabelSource, Sample, draw_samples
from stylecli.metrics.tasks import Metric, MetricResult, Subject
from stylecli.networks.config import NetworkConfig
from stylecli.networks.model import Generator
from stylecli.progress import Progress, silent
from stylecli.rendering import device_of, exact_kernels
from stylecli.statistics.linear_svm import fit_one_vs_rest, svm_classes

Space = Literal["z", "w"]
SPACES: tuple[Space, ...] = ("z", "w")
PAPER_SAMPLES = 200_000  # of which half are kept
# The SVM is judged on the points it was fitted to, as in the paper: with few points for its
# dimensions it memorises them. The paper has 195 kept pictures per dimension.
FEW_PER_DIMENSION = 20
SHARE = 0.25  # of a picture's time in the progress, which fitting the hyperplanes takes
_PICTURES_SHARE = 0.8  # of the progress bar; the rest are the SVMs


class SampleRows:
    """Makes rows [B, width] of samples, and takes them apart again."""

    def __init__(
        self,
        config: NetworkConfig,
        classifiers: AttributeClassifiers,
        spaces: Sequence[Space] = SPACES,
    ) -> None:
        """Raise UsageError for w of a network that has none."""
        if "w" in spaces and not config.has_w:
            raise UsageError(
                "ls_w needs an intermediate latent space, which configuration "
                f"{config.preset!r} does not have: measure ls_z"
            )
        self.classifiers = classifiers
        widths: dict[str, int] = {
            space: config.z_dim if space == "z" else config.w_out_dim for space in spaces
        }
        self._latents = tuple(widths)
        widths |= {f"p {name}": len(values) for name, values in classifiers.values.items()}
        ends = np.cumsum(list(widths.values()))
        starts = ends - list(widths.values())
        self._columns = {
            name: slice(int(start), int(end))
            for name, start, end in zip(widths, starts, ends, strict=True)
        }

    def extract(self, sample: Sample) -> NDArray[np.float32]:
        """Return the rows of some samples; the classifiers see the unrounded images."""
        parts = [sample.z if space == "z" else sample.w for space in self._latents]
        parts += self.classifiers.classify(sample.images).values()
        rows: NDArray[np.float32] = torch.cat([part.float().cpu() for part in parts], 1).numpy()
        return rows

    def latents(self, rows: NDArray[Any], space: Space) -> NDArray[Any]:
        """Return z or w [N, d] of rows."""
        return rows[:, self._columns[space]]

    def probabilities(self, rows: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Return attribute -> class probabilities [N, K] of rows."""
        return {name: rows[:, self._columns[f"p {name}"]] for name in self.classifiers.values}


@dataclass(frozen=True)
class AttributeEntropy:
    """What is left to know of one attribute, in bits."""

    name: str
    conditional_entropy: float  # H(attribute | SVM)
    entropy: float  # H(attribute) among the kept: what there was to know
    values: int  # that the classifier knows
    seen: int  # that occur among the kept; with one there is nothing to know
    svm_accuracy: float  # share of the kept whose value the SVM names

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, entropies to six digits."""
        return {
            "conditional_entropy": round(self.conditional_entropy, 6),
            "entropy": round(self.entropy, 6),
            "values": self.values,
            "values_seen": self.seen,
            "svm_accuracy": round(self.svm_accuracy, 4),
        }


@dataclass(frozen=True)
class Separability:
    """The separability of one latent space."""

    space: Space
    attributes: tuple[AttributeEntropy, ...]

    @property
    def bits(self) -> float:
        """Σ H(attribute | SVM) over the attributes."""
        return float(sum(one.conditional_entropy for one in self.attributes))

    @property
    def unexplained(self) -> float:
        """Σ H(attribute | SVM) / Σ H(attribute): 0 perfect, 1 the SVMs tell nothing."""
        known = float(sum(one.entropy for one in self.attributes))
        return self.bits / known if known else 0.0

    @property
    def score(self) -> float:
        """2^bits: 1 is perfect."""
        return float(2.0**self.bits)


def conditional_entropy(table: Any) -> float:
    """Return H(Y | X) in bits of a joint table [X, Y] of counts or probabilities.

    Rows are X (the linear model's side), columns Y (the attribute); the table is normalised by
    its sum. The separability score of StyleGAN (section 4.2) is 2^(Σ of these over attributes).
    Raises UsageError for a table that is not 2-D, has negative values or sums to nothing.
    """
    joint = np.asarray(table, np.float64)
    if joint.ndim != 2 or not joint.size:
        raise UsageError(f"table has shape {list(joint.shape)}: expected a joint table [X, Y]")
    if not np.isfinite(joint).all() or (joint < 0).any() or joint.sum() <= 0:
        raise UsageError("table is not a joint distribution: expected counts, at least one above 0")
    joint = joint / joint.sum()
    given = np.broadcast_to(joint.sum(axis=1, keepdims=True), joint.shape)
    seen = joint > 0
    return max(0.0, float(-(joint[seen] * np.log2(joint[seen] / given[seen])).sum()))


def measure_attribute(
    name: str, latents: Any, probabilities: Any, keep: int | None = None
) -> AttributeEntropy:
    """Return what a linear SVM on latents [N, d] leaves to know of one attribute.

    ``probabilities`` [N, K] are the classifier's; the ``keep`` pictures (None: half) with the
    largest maximum are kept, ties in their order, and called by it. Two values: one hyperplane,
    as in the paper. More: a hyperplane between each value and the rest, the largest decision wins.
    If only one value is left among the kept, nothing is left to know: 0 bits. Raises UsageError
    for arrays that do not fit together.
    """
    x, p = np.asarray(latents), np.asarray(probabilities)
    if x.ndim != 2 or p.ndim != 2 or len(x) != len(p) or p.shape[1] < 2:
        raise UsageError(
            f"latents {list(x.shape)} and probabilities {list(p.shape)} do not fit: expected "
            "[N, d] and [N, K], K from 2"
        )
    count = len(x) // 2 if keep is None else keep
    if not 2 <= count <= len(x):
        raise UsageError(
            f"keep {count} does not fit {plural(len(x), 'picture')}: expected 2 to that many"
        )
    chosen = np.argsort(-p.max(axis=1), kind="stable")[:count]
    classes = p[chosen].argmax(axis=1)
    counts = np.bincount(classes, minlength=p.shape[1])
    present = np.flatnonzero(counts).tolist()
    if len(present) == 1:
        return AttributeEntropy(name, 0.0, 0.0, p.shape[1], 1, 1.0)
    # One hyperplane tells two values apart; the second would be its mirror image.
    wanted = present[:1] if len(present) == 2 else present
    svms = fit_one_vs_rest(x[chosen], classes, wanted)
    told = np.asarray(present)[svm_classes(x[chosen], svms)]
    table = np.zeros((p.shape[1], p.shape[1]))
    np.add.at(table, (told, classes), 1.0)
    return AttributeEntropy(
        name,
        conditional_entropy(table),
        conditional_entropy(counts[None]),  # given nothing: the entropy itself
        p.shape[1],
        len(present),
        float((told == classes).mean()),
    )


def separability_of(
    rows: NDArray[Any],
    what: SampleRows,
    spaces: Sequence[Space],
    *,
    keep: int | None = None,
    progress: Progress = silent,
) -> dict[Space, Separability]:
    """Return the separability of each of ``spaces`` from rows [N, ...], laid out as ``what`` says.

    The ``keep`` surest (None: half) per attribute count. Raises UsageError for too few rows.
    """
    if len(rows) < 4:
        raise UsageError(f"{len(rows)} samples have no halves to compare: expected at least 4")
    found: dict[Space, list[AttributeEntropy]] = {space: [] for space in spaces}
    probabilities = what.probabilities(rows)
    for number, (name, p) in enumerate(probabilities.items(), 1):
        for space in spaces:
            found[space].append(measure_attribute(name, what.latents(rows, space), p, keep))
        progress(number, len(probabilities), f"hyperplanes, {name}")
    return {space: Separability(space, tuple(found[space])) for space in spaces}


def measure_separability(
    G: Generator,
    classifiers: AttributeClassifiers,
    *,
    spaces: Sequence[Space] = SPACES,
    samples: int = PAPER_SAMPLES,
    keep: int | None = None,
    seed: int = 0,
    batch: int = 16,
    labels: LabelSource | None = None,
    progress: Progress = silent,
) -> dict[Space, Separability]:
    """Return the separability of each of ``spaces`` of a generator, from the same pictures.

    ``samples`` pictures are drawn without truncation and with random noise, and shown to the
    classifiers unquantised; the ``keep`` surest (None: half) per attribute count. w is that of the
    last layer. Everything random comes from ``seed``; ``batch`` changes speed only. Latents and
    probabilities are held in memory: samples · (z_dim + w_dim + values) · 4 bytes. Raises
    UsageError for w in a network without, too few samples, or a generator whose pictures do not
    suit the classifiers.
    """
    what = SampleRows(G.config, classifiers, spaces)
    device = device_of(G)
    classifiers.to(device)
    parts: list[NDArray[np.float32]] = []
    count, done = float(samples), 0
    with torch.inference_mode(), exact_kernels(device):
        for sample in draw_samples(G, samples, seed=seed, batch=batch, labels=labels):
            parts.append(what.extract(sample))
            done += len(parts[-1])
            progress(_PICTURES_SHARE * done, count, "pictures")

    def report(done: float, total: float, note: str = "") -> None:
        share = _PICTURES_SHARE + (1 - _PICTURES_SHARE) * done / total
        progress(share * count, count, note)

    return separability_of(np.concatenate(parts), what, spaces, keep=keep, progress=report)


@dataclass(frozen=True)
class SeparabilityTask:
    """Linear separability of a latent space."""

    space: Space
    samples: int
    official: bool  # whose classifiers
    attributes: int
    note: str | None = None
    skipped: str | None = None

    @property
    def name(self) -> str:
        """The result's name: bare only with the official 40 classifiers and 200,000 samples."""
        if self.skipped is not None:
            return f"ls_{self.space}"
        if not self.official:
            return f"ls_{self.space}@own-classifiers"
        few = f"-{self.attributes}attributes" * (self.attributes != OFFICIAL_CLASSIFIERS)
        return f"ls_{self.space}" + (
            f"@{self.samples}{few}" if few or self.samples != PAPER_SAMPLES else ""
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results."""
        return (self.name,)


class LinearSeparability(Metric):
    """Separability of z, of w, or of both."""

    kind = "ls"
    names = NAMES_OF["ls"]
    cpu_samples, gpu_samples = 10_000, PAPER_SAMPLES

    def plan(self, name: str, asked: int | None, subject: Subject) -> list[SeparabilityTask]:
        """Return the tasks; ls is ls_z and ls_w, of a network without w ls_z alone."""
        assert subject.config is not None
        config, classifiers = subject.config, subject.classifiers
        has_w, preset = config.has_w, config.preset
        if name == "ls_w" and not has_w:
            raise UsageError(
                f"ls_w needs an intermediate latent space, which configuration {preset!r} "
                "does not have: measure ls_z"
            )
        note = None
        if name == "ls" and not has_w:
            note = f"configuration {preset!r} has no w: separability is that of z alone"
        skipped = subject.truncated or _why_not(classifiers, config)
        spaces: list[Space] = (
            ["z", "w"] if name == "ls" and has_w else ["w" if "w" in name else "z"]
        )
        samples = asked or (self.gpu_samples if subject.gpu else self.cpu_samples)
        official = classifiers is not None and classifiers.is_official
        count = len(classifiers.classifiers) if classifiers else 0
        return [
            SeparabilityTask(space, samples, official, count, note, skipped) for space in spaces
        ]


def _why_not(classifiers: AttributeClassifiers | None, config: NetworkConfig) -> str | None:
    """Say why these classifiers cannot judge such a network's pictures, None where they can."""
    if classifiers is None:
        return (
            "it needs attribute classifiers: train them on the dataset with stylecli metrics ls "
            "--train-classifiers, or give --classifiers with a file of them or the folder of the "
            "official celebahq-classifier-NN-name.pkl"
        )
    if not classifiers.classifiers:
        return (
            "no classifier recognises its attribute better than by chance: train them on more or "
            "larger pictures, or on attributes that can be seen"
        )
    if classifiers.resolution > config.resolution or classifiers.grid != config.grid:
        return (
            f"the classifiers need {classifiers.grid.at(classifiers.resolution)} px and the "
            f"network draws {config.size} px: train others with --train-classifiers"
        )
    return None


LS = LinearSeparability()


def keep_samples(
    shown: Pass,
    tasks: Sequence[SeparabilityTask],
    config: NetworkConfig,
    classifiers: AttributeClassifiers,
    identity: str,
) -> tuple[SampleRows, Rows]:
    """Have the pass over the fakes keep what ``tasks`` need; return that and how it is laid out.

    Both latent spaces are kept, whichever is asked for, so that the other can be measured later.
    ``identity`` tells the network from others, empty if unknown.
    """
    what = SampleRows(config, classifiers, SPACES if config.has_w else ("z",))
    count = max(task.samples for task in tasks)
    name = digest_of(identity, "samples", classifiers.digest, str(count), __version__)
    rows = Rows(count)
    shown.keep("classifiers", what.extract, rows, name=name if identity else None)
    return what, rows


def judge_spaces(
    tasks: Sequence[SeparabilityTask],
    shown: Pass,
    what: SampleRows,
    rows: Rows,
    config: NetworkConfig,
    common: Mapping[str, Any],
    how: Collector,
) -> list[MetricResult]:
    """Return the results of ``tasks`` from what a pass kept; those of one count go together."""
    results = []
    for samples in dict.fromkeys(task.samples for task in tasks):
        chosen = [task for task in tasks if task.samples == samples]
        try:
            if shown.problem is not None:
                raise StyleCLIError(shown.problem)
            found = separability_of(
                rows.compute()[:samples],
                what,
                [task.space for task in chosen],
                progress=how.meter.share(SHARE * samples),
            )
        except StyleCLIError as error:
            results += [MetricResult(task.name, None, skipped=str(error), definition=common)
                        for task in chosen]  # fmt: skip
            continue
        results += [
            _result(task, found[task.space], config, what.classifiers, common) for task in chosen
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
            f"{kept} kept pictures are few for {dimensions} dimensions: {task.name} is too good "
            f"and compares only at equal --samples; give {2 * FEW_PER_DIMENSION * dimensions} or "
            f"more"
        )
    if left_out := classifiers.info.get("left_out"):
        notes.append(
            f"ls leaves out {', '.join(left_out)}: the pictures do not show these attributes, and "
            f"the classifiers do no better than chance"
        )
    one_class = [one.name for one in found.attributes if one.seen == 1]
    if one_class:
        notes.append(
            f"the surest pictures all have the same {', '.join(one_class)}: nothing to separate, "
            f"0 bits"
        )
    definition = {
        **common,
        "space": task.space,
        "fakes": task.samples,
        "kept": kept,
        "kept_rule": "largest class probability, for each attribute",
        "svm": "linear, squared hinge, C = 1, bias regularised, at the optimum; on all kept points",
        "many_values": "one hyperplane per value against the rest, the largest decision wins "
        "(stylecli's own)"
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
    own = "" if task.official else ", own classifiers: compare on this dataset only"
    phrase = f"= 2^{found.bits:.2f} bits; 1: a hyperplane separates every attribute{own}"
    return MetricResult(task.name, found.score, note=note, definition=definition, phrase=phrase)
