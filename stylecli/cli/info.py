"""`stylecli info`: what any file the toolkit makes or reads is, and how it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stylecli import shipped
from stylecli.cli.options import JsonOption
from stylecli.cli.output import Output
from stylecli.errors import DataError, NetworkError
from stylecli.files import read_json, read_rows
from stylecli.workspace import (
    CHECKPOINT_FILE,
    RUN_FILE,
    SNAPSHOT_PATTERN,
    STATS_FILE,
    find_network,
    find_run,
    newest_snapshot,
    read_run,
    run_dataset,
)

Facts = dict[str, Any]  # what --json prints; the lines are drawn from it
_WEIGHTS = (".safetensors", ".pkl", ".pt", ".pth", ".model", ".ckpt")
_DEMO_FILE = "demo.json"
_LONG = 100  # characters of a value that are printed


def command(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="Picture, video, styles, network of any program, weights, run, demo or dataset. "
            "Default: the newest run."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell what a file is and the command that makes it again.

    Example: stylecli info out/demo-000400/seed0003.png

    Pictures and videos made here name their network by its SHA-256; info says whether that network
    is still there. The printed command makes the same bytes again on the same kind of device.
    Of other programs' networks it tells family, sizes, settings, licence; nothing in them is run.
    """
    output = Output(json=json)
    target = path if path is not None else _newest()
    if target == Path(shipped.NAME) and not target.exists():
        target = find_network(target).path
    facts = _describe(target)
    flat = _flat(facts)
    width = max(len(name) for name in flat)
    lines = [f"{_printable(name.ljust(width))}  {_printable(_shown(value))}"
             for name, value in flat.items()]  # fmt: skip
    output.result(facts, lines)


def _newest() -> Path:
    """Return the newest run here, else the network that comes with the package."""
    try:
        return find_run()
    except NetworkError:
        return find_network().path


def _describe(path: Path) -> Facts:
    if not path.exists():
        raise DataError(f"{path} does not exist: give a picture, network, run or dataset")
    if path.is_dir():
        if (path / RUN_FILE).is_file():
            return _describe_run(path)
        if (path / "data.mdb").is_file():
            return _describe_dataset(path)
        if (path / _DEMO_FILE).is_file():
            return _describe_demo(path)
        raise DataError(
            f"{path} is neither a run (it has no {RUN_FILE}) nor a dataset (no data.mdb): "
            "give a file or one of these"
        )
    if path.name == RUN_FILE:
        return _describe_run(path.parent)
    if path.suffix.lower() == ".mdb":
        return _describe_dataset(path.parent)
    return _describe_file(path)


def _describe_file(path: Path) -> Facts:
    from stylecli.cli.made_facts import describe_made, describe_styles
    from stylecli.cli.network_facts import describe_weights

    if not path.is_file():
        raise DataError(f"{path} is a pipe, a device or a socket: expected a file or a folder")
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} is not readable: {error.strerror}") from None
    # A .npz is a zip like torch's files, so the suffix decides between the two.
    zipped = start == b"PK\3\4" and path.suffix.lower() != ".npz"
    if zipped or start[:1] == b"\x80" or path.suffix.lower() in _WEIGHTS:
        try:
            return describe_weights(path)
        except NetworkError:
            if (facts := describe_styles(path)) is None:
                raise
            return facts
    return describe_made(path)


def _describe_run(run: Path) -> Facts:
    newest = newest_snapshot(run)
    dataset = run_dataset(run)
    settings = read_run(run)
    facts: Facts = {
        "what": "run", "folder": str(run),
        "networks": len(list(run.glob(SNAPSHOT_PATTERN))),
        "newest network": str(newest) if newest else None,
        "can go on": (run / CHECKPOINT_FILE).is_file() and not settings.get("finished"),
        "dataset": str(dataset) if dataset else None,
    }  # fmt: skip
    return facts | {"settings": settings, "last tick": _last_line(run / STATS_FILE)}


def _describe_demo(folder: Path) -> Facts:
    told = read_json(folder / _DEMO_FILE)
    facts: Facts = {"what": "demo", "folder": str(folder)}
    facts |= {name: value for name, value in told.items() if name not in (*facts, "run")}
    if (folder / "run" / RUN_FILE).is_file():
        facts["run"] = _describe_run(folder / "run")
    return facts


def _describe_dataset(path: Path) -> Facts:
    from stylecli.data.reader import open_dataset

    dataset = open_dataset(path)
    facts: Facts = {
        "what": "dataset", "folder": str(path), "pictures": len(dataset),
        "resolution": dataset.resolution, "channels": dataset.channels,
        "classes": dataset.label_dim, "digest": dataset.digest,
    }  # fmt: skip
    facts |= {name: value for name, value in dataset.info.items() if name not in facts}
    dataset.close()
    return facts


def _last_line(path: Path) -> Any:
    rows = read_rows(path)
    return rows[-1] if rows else None


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Facts:
    """Spread nested settings over lines of their own, named by their path."""
    flat: Facts = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _printable(text: str) -> str:
    """Escape what would move the cursor or start a line: files from strangers hold any text."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def _shown(value: Any) -> str:
    """Write a fact on one line: - for none."""
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = ", ".join(map(str, value))
        return text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(value)})"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)
