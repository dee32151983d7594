"""States as words of a command line: every name is an option, and no value reaches a file."""

from pathlib import Path

import pytest

from stylecli.errors import UsageError
from stylecli.explorer.states import KINDS, NotListedError, command_words
from tests.update_help import commands

FACES = {"out/net/faces/Anna.npz": Path("out/net/faces/Anna.npz")}
OTHER_NAMES = {"seed": "--seeds", "face": "--ws"}  # as the page says it
WRITES = {"out", "save_ws", "force", "json", "network", "music", "directions", "ws", "row_ws",
          "col_ws", "each", "video", "device", "batch", "quality"}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_name_of_a_state_is_an_option_of_its_command(name: str) -> None:
    kind = KINDS[name]
    command = commands()[kind.command]
    options = {
        text
        for parameter in command.params
        for text in (*parameter.opts, *parameter.secondary_opts)
    }
    wanted = {OTHER_NAMES.get(one, f"--{one.replace('_', '-')}") for one in kind.options}

    assert wanted <= options
    assert {f"--{flag}" for flag in kind.flags} <= options
    assert kind.repeated <= kind.options
    assert not (kind.options | kind.flags) & WRITES


@pytest.mark.parametrize("name", sorted(WRITES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_names_nothing_that_writes_or_reads_a_file(kind: str, name: str) -> None:
    with pytest.raises(UsageError, match="setting"):
        command_words(KINDS[kind], [(name, "x")], FACES)


PATHS = ("/etc/passwd", "../net.npz", "out/net/faces/Anna.npz/..", "Anna.npz", "-5", "\u0665", "")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("kind", "name"), [("picture", "face"), ("picture", "mix"), ("mix", "row"), ("walk", "through")]
)
def test_only_listed_faces_are_named(kind: str, name: str, path: str) -> None:
    value = f"coarse:{path}" if name == "mix" else path
    if not value:
        return  # counts as left out
    with pytest.raises(NotListedError):
        command_words(KINDS[kind], [(name, value)], FACES)


MEANT = (
    ("picture", "seed=5&psi=-0.5&mix=coarse:7&edit=a:1&edit=b:-2&labels=",
     ["--seeds=5", "--psi=-0.5", "--mix=coarse:7", "--edit=a:1,b:-2"]),
    ("picture", "face=out/net/faces/Anna.npz", ["--ws=out/net/faces/Anna.npz", "--ws-rows=0"]),
    ("sheet", "seeds=1-3&labels=no", ["--grid", "--seeds=1-3", "--no-labels"]),
    ("mix", "rows=2&cols=3", ["--rows=2", "--cols=3", "--styles=coarse"]),
    ("mix", "row=7&cols=3&bands=fine", ["--row=7", "--cols=3", "--bands=fine"]),
    ("walk", "through=1&through=2&loop=no", ["--no-loop", "--seeds=1,2"]),
    ("walk", "through=1&through=out/net/faces/Anna.npz",
     ["--through=1", "--through=out/net/faces/Anna.npz"]),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "query", "words"), MEANT, ids=[row[1] for row in MEANT])
def test_a_state_is_these_words(kind: str, query: str, words: list[str]) -> None:
    pairs = [(name, value) for name, _, value in (one.partition("=") for one in query.split("&"))]

    assert command_words(KINDS[kind], pairs, FACES) == words
