"""What ``stylecli train --dry-run`` prints: every setting with its reason, every stage."""

from typing import TYPE_CHECKING

from stylecli.cli.output import Output
from stylecli.cli.training_session import RunChoice, find_advice

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.training.presets import TrainingPlan
    from stylecli.training.run_folder import RunSettings
    from stylecli.training.schedule import PlannedStage

_STATES = {
    "begin": "would begin: no run has these settings and this dataset",
    "continue": "would go on: its settings and its dataset are these",
    "finished": "is finished: its settings and its dataset are these",
}


def print_dry_run(
    plan: "TrainingPlan",
    settings: "RunSettings",
    dataset: "Dataset",
    choice: RunChoice,
    output: Output,
) -> None:
    """Print the whole plan as tables, or as one document with --json."""
    from stylecli.training.plan_description import describe_plan

    description = describe_plan(plan)
    document = {
        "run": {"path": str(choice.run), "state": choice.state},
        "preset": plan.preset,
        "device": settings.device,
        "ranks": plan.ranks,
        "dataset": {
            "path": str(dataset.path), "digest": dataset.digest, "pictures": len(dataset),
            "resolution": dataset.resolution, "channels": dataset.channels,
            "classes": dataset.label_dim,
        },
        "network": plan.network.to_dict(),
        "training": plan.training.to_dict(),
        "parameters": description.parameters,
        "stages": [stage.__dict__ for stage in description.stages],
        "derived": [item.__dict__ for item in plan.derived],
        "reasons": {
            "network": {item.name: item.reason for item in description.network},
            "training": {item.name: item.reason for item in description.training},
        },
        "advice": find_advice(plan, dataset),
    }  # fmt: skip
    if output.json:
        output.result(document, [])
        return
    reasons = {item.name: item.reason for item in plan.derived}
    classes = f", {dataset.label_dim} classes" if dataset.label_dim else ""
    G, D = (f"{description.parameters[name]:,}" for name in ("G", "D"))
    rows = [
        ("run", str(choice.run), _STATES[choice.state]),
        ("dataset", str(dataset.path), f"{len(dataset):,} pictures{classes}"),
        ("digest", dataset.digest[:12], "of all pixels; a run goes on with these only"),
        ("device", settings.device, "--device, else the best there is"),
        ("processes", str(plan.ranks), reasons.get("ranks", "asked for")),
        ("training preset", plan.preset, reasons["preset"]),
        ("parameters", f"G {G}, D {D}", "all resolutions of a full-grown network"),
    ]
    for title, items in (("network", description.network), ("training", description.training)):
        rows += [("", "", ""), (f"{title.upper()}", "", "")]
        rows += [
            (item.name if item.name != "preset" else "configuration", item.value, item.reason)
            for item in items
        ]
    lines = output.table(("setting", "value", "reason"), rows)
    output.result(document, [*lines, "", *_stage_lines(description.stages, output)])


def _stage_lines(stages: "tuple[PlannedStage, ...]", output: Output) -> list[str]:
    rows = [
        (
            f"{stage.resolution} px" + (", fading in" if stage.fading else ""),
            f"{stage.from_kimg:g}" if stage.reached else "not reached",
            f"{stage.to_kimg:g}" if stage.reached else "",
            str(stage.batch),
            f"{stage.lr:g}",
            f"{stage.tick_kimg:g}",
        )
        for stage in stages
    ]
    return output.table(("stage", "from kimg", "to kimg", "batch", "lr", "tick kimg"), rows)
