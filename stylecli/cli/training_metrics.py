"""``stylecli train --metrics``: what measures a run's snapshots while it trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylecli.cli.metrics import ClassifierSource
from stylecli.cli.output import Output
from stylecli.errors import StyleCLIError, UsageError

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.networks.bundle import Bundle
    from stylecli.training.oversight import Evaluate
    from stylecli.training.run_folder import RunSettings


def make_evaluate(
    names: str | None,
    samples: int | None,
    classifiers: Path | None,
    settings: "RunSettings",
    dataset: "Dataset",
    output: Output,
) -> "Evaluate | None":
    """Return what measures a network of this run, or None where no metrics are asked for.

    ``names`` is a list such as kid,ppl. Fakes come from the same latents each time, so that scores
    differ by the network alone. ls has its classifiers from the file, or the cache. Raises
    UsageError now for what would be refused at every snapshot.
    """
    if names is None:
        options = (("--metric-samples", samples, "kid"), ("--classifiers", classifiers, "ls"))
        for option, given, metric in options:
            if given is not None:
                raise UsageError(f"{option} says nothing without --metrics: add --metrics {metric}")
        return None
    from stylecli.hardware import resolve_device
    from stylecli.metrics.evaluation import evaluate
    from stylecli.metrics.planning import plan

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    source = ClassifierSource(classifiers)
    source.check(wanted)
    plan(
        wanted,
        samples,
        dataset_size=len(dataset),
        config=settings.network,
        gpu=settings.device == "cuda",
    )

    resolution, device = settings.network.resolution, resolve_device(settings.device)
    try:
        judges = source.obtain(wanted, dataset, resolution, device, output)
    except StyleCLIError as error:
        if classifiers is not None:
            raise
        output.warn(f"ls will not be measured: {error}")  # a damaged cache is no reason to stop
        judges = None

    def measure(bundle: "Bundle", dataset: "Dataset") -> list[dict[str, Any]]:
        results = evaluate(
            wanted, bundle, dataset, samples=samples, device=settings.device, classifiers=judges
        )
        return [result.to_dict() for result in results]

    return measure
