"""``stylecli train``: grow a StyleGAN on a dataset, or go on with one."""

from stylecli.cli import training_options as options
from stylecli.cli import training_session as session
from stylecli.cli import watching_options as watching
from stylecli.cli.options import DeviceOption, JsonOption, QuietOption, SeedOption
from stylecli.cli.output import Output
from stylecli.cli.training_metrics import make_evaluate
from stylecli.cli.training_plan import print_dry_run
from stylecli.cli.training_ranks import count_ranks, on_main_rank
from stylecli.cli.training_start import read_source, tell_start


@on_main_rank
def command(
    data: options.DataArgument = None,
    config: options.ConfigOption = "f",
    fmap_base: options.FmapBaseOption = None,
    fmap_max: options.FmapMaxOption = None,
    z_dim: options.ZDimOption = None,
    w_dim: options.WDimOption = None,
    mapping_layers: options.MappingLayersOption = None,
    mapping_fmaps: options.MappingFmapsOption = None,
    fused_scale: options.FusedScaleOption = None,
    mbstd_group: options.MbstdGroupOption = None,
    preset: options.PresetOption = None,
    kimg: options.KimgOption = None,
    initial_resolution: options.InitialResolutionOption = None,
    hold_kimg: options.HoldKimgOption = None,
    fade_kimg: options.FadeKimgOption = None,
    batch: options.BatchOption = None,
    minibatch_repeats: options.MinibatchRepeatsOption = None,
    lr: options.LrOption = None,
    beta1: options.Beta1Option = None,
    beta2: options.Beta2Option = None,
    ema_kimg: options.EmaKimgOption = None,
    loss: options.LossOption = None,
    gamma: options.GammaOption = None,
    gamma_fake: options.GammaFakeOption = None,
    r1: options.R1Option = None,
    r1_interval: options.R1IntervalOption = None,
    share_fakes: options.ShareFakesOption = None,
    mixing: options.MixingOption = None,
    resolution: options.ResolutionOption = None,
    mirror: options.MirrorOption = None,
    labels: options.LabelsOption = None,
    resume: options.ResumeOption = None,
    freeze_d: options.FreezeDOption = None,
    out: options.OutOption = None,
    dry_run: options.DryRunOption = False,
    tick_kimg: options.TickKimgOption = None,
    snapshot_ticks: options.SnapshotTicksOption = None,
    keep: options.KeepOption = None,
    watch: watching.WatchOption = "warn",
    metrics: watching.MetricsOption = None,
    metric_samples: watching.MetricSamplesOption = None,
    classifiers: watching.ClassifiersOption = None,
    metrics_every: watching.MetricsEveryOption = None,
    tensorboard: watching.TensorboardOption = False,
    ranks: options.RanksOption = None,
    gpus: options.GpusOption = None,
    batch_gpu: options.BatchGpuOption = None,
    precision: options.PrecisionOption = None,
    tf32: options.Tf32Option = False,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Grow a StyleGAN on a dataset, or go on with a run.

    Example: stylecli train datasets/faces.lmdb --kimg 500

    The same command continues the newest unfinished run with these settings. Ctrl-C saves.
    """
    output = Output(json=json, quiet=quiet)
    ranks = count_ranks(ranks, gpus, device)
    dataset = session.prepare_dataset(
        data, resolution, preset, output, pack=not dry_run, run=resume
    )
    source = read_source(resume)
    settings, plan = session.make_settings(
        dataset, source, config, preset, device, ranks, batch, lr, labels,
        network={"fmap_base": fmap_base, "fmap_max": fmap_max, "z_dim": z_dim, "w_dim": w_dim,
                 "mapping_layers": mapping_layers, "mapping_fmaps": mapping_fmaps,
                 "fused_scale": options.parse_fused_scale(fused_scale),
                 "mbstd_group_size": mbstd_group, "style_mixing_prob": mixing},
        training={"total_kimg": kimg, "initial_resolution": initial_resolution,
                  "hold_kimg": hold_kimg, "fade_kimg": fade_kimg,
                  "minibatch_repeats": minibatch_repeats, "adam_beta1": beta1, "adam_beta2": beta2,
                  "ema_kimg": ema_kimg, "loss": loss, "r1_gamma": gamma, "r2_gamma": gamma_fake,
                  "r1_method": r1, "r1_interval": r1_interval, "share_fakes": share_fakes,
                  "mirror": mirror, "precision": precision, "tick_kimg": tick_kimg,
                  "snapshot_ticks": snapshot_ticks, "seed": seed or None, "freeze_d": freeze_d},
        batch_gpu=batch_gpu,
    )  # fmt: skip
    driving = session.make_session(
        batch_gpu=batch_gpu, tf32=tf32, keep=keep, watch=watch, tensorboard=tensorboard,
        evaluate_ticks=metrics_every,
    )  # fmt: skip
    evaluate = make_evaluate(metrics, metric_samples, classifiers, settings, dataset, output)
    choice = session.choose_run(settings, out)
    session.tell_advice(plan, dataset, output)
    if choice.state == "begin":
        tell_start(source, settings, output)
    if dry_run:
        print_dry_run(plan, settings, dataset, choice, output)
        return
    with session.owned_run(choice, settings, plan, source, output) as run:
        network = session.train_run(run, ranks, output, driving, evaluate)
    output.result({"run": str(run), "network": str(network)}, [str(network)])
