"""What commands refuse before torch loads: command lines, words, paths, numbers, headers.

The library checks words, paths and numbers again where it uses them. Here it costs no seconds.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from stylecli import hub
from stylecli.cli.output import Output
from stylecli.errors import DataError, NetworkError, UsageError, plural
from stylecli.hardware import AUTO, check_device_here, check_device_name, check_precision
from stylecli.progress import Progress, silent
from stylecli.settings import ByResolution, Setting
from stylecli.workspace import (
    SHARDS,
    Found,
    check_there,
    find_dataset,
    find_network,
    has_address,
    missing,
)

_MANY = 2000  # pictures whose headers take a while to read
GIVEN_AS = "--data PATH"  # how metrics takes a dataset


def check_words(
    *,
    device: str = "auto",
    precision: str | None = None,
    config: str | None = None,
    preset: str | None = None,
    metrics: Sequence[str] | None = None,
) -> None:
    """Raise UsageError for a word that names nothing, DeviceError for a device not here."""
    check_device_name(device)
    check_device_here(device)
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
            item.check(item.switches[0] or item.name, value)


def check_files(error: type[Exception] = NetworkError, **files: Path | None) -> None:
    """Raise ``error`` for the first file that is not there; the keywords are the options' names."""
    for name, path in files.items():
        if path is not None and not path.exists():
            option = f"--{name.replace('_', '-')}"
            raise error(missing(path, "give a file", option))


def check_pictures(path: Path | None) -> None:
    """Raise DataError for pictures or a dataset that are not there."""
    if path is not None and not SHARDS.search(str(path)):  # whoever opens shards looks for each
        check_there(path, "a folder or zip of pictures, or a dataset")


def check_loose(path: Path, output: Output) -> None:
    """Raise DataError for loose pictures of which the header tells that one cannot be measured.

    Names the first of them. A dataset is whole, and is not looked at.
    """
    from stylecli.data.sources.lmdb_pictures import is_lmdb

    check_pictures(path)
    if path.is_dir() and is_lmdb(path):
        return
    from stylecli.data.pictures import check_kind, name_cause, quiet, read_header
    from stylecli.data.sources.recognition import find_source

    source = find_source(path, own_labels=False, include_generated=True)
    first: tuple[str, str] | None = None
    count, total = 0, len(source)
    with (
        output.progress("looking", "pictures")
        if total > _MANY
        else contextlib.nullcontext(silent) as report
    ):
        for number in range(total):
            item = source[number]
            try:
                with quiet(), item.open() as opened:
                    check_kind(read_header(opened))
            except Exception as error:  # Pillow's plugins raise anything on damaged files
                first = first or (item.name, name_cause(error))
                count += 1
            report(number + 1, total)
    if first is not None:
        name, cause = first
        named = f"the first, {name}," if count > 1 else name
        raise DataError(
            f"{count} of {plural(total, 'picture')} in {path} cannot be measured: {named} {cause}; "
            f"remove such files, or measure a dataset: stylecli pack {quote(str(path))} skips them"
        )


def check_dataset(path: Path) -> None:
    """Raise DataError for a dataset that is not there, or a folder that is none."""
    check_there(path, "a dataset, which stylecli pack makes")
    if path.is_dir() and not (path / "data.mdb").is_file():
        packed = Path("datasets", f"{path.name}.lmdb")
        advice = f"give {packed}" if packed.is_dir() else f"run stylecli pack {quote(str(path))}"
        raise DataError(f"{path} is not a dataset: {advice}")


def find_data(
    names: Iterable[str], data: Path | None, run: Path | None, *, needed: bool
) -> Found | None:
    """Return the dataset of metrics, or None where nothing that is asked for looks at one.

    Raises DataError where it is missing, or is no dataset.

    Path lengths, separability, Inception Scores and equivariance do not. ``needed`` says that
    something else does: the classes of a labelled network, or the training of classifiers.
    """
    alone = all(name.startswith(("ppl", "ls", "is", "eq")) for name in names)
    try:
        found = find_dataset(data, run=run, given_as=GIVEN_AS)
        check_dataset(found.path)
    except DataError:
        if needed or not alone or data is not None:
            raise
        return None
    return found


def find_shown(network: Path | None, output: Output) -> Found:
    """Return the network that was given or found; show how one of the hub comes here."""
    if network is None or not hub.is_address(network):
        return find_network(network)
    reports: list[Progress] = []
    with contextlib.ExitStack() as bar:

        def report(done: float, total: float, note: str = "") -> None:
            if not reports:  # no bar where the cache has it
                name = str(hub.parse_address(network))
                reports.append(bar.enter_context(output.progress(name, "MB")))
            reports[0](done, total, note)

        return find_network(network, progress=report)


def find_and_check(network: Path | None, output: Output) -> Found:
    """Return the network that was given or found; say which was found; look at its header.

    Raises NetworkError for a file that cannot be one.
    """
    from stylecli.networks.headers import check_header

    found = find_shown(network, output)
    if found.why:
        output.note(f"network: {found.shown}")
    check_header(found.path)
    return found


def check_resume(given: Path | None, output: Output) -> None:
    """Raise NetworkError for a --resume that is not there; fetch one of the hub."""
    if given is not None and has_address(given):
        find_shown(given, output)
        return
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


# What other StyleGAN programs call things; ours is taken where the command has it.
_OPTIONS = {
    "--trunc": "--psi", "--truncation": "--psi", "--truncation-psi": "--psi",
    "--truncation-cutoff": "--psi-cutoff", "--outdir": "--out", "--output": "--out",
    "--out-dir": "--out", "--output-dir": "--out", "--dest": "--out", "--results-dir": "--out",
    "--result-dir": "--out", "--cfg": "--config", "--model": "--network", "--ckpt": "--network",
    "--checkpoint": "--network", "--pkl": "--network", "--network-pkl": "--network",
    "--net": "--network", "--weights": "--network", "--snap": "--snapshot-ticks",
    "--snapshot": "--snapshot-ticks", "--network-snapshot-ticks": "--snapshot-ticks",
    "--tick": "--tick-kimg", "--cond": "--labels", "--conditional": "--labels",
    "--batch-size": "--batch", "--minibatch": "--batch", "--r1-gamma": "--gamma",
    "--r1": "--gamma", "--freezed": "--freeze-d", "--freeze": "--freeze-d",
    "--mirrored": "--mirror",
    "--learning-rate": "--lr", "--iter": "--kimg", "--iters": "--kimg", "--epochs": "--kimg",
    "--total-kimg": "--kimg", "--num-gpus": "--gpus", "--ngpus": "--gpus", "--size": "--resolution",
    "--resolution": "--size",
    "--res": "--resolution", "--img-size": "--resolution", "--imgsize": "--resolution",
    "--class-idx": "--class", "--projected-w": "--ws", "--latents": "--ws", "--w": "--ws",
    "--dataset": "--data", "--data-dir": "--data", "--num-samples": "--samples",
    "--n-sample": "--samples", "--frames": "--seconds", "--w-frames": "--key-seconds",
    "--row": "--row-seeds", "--col": "--col-seeds", "--rows-seeds": "--row-seeds",
    "--cols-seeds": "--col-seeds", "--nogpu": "--device cpu", "--no-cuda": "--device cpu",
    "--gpu": "--device cuda", "--num-workers": "--workers", "--overwrite": "--force",
}  # fmt: skip
_BY_PICTURES = "--kimg, thousands of pictures (stylecli plan says how long they take)"
_OPTIONS |= dict.fromkeys(
    ("--minutes", "--hours", "--days", "--steps", "--max-steps"), _BY_PICTURES
)
_COMMANDS = {
    "sample": "generate", "gen": "generate", "gen-images": "generate",
    "generate-images": "generate",
    "draw": "generate", "style-mixing": "mix", "stylemix": "mix", "style-mix": "mix",
    "gen-video": "interpolate", "video": "interpolate", "walk": "interpolate",
    "calc-metrics": "metrics", "eval": "metrics", "evaluate": "metrics", "measure": "metrics",
    "dataset-tool": "pack", "prepare": "pack", "import": "pack", "dataset": "pack",
    "resume": "train", "fit": "train", "align": "prepare-ffhq", "show": "info", "list": "info",
    "ls": "info", "inspect": "info", "describe": "info", "benchmark": "bench", "estimate": "plan",
    "fid": "metrics fid", "ppl": "metrics ppl", "kid": "metrics kid",
}  # fmt: skip
_TAKE_DATA = ("train", "plan", "pack", "check", "prepare-ffhq")  # as their argument
_NETWORK_FILE = (".pkl", ".safetensors", ".pt", ".pth", ".model")
_EXPECTED = (  # what typer says, and what it means; its words leave the value out
    (r"Input should be a valid integer.*", "expected a whole number"),
    (r"Input should be a valid number.*", "expected a number"),
    (r"Input should be a valid boolean.*", "expected yes or no"),
    (r"Input should be greater than or equal to (\S+)", r"expected at least \1"),
    (r"Input should be less than or equal to (\S+)", r"expected at most \1"),
    (r"Input should be greater than (\S+)", r"expected more than \1"),
    (r".*is not in the range x>=(\S+?)\.?", r"expected at least \1"),
    (r".*is not in the range (\S+?)<=x<=(\S+?)\.?", r"expected \1 to \2"),
    (r".*is not a valid (?:int|integer)( range)?\.?", "expected a whole number"),
    (r".*is not a valid float( range)?\.?", "expected a number"),
)


def explain_usage(error: Any, words: Sequence[str]) -> str:
    """Return the sentence of what typer found wrong with the ``words`` of a command line."""
    context = error.ctx
    path = _path(context)
    look = f"see {path} --help"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _unknown_option(error.option_name, _options(context), path, look)
    if kind in ("MissingParameter", "MissingWord") and error.param is not None:
        return _missing(error.param, context, path)
    message = str(error.message).rstrip(".")
    if found := re.match(r"No such command '(.*?)'", message, re.DOTALL):
        return _unknown_command(found[1], context, path)
    if found := re.match(r"Option '(\S+?)' requires an argument", message):
        return f"{found[1]} needs a value: {look}"
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        return _extra(found[1], context, path, look)
    if error.ctx is not None and getattr(error, "param", None) is not None:
        return _bad_value(error.param, message, words)
    return f"{message}: {look}" if context else message


def _path(context: Any) -> str:
    """Return the words of the command, whatever the program was started as."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, str(context.info_name))
        context = context.parent
    return " ".join(["stylecli", *names])


def _options(context: Any) -> list[str]:
    return [
        name
        for parameter in context.command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    ]


def _unknown_option(name: str, known: Iterable[str], path: str, look: str) -> str:
    known = list(known)
    word = name.lower().replace("_", "-")
    if word in ("--data", "--dataset", "--source") and path.split(" ")[-1] in _TAKE_DATA:
        return f"{path} has no option {name}: give the path alone, {path} PATH"
    ours = word if word in known else _OPTIONS.get(word, "")
    if re.split("[ ,]", ours)[0] not in known or not ours:
        # Without the dashes, which all have in common: --time is not near --quiet.
        names = {name.lstrip("-"): name for name in known}
        near = difflib.get_close_matches(word.lstrip("-"), names, 1)
        ours = names[near[0]] if near else ""
        return f"{path} has no option {name}" + (f". Did you mean {ours}?" if ours else f": {look}")
    return f"{path} has no option {name}: use {ours}"


def _unknown_command(word: str, context: Any, path: str) -> str:
    known = list(getattr(context.command, "commands", {}))
    name = word.lower().replace("_", "-").removesuffix(".py")
    near = _COMMANDS.get(name, "") if path == "stylecli" else ""
    near = near or next(iter(difflib.get_close_matches(name, known, 1)), "")
    if near:
        return f"unknown command {word!r}. Did you mean {path} {near}?"
    return f"unknown command {word!r}: expected one of {', '.join(known)}"


def _missing(parameter: Any, context: Any, path: str) -> str:
    """Say what a command needs, with its own example."""
    name = (parameter.metavar or parameter.name or "").upper()
    example = re.search(r"Example: (.*)", context.command.help or "")
    instead = f": for example {example[1]}" if example else f": see {path} --help"
    return f"{path} needs {name}{instead}"


def _extra(extra: str, context: Any, path: str, look: str) -> str:
    first = extra.split(" ")[0]
    if first.lower().endswith(_NETWORK_FILE) and "--network" in _options(context):
        return f"{path} does not take {first!r} as an argument: give --network {first}"
    if first.lower().endswith(".tar"):  # what a shell made of a range of shards
        return f"{path} takes one SRC: quote the pattern, {path} 'shards-{{000..009}}.tar'"
    return f"{path} does not take {extra!r}: {look}"


def _bad_value(parameter: Any, message: str, words: Sequence[str]) -> str:
    option = max(parameter.opts, key=len)
    name = option if option.startswith("-") else (parameter.metavar or option).upper()
    value = _value_of(parameter.opts, words)
    for pattern, meaning in _EXPECTED:
        if re.fullmatch(pattern, message):
            message = re.sub(f"^{pattern}$", meaning, message)
            break
    shown = f"{name} {value}" if value is not None else name
    return f"{shown}: {message}"


def _value_of(options: Iterable[str], words: Sequence[str]) -> str | None:
    """Return what was typed after one of the options."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in options:
            return value if equals else words[place + 1] if words[place + 1 :] else None
    return None
