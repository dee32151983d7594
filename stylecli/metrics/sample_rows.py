"""What separability looks at in a generated picture, as one row: z, w, and class probabilities.

Rows are collected in the pass that other metrics make over the same pictures, so a picture is drawn
once for all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stylecli.errors import UsageError
from stylecli.metrics.classifiers import AttributeClassifiers
from stylecli.metrics.fakes import Sample
from stylecli.networks.config import StyleGAN1Config

Space = Literal["z", "w"]
SPACES: tuple[Space, ...] = ("z", "w")


class SampleRows:
    """Makes rows [B, width] of samples, and takes them apart again."""

    def __init__(
        self,
        config: StyleGAN1Config,
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
