"""``stylecli train``: grow a StyleGAN on a dataset, or go on with one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import DeviceOption, JsonOption, QuietOption, SeedOption
from stylecli.cli.output import Output
from stylecli.errors import UsageError
from stylecli.workspace import find_dataset, list_runs, newest_snapshot, next_run

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.training.presets import TrainingPlan


def command(
    data: Annotated[
        Path | None,
        typer.Argument(help="Dataset, or pictures to pack first. Default: the one in datasets/."),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", help="Paper configuration: a b c d e f, traditional-8, ...")
    ] = "f",
    preset: Annotated[
        str | None, typer.Option("--preset", help="paper, celebahq or small. Default: by device.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--resolution", help="Pixels on a side; packs pictures to it.")
    ] = None,
    kimg: Annotated[
        float | None, typer.Option("--kimg", help="Length: thousands of real images shown.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Images per step, at every resolution.")
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate, everywhere.")] = None,
    gamma: Annotated[float | None, typer.Option("--gamma", help="Weight of R1.")] = None,
    r1: Annotated[
        str | None, typer.Option("--r1", help="exact, or fd: finite differences. Default exact.")
    ] = None,
    r1_interval: Annotated[
        int | None, typer.Option("--r1-interval", min=1, help="R1 every so many steps.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="float32 or bf16. Default float32.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="logistic, logistic-saturating, wgan-gp, hinge or hinge-gp."),
    ] = None,
    mixing: Annotated[
        float | None, typer.Option("--mixing", help="Probability of style mixing.")
    ] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Flip half of the pictures.")] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Train on the dataset's classes.")
    ] = False,
    fmap_base: Annotated[
        int | None, typer.Option("--fmap-base", help="Feature maps: base / 2^stage, up to max.")
    ] = None,
    fmap_max: Annotated[int | None, typer.Option("--fmap-max", help="Most feature maps.")] = None,
    z_dim: Annotated[int | None, typer.Option("--z-dim", help="Size of the latent z.")] = None,
    w_dim: Annotated[int | None, typer.Option("--w-dim", help="Size of the latent w.")] = None,
    mapping_layers: Annotated[
        int | None, typer.Option("--mapping-layers", help="Layers from z to w.")
    ] = None,
    initial_resolution: Annotated[
        int | None, typer.Option("--initial-resolution", help="Where growth starts.")
    ] = None,
    hold_kimg: Annotated[
        float | None, typer.Option("--hold-kimg", help="Time at each grown resolution.")
    ] = None,
    fade_kimg: Annotated[
        float | None, typer.Option("--fade-kimg", help="Time to fade the next one in.")
    ] = None,
    tick_kimg: Annotated[
        float | None, typer.Option("--tick-kimg", help="Reporting interval.")
    ] = None,
    snapshot_ticks: Annotated[
        int | None, typer.Option("--snapshot-ticks", help="Save every so many ticks.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option("--ranks", min=1, help="Processes that share a batch (CPU).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder. Default: the next in runs/.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings with their reasons and stop.")
    ] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Grow a StyleGAN on a dataset, or go on with a run.

    Example: stylecli train datasets/faces.lmdb --kimg 500

    The same command continues the newest unfinished run with these settings. Ctrl-C saves.
    """
    output = Output(json=json, quiet=quiet)
    dataset_path = _dataset(data, resolution, output)
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(dataset_path)
    if resolution is not None and resolution != dataset.resolution:
        raise UsageError(
            f"--resolution {resolution} differs from {dataset_path}, which holds "
            f"{dataset.resolution} px: pack the pictures again with --resolution {resolution}"
        )
    plan, device_name = _plan(
        dataset, config, preset, device, ranks, batch, labels,
        network={"fmap_base": fmap_base, "fmap_max": fmap_max, "z_dim": z_dim, "w_dim": w_dim,
                 "mapping_layers": mapping_layers, "style_mixing_prob": mixing},
        training={"total_kimg": kimg, "r1_gamma": gamma, "loss": loss,
                  "r1_method": r1, "r1_interval": r1_interval, "precision": precision,
                  "mirror": mirror or None, "initial_resolution": initial_resolution,
                  "hold_kimg": hold_kimg, "fade_kimg": fade_kimg, "tick_kimg": tick_kimg,
                  "snapshot_ticks": snapshot_ticks, "seed": seed,
                  **({} if lr is None else {"lr": {}, "lr_base": lr})},
    )  # fmt: skip
    if dry_run:
        _print_plan(plan, output)
        return
    run = _start_or_continue(plan, dataset, dataset_path, device_name, out, output)
    network = _train(run, ranks, output)
    output.result({"run": str(run), "network": str(network)}, [str(network)])


def _dataset(data: Path | None, resolution: int | None, output: Output) -> Path:
    """Return the dataset to train on; pictures are packed into datasets/ first."""
    found = find_dataset(data)
    if found.why:
        output.note(f"using {found.path}, {found.why}")
    if (found.path / "data.mdb").is_file():
        return found.path
    from stylecli.cli.pack_pictures import pack_to_default

    return pack_to_default(found.path, resolution, output)


def _plan(
    dataset: "Dataset",
    config: str,
    preset: str | None,
    device: str,
    ranks: int | None,
    batch: int | None,
    labels: bool,
    *,
    network: dict[str, Any],
    training: dict[str, Any],
) -> tuple["TrainingPlan", str]:
    import os

    from stylecli.devices import resolve_device
    from stylecli.training.presets import plan_training

    if labels and not dataset.label_dim:
        raise UsageError("--labels needs a dataset with classes: this one has none")
    name = resolve_device(device).type
    plan = plan_training(
        preset,
        config=config,
        resolution=dataset.resolution,
        channels=dataset.channels,
        label_dim=dataset.label_dim if labels else 0,
        device=name,
        cpus=os.cpu_count() or 1,
        ranks=ranks,
        batch=batch,
        network={key: value for key, value in network.items() if value is not None},
        training={key: value for key, value in training.items() if value is not None},
    )
    return plan, name


def _print_plan(plan: "TrainingPlan", output: Output) -> None:
    rows = [(item.name, item.value, item.reason) for item in plan.derived]
    document = {
        "network": plan.network.to_dict(),
        "training": plan.training.to_dict(),
        "ranks": plan.ranks,
        "derived": [item.__dict__ for item in plan.derived],
    }
    output.result(document, output.table(("setting", "value", "reason"), rows))


def _start_or_continue(
    plan: "TrainingPlan",
    dataset: "Dataset",
    dataset_path: Path,
    device: str,
    out: Path | None,
    output: Output,
) -> Path:
    """Return the run to train: the newest with equal settings, else a new one."""
    from stylecli.training.loop import check_batches
    from stylecli.training.run_folder import (
        RunSettings,
        create_run,
        is_finished,
        load_settings,
    )

    settings = RunSettings(
        plan.network, plan.training, dataset_path, dataset.digest, plan.ranks, device
    )
    check_batches(settings)
    candidates = [out] if out is not None else list(reversed(list_runs()))
    for run in candidates:
        if not (run / "run.json").exists():
            continue
        if not load_settings(run).same_run(settings):
            if out is not None:
                raise UsageError(f"{run} was started with other settings: give another --out")
            continue
        if is_finished(run):
            output.note(f"{run} is finished with these settings; change --kimg or --seed for more")
            return run
        output.note(f"going on with {run}")
        return run
    run = out or next_run(f"{dataset_path.stem}-{plan.network.preset}{plan.network.resolution}")
    create_run(run, settings)
    output.note(f"training in {run}")
    for item in plan.derived:
        output.note(f"  {item.name} {item.value}: {item.reason}")
    return run


def _train(run: Path, ranks: int | None, output: Output) -> Path:
    """Train a run to its end, with its own number of processes unless another is asked for."""
    from stylecli.training.launch import rank_processes
    from stylecli.training.loop import TrainingLoop
    from stylecli.training.run_folder import is_finished, load_settings

    if not is_finished(run):
        count = ranks or load_settings(run).ranks
        with rank_processes(run, count) as group, output.progress("training", "kimg") as report:
            TrainingLoop(run, group).train(progress=report)
    network = newest_snapshot(run)
    assert network is not None
    return network
