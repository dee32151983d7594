"""``stylecli train --metrics``: what measures a run's snapshots while it trains."""

from typing import TYPE_CHECKING, Any

from stylecli.errors import UsageError

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.networks.bundle import Bundle
    from stylecli.training.measuring import Evaluate
    from stylecli.training.run_folder import RunSettings


def make_evaluate(
    names: str | None, samples: int | None, settings: "RunSettings", pictures: int
) -> "Evaluate | None":
    """Return what measures a network of this run, or None where no metrics are asked for.

    ``names`` is a list such as kid,ppl. Fakes come from the same latents each time, so that scores
    differ by the network alone. Raises UsageError now for what would be refused at every snapshot.
    """
    if names is None:
        if samples is not None:
            raise UsageError("--metric-samples says nothing without --metrics: add --metrics kid")
        return None
    from stylecli.metrics.evaluation import evaluate
    from stylecli.metrics.planning import plan

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    plan(
        wanted,
        samples,
        dataset_size=pictures,
        config=settings.network,
        gpu=settings.device == "cuda",
    )

    def measure(bundle: "Bundle", dataset: "Dataset") -> list[dict[str, Any]]:
        results = evaluate(wanted, bundle, dataset, samples=samples, device=settings.device)
        return [result.to_dict() for result in results]

    return measure
