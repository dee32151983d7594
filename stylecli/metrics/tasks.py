"""What a metric is, what one of a plan is, and what a measurement says.

A bare published name stands on the published counts; off them the name says the count.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from stylecli import weights
from stylecli.features.extractors import INCEPTION, PYRAMID, STAND_IN, Extractor, Precision, View
from stylecli.images import notebook_html
from stylecli.metrics.collecting import Accumulator, Rows
from stylecli.networks.config import NetworkConfig

if TYPE_CHECKING:
    from stylecli.metrics.classifiers import AttributeClassifiers


PUBLISHED_FAKES = 50_000

Score = tuple[float, float | None]  # value, standard deviation


@dataclass(frozen=True)
class Subject:
    """What is measured, as far as a plan has to know: a network, or a set of pictures."""

    dataset_size: int  # reals; 0 where there are none
    config: NetworkConfig | None = None  # None: a set
    measured: int | None = None  # pictures of the set; None: a network
    gpu: bool = False
    classifiers: "AttributeClassifiers | None" = None
    psi: float = 1.0
    precision: Precision = "float32"
    stand_in: bool = False  # whether a stand-in may answer for a published name
    sizes: tuple[str, ...] = ()  # of the pictures of both sets, in words

    @property
    def truncated(self) -> str | None:
        """Why metrics that are defined without truncation cannot be measured."""
        return None if self.psi == 1.0 else "it is defined without truncation: leave --psi out"


class Task(Protocol):
    """One metric of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...  # of its results
    @property
    def note(self) -> str | None: ...
    @property
    def skipped(self) -> str | None: ...  # why it cannot be measured


class Metric(ABC):
    """Something that is measured under several names, all of which start with its ``kind``."""

    kind: str
    names: tuple[str, ...]
    network: str | None = None  # the feature network that the definition names
    of_pictures = False  # or of a network
    higher_is_better = False  # the only place that says it; results carry it on
    parts: tuple[str, ...] = ()  # what results are called; empty: by the kind
    # Fakes (pairs of ppl) where nothing is asked for: on a CPU an answer in about two minutes for a
    # 32 px network, on a GPU the published counts.
    cpu_samples: int
    gpu_samples: int

    @abstractmethod
    def plan(self, name: str, asked: int | None, subject: Subject) -> list[Any]:
        """Return the tasks of ``name`` with so many samples; None: as many as suit the device."""


class PictureMetric(Metric):
    """A metric of features of pictures: its own file has the statistic and all that is its own."""

    of_pictures = True
    network: str | None = INCEPTION  # None: always the stand-in
    looks_at_reals = True
    most_pictures: int | None = None  # of either side
    most_reals: int | None = None  # of the _full variants

    def instead(self) -> "PictureMetric":
        """Return what is measured where only the stand-in's weights are here."""
        return self

    def published(self, part: str) -> str:
        """Return the published name, with {} where _full belongs."""
        return f"{part}50k{{}}"

    def why_too_few(self, least: int, *, asked: bool) -> str | None:
        """Return why so many pictures on the smaller side are not enough."""
        return None

    def accumulator(self, task: "PictureTask", count: int, extractor: Extractor) -> Accumulator:
        """Return what keeps of ``count`` pictures what the score is made from."""
        return Rows(count)

    @abstractmethod
    def score(
        self, task: "PictureTask", reals: Any, fakes: Any, seed: int
    ) -> tuple[list[Score], dict[str, Any]]:
        """Return the results, and what a definition has to say of them, from accumulators' values.

        Raises StyleCLIError for what cannot be computed.
        """

    @abstractmethod
    def meaning(self, name: str, value: float) -> str:
        """Return one phrase that says what the value of a result is."""

    def plan(self, name: str, asked: int | None, subject: Subject) -> list["PictureTask"]:
        """Return the task: with the network of the definition, else with the stand-in."""
        network = self.network or STAND_IN
        missing = why_missing(network)
        if name.endswith(f"@{STAND_IN}") or network == STAND_IN:
            return [self._task(name, STAND_IN, asked, subject, None, why_missing(STAND_IN))]
        if missing is None:
            return [self._task(name, network, asked, subject, None, None)]
        if "-clean" in name:
            why = f"a stand-in would not give a clean-fid number: {missing}"
            return [self._task(name, network, asked, subject, None, why)]
        instead = self.instead()
        if is_published(name) and not subject.stand_in:
            why = (
                f"{missing}; or run stylecli metrics {name} --stand-in to measure "
                f"{instead.kind}@{STAND_IN} in its place"
            )
            return [replace(self._task(name, network, asked, subject, None, why), instead_of=name)]
        note = f"{name} as defined: {missing}"
        task = instead._task(name, STAND_IN, asked, subject, note, why_missing(STAND_IN))
        return [replace(task, instead_of=name)]

    def _task(
        self,
        name: str,
        network: str,
        asked: int | None,
        subject: Subject,
        note: str | None,
        skipped: str | None,
    ) -> "PictureTask":
        full, published = name.endswith("_full"), is_published(name)
        size, insisted, all_reals = subject.dataset_size, asked is not None, False
        if subject.measured is not None:  # all pictures of both sets, unless more is said
            all_reals = asked is None
            asked = min(
                subject.measured, asked or (PUBLISHED_FAKES if published else subject.measured)
            )
        fakes = asked or (self.gpu_samples if subject.gpu else self.cpu_samples)
        if published and network != STAND_IN:
            fakes = asked or PUBLISHED_FAKES
        reals = size if full or all_reals else min(size, fakes)
        if full and self.most_reals is not None:
            reals = min(reals, self.most_reals)
        elif all_reals and published and not full:
            reals = min(reals, PUBLISHED_FAKES)
        reals = reals if self.looks_at_reals else 0
        if self.most_pictures is not None:
            fakes, reals = min(fakes, self.most_pictures), min(reals, self.most_pictures)
        if skipped is None and self.looks_at_reals and min(fakes, size) < 2:
            skipped = "one picture has no spread: give at least 2 on either side"
        skipped = skipped or self.why_too_few(min(fakes, reals) if reals else fakes, asked=insisted)
        # A stand-in's features are too far off in 16 bits; a pyramid has no convolutions.
        precision = "float32" if network in (STAND_IN, PYRAMID) else subject.precision
        return PictureTask(self, network, fakes, reals, full, skipped, note, subject.psi,
                           "-clean" in name, precision)  # fmt: skip


def is_published(name: str) -> bool:
    """Whether a name is one that papers print, with their count: nothing else may answer for it."""
    return "50k" in name or name.startswith("ppl2")


def why_missing(network: str) -> str | None:
    """Say why the weights of a feature network cannot be used; None where they are here."""
    if network == PYRAMID:
        return None
    if network not in weights.NETWORKS:
        return f"this version does not know the weights of {network}"
    return None if weights.locate(network) else str(weights.missing(network))


@dataclass(frozen=True)
class PictureTask:
    """A metric on features of pictures."""

    metric: PictureMetric
    network: str  # feature network
    fakes: int
    reals: int  # 0 for is, which looks at fakes alone
    full: bool = False  # all reals
    skipped: str | None = None
    note: str | None = None
    psi: float = 1.0
    clean: bool = False  # pictures are resized by PIL's rule, as clean FID is defined
    precision: Precision = "float32"  # of the feature network's convolutions
    instead_of: str | None = None  # fid or fid,kid: what was asked for, where the stand-in answers

    @property
    def view(self) -> View:
        """The feature network and how it looks."""
        return View(self.network, self.clean, self.precision)

    @property
    def published_count(self) -> bool:
        """Whether fakes and reals are as many as published numbers are made from.

        Other than 50,000 reals belong to the _full variants alone; is looks at none.
        """
        as_many = self.full or self.reals in (0, PUBLISHED_FAKES)
        return as_many and self.fakes == PUBLISHED_FAKES

    @property
    def name(self) -> str:
        """The result's name: it says what is not as published, the count, the network, the bits."""
        if self.skipped and self.instead_of and is_published(self.instead_of):
            return self.instead_of  # as asked, whatever the counts would have been
        return self._named(self.metric.kind)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results: precision and recall are two."""
        if self.metric.parts and self.skipped is None:
            return tuple(self._named(part) for part in self.metric.parts)
        return (self.name,)

    def _named(self, part: str) -> str:
        shown = part + "-clean" * self.clean
        cut = f"-{self.precision}" * self.view.is_rough + f"-psi{self.psi:g}" * (self.psi != 1.0)
        if self.network != self.metric.network:
            return f"{shown}{'_full' * self.full}@{self.network}{cut}"
        if self.published_count:
            return self.metric.published(shown).format("_full" * self.full) + cut
        return f"{shown}" + "_full" * self.full + f"@{self.fakes}{cut}"


def says_stand_in(name: str, words: str = ", a stand-in") -> str:
    """Return ``words`` where a result's name says that the stand-in looked, else nothing."""
    return words if f"@{STAND_IN}" in name else ""


def says_resized(name: str) -> str:
    """Return how pictures were resized where a result's name says that."""
    return " after PIL's resize" if "-clean" in name else ""


@dataclass(frozen=True)
class MetricResult:
    """One number with its definition. Frozen; ``value`` is None when it was skipped."""

    name: str  # says what was computed: fid50k, fid@5000, kid@efficientnet-lite0, ppl_wfull
    value: float | None
    std: float | None = None  # over subsets (kid) or splits (is)
    skipped: str | None = None  # why there is no value, and the step that helps
    note: str | None = None  # how to get something better, or when to doubt this
    definition: Mapping[str, Any] = field(default_factory=dict)  # all that the value depends on
    phrase: str = ""  # what the value is; it repeats no caveat of the note
    higher_is_better: bool = False
    instead_of: str | None = None  # fid or fid,kid: what was asked for, where a stand-in answered

    @property
    def meaning(self) -> str:
        """One phrase that says what the value is, or why there is none."""
        if self.skipped is not None or self.value is None:
            return f"skipped: {self.skipped}"
        return self.phrase

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        document = {**asdict(self), "definition": dict(self.definition), "meaning": self.meaning}
        del document["phrase"]
        return document

    def text(self) -> str:
        """Return the value with its spread, such as ``0.0337 ± 0.0021``; a dash for none."""
        if self.value is None:
            return "-"
        return f"{self.value:.4f}" + (f" ± {self.std:.4f}" if self.std is not None else "")


class MetricResults(list[MetricResult]):
    """The results of one measurement, in order; notebooks and the prompt show them as a table."""

    def __repr__(self) -> str:
        """Return a line for each number."""
        width = max((len(result.name) for result in self), default=0)
        return "\n".join(f"{one.name:{width}}  {one.text()}  {one.meaning}" for one in self) or "[]"

    def _repr_html_(self) -> str:
        """Return a table: name, value with its spread, what it is."""
        facts = {one.name: f"{one.text()}, {one.meaning}" for one in self}
        notes = {f"note {number}": note for number, note in enumerate(self.notes, 1)}
        return notebook_html("metrics", facts | notes)

    @property
    def notes(self) -> list[str]:
        """What the results have to add, each once."""
        return list(dict.fromkeys(one.note for one in self if one.note))


def values_by_psi(
    results: Sequence[MetricResult],
) -> tuple[list[float], dict[str, list[MetricResult | None]]]:
    """Return the psis of a sweep, ascending, and by name without psi the result at each of them."""
    psis = sorted({float(one.definition.get("truncation_psi", 1.0)) for one in results})
    rows: dict[str, list[MetricResult | None]] = {}
    for one in results:
        psi = float(one.definition.get("truncation_psi", 1.0))
        name = one.name.removesuffix(f"-psi{psi:g}")
        rows.setdefault(name, [None] * len(psis))[psis.index(psi)] = one
    return psis, rows
