"""``stylecli bench``: how fast this machine draws and trains, in CPU-seconds and in wall time."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.options import DeviceOption, JsonOption, QuietOption
from stylecli.cli.output import Output
from stylecli.cli.refusals import check_words
from stylecli.errors import UsageError
from stylecli.hardware import (
    bf16_gain,
    check_precision,
    describe_precision,
    quicker_precision,
    resolve_device,
)
from stylecli.networks.config import MAX_RESOLUTION, NetworkConfig
from stylecli.networks.registry import USUAL_CONFIG, list_presets, require_trainable

if TYPE_CHECKING:
    from stylecli.bench import Case, Timing


def command(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            help=f"Which network: {', '.join(list_presets())}. Not with --train: "
            f"{', '.join(list_presets(trainable=False))}.",
        ),
    ] = USUAL_CONFIG,
    resolutions: Annotated[
        str, typer.Option("--resolutions", help="Sides in pixels, such as 64,256.")
    ] = "64,256",
    batches: Annotated[str, typer.Option("--batches", help="Images at a time, such as 1,8.")] = "1",
    precisions: Annotated[
        str | None,
        typer.Option(
            "--precisions", help="float32, bf16, or both. Default: both where bf16 is quicker."
        ),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Time training steps as well.")] = False,
    small: Annotated[
        bool,
        typer.Option("--small", help="Use the network of --preset small instead of the paper's."),
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="DIR",
            help="Also time the program in this checkout, and run its code: "
            "rosinality/style-based-gan-pytorch or huangzh13/StyleGAN.pytorch. Repeatable.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed rounds.")] = 7,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how fast this machine draws and trains.

    Example: stylecli bench --resolutions 64,256 --repeats 9

    Times new networks of square pictures, case by case in turn. Prints the median, smallest and
    largest value, and the share of what one large convolution reaches here. CPU-seconds hardly
    depend on other programs; a GPU is timed by its own events.
    """
    output = Output(json=json, quiet=quiet)
    check_words(device=device, config=config)
    others = list(dict.fromkeys(against or ()))
    if others and (config != USUAL_CONFIG or small):
        raise UsageError("--against compares configuration f: leave out --config and --small")
    for path in others:
        if not path.is_dir():
            raise UsageError(
                f"--against {path} is not a folder: give a checkout of another program"
            )
    networks = [_config(config, side, small) for side in _numbers(resolutions, "--resolutions")]
    for network in networks if train else ():
        require_trainable(network)
    kinds = [word.strip() for word in precisions.split(",")] if precisions else []
    counts = _numbers(batches, "--batches")
    for kind in kinds:
        check_precision(kind)
    from stylecli.bench import measure

    chosen = resolve_device(device)
    kinds = kinds or list(dict.fromkeys(("float32", quicker_precision(chosen))))
    if others and chosen.type != "cpu":
        raise UsageError("--against compares processors: add --device cpu")
    cases = _cases(networks, counts, kinds, train, chosen)
    if others:
        from stylecli.peers import peer_cases

        sides = [network.resolution for network in networks]
        cases += [case for side in sides for path in others
                  for case in peer_cases(path, side, counts, train=train)]  # fmt: skip
    with output.progress("bench", "runs") as progress:
        timings = measure(cases, repeats, device=chosen, progress=progress)
    lines = output.table(*_table(timings))
    gain = bf16_gain() if chosen.type == "cpu" else None
    if gain is not None:
        lines.append(describe_precision(gain))
        from stylecli.health import describe_processor

        lines.append(describe_processor())
    output.result(_document(timings, str(chosen), gain), lines)


def _config(preset: str, resolution: int, small: bool) -> NetworkConfig:
    from stylecli.networks.registry import make_config
    from stylecli.training.plan import plan_training

    if not 8 <= resolution <= MAX_RESOLUTION or resolution & (resolution - 1):
        raise UsageError(
            f"resolution {resolution} is not a power of two from 8 to {MAX_RESOLUTION}"
        )
    if small:
        return plan_training("small", config=preset, resolution=resolution).network
    return make_config(preset, resolution=resolution)


def _cases(
    networks: list[NetworkConfig], batches: list[int], precisions: list[str], train: bool,
    device: Any,
) -> "list[Case]":  # fmt: skip
    from dataclasses import asdict

    from stylecli.bench import ceiling_case, drawing_cases, training_batch, training_case
    from stylecli.networks.model import new_network

    cases = [ceiling_case(device, precision) for precision in precisions]  # type: ignore[arg-type]
    for network in networks:
        fields = asdict(network)
        net = new_network(fields.pop("preset"), **fields)
        cases += drawing_cases(net, batches, precisions, device)  # type: ignore[arg-type]
        if train:
            batch = training_batch(batches)
            for precision in precisions:
                fresh = new_network(network.preset, **fields)
                cases.append(training_case(fresh, batch, device, precision))  # type: ignore[arg-type]
    return cases


def _numbers(text: str, option: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise UsageError(f"cannot read {option} {text!r}: give numbers such as 64,256")
    return [int(word) for word in words]


def _ceilings(timings: "list[Timing]") -> dict[str, float]:
    """Return the most operations per second that any case of a precision reached."""
    best: dict[str, float] = {}
    for timing in timings:
        precision = timing.case.precision
        best[precision] = max(best.get(precision, 0.0), timing.per_second)
    return best


def _document(timings: "list[Timing]", device: str, gain: float | None) -> dict[str, Any]:
    import torch

    from stylecli.bench import times_as_fast
    from stylecli.health import describe_processor

    ceilings = _ceilings(timings)
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "processor": describe_processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bf16_gain": None if gain is None else round(gain, 2),
        "cases": [
            {
                "name": timing.case.name,
                "unit": timing.case.unit,
                "repeats": len(timing.wall),
                "cpu_seconds": _spread(timing.cpu),
                "wall_seconds": _spread(timing.wall),
                "gpu_seconds": _spread(timing.gpu) if timing.gpu else None,
                "gpu_memory_mib": timing.gpu_mib or None,
                f"gflops_per_{'gpu' if timing.gpu else 'cpu'}_second":
                    timing.per_second / 1e9 or None,
                "share_of_ceiling": timing.per_second / ceilings[timing.case.precision] or None,
                "times_as_fast": {
                    program: _spread(ratios)
                    for program, ratios in times_as_fast(timing, timings).items()
                },
            }
            for timing in timings
        ],
    }  # fmt: skip


def _table(timings: "list[Timing]") -> tuple[list[str], list[list[str]]]:
    from stylecli.bench import times_as_fast

    ceilings = _ceilings(timings)
    programs = list(dict.fromkeys(timing.case.program for timing in timings if timing.case.program))
    rows = []
    for timing in timings:
        share = timing.per_second / (ceilings[timing.case.precision] or 1.0)
        ratios = times_as_fast(timing, timings)
        rows.append([
            timing.case.name,
            _shown(_spread(timing.busy)),
            _shown(_spread(timing.wall)),
            f"{1 / statistics.median(timing.wall):.3g}",
            f"{share:.0%}" if timing.case.flops else "-",
            *([f"{timing.gpu_mib:.0f}"] if timing.gpu else []),
            *(_ratio(ratios.get(program)) for program in programs),
        ])  # fmt: skip
    on_gpu = any(timing.gpu for timing in timings)
    headings = [
        "case", f"{'GPU' if on_gpu else 'CPU'}-s each (min-max)", "wall s each (min-max)", "per s",
        "of ceiling", *(["GPU MiB"] if on_gpu else []),
        *(f"times {program}" for program in programs),
    ]  # fmt: skip
    return headings, rows


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _ratio(values: list[float] | None) -> str:
    """Write how many times as fast as another program, with its range over the rounds."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _shown(spread: dict[str, float]) -> str:
    return f"{spread['median']:.4g} ({spread['min']:.3g}-{spread['max']:.3g})"
