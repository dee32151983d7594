"""What one metric of a plan is: which network looks, how many pictures, what the result is called.

A bare published name stands on the published counts; off them the name says the count.
"""

from dataclasses import dataclass
from typing import Literal

from stylecli.features.extractors import INCEPTION, VGG16_FC2, View
from stylecli.metrics.classifiers import OFFICIAL_CLASSIFIERS
from stylecli.metrics.path_length import PathSetting
from stylecli.metrics.separability import PAPER_SAMPLES, Space
from stylecli.rendering import Precision

Kind = Literal["fid", "kid", "is", "pr", "diversity"]

PUBLISHED_FAKES = 50_000
PUBLISHED_PAIRS = {"paper": 100_000, "later": 50_000}  # of the StyleGAN paper, of its successors
DIVERSITY_ROWS = 2000  # at most: pairs grow with the square, the mean is settled long before
NEIGHBOURS = 3  # whose distance is the radius of precision and recall
# The network that a published definition names; others are stand-ins, and the result says so.
DEFINED_WITH: dict[Kind, str] = {"fid": INCEPTION, "kid": INCEPTION, "is": INCEPTION,
                                 "pr": VGG16_FC2}  # fmt: skip


@dataclass(frozen=True)
class PictureTask:
    """A metric on features of pictures."""

    kind: Kind
    network: str  # feature network
    fakes: int
    reals: int  # 0 for is, which looks at fakes alone
    ddof: int = 1
    full: bool = False  # all reals
    skipped: str | None = None
    note: str | None = None
    psi: float = 1.0
    clean: bool = False  # pictures are resized by PIL's rule, as clean FID is defined
    precision: Precision = "float32"  # of the feature network's convolutions

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
        return self._named(self.kind)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the results: precision and recall are two."""
        if self.kind == "pr" and self.skipped is None:
            return (self._named("precision"), self._named("recall"))
        return (self.name,)

    def _named(self, kind: str) -> str:
        kind += "-clean" * self.clean
        cut = f"-{self.precision}" * self.view.is_rough + f"-psi{self.psi:g}" * (self.psi != 1.0)
        if self.network != DEFINED_WITH.get(self.kind):
            return f"{kind}{'_full' * self.full}@{self.network}{cut}"
        published = {"precision": "pr50k3{}_precision", "recall": "pr50k3{}_recall",
                     "pr": "pr50k3{}"}.get(kind, f"{kind}50k{{}}")  # fmt: skip
        if self.published_count:
            return published.format("_full" * self.full) + cut
        return f"{kind}" + "_full" * self.full + f"@{self.fakes}{cut}"


@dataclass(frozen=True)
class PathTask:
    """A perceptual path length."""

    setting: PathSetting
    pairs: int
    note: str | None = None
    skipped: str | None = None

    @property
    def published_pairs(self) -> int:
        """How many pairs the definition averages: 100,000 in the paper, 50,000 later."""
        of_paper = self.setting.crop and self.setting.rule == "paper"
        return PUBLISHED_PAIRS["paper" if of_paper else "later"]

    @property
    def name(self) -> str:
        """The result's name: bare only with the published number of pairs."""
        few = self.skipped is None and self.pairs != self.published_pairs
        return self.setting.name + f"@{self.pairs}" * few


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


Task = PictureTask | PathTask | SeparabilityTask
