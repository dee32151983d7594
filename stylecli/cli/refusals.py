"""What commands refuse before torch loads: words, paths, numbers, headers of networks.

The library checks all of it again where it is used. Here it costs no seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylecli.cli.output import Output
from stylecli.errors import DataError, NetworkError, UsageError
from stylecli.hardware import AUTO, check_device_name, check_precision
from stylecli.settings import ByResolution, Setting
from stylecli.workspace import Found, check_there, find_dataset, find_network, missing

GIVEN_AS = "--data PATH"  # how metrics takes a dataset


def check_words(
    *,
    device: str = "auto",
    precision: str | None = None,
    config: str | None = None,
    preset: str | None = None,
    metrics: Sequence[str] | None = None,
) -> None:
    """Raise UsageError for a word that names nothing."""
    check_device_name(device)
    if precision is not None and precision != AUTO:
        check_precision(precision)
    if config is not None:
        from stylecli.networks.registry import make_config

        make_config(config)
    if preset is not None:
        from stylecli.training.presets import name_preset

        name_preset(preset)
    if metrics is not None:
        from stylecli.metrics import check_names

        check_names(metrics)


def check_numbers(given: Mapping[str, Any], declared: Iterable[Setting]) -> None:
    """Raise UsageError for a value that the declaration of its setting refuses."""
    for item in declared:
        value = given.get(item.name)
        if value is not None and item.check is not None and not isinstance(value, ByResolution):
            item.check(item.name, value)


def check_files(error: type[Exception] = NetworkError, **files: Path | None) -> None:
    """Raise ``error`` for the first file that is not there; the keywords are the options' names."""
    for name, path in files.items():
        if path is not None and not path.exists():
            option = f"--{name.replace('_', '-')}"
            raise error(missing(path, "give a file", option))


def check_pictures(path: Path | None) -> None:
    """Raise DataError for pictures or a dataset that are not there."""
    if path is not None:
        check_there(path, "a folder or zip of pictures, or a dataset")


def check_dataset(path: Path | None) -> None:
    """Raise DataError for a dataset that is not there, or a folder that is none."""
    if path is None:
        return
    check_there(path, "a dataset, which stylecli pack makes")
    if path.is_dir() and not (path / "data.mdb").is_file():
        raise DataError(f"{path} is not a dataset: pack its pictures with stylecli pack {path}")


def find_data(
    names: Iterable[str], data: Path | None, run: Path | None, *, needed: bool
) -> Found | None:
    """Return the dataset of metrics, or None where nothing that is asked for looks at one.

    Path lengths, separability and Inception Scores do not. ``needed`` says that something else
    does: the classes of a labelled network, or the training of classifiers.
    """
    alone = all(name.startswith(("ppl", "ls", "is")) for name in names)
    try:
        return find_dataset(data, run=run, given_as=GIVEN_AS)
    except DataError:
        if needed or not alone or data is not None:
            raise
        return None


def find_and_check(network: Path | None, output: Output) -> Found:
    """Return the network that was given or found; say which was found; look at its header.

    Raises NetworkError for a file that cannot be one.
    """
    from stylecli.networks.headers import check_header

    found = find_network(network)
    if found.why:
        output.note(f"network: {found.shown}")
    check_header(found.path)
    return found


def check_resume(given: Path | None) -> None:
    """Raise NetworkError for a --resume that is not there."""
    if given is None or given.exists() or (given.name == "best" and given.parent.is_dir()):
        return
    raise NetworkError(missing(given, "give a run, a checkpoint or a network", "--resume"))


def split_metrics(names: str | None) -> list[str] | None:
    """Return the metrics of a list such as kid,ppl; raise UsageError for an unknown one."""
    if names is None:
        return None
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError(f"--metrics {names!r} names no metric: give some, such as kid,ppl")
    check_words(metrics=wanted)
    return wanted
