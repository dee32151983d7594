"""What became of the weights of a transferred network, as a table that people read."""

import re
from dataclasses import dataclass, replace

from stylecli.networks.config import StyleGAN1Config
from stylecli.training.transfer import Outcome, Outcomes

HEADINGS = ("network", "part", "outcome", "why")


@dataclass(frozen=True)
class Row:
    """One line: parts of a network that met the same fate."""

    networks: str  # "G, G_ema" where both fare alike
    part: str  # mapping, blocks 4-32 px, ToRGB 64 px, ...
    outcome: Outcome
    why: str

    def cells(self) -> tuple[str, str, str, str]:
        """Return the line's columns."""
        return self.networks, self.part, self.outcome, self.why


def describe_transfer(
    outcomes: Outcomes, before: StyleGAN1Config, after: StyleGAN1Config
) -> list[Row]:
    """Return the table of a transfer from ``before`` to ``after``."""
    rows: list[Row] = []
    for name in ("G_ema", "G", "D"):
        for row in _network_rows(name, outcomes[name], before, after):
            twin = replace(row, networks="G_ema")
            if name == "G" and twin in rows:
                rows[rows.index(twin)] = replace(row, networks="G, G_ema")
            else:
                rows.append(row)
    return rows


def _network_rows(
    name: str, outcomes: dict[str, Outcome], before: StyleGAN1Config, after: StyleGAN1Config
) -> list[Row]:
    fates: dict[tuple[str, int], set[Outcome]] = {}
    for parameter, outcome in outcomes.items():
        fates.setdefault(_part(parameter), set()).add(outcome)
    rows: list[tuple[str, list[int], Outcome]] = []
    for (kind, side), fate in sorted(fates.items(), key=lambda item: _order(*item[0])):
        outcome = fate.pop() if len(fate) == 1 else "resized"
        if rows and rows[-1][0] == kind and rows[-1][2] == outcome:
            rows[-1][1].append(side)
        else:
            rows.append((kind, [side], outcome))
    lacking = all(outcome == "initialised" for outcome in outcomes.values())
    return [
        Row(
            name,
            _named(kind, sides),
            outcome,
            "the source has none" if lacking else _why(name, kind, sides, outcome, before, after),
        )
        for kind, sides, outcome in rows
    ]


def _part(parameter: str) -> tuple[str, int]:
    """Return the kind of part that a parameter belongs to, and its side in pixels (0: none)."""
    match = re.match(r"(synthesis\.layers|synthesis\.to_rgb|from_rgb|blocks)\.(\d+)\.", parameter)
    if match is None:
        return ("head", 0) if parameter.startswith("head.") else ("mapping", 0)
    index = int(match[2])
    return {
        "synthesis.layers": ("block", 2 ** (index // 2 + 2)),
        "synthesis.to_rgb": ("ToRGB", 2 ** (index + 2)),
        "from_rgb": ("FromRGB", 2 ** (index + 2)),
        "blocks": ("block", 2 ** (index + 3)),
    }[match[1]]


def _order(kind: str, side: int) -> tuple[int, int]:
    return ("mapping", "block", "ToRGB", "FromRGB", "head").index(kind), side


def _named(kind: str, sides: list[int]) -> str:
    if sides == [0]:
        return kind
    span = f"{sides[0]} px" if len(sides) == 1 else f"{sides[0]}-{sides[-1]} px"
    plural = "s" if kind == "block" and len(sides) > 1 else ""
    return f"{kind}{plural} {span}"


def _why(
    network: str,
    kind: str,
    sides: list[int],
    outcome: Outcome,
    before: StyleGAN1Config,
    after: StyleGAN1Config,
) -> str:
    """Say what made a part change; empty for what did not."""
    if outcome == "taken over":
        return ""
    if outcome == "left out":
        return f"the network ends at {after.resolution} px" if sides != [0] else "not needed"
    if outcome == "initialised" and sides[0] > before.resolution:
        return f"new: the source ends at {before.resolution} px"
    causes = []
    if kind in ("ToRGB", "FromRGB") and before.channels != after.channels:
        causes.append(f"channels {before.channels} to {after.channels}")
    takes_labels = {"mapping", "head"} if after.mapping_layers else {"mapping", "head", "block"}
    if kind in takes_labels and before.label_dim != after.label_dim:
        causes.append(f"classes {before.label_dim} to {after.label_dim}")
    features = () if kind == "mapping" else ("fmap_base", "fmap_max")
    latents = {
        "mapping": ("z_dim", "w_dim", "mapping_layers", "mapping_fmaps"),
        "block": ("w_dim",) if network != "D" else (),
        "head": ("mbstd_group_size",),
    }.get(kind, ())
    causes += [
        f"{name} {getattr(before, name)} to {getattr(after, name)}"
        for name in (*latents, *features)
        if getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(causes)
