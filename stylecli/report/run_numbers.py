"""The figures of a run, in short: where it stands, how fast it is, what is left."""

import math
from statistics import median

from stylecli.report.content import Number
from stylecli.report.run_facts import RunFacts, describe_age, describe_duration, number
from stylecli.training.time_left import TimeLeft

_RECENT = 10  # ticks


def list_facts(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the short pairs under the title."""
    settings = facts.settings
    pairs = [
        ("state", facts.state),
        ("shown", f"{facts.kimg:,.6g} of {settings.training.total_kimg:,.6g} kimg"),
        ("network", f"{settings.network.preset}, {settings.network.resolution} px"),
        ("machine", f"{settings.device}, {_count(settings.ranks, 'process', 'processes')}"),
    ]
    if math.isfinite(facts.seconds):
        pairs.insert(2, ("trained", describe_duration(facts.seconds)))
    if settings.network.label_dim:
        pairs.append(("classes", str(settings.network.label_dim)))
    if facts.best:
        text = f"{facts.best['value']:.4g} at {facts.best['kimg']:,.6g} kimg"
        pairs.append((f"best {facts.best['metric']}", text))
    return pairs


def list_cards(facts: RunFacts) -> list[Number]:
    """Return the newest figures of the training with what they mean; needs a row."""
    row, recent = facts.rows[-1], facts.rows[-_RECENT:]
    cards = []
    gaps = [number(item, "real_logits") - number(item, "fake_logits") for item in recent]
    if (gap := _median(gaps)) is not None:
        meaning = "Near 0 the discriminator learns nothing, above 10 the generator."
        detail = f"median of the last {_count(len(recent), 'tick', 'ticks')}"
        cards.append(Number("Logit gap", f"{gap:.3g}", meaning, detail))
    if math.isfinite(diversity := number(row, "diversity")):
        meaning = "How different the fakes are: 1 as the data, 0 all alike."
        cards.append(Number("Diversity", f"{diversity:.2f}", meaning, "in the last tick"))
    pace = _median([number(item, "sec_per_kimg") for item in recent])
    if pace:
        left = seconds_left(facts)
        detail = "" if not left else f"about {describe_age(left)} left at the measured rates"
        meaning = "Seconds per thousand pictures shown, without snapshots."
        cards.append(Number("Rate", f"{pace:.3g} s", meaning, detail))
    if math.isfinite(memory := number(row, "memory_mib")):
        detail = ""
        if math.isfinite(gpu := number(row, "gpu_reserved_mib")):
            detail = f"{gpu:,.0f} MiB on the GPU"
        meaning = "Most that the main process has held."
        cards.append(Number("Memory", f"{memory:,.0f} MiB", meaning, detail))
    return cards


def seconds_left(facts: RunFacts) -> float:
    """Return the estimated seconds to the end of the schedule; 0 where there is no telling."""
    settings = facts.settings
    paces: dict[tuple[int, bool], list[float]] = {}
    for row in facts.rows:
        pace, lod = number(row, "sec_per_kimg"), number(row, "lod")
        if math.isfinite(pace) and math.isfinite(lod) and pace > 0:
            key = (int(number(row, "resolution")), lod != math.floor(lod))
            paces.setdefault(key, []).append(pace)
    estimate = TimeLeft(settings.training, settings.network)
    known = {key for key, _, _ in estimate.spans}
    measured = {key: median(values) for key, values in paces.items() if key in known}
    if not measured or facts.kimg >= settings.training.total_kimg:
        return 0.0
    return estimate.seconds_from(facts.kimg, measured)


def _median(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else None


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
