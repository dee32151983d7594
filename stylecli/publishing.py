"""A network or a dataset as a repository on the hub: the file, its card, a sample sheet.

A card says what is known and nothing else: data and licences, schedule, metrics with their
definitions, limits. Where something is not known it says so. No path of this machine goes into it.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylecli import __version__, hub
from stylecli.checkpoint import load_network, save_network
from stylecli.data.reader import Dataset, open_dataset
from stylecli.errors import DataError, NetworkError, StyleCLIError, UsageError, plural
from stylecli.files import OwnerLock, is_number, read_rows, scratch_folder, to_json, write_text
from stylecli.images import save_png
from stylecli.networks.headers import network_digest
from stylecli.networks.model import Bundle
from stylecli.progress import Progress, silent
from stylecli.provenance import make_provenance
from stylecli.rendering import Drawing
from stylecli.sampling import draw_seeds
from stylecli.sheets.fakes import lay_out_fakes
from stylecli.training.plan import show_value
from stylecli.training.run_folder import METRIC_PATTERN, RunSettings, load_settings
from stylecli.workspace import RUN_FILE, find_network, run_dataset

CARD, SHEET = "README.md", "samples.png"
_SEEDS = 12  # on the sample sheet
_COLUMNS = 4
_MOST_LOOKED_AT = 1_000_000  # pictures whose licences are counted
_LICENCES = {  # as people write them -> as the hub does
    "apache-2.0": "apache-2.0", "mit": "mit", "cc0-1.0": "cc0-1.0", "cc0": "cc0-1.0",
    "cc by 4.0": "cc-by-4.0", "cc-by-4.0": "cc-by-4.0", "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0", "cc by-nc 4.0": "cc-by-nc-4.0", "cc-by-nc-4.0": "cc-by-nc-4.0",
    "cc by-nc-sa 4.0": "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0": "cc-by-nc-sa-4.0",
    "bsd-3-clause": "bsd-3-clause", "public domain": "unlicense",
}  # fmt: skip
# Settings of training that people ask for first; the others are in the table below them.
_SCHEDULE = ("total_kimg", "initial_resolution", "hold_kimg", "fade_kimg", "batch_base", "lr_base",
             "loss", "r1_gamma", "ema_kimg", "augment", "mirror", "precision")  # fmt: skip
_ORIGIN = ("source", "author", "licence", "licence_url", "source_url")


@dataclass(frozen=True)
class Published:
    """What was written for the hub, or is there now."""

    address: str
    files: Mapping[str, Path]
    licence: str | None
    pushed: hub.Pushed | None = None  # None for what was only written

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        pushed = asdict(self.pushed) if self.pushed else None
        return {"address": self.address, "licence": self.licence, "files": list(self.files),
                "pushed": pushed}  # fmt: skip


def push(
    source: Path | str,
    repository: str,
    *,
    licence: str | None = None,
    private: bool = False,
    into: Path | None = None,
    progress: Progress = silent,
) -> Published:
    """Put a network (a file, a run) or a dataset of ``pack`` on the hub, with its card.

    ``repository`` is ``owner/name``. ``licence`` is what the owner puts it under; else the card
    says what the file says. With ``into`` the files are written to that new folder and nothing is
    sent. Raises NetworkError or DataError for what cannot be read or is refused by the hub.
    """
    path = Path(source)
    home = hub.dataset_folder(path)
    address = hub.parse_address(repository)
    if address.file or (address.kind == "dataset" and home is None):
        raise UsageError(f"{repository} is no place for {path}: give OWNER/NAME")
    kind = "network" if home is None else "dataset"
    address = hub.Address(address.owner, address.name, kind, address.revision)
    if into is None:
        hub.require_login(address)  # before anything is drawn
    with contextlib.ExitStack() as until_the_end:
        if into is not None:
            if into.exists():
                raise UsageError(f"--into {into} exists: give a new folder")
            into.parent.mkdir(parents=True, exist_ok=True)
            folder = until_the_end.enter_context(scratch_folder(into.parent, into.name))
        else:
            folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory()))
        if home is not None:
            files, licence = _write_dataset(folder, home, address, licence, copied=into is not None)
        else:
            files, licence = _write_network(folder, path, address, licence, progress)
        if into is not None:
            into.mkdir()
            placed = {name: file.replace(into / name) for name, file in files.items()}
            return Published(str(address), placed, licence)
        message = f"Upload a {kind} with stylecli {__version__}"
        pushed = hub.push(address, files, private=private, message=message)
    return Published(str(address), files, licence, pushed)


def pull_dataset(
    address: hub.Address, target: Path, *, force: bool = False, progress: Progress = silent
) -> Dataset:
    """Fetch a dataset to the folder ``target``, check every picture in it, and open it.

    The folder appears complete; what came before an interruption is kept beside it and continued.
    Raises DataError for what the hub refuses, and for a file that is no undamaged dataset.
    """
    remote = hub.look_up(address)
    part = target.with_name(f".{target.name}.pull")
    part.mkdir(parents=True, exist_ok=True)
    lock = OwnerLock(part)
    try:
        hub.receive(remote, part / hub.DATASET_FILE, progress)
        try:
            with contextlib.closing(open_dataset(part)) as dataset:
                dataset.verify()
        except StyleCLIError as error:
            shutil.rmtree(part)
            raise DataError(f"{remote.file} of {address} is not used: {error}") from None
        (part / "lock.mdb").unlink(missing_ok=True)
        if force and target.exists():
            open_dataset(target).close()  # nothing but a dataset is replaced
            shutil.rmtree(target)
        lock.folder = part.rename(target)
    finally:
        lock.release()
    return open_dataset(target)


# ---- networks


def _write_network(
    folder: Path, source: Path, address: hub.Address, licence: str | None, progress: Progress
) -> tuple[dict[str, Path], str | None]:
    """Write the networks of a file, their card and a sheet; return the files and the licence."""
    path = find_network(source).path
    bundle = load_network(path)
    bundle.generator  # noqa: B018  # a file without one is refused before anything is written
    network = folder / hub.NETWORK_FILE
    if licence is not None:
        bundle.info["licence"] = licence
    save_network(network, bundle)
    files = {hub.NETWORK_FILE: network}
    files[SHEET] = _write_sheet(folder, network, address, bundle, progress)
    settings = _run_settings(path)
    dataset = _dataset_facts(path, bundle)
    metrics = _read_metrics(path, bundle)
    own = licence or bundle.licence
    text = network_card(address, bundle, own, settings, dataset, metrics)
    files[CARD] = _write_card(folder, text)
    return files, own


def _write_card(folder: Path, text: str) -> Path:
    write_text(folder / CARD, text)
    return folder / CARD


def _write_sheet(
    folder: Path, network: Path, address: hub.Address, bundle: Bundle, progress: Progress
) -> Path:
    drawing = _sheet_drawing(bundle)
    pictures = []
    for _, picture in draw_seeds(bundle, range(_SEEDS), drawing):
        pictures.append(picture)
        progress(len(pictures), _SEEDS)
    record = make_provenance("generate", network, network_digest(network),
                             {"seeds": f"0-{_SEEDS - 1}", **drawing.truncation})  # fmt: skip
    record["network"]["file"] = str(address)  # where everybody finds it
    save_png(folder / SHEET, lay_out_fakes(pictures, _COLUMNS), record)
    return folder / SHEET


def _sheet_drawing(bundle: Bundle) -> Drawing:
    config = bundle.config
    if not config.has_w:
        return Drawing()
    return Drawing(psi=config.truncation_psi, psi_cutoff=config.truncation_cutoff)


def _run_settings(path: Path) -> RunSettings | None:
    """Return the settings of the run that a network lies in; None where it lies in none."""
    if (path.parent / RUN_FILE).is_file():
        with contextlib.suppress(NetworkError):
            return load_settings(path.parent)
    return None


def _dataset_facts(path: Path, bundle: Bundle) -> dict[str, Any]:
    """Return what is known of the pictures a network was trained on."""
    record = bundle.info.get("record")
    stored = record.get("dataset") if isinstance(record, Mapping) else None
    credit = record.get("credit") if isinstance(record, Mapping) else None
    facts: dict[str, Any] = {"digest": bundle.info.get("data_digest")}
    for known in (stored, credit):
        facts |= dict(known) if isinstance(known, Mapping) else {}
    home = run_dataset(path.parent) if (path.parent / RUN_FILE).is_file() else None
    if home is not None:
        with contextlib.suppress(StyleCLIError), contextlib.closing(open_dataset(home)) as dataset:
            facts |= _facts_of_dataset(dataset)
    return {name: value for name, value in facts.items() if value is not None}


def _facts_of_dataset(dataset: Dataset) -> dict[str, Any]:
    facts: dict[str, Any] = {"pictures": len(dataset), "digest": dataset.digest}
    facts |= {
        name: dataset.info[name] for name in _ORIGIN if isinstance(dataset.info.get(name), str)
    }
    counts: dict[str, Counter[str]] = {"licence": Counter(), "author": Counter()}
    for index in range(min(len(dataset), _MOST_LOOKED_AT)):
        known = dataset.metadata(index)
        for name, count in counts.items():
            value = known.get(name) or (known.get("license") if name == "licence" else None)
            if isinstance(value, str) and value:
                count[value] += 1
    if counts["licence"]:
        facts["licences"] = dict(counts["licence"].most_common(8))
    if counts["author"]:
        facts["authors"] = len(counts["author"])
    return facts


def _read_metrics(path: Path, bundle: Bundle) -> list[dict[str, Any]]:
    """Return the newest measurement of each metric that is of exactly this network."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(path.parent.glob(METRIC_PATTERN)):
        with contextlib.suppress(StyleCLIError):
            for row in read_rows(file):
                if row.get("snapshot") == path.name and is_number(row.get("value")):
                    found[str(row.get("name"))] = row
    record = bundle.info.get("record")
    measured = record.get("metrics") if isinstance(record, Mapping) else None
    for row in measured if isinstance(measured, list) else []:
        if isinstance(row, Mapping) and is_number(row.get("value")):
            found.setdefault(str(row.get("name")), dict(row))
    return list(found.values())


# ---- cards


def network_card(
    address: hub.Address, bundle: Bundle, licence: str | None, settings: RunSettings | None,
    dataset: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    """Return the card of a network as Markdown, with the header that the hub reads."""
    config = bundle.config
    where = f"{hub.PREFIX}{address.repository}"
    facts = {"configuration": f"{config.preset} ({config.preset_text or 'its own'})",
             **bundle.facts()}  # fmt: skip
    facts.pop("licence", None)
    drawing = _sheet_drawing(bundle)
    psi = f", truncation psi {drawing.psi:g}" if config.has_w and not isinstance(
        drawing.psi, list | tuple) else ""  # fmt: skip
    parts = [
        _header({
            **_licence_lines(licence), "library_name": "stylecli",
            "pipeline_tag": "unconditional-image-generation",
            "tags": ["stylecli", "gan", "image-generation", config.family],
            "model-index": _index(address, metrics, dataset) if metrics else None,
        }),
        f"# {address.name}",
        f"A generator, written by stylecli {__version__}. Its pictures: {facts['pictures']}.",
        f"![Pictures drawn by the network]({SHEET})",
        f"Seeds 0 to {_SEEDS - 1} in order, none left out{psi}.",
        "## Use",
        f"```console\n$ pip install 'stylecli[hub]'\n$ stylecli generate --network {where} "
        f"--seeds 0-11\n$ stylecli info {where}\n```",
        f"```python\nimport stylecli\n\nnet = stylecli.load_network(\"{where}\")\n```",
        f"`{hub.NETWORK_FILE}` is safetensors: nothing in it runs.",
        "## The network", _table(("", ""), list(facts.items())),
        "## Data and licences", _data_text(dataset, licence),
        "## Training", _training_text(bundle, settings),
        "## Metrics", _metrics_text(metrics),
        "## Limits", _limits_text(bundle, dataset, metrics),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def dataset_card(
    address: hub.Address, dataset: Dataset, licence: str | None, facts: Mapping[str, Any]
) -> str:
    """Return the card of a dataset as Markdown, with the header that the hub reads."""
    info = dataset.info
    count = len(dataset)
    classes = plural(dataset.label_dim, "class", "classes") if dataset.label_dim else "no labels"
    colours = {1: "grey", 3: "RGB", 4: "RGBA"}.get(dataset.channels, f"{dataset.channels} channels")
    size = f"{dataset.size} px"
    settings = info.get("settings")
    shown = dict(settings) if isinstance(settings, Mapping) else {}
    rows = [("pictures", f"{count:,}"), ("size", f"{size}, {colours}"), ("labels", classes),
            ("stored", str(info.get("codec"))), ("digest", f"`{dataset.digest}`"),
            ("packed by", str(info.get("tool")))]  # fmt: skip
    names = info.get("class_names")
    if isinstance(names, list) and names:
        shown_names = ", ".join(map(str, names[:20])) + (", ..." if len(names) > 20 else "")
        rows.append(("classes", shown_names))
    where = f"datasets/{address.repository}"
    zipped = ""
    if dataset.size.is_square:
        zipped = f"; `stylecli pack datasets/{address.name}.lmdb --out {address.name}.zip` turns it"
        zipped += " into a zip of PNG files"
    parts = [
        _header({
            **_licence_lines(licence), "tags": ["stylecli", "gan", "image"],
            "task_categories": ["unconditional-image-generation"],
            "size_categories": [_size_category(count)],
        }),
        f"# {address.name}",
        f"{plural(count, 'picture')} of {size}, packed for training with stylecli.",
        f"![The first pictures of the dataset]({SHEET})",
        "## Use",
        f"```console\n$ pip install 'stylecli[hub]'\n$ stylecli hub pull {where}\n"
        f"$ stylecli train datasets/{address.name}.lmdb\n```",
        f"`{hub.DATASET_FILE}` is an LMDB database{zipped}.",
        "## The pictures", _table(("", ""), rows),
        "## Data and licences", _data_text(facts, licence),
        "## How they were prepared",
        _table(("setting", "value"), [(str(name), _plain(value)) for name, value in shown.items()])
        if shown else "Not recorded.",
        "## Limits",
        "- Whatever the pictures leave out, a network trained on them leaves out too.\n"
        "- Pictures of people: check that they agreed, and what their licences allow.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _write_dataset(
    folder: Path, home: Path, address: hub.Address, licence: str | None, *, copied: bool
) -> tuple[dict[str, Path], str | None]:
    with contextlib.closing(open_dataset(home)) as dataset:
        dataset.verify_rows()
        facts = _facts_of_dataset(dataset)
        own = licence or _one_licence(facts)
        text = dataset_card(address, dataset, own, facts)
        pictures = dataset.read(range(min(len(dataset), _SEEDS)))
        cells = [picture.transpose(1, 2, 0) for picture in pictures]
        save_png(folder / SHEET, lay_out_fakes(cells, _COLUMNS))
    file = home / hub.DATASET_FILE
    if copied:
        file = Path(shutil.copyfile(file, folder / hub.DATASET_FILE))
    files = {hub.DATASET_FILE: file, SHEET: folder / SHEET}
    files[CARD] = _write_card(folder, text)
    return files, own


def _one_licence(facts: Mapping[str, Any]) -> str | None:
    """Return the licence of a dataset, or the one that all its pictures share."""
    if isinstance(facts.get("licence"), str):
        return str(facts["licence"])
    licences = facts.get("licences") or {}
    same = len(licences) == 1 and sum(licences.values()) == facts["pictures"]
    return next(iter(licences)) if same else None


def _size_category(count: int) -> str:
    ends = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"),
            (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))  # fmt: skip
    return next((name for end, name in ends if count < end), "10M<n<100M")


def _header(values: Mapping[str, Any]) -> str:
    """Return YAML that every reader takes: a line of JSON for each key."""
    lines = [f"{key}: {to_json(value).decode().strip()}" for key, value in values.items()
             if value is not None]  # fmt: skip
    return "\n".join(["---", *lines, "---"])


def _licence_lines(licence: str | None) -> dict[str, Any]:
    if licence is None:
        return {}
    known = _LICENCES.get(licence.lower())
    return {"license": known} if known else {"license": "other", "license_name": licence[:96]}


def _index(
    address: hub.Address, metrics: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any]
) -> list[dict[str, Any]]:
    digest = str(dataset.get("digest") or "")[:12]
    measured = [{"type": str(row["name"]).partition("@")[0], "name": row["name"],
                 "value": row["value"]} for row in metrics]  # fmt: skip
    task = {"type": "unconditional-image-generation"}
    source = {"name": f"training pictures {digest}".strip(), "type": "own"}
    return [
        {"name": address.name, "results": [{"task": task, "dataset": source, "metrics": measured}]}
    ]


def _table(heads: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {_cell(first)} | {_cell(second)} |" for first, second in rows]
    return "\n".join([f"| {heads[0]} | {heads[1]} |", "|---|---|", *lines])


def _cell(text: object) -> str:
    """Return text that stays in its cell and is no markup; a record comes from whoever made it."""
    plain = " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
    return plain[:2000]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return to_json(value).decode().strip()
    return show_value(value)


def _data_text(facts: Mapping[str, Any], licence: str | None) -> str:
    names = {"source": "source", "author": "author", "licence": "licence of the pictures",
             "licence_url": "its text", "source_url": "from", "authors": "authors"}  # fmt: skip
    rows = [("licence of this repository", licence or "not stated: ask before you use it")]
    if (count := facts.get("pictures")) is not None:
        rows.append(("pictures", f"{count:,}" if isinstance(count, int) else str(count)))
    rows += [(text, str(facts[name])) for name, text in names.items() if facts.get(name)]
    if licences := facts.get("licences"):
        counted = ", ".join(f"{name} ({count:,})" for name, count in licences.items())
        rows.append(("licences of single pictures", counted))
    if not {"licence", "licences"} & facts.keys():
        rows.append(("licence of the pictures", "not recorded"))
    if digest := facts.get("digest"):
        rows.append(("SHA-256 of the data", f"`{digest}`"))
    return _table(("", ""), rows)


def _training_text(bundle: Bundle, settings: RunSettings | None) -> str:
    lines = []
    if is_number(kimg := bundle.info.get("kimg")):
        lines.append(f"{float(kimg):,g} thousand pictures were shown to the discriminator.")
    if family := bundle.info.get("source_family"):
        lines.append(f"Converted from a file of {_cell(family)}.")
    record = bundle.info.get("record")
    if settings is None and isinstance(record, Mapping) and record.get("command"):
        lines.append(f"`{_cell(record['command'])}`")
    if settings is None:
        return "\n\n".join([*lines, "The settings of its training are not in the file."])
    values = settings.training.to_dict()
    first = [(name, show_value(values[name])) for name in _SCHEDULE if name in values]
    rest = [(name, show_value(value)) for name, value in values.items() if name not in _SCHEDULE]
    first.append(("device", f"{settings.device}, {plural(settings.ranks, 'process', 'processes')}"))
    folded = f"<details><summary>All settings</summary>\n\n{_table(('setting', 'value'), rest)}\n\n"
    return "\n\n".join([*lines, _table(("setting", "value"), first), folded + "</details>"])


def _metrics_text(metrics: Sequence[Mapping[str, Any]]) -> str:
    if not metrics:
        return "None were measured with this file."
    parts = []
    rows = []
    for row in metrics:
        spread = f" ± {row['std']:.4g}" if is_number(row.get("std")) else ""
        better = {"True": "higher is better", "False": "lower is better"}.get(
            str(row.get("higher_is_better")), "")  # fmt: skip
        meaning = "; ".join(filter(None, [better, str(row.get("meaning") or "")]))
        rows.append((f"`{row['name']}`", f"{row['value']:.6g}{spread}" + (
            f" ({meaning})" if meaning else "")))  # fmt: skip
        definition = row.get("definition")
        if isinstance(definition, Mapping):
            told = ", ".join(f"{key} {_plain(value)}" for key, value in definition.items()
                             if value is not None)  # fmt: skip
            parts.append(f"- `{row['name']}`: {_cell(told)}")
        elif is_number(row.get("samples")):
            parts.append(f"- `{row['name']}`: {plural(row['samples'], 'picture')}")
    text = _table(("metric", "value"), rows)
    if parts:
        text += "\n\nWith other numbers of pictures, features or resizing these are other numbers:"
        text += "\n\n" + "\n".join(parts)
    return text


def _limits_text(
    bundle: Bundle, dataset: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> str:
    lines = ["- It draws what its training pictures show, with their gaps and their prejudices."]
    if any("@efficientnet" in str(row.get("name")) for row in metrics):
        lines.append("- Metrics with `@efficientnet-lite0` use a stand-in for Inception and VGG16: "
                     "they compare with no published number.")  # fmt: skip
    kimg = bundle.info.get("kimg")
    if is_number(kimg) and float(kimg) < 1000:
        lines.append(f"- {float(kimg):g} kimg is little training; published networks have 5,000 "
                     "to 25,000.")  # fmt: skip
    count = dataset.get("pictures")
    if isinstance(count, int) and count < 2000:
        lines.append(f"- {plural(count, 'training picture')}: it may repeat some of them. "
                     "`stylecli report` shows the nearest ones.")  # fmt: skip
    if bundle.D is None:
        lines.append("- Without the discriminator, training cannot be continued from this file.")
    lines.append("- Pictures carry a record that says they are generated; leave it in them.")
    return "\n".join(lines)
