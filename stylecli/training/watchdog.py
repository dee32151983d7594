"""What tells a failing run from a healthy one: rules on the rows of a run's statistics.

Pure functions of the rows, so that a resumed run comes to the same findings. The bounds below were
set against runs of this toolkit that went well (264 ticks at 8 to 32 px, all stages of growth) and
against runs made to fail; docs/training.md shows both.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from stylecli.training.config import TrainingConfig
from stylecli.training.run_folder import lesser_is_better

Row = Mapping[str, Any]

TICKS = 3  # a state must last so long: one odd tick is noise
MEMORY = 50  # ticks that make up a run's own past
# Updates left out because a gradient was not finite. Healthy float32 and bf16 runs: none at all.
SKIPPED_SHARE = 0.1
# Real minus fake logit. Healthy: 6.7 at most, in the first tick, then 0.7 to 3.6; at 10 D gives
# odds of e¹⁰ to 1, and the gradient G learns from has all but vanished.
LOGIT_GAP = 10.0
# Loss of D. A D that knows nothing has 1.4 (logistic) or 2 (hinge), healthy ones stayed below 1.2;
# (relativistic: 0.7); at 10 it is sure of the opposite. Wasserstein losses have no scale.
LARGEST_LOSS = {"logistic": 10.0, "logistic-saturating": 10.0, "hinge": 10.0, "hinge-gp": 10.0,
                "wgan-gp": 1e4, "relativistic": 10.0}  # fmt: skip
# Fakes' over reals' mean distance. Healthy: 0.63 at least, and 0.64 of its own past (an untrained
# generator begins near 2).
LOST_DIVERSITY = 0.5  # of the median of its past ...
POOR_DIVERSITY = 0.4  # ... while below so much of the reals'
NO_DIVERSITY = 0.1  # whatever the past: pictures that all look the same
SETTLING_HALF_LIVES = 3  # the averaged generator still holds 1/8 of its beginning
RISING_EVALUATIONS = 3  # in a row, all above the best by more than its spread
SPREAD_SHARE = 0.1  # of the best value, at least: two scores of one network differ by less
# Karras et al. 2020: D's mean sign on reals is steered to 0.6; one that calls all of them real has
# memorised them, and from p 0.8 on changes leak into fakes.
STRONG_AUGMENTATION = 0.6
CERTAIN_SIGN = 0.95
LOADER_BOUND = 0.25  # share of a tick spent waiting for pictures
REPEAT_TICKS = 20  # until the same finding is told again


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run: a sentence with the figures, and what to try."""

    kind: (
        str  # non-finite, divergence, D-winning, collapse, rising-metric, overfitting, loader-bound
    )
    text: str
    advice: str
    ends_run: bool = True  # False: only ever a warning

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}"


def find_non_finite(rows: Sequence[Row], config: TrainingConfig) -> Finding | None:
    """Find a loss that is not finite, or many skipped updates, in the last tick."""
    row = rows[-1]
    # float16 leaves updates out while it looks for its scale; for it, several ticks must show it.
    patience = TICKS if config.precision == "fp16" else 1
    skipped = min(_skipped_share(row) for row in rows[-patience:]) if rows[patience - 1 :] else 0.0
    lost = [name for name in ("loss_G", "loss_D") if not math.isfinite(row[name])]
    if lost:
        what = f"{' and '.join(lost)} {'are' if len(lost) > 1 else 'is'} not finite"
    elif skipped > SKIPPED_SHARE:
        what = f"{skipped:.0%} of the updates had gradients that are not finite and were skipped"
    else:
        return None
    cure = f"a lower --lr (now {row['lr']:g})"
    if config.precision != "float32":
        cure = f"--precision float32 (now {config.precision}), or {cure}"
    return Finding("non-finite", f"{what} at {_kimg(row)}", f"try {cure}")


def find_divergence(rows: Sequence[Row], config: TrainingConfig) -> Finding | None:
    """Find a loss of D that is beyond all sense in most of the last ticks."""
    bound = LARGEST_LOSS[config.loss]
    large = [row for row in rows[-TICKS:] if abs(row["loss_D"]) > bound]
    if 2 * len(large) <= TICKS:
        return None
    return Finding(
        "divergence",
        f"training diverges at {_kimg(rows[-1])}: loss_D was {large[-1]['loss_D']:.4g} and more "
        f"than {bound:g} in {len(large)} of the last {TICKS} ticks",
        f"try a lower --lr (now {rows[-1]['lr']:g})",
    )


def find_winning_D(rows: Sequence[Row], config: TrainingConfig) -> Finding | None:
    """Find a discriminator that tells fakes with certainty, and a generator that loses ground."""
    recent = rows[-TICKS:]
    if len(recent) < TICKS or not config.takes_r1:
        return None  # logits of other losses have other scales
    gaps = [row["real_logits"] - row["fake_logits"] for row in recent]
    losses = [row["loss_G"] for row in recent]
    falling = gaps[-1] < 0.9 * gaps[0]
    if config.loss != "logistic-saturating":  # that loss ends at 0, which says nothing
        falling = falling or losses[-1] < 0.9 * losses[0]
    if not all(gap > LOGIT_GAP for gap in gaps) or falling:
        return None
    text = (
        f"D is winning at {_kimg(recent[-1])}: its logits of real and fake pictures lie "
        f"{gaps[-1]:.4g} apart (above {LOGIT_GAP:g} for {TICKS} ticks) and loss_G is "
        f"{losses[-1]:.4g}"
    )
    more = f"{config.r1_gamma * 4:g}" if config.r1_gamma else "1"
    return Finding(
        "D-winning",
        text,
        f"try --gamma {more} (now {config.r1_gamma:g}) or a lower --lr (now "
        f"{recent[-1]['lr']:g}); few pictures: --mirror, or more of them",
    )


def find_collapse(rows: Sequence[Row], config: TrainingConfig) -> Finding | None:
    """Find fakes that resemble each other far more than they did, and than the reals do."""
    recent = rows[-TICKS:]
    values = [row.get("diversity", math.nan) for row in recent]
    if len(recent) < TICKS or not all(math.isfinite(value) for value in values):
        return None
    past = [row["diversity"] for row in rows[:-TICKS] if math.isfinite(row.get("diversity", 0.0))]
    usual = median(past) if len(past) >= TICKS else math.inf
    settled = recent[0]["nimg"] >= SETTLING_HALF_LIVES * config.ema_kimg * 1000
    fallen = past and all(value < min(LOST_DIVERSITY * usual, POOR_DIVERSITY) for value in values)
    if fallen and math.isfinite(usual):
        how = f"has fallen to {values[-1]:.2f} of the real pictures', from {usual:.2f}"
    elif settled and all(value < NO_DIVERSITY for value in values):
        how = f"is {values[-1]:.2f} of the real pictures' and does not grow"
    else:
        return None
    return Finding(
        "collapse",
        f"the pictures collapse at {_kimg(recent[-1])}: the distance between fakes {how}",
        f"try a lower --lr (now {recent[-1]['lr']:g}), a larger --batch (now "
        f"{recent[-1]['batch']}) or another --gamma (now {config.r1_gamma:g})",
    )


def find_rising(measured: Sequence[Row]) -> Finding | None:
    """Find a metric that keeps lying above its best by more than its spread."""
    if not measured or not lesser_is_better(measured[-1]):
        return None
    rows = [row for row in measured if isinstance(row.get("value"), int | float)]
    rows = [row for row in rows if math.isfinite(row["value"])]
    recent, earlier = rows[-RISING_EVALUATIONS:], rows[:-RISING_EVALUATIONS]
    if not earlier:
        return None
    best = min(earlier, key=lambda row: float(row["value"]))
    spread = max(best.get("std") or 0.0, SPREAD_SHARE * abs(best["value"]))
    if not all(row["value"] > best["value"] + spread for row in recent):
        return None
    return Finding(
        "rising-metric",
        f"{best['name']} rises: {recent[-1]['value']:.4g} at {_kimg(recent[-1])}, its best was "
        f"{best['value']:.4g} (spread {spread:.2g}) at {_kimg(best)}",
        "D may memorise the pictures: add pictures, --mirror or a larger --gamma; the best "
        "network is kept",
    )


def find_overfitting(rows: Sequence[Row], config: TrainingConfig) -> Finding | None:
    """Find a D that knows the pictures: augmentation still grows when strong, or there is none."""
    recent = rows[-TICKS:]
    if len(recent) < TICKS:
        return None
    where, more = _kimg(recent[-1]), "more pictures, --mirror or --resume of a similar network"
    if config.augment == "adaptive":
        p = [row.get("augment_p", 0.0) for row in recent]
        if not (p[0] > STRONG_AUGMENTATION and all(a < b for a, b in pairwise(p))):
            return None
        text = f"augmentation is strong and still rises: p is {p[-1]:.2f} at {where}"
        advice = f"D memorises the pictures, and above 0.8 fakes may show the changes; {more} help"
        return Finding("overfitting", text, advice, ends_run=False)
    if recent[0]["nimg"] < SETTLING_HALF_LIVES * config.ema_kimg * 1000:
        return None  # at first G draws nothing that D could take for real
    signs = [row.get("real_signs", 0.0) for row in recent]
    if not config.knows_reals or not all(sign > CERTAIN_SIGN for sign in signs):
        return None
    how = "--augment adaptive" if config.augment == "none" else "a larger --augment-p"
    return Finding(
        "overfitting",
        f"D calls nearly all pictures of the dataset real at {where} (mean sign {signs[-1]:.2f} "
        f"in the last of {TICKS} ticks)",
        f"it may memorise them: {how}, {more} help",
        ends_run=False,
    )


def find_loader_bound(rows: Sequence[Row]) -> Finding | None:
    """Find training that waits for pictures tick after tick."""
    recent = rows[-TICKS:]
    if len(recent) < TICKS or any(row.get("loader_share", 0.0) < LOADER_BOUND for row in recent):
        return None
    return Finding(
        "loader-bound",
        f"training waits for pictures {recent[-1]['loader_share']:.0%} of the time",
        "pack them with --codec raw --pyramid, or put the dataset on a faster disk",
        ends_run=False,
    )


class Watchdog:
    """The rules over one run, tick by tick; a finding that lasts is told now and then only."""

    def __init__(self, config: TrainingConfig, rows: Iterable[Row] = ()) -> None:
        """``rows``: the statistics of the run so far."""
        self.config = config
        self.rows: deque[Row] = deque(rows, maxlen=MEMORY + TICKS)
        self._told: dict[str, int] = {}  # kind -> tick

    def look(self, row: Row) -> list[Finding]:
        """Take in a tick; return what is found and was not told in the last ticks."""
        self.rows.append(row)
        rows = list(self.rows)
        rules: tuple[Callable[[], Finding | None], ...] = (
            lambda: find_non_finite(rows, self.config),
            lambda: find_divergence(rows, self.config),
            lambda: find_winning_D(rows, self.config),
            lambda: find_collapse(rows, self.config),
            lambda: find_overfitting(rows, self.config),
            lambda: find_loader_bound(rows),
        )
        return self._news([rule() for rule in rules], row["tick"])

    def look_at_metric(self, measured: Sequence[Row], tick: int) -> list[Finding]:
        """Take in all rows of the first metric so far; return what is news."""
        return self._news([find_rising(measured)], tick)

    def _news(self, findings: Iterable[Finding | None], tick: int) -> list[Finding]:
        news = []
        for finding in findings:
            if finding and tick - self._told.get(finding.kind, -REPEAT_TICKS) >= REPEAT_TICKS:
                self._told[finding.kind] = tick
                news.append(finding)
        return news


def _skipped_share(row: Row) -> float:
    steps = row.get("steps", 0)
    return float(row["skipped_steps"] / (2 * steps)) if steps else 0.0  # D and G update once each


def _kimg(row: Row) -> str:
    return f"{row['nimg'] / 1000:g} kimg"
