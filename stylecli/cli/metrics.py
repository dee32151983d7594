"""``stylecli metrics``: numbers about a network, each with its name and its meaning."""

import contextlib
import os
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stylecli.cli.drawing import agree_on_precision, load_and_hash
from stylecli.cli.options import (
    AttributesOption,
    BatchOption,
    ClassifierSource,
    DeviceOption,
    JsonOption,
    NetworkOption,
    QuietOption,
    SeedOption,
    SlowerOption,
    own_command,
)
from stylecli.cli.output import Output
from stylecli.cli.refusals import (
    GIVEN_AS,
    check_files,
    check_loose,
    check_words,
    find_data,
    find_shown,
)
from stylecli.distributed.ranks import find_place, sharing_ranks
from stylecli.errors import ExitCode, Interrupted, StyleCLIError, UsageError
from stylecli.progress import format_seconds
from stylecli.workspace import RUN_FILE, Found, find_dataset, find_network, folder_of

if TYPE_CHECKING:
    from stylecli.data.reader import Dataset
    from stylecli.metrics.tasks import MetricResult
    from stylecli.networks.model import Bundle

DEFAULT_NAMES = ("fid", "ppl")
SWEPT_NAMES = ("fid", "pr")  # where there are several psi


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="fid, kid, is, pr; by their published names fid50k, fid50k_full, kid50k, "
            "kid50k_full, is50k, pr50k3, pr50k3_full; {fid,kid}-clean[50k[_full]], as clean-fid "
            "resizes; swd; diversity; ppl (= ppl_wfull), ppl_{z,w}{full,end}[-crop[-ada]], "
            "ppl2_wend; ls (= ls_z ls_w), ls_z, ls_w; of StyleGAN3 {eqt,eqt50k}_{int,frac}, eqr, "
            "eqr50k. fid@efficientnet-lite0 uses a stand-in for Inception. "
            "Default: fid ppl.",
            metavar="NAME",
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(
            "--paper",
            help="stylegan: all numbers of that paper's tables, next to the published values.",
        ),
    ] = None,
    network: NetworkOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Dataset; with --against, also a folder or zip of pictures. Default: the run's, "
            "else the only one in datasets/.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="Compare --data with these pictures (dataset, folder or zip); no network.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=2, help="Generated pictures (pairs for ppl). Default: by device."
        ),
    ] = None,
    train_classifiers: Annotated[
        bool,
        typer.Option(
            "--train-classifiers",
            help="For ls: first train attribute classifiers on the dataset; kept in the cache.",
        ),
    ] = False,
    classifiers: Annotated[
        Path | None,
        typer.Option(
            "--classifiers",
            help="For ls: a file of classifiers, or the folder of the official "
            "celebahq-classifier-NN-name.pkl.",
        ),
    ] = None,
    attributes: AttributesOption = None,
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in",
            help="Allow the stand-in network for a published name (fid50k) without weights.",
        ),
    ] = False,
    psi: Annotated[
        str,
        typer.Option(
            "--psi",
            help="Truncation of the fakes, part of the results' names; 1 = none. Several, such as "
            "0.3,0.5,0.7,1, measure fid and pr (or NAMEs) at each, in a table and a page.",
            metavar="PSI,...",
        ),
    ] = "1",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Page for several psi. Default: out/<network>/psi.html."),
    ] = None,
    log: Annotated[
        bool,
        typer.Option("--log/--no-log", help="Append a run's numbers to its metric-NAME.jsonl."),
    ] = True,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep statistics, and use the kept ones."),
    ] = True,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", min=1, help="Processes that share the pictures (CPU). Default: 1."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="For the features of Inception and VGG16: float32, bf16 (less exact, and part of "
            "the results' names) or auto (the faster of the two).",
        ),
    ] = "float32",
    seed: SeedOption = 0,
    batch: BatchOption = None,
    device: DeviceOption = "auto",
    force: SlowerOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how close a network is to its dataset, how smooth and how varied.

    Example: stylecli metrics fid ppl

    For two sets of pictures: stylecli metrics fid --data drawn/ --against photos/

    If a metric cannot be measured, because its weights are missing for instance, the command
    measures the others, prints what to do and exits with 3. Ctrl-C keeps the statistics so far.
    """
    output = Output(json=json, quiet=quiet)
    psis = parse_psis(psi, out)
    wanted, counts = _asked(names, samples, paper, against, psis, stand_in)
    source = ClassifierSource(classifiers, train_classifiers, attributes)
    launched = find_place(os.environ) is not None
    asked = (wanted, source, device, precision, network, data, against, output)
    if not launched:
        _refuse(*asked)
    chosen: dict[str, Any] = {"samples": counts, "seed": seed, "cache": cache}
    chosen["stand_in"] = stand_in
    started = time.monotonic()
    with _going_on(cache), sharing_ranks(ranks, device, own_command()) as place:
        chosen |= {"ranks": place, "precision": agree_on_precision(precision, device, force, place)}
        if not place.is_main:
            output = Output(quiet=True)
        elif launched:
            _refuse(*asked)
        if against is not None:
            _refuse_with_sets(network, psis, batch)
            facts, results = _compare(wanted, data, against, device, chosen, output)
        else:
            job = _Network(network, data, psis, batch, device, source)
            facts, results = job.measure(wanted, chosen, output)
        # Also for the others to stay until all is added up.
        lacking = place.from_main(any(result.value is None for result in results))
    if not place.is_main:
        raise typer.Exit(ExitCode.UNUSABLE if lacking else ExitCode.DONE)
    seconds = time.monotonic() - started
    for note in dict.fromkeys(result.note for result in results if result.note):
        output.note(f"note: {note}")
    warn_of_weights(results, output)
    if log and facts.run is not None and facts.network is not None:
        append_results(facts.run, facts.network, results, seconds, output)
    document: dict[str, Any] = {
        "network": str(facts.network) if facts.network else None,
        "dataset": str(facts.dataset) if facts.dataset else None,
        "seconds": round(seconds, 3),
        "results": [result.to_dict() for result in results],
    }
    if against is not None:
        document["measured"] = str(data)
    lines = [*result_lines(output, results), *stand_in_lines(results)]
    if len(psis) > 1:
        lines, document["page"] = _over_psi(results, facts, out, output)
    elif paper is not None:
        document["paper"], lines = _beside_paper(paper, results, facts, output)
    output.result(document, lines)
    output.note(f"took {format_seconds(seconds)}")
    if lacking:
        raise typer.Exit(ExitCode.UNUSABLE)


def _refuse(
    wanted: list[str],
    source: ClassifierSource,
    device: str,
    precision: str,
    network: Path | None,
    data: Path | None,
    against: Path | None,
    output: Output,
) -> None:
    """Refuse what is wrong before torch loads; among ranks of a launcher the main one does."""
    source.check(wanted)
    check_words(device=device, precision=precision, metrics=wanted)
    check_files(classifiers=source.given, attributes=source.attributes)
    if against is not None:
        for path in (against, find_dataset(data, given_as=GIVEN_AS).path):
            check_loose(path, output)
        return
    from stylecli.networks.headers import check_header

    found = find_shown(network, output).path
    config = check_header(found)  # None: another program's, whose classes are not known yet
    labelled = config is not None and config.label_dim > 0
    find_data(wanted, data, _run_of(found), needed=labelled or source.train)


@dataclass(frozen=True)
class _Facts:
    """What was measured, and the run it belongs to."""

    network: Path | None
    dataset: Path | None
    run: Path | None
    resolution: int = 0  # of the network, px


@contextlib.contextmanager
def _going_on(cache: bool) -> Iterator[None]:
    # Launchers and schedulers end a job with SIGTERM: as good a reason to keep what there is.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:
        what = "statistics are kept: run the same command to continue"
        if not cache:
            what = "nothing is kept with --no-cache"
        elif str(error):
            what = f"statistics are not kept: {error}"
        raise Interrupted(f"interrupted; {what}") from None
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _asked(
    names: list[str] | None, samples: int | None, paper: str | None, against: Path | None,
    psis: list[float], stand_in: bool,
) -> tuple[list[str], int | Mapping[str, int] | None]:  # fmt: skip
    """Return what to measure and of how many pictures, as the options and the paper say."""
    if paper is None:
        usual = SWEPT_NAMES if len(psis) > 1 else DEFAULT_NAMES
        return list(names or (usual if against is None else DEFAULT_NAMES[:1])), samples
    given = [(" ".join(names or ()), bool(names)), ("--against", against is not None),
             ("--psi", psis != [1.0]), ("--stand-in", stand_in)]  # fmt: skip
    for what, here in given:
        if here:
            raise UsageError(f"--paper {paper} decides what is measured: leave out {what}")
    from stylecli.metrics.published import find_paper

    found = find_paper(paper)
    return found.names, found.samples if samples is None else samples


def _beside_paper(
    paper: str, results: "Sequence[MetricResult]", facts: _Facts, output: Output
) -> tuple[dict[str, Any], list[str]]:
    """Return a paper's numbers beside those measured: for --json, and as lines."""
    from stylecli.metrics.published import MARK, compare_with_paper, find_paper

    found = find_paper(paper)
    header = ("number", "here", "README", "paper", "why they differ")
    rows = compare_with_paper(found, results, facts.resolution)
    document = {"title": found.title, "network": found.network, "numbers": [
        {"name": one.name, "readme": one.readme, "table": one.table, "table_checked": one.checked}
        for one in found.numbers
    ]}  # fmt: skip
    skipped: dict[str, list[str]] = {}
    for one in results:
        if one.value is None:
            skipped.setdefault(one.meaning, []).append(one.name)
    said = [
        f"README and paper: {found.network} on {found.data}, {found.resolution} px. Here: "
        f"{facts.network}.",
        f"{MARK} not checked against the paper itself.",
        "Why the same network may differ:",
        *(f"- {reason}" for reason in found.reasons),
        *(f"{' and '.join(names)}: {meaning}" for meaning, names in skipped.items()),
    ]
    return document, [*_folded_table(output, header, rows), "", *_wrapped(said)]


def _over_psi(
    results: "Sequence[MetricResult]", facts: _Facts, out: Path | None, output: Output
) -> tuple[list[str], str]:
    """Write the page of several psi; return the table, metrics by psi, and the page's path."""
    from stylecli.metrics.tasks import values_by_psi
    from stylecli.report.network_pages import PSI_PAGE, write_psi_page

    assert facts.network is not None
    path = out or folder_of(facts.network) / PSI_PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_psi_page(path, facts.network, facts.dataset, results)
    psis, rows = values_by_psi(results)
    shown = [
        (name, *("-" if one is None or one.value is None else f"{one.value:.4f}" for one in found))
        for name, found in rows.items()
    ]
    lines = output.table(("psi", *(f"{psi:g}" for psi in psis)), shown)
    skipped = [f"{one.name}: {one.meaning}" for one in results if one.value is None]
    return [*lines, *_wrapped(skipped), *stand_in_lines(results), str(path)], str(path)


def parse_psis(text: str, out: Path | None = None) -> list[float]:
    """Return one truncation or several from ``0.3,0.5,1``, each once; UsageError for others.

    ``out`` is where the page of several goes: it needs several.
    """
    try:
        psis = list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"cannot read psi {text!r}: expected a number, or several such as 0.3,0.5,0.7,1"
        ) from None
    if out is not None and len(psis) < 2:
        raise UsageError(f"--out {out} is for the page of several psi: add --psi 0.3,0.5,0.7,1")
    return psis


def _refuse_with_sets(network: Path | None, psis: list[float], batch: int | None) -> None:
    given = [("--network", network is not None), ("--psi", psis != [1.0]), ("--batch", bool(batch))]
    for option, here in given:
        if here:
            raise UsageError(f"{option} is for networks, --against for pictures: leave one out")


def _compare(
    names: list[str],
    data: Path | None,
    against: Path,
    device: str,
    chosen: dict[str, Any],
    output: Output,
) -> "tuple[_Facts, list[MetricResult]]":
    from stylecli.metrics.evaluation import compare
    from stylecli.metrics.picture_sets import agree_on_colours, describe_differences, open_set

    found = find_dataset(data, given_as=GIVEN_AS)
    if found.why:
        output.note(f"measured: {found.path} ({found.why})")
    measured, reference = agree_on_colours(open_set(found.path), open_set(against))
    if chosen["ranks"].is_main:
        for path, pictures in {found.path: measured, against: reference}.items():
            for note in pictures.notes:
                output.note(f"{path}: {note}")
        if difference := describe_differences(measured, reference):
            output.warn(difference)
    with output.progress("metrics", "pictures") as progress:
        results = compare(names, measured, reference, device=device, progress=progress, **chosen)
    return _Facts(None, against, None), results


@dataclass(frozen=True)
class _Network:
    """A network to be measured on a dataset, as the options name them."""

    network: Path | None
    data: Path | None
    psis: list[float]
    batch: int | None
    device: str
    source: ClassifierSource

    def measure(
        self, names: list[str], chosen: dict[str, Any], output: Output
    ) -> "tuple[_Facts, list[MetricResult]]":
        found = find_network(self.network)
        run = _run_of(found.path)
        if found.why:
            output.note(f"network: {found.shown}")

        bundle, digest = load_and_hash(found.path)
        from stylecli.hardware import resolve_device
        from stylecli.metrics.evaluation import evaluate, evaluate_over_psi

        needed = bundle.config.label_dim > 0 or self.source.train
        data = find_data(names, self.data, run, needed=needed)
        if data is not None and data.why:
            output.note(f"dataset: {data.path} ({data.why})")
        dataset, target = _open(data), resolve_device(self.device)
        for place, psi in enumerate(self.psis):
            check_network(names, bundle, dataset, psi, target.type, chosen["samples"],
                          output if chosen["ranks"].is_main and not place else None)  # fmt: skip
        judges = self.source.obtain(
            names, dataset, bundle.config.resolution, target, output, chosen["ranks"]
        )
        if chosen["samples"] is None and target.type == "cpu":
            output.note("sample counts are reduced for this CPU; set them with --samples")
        several = len(self.psis) > 1
        truncated: dict[str, Any] = {"psis": self.psis} if several else {"psi": self.psis[0]}
        measure: Any = evaluate_over_psi if several else evaluate
        with output.progress("metrics", "pictures") as progress:
            results = measure(
                names,
                bundle,
                dataset,
                **truncated,
                batch=self.batch,
                device=target,
                network_digest=digest,
                classifiers=judges,
                progress=progress,
                **chosen,
            )
        resolution = bundle.config.resolution
        return _Facts(found.path, data.path if data else None, run, resolution), results


def _run_of(network: Path) -> Path | None:
    return network.parent if (network.parent / RUN_FILE).is_file() else None


def _open(found: Found | None) -> Any:
    from stylecli.data.reader import open_dataset

    return open_dataset(found.path) if found else None


def check_network(
    names: Sequence[str],
    bundle: "Bundle",
    dataset: "Dataset | None",
    psi: float,
    device_type: str,
    samples: int | Mapping[str, int] | None,
    output: Output | None,
) -> None:
    """Raise what the measurement would raise, before classifiers are trained for it.

    UsageError for metrics, a truncation or labels that the network does not have, DataError for a
    dataset of too small pictures. Warns ``output`` of one of larger pictures.
    """
    from stylecli.metrics.picture_sets import label_source, level_for
    from stylecli.metrics.planning import plan
    from stylecli.metrics.tasks import PictureTask
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
    if level_for(dataset, config.resolution, config.grid) and output is not None:
        output.warn(
            f"{dataset.path} has {dataset.size} px and the network {config.size} px: "
            f"real pictures are reduced to {config.size} px by box means and all numbers "
            f"are for that size"
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
                f"the weights of {network} here (SHA-256 {sha256[:12]}...) match no published "
                f"file: do not compare {', '.join(names)} with other people's numbers"
            )


def result_lines(output: Output, results: "Sequence[MetricResult]") -> list[str]:
    """Return a table: name, value with its spread, counts, what it says.

    On a terminal that is too narrow for it, what a number says stands below the number.
    """
    rows = []
    for result in results:
        definition = result.definition
        count = definition.get("fakes") or definition.get("pairs")
        samples = str(count or "-")
        if count and definition.get("reals"):
            samples += f" / {definition['reals']}"
        rows.append((result.name, result.text(), samples, result.meaning))
    return _folded_table(output, ("metric", "value", "samples", "meaning"), rows)


def _folded_table(
    output: Output, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Return a table whose last column stands below the others where a terminal is narrow."""
    lines, width = output.table(header, rows), _width()
    if width is None or max(map(len, lines)) <= width:
        return lines
    first, *others = output.table(header[:-1], [row[:-1] for row in rows])
    wrap = textwrap.TextWrapper(
        width, initial_indent="  ", subsequent_indent="  ",
        break_on_hyphens=False, break_long_words=False,  # commands and file names stay whole
    )  # fmt: skip
    below = [wrap.wrap(row[-1]) for row in rows]
    return [
        first,
        *(text for line, more in zip(others, below, strict=True) for text in (line, *more)),
    ]


def _wrapped(lines: Iterable[str]) -> list[str]:
    """Return lines broken at words where stdout is a terminal; commands and paths stay whole."""
    width = _width()
    return list(lines) if width is None else [
        part for text in lines
        for part in textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False,
                                  break_long_words=False)
    ]  # fmt: skip


def _width() -> int | None:
    """Return the columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def stand_in_lines(results: "Sequence[MetricResult]") -> list[str]:
    """Say which of the numbers answer for another one, and the step to that one."""
    from stylecli.metrics.planning import BY_NAME

    answers: dict[str, list[str]] = {}
    for result in results:
        if result.instead_of is not None and result.value is not None:
            found = answers.setdefault(result.instead_of, [])
            if (name := result.name.partition("-psi")[0]) not in found:
                found.append(name)
    lines = []
    for names, found in answers.items():
        network = BY_NAME[names.split(",")[0]].network
        lines.append(
            f"{' and '.join(found)} stand{'s' * (len(found) == 1)} in for "
            f"{names.replace(',', ' and ')}, whose network {network} is not here: stylecli weights "
            f"fetch {network}"
        )
    return _wrapped(lines)


def append_results(
    run: Path, network: Path, results: "Sequence[MetricResult]", seconds: float, output: Output
) -> None:
    """Append results to the run's ``metric-<name>.jsonl``; one without a number is not kept.

    One that cannot be written, on a full disk, is warned of: what was measured is printed anyway.
    """
    from stylecli.training.run_folder import append_measurements, measurement_row

    where = {"snapshot": network.name}
    try:
        append_measurements(
            run, [measurement_row(result.to_dict(), where, seconds) for result in results]
        )
    except (OSError, StyleCLIError) as error:
        why = getattr(error, "strerror", None) or error
        output.warn(f"the numbers were not added to {run}: {why}")
