"""What ``stylecli metrics`` refuses before hours of work, and warns of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stylecli.cli.output import Output

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.metrics.results import MetricResult
    from stylecli.networks.bundle import Bundle


def check_request(names: Sequence[str], precision: str) -> None:
    """Raise UsageError for unknown metrics and precisions, before any file is opened."""
    from stylecli.metrics.planning import check_names
    from stylecli.rendering import check_precision

    check_names(names)
    check_precision(precision)


def check_network(
    names: Sequence[str],
    bundle: "Bundle",
    dataset: "Dataset | None",
    psi: float,
    device_type: str,
    samples: int | None,
    output: Output | None,
) -> None:
    """Raise what the measurement would raise, before classifiers are trained for it.

    UsageError for metrics, a truncation or labels that the network does not have, DataError for a
    dataset of too small pictures. Warns ``output`` of one of larger pictures.
    """
    from stylecli.metrics.fakes import label_source, level_for
    from stylecli.metrics.metric_tasks import PictureTask
    from stylecli.metrics.planning import plan
    from stylecli.sampling import check_truncation

    config = bundle.generator.config
    check_truncation(config, psi)
    count = len(dataset) if dataset is not None else 0
    tasks = plan(names, samples, dataset_size=count, config=config, gpu=device_type == "cuda",
                 psi=psi)  # fmt: skip
    label_source(bundle.generator, dataset)
    looking = [task for task in tasks if isinstance(task, PictureTask) and task.reals]
    if dataset is None or all(task.skipped for task in looking):
        return
    if level_for(dataset, config.resolution) and output is not None:
        output.warn(
            f"{dataset.path} has {dataset.resolution} px and the network {config.resolution} px: "
            f"the reals are reduced to {config.resolution} px by box means, and the numbers are "
            "those of that size"
        )


def warn_of_weights(results: "Sequence[MetricResult]", output: Output) -> None:
    """Warn of numbers from weights that are not those of a published file."""
    from stylecli.weights import is_published

    made_with: dict[tuple[Any, Any], list[str]] = {}
    for result in results:
        looked = (result.definition.get("features"), result.definition.get("features_sha256"))
        if result.value is not None and all(looked):
            made_with.setdefault(looked, []).append(result.name)
    for (network, sha256), names in made_with.items():
        if not is_published(network, sha256):
            output.warn(
                f"the weights of {network} here (SHA-256 {sha256[:12]}...) are not those of a "
                f"published file: {', '.join(names)} may compare with nobody else's numbers"
            )
