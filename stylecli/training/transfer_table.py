"""The table of a transfer: what became of each part of a network, and why.

Parts are named as people know them: blocks by their resolution, layers by their number.
"""

import re
from dataclasses import dataclass, replace

from stylecli.networks.config import NETWORK_NAMES, NetworkConfig
from stylecli.networks.stylegan1_config import StyleGAN1Config
from stylecli.training.transfer import Outcome, Outcomes

HEADINGS = ("network", "part", "outcome", "why")


@dataclass(frozen=True)
class TransferRow:
    """One line of the table of a transfer: parts of a network that met the same fate."""

    networks: str  # "G, G_ema" where both fare alike
    part: str  # mapping, blocks 4-32 px, ToRGB 64 px, ...
    outcome: Outcome
    why: str

    def cells(self) -> tuple[str, str, str, str]:
        """Return the line's columns."""
        return self.networks, self.part, self.outcome, self.why


def describe_transfer(
    outcomes: Outcomes, before: NetworkConfig, after: NetworkConfig
) -> list[TransferRow]:
    """Return the table of a transfer from ``before`` to ``after``."""
    rows: list[TransferRow] = []
    for name in NETWORK_NAMES:
        for row in _network_rows(name, outcomes[name], before, after):
            twin = replace(row, networks="G_ema")
            if name == "G" and twin in rows:
                rows[rows.index(twin)] = replace(row, networks="G, G_ema")
            else:
                rows.append(row)
    return rows


def _network_rows(
    name: str, outcomes: dict[str, Outcome], before: NetworkConfig, after: NetworkConfig
) -> list[TransferRow]:
    fates: dict[tuple[str, int], set[Outcome]] = {}
    for parameter, outcome in outcomes.items():
        fates.setdefault(_part_of(parameter), set()).add(outcome)
    rows: list[tuple[str, list[int], Outcome]] = []
    for (kind, side), fate in sorted(fates.items(), key=lambda item: _part_order(*item[0])):
        fits = isinstance(after, StyleGAN1Config) or fate == {"taken over", "resized"}
        mixed: Outcome = "resized" if fits else "in part"
        outcome = fate.pop() if len(fate) == 1 else mixed
        if rows and rows[-1][0] == kind and rows[-1][2] == outcome:
            rows[-1][1].append(side)
        else:
            rows.append((kind, [side], outcome))
    lacking = all(outcome == "initialised" for outcome in outcomes.values())
    return [
        TransferRow(
            name,
            _named_part(kind, sides),
            outcome,
            "the source has none"
            if lacking and isinstance(after, StyleGAN1Config)
            else _why_changed(name, kind, sides, outcome, before, after)
            or ("the source has none" if lacking else ""),
        )
        for kind, sides, outcome in rows
    ]


def _part_of(parameter: str) -> tuple[str, int]:
    """Return the kind of part that a parameter belongs to, and its side in pixels (0: none)."""
    match = re.match(r"(synthesis\.layers|synthesis\.to_rgb|from_rgb|blocks)\.(\d+)\.", parameter)
    if match is None:
        return _part_of_other(parameter)
    index = int(match[2])
    return {
        "synthesis.layers": ("block", 2 ** (index // 2 + 2)),
        "synthesis.to_rgb": ("ToRGB", 2 ** (index + 2)),
        "from_rgb": ("FromRGB", 2 ** (index + 2)),
        "blocks": ("block", 2 ** (index + 3)),
    }[match[1]]


def _part_of_other(parameter: str) -> tuple[str, int]:
    """Return the same for families whose parts are named by their side, or numbered."""
    is_generator, name = parameter.startswith("synthesis."), parameter.removeprefix("synthesis.")
    if parameter.startswith("mapping.") or name.startswith("label."):
        return "mapping", 0
    if name.startswith(("input.", "start.")):
        return "input", 0
    if match := re.match(r"L(\d+)_", name):
        return "layer", int(match[1])
    if match := re.match(r"b(\d+)\.(\w+)", name):
        kind = {"torgb": "ToRGB", "fromrgb": "FromRGB"}.get(match[2], "block")
        last = not is_generator and match[2] in ("conv", "fc", "out")
        return ("head", 0) if last else (kind, int(match[1]))
    return {"torgb": "ToRGB", "fromrgb": "FromRGB"}.get(name.split(".")[0], "head"), 0


def _part_order(kind: str, side: int) -> tuple[int, int]:
    order = ("mapping", "input", "block", "layer", "ToRGB", "FromRGB", "head")
    return order.index(kind), side


def _named_part(kind: str, sides: list[int]) -> str:
    if kind == "layer":
        return f"layer {sides[0]}" if len(sides) == 1 else f"layers {sides[0]}-{sides[-1]}"
    if sides == [0]:
        return kind
    span = f"{sides[0]} px" if len(sides) == 1 else f"{sides[0]}-{sides[-1]} px"
    plural = "s" if kind == "block" and len(sides) > 1 else ""
    return f"{kind}{plural} {span}"


def _why_changed(
    network: str,
    kind: str,
    sides: list[int],
    outcome: Outcome,
    before: NetworkConfig,
    after: NetworkConfig,
) -> str:
    """Say what made a part change; empty for what did not."""
    if outcome == "taken over":
        return ""
    if outcome == "left out":
        return f"the network ends at {after.size} px" if sides != [0] else "not needed"
    if outcome == "initialised" and kind != "layer" and sides[0] > before.resolution:
        return f"new: the source ends at {before.size} px"
    causes = []
    placed = kind in ("input", "head") or (kind == "block" and network != "D")
    if placed and before.grid != after.grid:
        causes.append(f"shape {before.grid.ratio} to {after.grid.ratio}, interpolated")
    if kind in ("ToRGB", "FromRGB") and before.channels != after.channels:
        causes.append(f"channels {before.channels} to {after.channels}")
    if kind == "layer" and sides[-1] == after.num_layers and before.channels != after.channels:
        causes.append(f"channels {before.channels} to {after.channels}")
    of_size = kind == "layer" or (kind in ("FromRGB", "ToRGB") and sides == [0])
    if of_size and before.resolution != after.resolution:
        causes.append(f"resolution {before.size} to {after.size}")
    takes_labels = {"mapping", "head", *(() if after.has_w else ("input",))}
    if not after.mapping_layers and after.grows:
        takes_labels.add("block")
    if kind in takes_labels and before.label_dim != after.label_dim:
        causes.append(f"classes {before.label_dim} to {after.label_dim}")
    features = () if kind == "mapping" else (
        "fmap_base", "fmap_max", "D_fmap_base", "D_fmap_max", "num_layers", "widths", "groups",
        "group_fmaps", "G_architecture", "D_architecture",
    )  # fmt: skip
    latents = {
        "mapping": ("z_dim", "w_dim", "mapping_layers", "mapping_fmaps"),
        "block": ("w_dim",) if network != "D" else (),
        "head": ("mbstd_group_size",),
    }.get(kind, ())
    causes += [
        f"{name} {getattr(before, name)} to {getattr(after, name)}"
        for name in (*latents, *features)
        if name in before.to_dict() and getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(causes)
