"""Published settings as tables: batches by GPUs, learning rates, data sets. Stdlib only.

What stands here is the paper's (Karras, Laine, Aila 2018) or its authors' program's; what is our
own choice stands in ``presets.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# Images per step over all GPUs, by number of GPUs and resolution; the second table holds the rest.
BATCHES: Mapping[int, Mapping[int, int]] = MappingProxyType(
    {
        1: {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4},
        2: {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8},
        4: {4: 512, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16},
        8: {4: 512, 8: 256, 16: 128, 32: 64, 64: 32},
    }
)
BATCH_BASES: Mapping[int, int] = MappingProxyType({1: 4, 2: 8, 4: 16, 8: 32})
LR: Mapping[int, float] = MappingProxyType({128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003})
LR_BASE = 0.001
WGAN_GP_MAX_LR = 0.002  # the same table, no entry above this
WGAN_GP_KIMG = 12_000.0  # the paper's length with this loss, where it trains R1 for 25,000
TICK_KIMG: Mapping[int, float] = MappingProxyType(
    {4: 160, 8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 30, 1024: 20}
)


@dataclass(frozen=True)
class PublishedSet:
    """What the paper's networks of one data set were trained with, where it differs."""

    title: str
    resolutions: tuple[int, ...]  # px that results were published at
    kimg: float  # thousands of real images shown
    mirror: bool
    loss: str = "logistic"
    transform: Literal["center-crop", "wide"] = "center-crop"  # how pictures come onto the square


SETS: Mapping[str, PublishedSet] = MappingProxyType(
    {
        "paper": PublishedSet("FFHQ", (1024, 512, 256), 25_000.0, mirror=True),
        "celebahq": PublishedSet(
            "CelebA-HQ", (1024,), WGAN_GP_KIMG, mirror=True, loss="wgan-gp"
        ),
        "lsun-bedroom": PublishedSet("LSUN Bedroom", (256,), 70_000.0, mirror=False),
        "lsun-car": PublishedSet("LSUN Car", (512,), 46_000.0, mirror=False, transform="wide"),
        "lsun-cat": PublishedSet("LSUN Cat", (256,), 70_000.0, mirror=False),
    }
)  # fmt: skip
GAMMA = 10.0  # weight of R1, at every published resolution


def batches_for(gpus: int) -> tuple[dict[int, int], int, str]:
    """Return batches by resolution, the batch of all other resolutions, and where they are from.

    One, two, four and eight GPUs have published tables. Between them and above, our own rule: the
    next smaller table, every entry brought to a multiple of the GPUs that leaves each at least a
    minibatch-stddev group of four.
    """
    known = max(count for count in BATCHES if count <= gpus)
    table, base = dict(BATCHES[known]), BATCH_BASES[known]
    text = "one GPU" if gpus == 1 else f"{gpus} GPUs"
    if known == gpus:
        return table, base, f"the paper's table for {text}"

    def dealt(batch: int) -> int:
        return max(1, round(batch / (4 * gpus))) * 4 * gpus

    table = {side: dealt(batch) for side, batch in table.items()}
    return (
        table,
        dealt(base),
        f"our own for {text}: the paper's for {known}, in multiples of 4 each",
    )
