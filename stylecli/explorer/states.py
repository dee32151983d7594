"""States of the page as words of a command line: which options a query may give, and which files.

A state names nothing but options that draw, and faces that were listed: what deletes, downloads,
trains or writes elsewhere has no name here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stylecli.errors import StyleCLIError, UsageError, unknown_name
from stylecli.provenance import FLAGS
from stylecli.seeds import parse_seeds

Pairs = Sequence[tuple[str, str]]  # of a query, in order

MOST_PICTURES = 400  # of a sheet, and of one side of a mix
_MOST_REPEATED = 100
_LONGEST = 2000  # letters of a value
_CENTRE = re.compile(r"\d{1,10}|class(:\d{1,6})?")
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class NotListedError(StyleCLIError):
    """A network, run, face or direction that is none of those that are listed."""


@dataclass(frozen=True)
class Kind:
    """One kind of picture: the command that makes it, and what a state may say of it."""

    command: str
    options: frozenset[str]  # names in the query; the option is the same with dashes
    repeated: frozenset[str] = frozenset()
    seeds: frozenset[str] = frozenset()  # options that hold lists of seeds
    fixed: tuple[str, ...] = ()

    @property
    def flags(self) -> frozenset[str]:
        """Names of what is yes or no."""
        return FLAGS[self.command] - {"grid", "each"}


_DRAWN = frozenset(
    ("psi", "psi_cutoff", "psi_layers", "center", "class", "noise_mode", "noise_seed",
     "noise_scale", "lod", "translate", "rotate", "edit", "scale", "precision")
)  # fmt: skip
_EDIT = frozenset(("edit",))
KINDS = {
    "picture": Kind(
        "generate", _DRAWN | {"seed", "face", "like", "vary", "size", "mix"}, _EDIT | {"mix"}
    ),
    "sheet": Kind(
        "generate", _DRAWN | {"seeds", "columns", "like", "vary", "size"},
        _EDIT, frozenset(("seeds",)), ("--grid",),
    ),
    "mix": Kind(
        "mix", (_DRAWN - {"precision"}) | {"rows", "cols", "row", "col", "styles", "bands"},
        _EDIT | {"row", "col"}, frozenset(("rows", "cols")),
    ),
    "walk": Kind(
        "interpolate",
        _DRAWN
        | {"through", "classes", "space", "method", "seconds", "key_seconds", "psi_to", "pulses",
           "noise_motion", "noise_seconds", "fps", "format", "codec", "crf", "size"},
        _EDIT | {"through"},
    ),
}  # fmt: skip
_ALL_NAMES = {name for kind in KINDS.values() for name in (*kind.options, *kind.flags)}


def find_kind(name: str) -> Kind:
    """Return a kind of picture; raise UsageError for another name."""
    if name not in KINDS:
        raise UsageError(unknown_name("kind", name, KINDS))
    return KINDS[name]


def command_words(kind: Kind, state: Pairs, faces: Mapping[str, Path]) -> list[str]:
    """Return the words that follow the command, without the network: ``["--seeds=5", ...]``.

    ``faces`` are the files that a state may name, by their names. Empty values count as left out.
    Raises UsageError for what is no option of this kind, NotListedError for an unknown face.
    """
    words = list(kind.fixed)
    walked: list[str] = []
    edits: list[str] = []
    for name, value in _checked(kind, state):
        option = f"--{name.replace('_', '-')}"
        if name in kind.flags:
            words.append(option if _read_flag(name, value) else f"--no-{name}")
        elif name == "seed":
            words.append(f"--seeds={_one_seed(value)}")
        elif name == "face":
            words += [f"--ws={find_face(value, faces)}", "--ws-rows=0"]
        elif name == "through":
            walked.append(find_face(value, faces))
        elif name == "edit":
            edits.append(value)
        elif name == "mix":
            styles, _, face = value.partition(":")
            words.append(f"--mix={styles}:{find_face(face, faces)}")
        elif name in ("row", "col"):
            words.append(f"{option}={find_face(value, faces)}")
        elif name == "center" and not _CENTRE.fullmatch(value):
            raise UsageError(f"cannot read center {value!r}: expected a seed, class or class:3")
        else:
            if name in kind.seeds:
                _check_count(name, value)
            words.append(f"{option}={value}")
    if kind.command == "mix" and not {"styles", "bands"} & {name for name, value in state if value}:
        words.append("--styles=coarse")  # the command would make three sheets
    if kind == KINDS["picture"] and not {"--seeds", "--ws"} & {
        word.split("=")[0] for word in words
    }:
        raise UsageError("there is no face to draw: give seed, such as seed=5, or face")
    if edits:
        words.append(f"--edit={','.join(edits)}")
    return words + _walked_words(walked)


def _walked_words(faces: Sequence[str]) -> list[str]:
    """Return the words for the faces of a walk; seeds alone may have a psi that moves."""
    if faces and all(face.isdecimal() for face in faces):
        return [f"--seeds={','.join(faces)}"]
    return [f"--through={face}" for face in faces]


def _checked(kind: Kind, state: Pairs) -> Iterable[tuple[str, str]]:
    """Yield what a state says; refuse unknown names, repeated ones and very long values."""
    seen: dict[str, int] = {}
    for name, value in state:
        if name not in kind.options | kind.repeated | kind.flags:
            if name in _ALL_NAMES:
                raise UsageError(f"{name} is for other pictures: leave it out of this state")
            raise UsageError(unknown_name("setting", name[:80], kind.options | kind.flags))
        if not value:
            continue
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > (_MOST_REPEATED if name in kind.repeated else 1):
            raise UsageError(f"{name} is given {seen[name]} times: give it less often")
        if len(value) > _LONGEST or "\0" in value:
            raise UsageError(f"{name} has {len(value):,} letters: at most {_LONGEST:,} are read")
        yield name, value


def find_face(word: str, faces: Mapping[str, Path]) -> str:
    """Return the word that names a face on a command line: its seed, or a file that is listed."""
    if word.isascii() and word.isdecimal():
        return word
    if word not in faces:
        raise NotListedError(f"there is no face {word[:80]!r}: the list of faces names them")
    path = str(faces[word])
    return f"./{path}" if path.startswith("-") else path


def _one_seed(value: str) -> str:
    if not value.isascii() or not value.isdecimal():
        raise UsageError(f"seed {value[:80]!r} is not a whole number from 0 on")
    return value


def _read_flag(name: str, value: str) -> bool:
    if value.lower() not in _YES:
        raise UsageError(f"{name} {value[:80]!r} is not yes or no")
    return _YES[value.lower()]


def _check_count(name: str, value: str) -> None:
    """Refuse more pictures than a page can show."""
    text = value.strip()
    number = int(text) if name != "seeds" and text.isdecimal() else len(parse_seeds(text))
    if number > MOST_PICTURES:
        raise UsageError(f"{name} {value[:40]} is too much: ask for {MOST_PICTURES} at most")
