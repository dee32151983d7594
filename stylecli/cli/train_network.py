"""``stylecli train``: grow a StyleGAN on a dataset, or go on with one."""

from typing import Any

from stylecli.cli import training_options as options
from stylecli.cli import training_session as sessions
from stylecli.cli import watching_options as watching
from stylecli.cli.options import (
    DeviceOption,
    JsonOption,
    QuietOption,
    SeedOption,
    network_settings,
    settings_for,
    takes_settings,
)
from stylecli.cli.output import Output
from stylecli.cli.training_metrics import make_evaluate
from stylecli.cli.training_plan import print_dry_run
from stylecli.cli.training_ranks import count_ranks, on_main_rank
from stylecli.cli.training_start import read_source, tell_start
from stylecli.training.config import TrainingConfig
from stylecli.training.session import Session


@on_main_rank
@takes_settings(
    training=settings_for(TrainingConfig), network=network_settings(), session=settings_for(Session)
)
def command(
    data: options.DataArgument = None,
    config: options.ConfigOption = "f",
    preset: options.PresetOption = None,
    resolution: options.ResolutionOption = None,
    labels: options.LabelsOption = None,
    resume: options.ResumeOption = None,
    out: options.OutOption = None,
    dry_run: options.DryRunOption = False,
    metrics: watching.MetricsOption = None,
    metric_samples: watching.MetricSamplesOption = None,
    classifiers: watching.ClassifiersOption = None,
    ranks: options.RanksOption = None,
    gpus: options.GpusOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
    session: dict[str, Any],
) -> None:
    """Grow a StyleGAN on a dataset, or go on with a run.

    Example: stylecli train datasets/faces.lmdb --kimg 500

    The same command continues the newest unfinished run with these settings. Ctrl-C saves.
    """
    output = Output(json=json, quiet=quiet)
    ranks = count_ranks(ranks, gpus, device)
    dataset = sessions.prepare_dataset(
        data, resolution, preset, output, pack=not dry_run, run=resume
    )
    source = read_source(resume)
    settings, plan = sessions.make_settings(
        dataset, source, config, preset, device, ranks, labels,
        network=network, training=training | ({"seed": seed} if seed else {}),
        batch_gpu=session.get("batch_gpu"),
    )  # fmt: skip
    driving = sessions.make_session(**session)
    evaluate = make_evaluate(metrics, metric_samples, classifiers, settings, dataset, output)
    choice = sessions.choose_run(settings, out)
    sessions.tell_advice(plan, dataset, output)
    if choice.state == "begin":
        tell_start(source, settings, output)
    if dry_run:
        print_dry_run(plan, settings, dataset, choice, output)
        return
    with sessions.owned_run(choice, settings, plan, source, output) as run:
        trained = sessions.train_run(run, ranks, output, driving, evaluate)
    output.result({"run": str(run), "network": str(trained)}, [str(trained)])
