"""Where ``stylecli metrics ls`` gets its classifiers from: trained, given, or in the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylecli.cli.output import Output
from stylecli.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import torch

    from stylecli.data.reader import Dataset
    from stylecli.distributed import Ranks
    from stylecli.metrics.classifiers import AttributeClassifiers


@dataclass(frozen=True)
class ClassifierSource:
    """What the command line says of classifiers."""

    given: Path | None  # --classifiers: a file, or a folder of official pickles
    train: bool = False  # --train-classifiers
    attributes: Path | None = None  # --attributes: a CSV to train from

    def check(self, names: Sequence[str]) -> None:
        """Raise UsageError for options that contradict each other or have nothing to act on."""
        if self.given is not None and self.train:
            raise UsageError("--classifiers and --train-classifiers exclude each other: give one")
        if self.attributes is not None and not self.train:
            raise UsageError("--attributes is what to train from: give --train-classifiers too")
        if (self.given or self.train) and not asks_for(names):
            raise UsageError(
                "classifiers are for ls alone: run stylecli metrics ls, or leave them out"
            )

    def obtain(
        self,
        names: Sequence[str],
        dataset: "Dataset | None",
        resolution: int,
        device: "torch.device",
        output: Output,
        ranks: "Ranks | None" = None,
    ) -> "AttributeClassifiers | None":
        """Return the classifiers for pictures of ``resolution`` px; None when there are none.

        Those given, else trained ones, else what the cache has: of this dataset, or official. Over
        ``ranks`` the main one finds or trains them, and all read the same.
        """
        if not asks_for(names):
            return None
        path = self.given
        if path is None and (ranks is None or ranks.is_main):
            if self.train and dataset is not None:
                path = self._train(dataset, resolution, device, output)
            else:
                path = _in_cache(dataset, resolution, output)
        if ranks is not None:
            found = ranks.from_main(str(path.resolve()) if path is not None else None)
            path = Path(found) if found is not None else None
        return _load(path) if path is not None else None

    def _train(
        self, dataset: "Dataset", resolution: int, device: "torch.device", output: Output
    ) -> Path:
        """Train, or finish, the classifiers of a dataset; return their file in the cache."""
        from stylecli.metrics.attribute_tables import read_attribute_csv, read_attributes
        from stylecli.metrics.classifier_training import (
            cached_path,
            default_recipe,
            train_classifiers,
        )

        if self.attributes is not None:
            table = read_attribute_csv(self.attributes, dataset)
        else:
            table = read_attributes(dataset)
        recipe = default_recipe(min(dataset.resolution, resolution))
        path = cached_path(dataset, table, recipe)
        try:
            with output.progress("classifiers", "attributes") as progress:
                found = train_classifiers(
                    dataset, table, recipe=recipe, path=path, device=device, progress=progress
                )
        except KeyboardInterrupt:
            kept = (
                f"finished classifiers are kept in {path}" if path.exists() else "none is finished"
            )
            raise Interrupted(f"interrupted: {kept}, the same command goes on") from None
        output.note(f"classifiers: {path}")
        for one in found.classifiers:
            output.note(
                f"  {one.name}: {100 * (one.accuracy or 0):.1f} % of {one.held_out} held-out "
                f"pictures right, {100 * (one.commonest or 0):.1f} % by always saying the commonest"
                f" of {len(one.values)} values"
            )
        return path


def asks_for(names: Sequence[str]) -> bool:
    """Tell whether separability is among the metrics."""
    return any(name == "ls" or name.startswith("ls_") for name in names)


def _load(path: Path) -> "AttributeClassifiers":
    from stylecli.metrics.classifiers import load_classifiers, load_official_classifiers

    return load_official_classifiers(path) if path.is_dir() else load_classifiers(path)


def _in_cache(dataset: "Dataset | None", resolution: int, output: Output) -> Path | None:
    from stylecli import weights
    from stylecli.metrics.classifier_training import find_cached
    from stylecli.metrics.classifiers import list_official

    path = find_cached(dataset, resolution) if dataset is not None else None
    if path is None:
        folder = weights.cache_folder() / "classifiers"
        path = folder if list_official(folder) else None
        if path is not None and (reason := weights.whose(path)):
            output.warn(f"the classifiers in {path} are left out: {reason}")
            path = None
    if path is not None:
        output.note(f"classifiers: {path}")
    return path
