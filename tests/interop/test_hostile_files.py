"""Hostile and damaged files end in one sentence: nothing runs and nothing grows."""

import ast
import contextlib
import copy
import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from stylecli.checkpoint import load_network
from stylecli.errors import NetworkError, StyleCLIError
from stylecli.interop import conversion
from stylecli.interop.pickles import Budget
from tests.interop import foreign_files, fuzz_structures, hostile_files
from tests.interop.reader_checks import check_arrays, check_batch, check_network, watch
from tests.source import FILES, calls_of

CORPUS = Path(__file__).parent / "corpus"
HOSTILE = {**hostile_files.pickles(), **hostile_files.torch_files(), **hostile_files.own_files()}
MAX_BYTES = 100 << 20  # what a reader may take beside three times the file (trees.py)
READERS = {"tf": "tf-4", "ada": "ada", "stream": "huangzh13-stream"}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every foreign file, once all that is imported late is imported."""
    found = foreign_files.all_kinds()
    for content in found.values():
        check_network(content)
    own = tmp_path_factory.mktemp("own") / "tiny.safetensors"
    own.write_bytes(foreign_files.own_network())
    load_network(own)
    return found


@pytest.fixture(autouse=True)
def _quick_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_AVERAGED", 10)
    monkeypatch.setattr(conversion, "_CHUNK", 10)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("kinds")
def test_a_hostile_file_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    content, words = HOSTILE[name]
    if name.endswith("-bomb"):  # a million steps take seconds
        monkeypatch.setattr(Budget, "of", lambda size: Budget(opcodes=20_000))
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with watch(), pytest.raises(NetworkError, match=words) as told:
            load_network(path)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES + 3 * len(content)
    finally:
        tracemalloc.stop()
    assert "\n" not in str(told.value) and len(str(told.value)) < 400 + len(str(path))
    assert not os.path.exists(hostile_files.RAN)


def test_the_payload_would_run_in_the_usual_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    calls = []
    monkeypatch.setattr("posix.system", calls.append)
    pickle.loads(hostile_files.EVIL)
    assert calls == [hostile_files.COMMAND.decode()]


# Pipes between our own processes; a detector whose file's SHA-256 is checked first.
TRUSTED = {"workers.py", "mtcnn.py"}
# A graph is read back from the memory that it was just written to.
OWN_BYTES = {("graphs.py", "torch.jit.load")}


def test_nothing_in_the_package_runs_a_pickle_or_text() -> None:
    forbidden = {"torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec",
                 "torch.jit.load", "marshal.loads"}  # fmt: skip
    found = [
        f"{path}: {name}"
        for path in FILES
        for call, name in calls_of(path)
        if path.name not in TRUSTED
        and (path.name, name) not in OWN_BYTES
        and (
            name in forbidden
            or any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
                   for word in call.keywords)
        )
    ]  # fmt: skip
    assert found == []


def test_the_watch_sees_what_code_does() -> None:
    for does in (lambda: os.system("true"), lambda: exec("1"), lambda: exit()):
        with pytest.raises(BaseException, match=r"os\.system|exec|ended"), watch():
            does()


@pytest.mark.parametrize("kind", READERS.values())
def test_a_file_cut_anywhere_is_refused(kinds: Any, kind: str) -> None:
    content = kinds[kind]
    with watch():
        for length in range(0, len(content) - 1, 1 if kind == "tf-4" else 11):
            assert check_network(content[:length]).startswith("file ")  # an error, not a family


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tf-2", "ada", "huangzh13-zip", "huangzh13-stream"])
def test_a_flipped_bit_is_a_number_or_a_sentence(kinds: Any, kind: str) -> None:
    content = kinds[kind]
    with watch():
        for place in range(0, len(content), 7 if kind.startswith("tf") else 31):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            assert check_network(bytes(flipped))


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz_structures.SOURCES)
@pytest.mark.usefixtures("kinds")
def test_a_spoilt_structure_is_a_network_or_a_sentence(kind: str) -> None:
    """Names, shapes, types, settings and branches at random: 300 inputs of fuzz_structures."""
    rng, results = random.Random(1), set()
    trees = fuzz_structures.good_trees(kind)
    for tree in trees:  # and import what is imported late
        assert fuzz_structures.check(copy.deepcopy(tree), build=True) == "read"
    for number in range(300):
        tree = copy.deepcopy(rng.choice(trees))
        for _ in range(rng.choice((1, 1, 3))):
            fuzz_structures.spoil(tree, rng)
        with watch():
            results.add(fuzz_structures.check(tree, build=number % 20 == 0))
    assert results == {"read", "NetworkError"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz_structures.CONTAINERS)
@pytest.mark.usefixtures("kinds")
def test_a_spoilt_container_is_a_network_or_a_sentence(kind: str) -> None:
    """Steps of pickles, entries of zips, values of headers at random: 200 files."""
    one = fuzz_structures.spoil_files(kind, random.Random(3))
    assert {one(number) for number in range(200)} == {"read", "NetworkError"}


@pytest.mark.usefixtures("kinds")
def test_what_the_fuzzer_found_stays_harmless() -> None:
    """One small file for each outcome that fuzzing met."""
    files = sorted(CORPUS.iterdir())
    assert files and sum(path.stat().st_size for path in files) < 100_000
    with watch():
        for path in files:
            content = path.read_bytes()
            assert check_network(content)
            check_batch(content)
            check_arrays(path)
            with contextlib.suppress(StyleCLIError):
                load_network(path)
