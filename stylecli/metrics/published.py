"""The numbers that papers and their programs print, beside what a network measures here.

Values of a paper's table that nobody could compare with the paper itself are marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stylecli.errors import UsageError
from stylecli.metrics.path_length import PUBLISHED_PAIRS
from stylecli.metrics.separability import PAPER_SAMPLES
from stylecli.metrics.tasks import PUBLISHED_FAKES, MetricResult

MARK = "*"  # behind values of a table that were not checked


@dataclass(frozen=True)
class PublishedNumber:
    """One number of a paper: what to ask for, its values, how many pictures it stands on."""

    name: str
    samples: int  # fakes, or pairs of a path length
    readme: float | None = None  # printed beside the published network
    table: float | None = None  # in the paper's table
    checked: bool = False  # whether the table's value has a second witness

    @property
    def in_table(self) -> str:
        """The table's value as text, marked where it was not checked."""
        return "-" if self.table is None else f"{self.table:g}" + MARK * (not self.checked)


@dataclass(frozen=True)
class Paper:
    """What a paper measures of its published network, and on what."""

    title: str
    network: str  # the published file
    data: str
    resolution: int  # px, of both
    numbers: tuple[PublishedNumber, ...]
    reasons: tuple[str, ...]  # why even that network gives other digits here

    @property
    def names(self) -> list[str]:
        """What to measure."""
        return [number.name for number in self.numbers]

    @property
    def samples(self) -> Mapping[str, int]:
        """The published counts, by name."""
        return {number.name: number.samples for number in self.numbers}


_PAIRS = PUBLISHED_PAIRS["paper"]
PAPERS = {
    "stylegan": Paper(
        "A Style-Based Generator Architecture for Generative Adversarial Networks, 2018",
        "karras2019stylegan-ffhq-1024x1024.pkl",
        "FFHQ",
        1024,
        (
            PublishedNumber("fid50k", PUBLISHED_FAKES, 4.4159, 4.40, checked=True),
            PublishedNumber("ppl_zfull-crop", _PAIRS, 664.8854),
            PublishedNumber("ppl_wfull-crop", _PAIRS, 233.3059, 234.0),
            PublishedNumber("ppl_zend-crop", _PAIRS, 666.1057),
            PublishedNumber("ppl_wend-crop", _PAIRS, 197.2266, 195.9),
            PublishedNumber("ls_z", PAPER_SAMPLES, 165.0106),
            PublishedNumber("ls_w", PAPER_SAMPLES, 3.7447, 3.79),
        ),
        (
            "NumPy draws latents, noise and labels here and TensorFlow did there: expect the last "
            "digit or two to differ",
            "the official program mirrors real pictures at random if training did; stylecli never "
            "mirrors them",
            "the README measures the published network, the paper's table the paper's own",
        ),
    ),
}


def find_paper(name: str) -> Paper:
    """Return a paper's numbers; raise UsageError for one that is not here."""
    if name not in PAPERS:
        raise UsageError(f"unknown paper {name!r}: expected {', '.join(PAPERS)}")
    return PAPERS[name]


def compare_with_paper(
    paper: Paper, results: Sequence[MetricResult], resolution: int
) -> list[tuple[str, str, str, str, str]]:
    """Return a row for each of the paper's numbers: name, ours, README's, table's, the difference.

    ``resolution`` is that of the measured network, in pixels.
    """
    rows = []
    for number in paper.numbers:
        found = next((one for one in results if _is_of(one.name, number.name)), None)
        ours = found.text() if found is not None else "-"
        readme = "-" if number.readme is None else f"{number.readme:g}"
        why = _why(number, found, paper, resolution)
        rows.append((number.name, ours, readme, number.in_table, why))
    return rows


def _is_of(result: str, name: str) -> bool:
    base = result.partition("@")[0]
    return base in (name, name.replace("50k", ""))


def _why(number: PublishedNumber, found: MetricResult | None, paper: Paper, resolution: int) -> str:
    if found is None or found.value is None:
        return "not measured: see below"
    reasons = []
    if resolution != paper.resolution:
        reasons.append(f"{resolution} px, not {paper.resolution}")
    definition = found.definition
    count = definition.get("fakes") or definition.get("pairs")
    if count != number.samples:
        reasons.append(f"{count} of {number.samples} samples")
    if (reals := definition.get("reals")) is not None and reals != number.samples:
        reasons.append(f"{reals} of {number.samples} reals")
    if definition.get("classifiers") == "own":
        reasons.append("own classifiers")
    if not reasons and number.readme:
        return f"{100 * (found.value / number.readme - 1):+.1f} % of the README's"
    return ", ".join(reasons)
