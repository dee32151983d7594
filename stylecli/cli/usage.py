"""What is wrong with a command line, as one sentence: the word, what was expected, what to type."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

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
    if kind == "MissingParameter" and error.param is not None:
        return _missing(error.param, context, path)
    message = str(error.message).rstrip(".")
    if found := re.match(r"No such command '(.*?)'", message, re.DOTALL):
        return _unknown_command(found[1], context, path)
    if found := re.match(r"Option '(\S+?)' requires an argument", message):
        return f"{found[1]} needs a value: {look}"
    if found := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message, re.DOTALL):
        return _extra(found[1], context, path, look)
    if error.ctx is not None and getattr(error, "param", None) is not None:
        return _bad_value(error.param, message, words, look)
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
    return f"{path} does not take {extra!r}: {look}"


def _bad_value(parameter: Any, message: str, words: Sequence[str], look: str) -> str:
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
