"""Networks that look at pictures, for metrics and for judging data: nothing here scores."""

from typing import Literal, get_args

DistanceName = Literal["lpips", "pyramid"]
DISTANCES: tuple[DistanceName, ...] = get_args(DistanceName)
