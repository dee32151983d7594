"""What packing did, read back from the dataset itself."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stylecli.data.format import DATA_FILE
from stylecli.data.preparation import Skipped
from stylecli.data.reader import Dataset


@dataclass(frozen=True)
class PackReport:
    """What ``pack`` did, in all the runs that it took."""

    path: Path
    count: int  # pictures in the dataset
    added: int  # of these, from this source
    resolution: int
    channels: int
    classes: dict[str, int]  # name -> pictures
    digest: str
    skipped: list[Skipped]  # of this source, in its order
    causes: dict[str, int]  # kind of cause -> pictures skipped
    enlarged: int  # pictures smaller than the resolution
    bytes: int  # on the disk
    was_there: bool  # nothing had to be done


def make_report(
    dataset: Dataset,
    *,
    base_count: int = 0,
    base_skipped: int = 0,
    last_skipped: int | None = None,
    was_there: bool = False,
) -> PackReport:
    """Report on a dataset; what lies before the bases, and after the last, is not of this work."""
    names, labels = dataset.class_names, dataset.labels
    counts = Counter(labels.tolist()) if names and labels is not None else Counter()
    skipped = [Skipped(name, cause) for name, cause in dataset.skipped()[base_skipped:last_skipped]]
    return PackReport(
        path=dataset.path,
        count=len(dataset),
        added=len(dataset) - base_count,
        resolution=dataset.resolution,
        channels=dataset.channels,
        classes={name: counts[label] for label, name in enumerate(names or [])},
        digest=dataset.digest,
        skipped=skipped,
        causes=dict(Counter(kind_of(left_out.cause) for left_out in skipped).most_common()),
        enlarged=dataset.info.get("tally", {}).get("enlarged", 0),
        bytes=(dataset.path / DATA_FILE).stat().st_size,
        was_there=was_there,
    )


def kind_of(cause: str) -> str:
    """Return a cause without what is particular to one picture: what stands before a colon."""
    return cause.partition(":")[0]
