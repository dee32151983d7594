"""Python processes are started in one place, and import nothing from the working folder."""

import ast
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from stylecli.distributed import processes
from stylecli.distributed.processes import launch, start_python
from stylecli.errors import StyleCLIError
from tests.source import FILES, PACKAGE, ROOT, calls_of, dotted, nodes_of

# Files that start programs other than Python, by the module's path.
OTHER_PROGRAMS = ("health.py", "ffmpeg.py", "interop/", "ops/cuda/")
# The names by which Python starts processes of any kind.
STARTING = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
OS_STARTING = {"fork", "forkpty", "system", "popen", "startfile", "posix_spawn", "posix_spawnp"}
# Modules that Python and the libraries import early, and so would from a folder on the path.
BESIDE = ("signal", "enum", "collections", "random", "types", "struct", "torch", "numpy", "PIL")


@cache
def names_used(path: Path) -> set[str]:
    """Return the dotted names that a file uses: ``os.fork``, ``subprocess.run``."""
    attributes = (node for node in nodes_of(path) if isinstance(node, ast.Attribute))
    return {name for node in attributes if (name := dotted(node))}


def modules_imported(path: Path) -> set[str]:
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def shown(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_python_is_started_in_one_place() -> None:
    wrong = {}
    for path in FILES:
        if shown(path) == "distributed/processes.py":
            continue
        names = names_used(path)
        found = {"sys.executable"} & names
        found |= {name for name in names if name.startswith("os.") and name[3:] in OS_STARTING}
        found |= {name for name in names if name.startswith(("os.exec", "os.spawn"))}
        found |= {"multiprocessing", "runpy", "concurrent.futures.process"} & modules_imported(path)
        if found:
            wrong[shown(path)] = found
    assert wrong == {}


def test_other_programs_are_started_by_few() -> None:
    called = {}
    for path in FILES:
        for _, name in calls_of(path):
            if name in {f"subprocess.{start}" for start in STARTING}:
                called.setdefault(shown(path), name)
    allowed = ("distributed/processes.py", *OTHER_PROGRAMS)
    assert [name for name in called if not name.startswith(allowed)] == []
    assert "distributed/processes.py" in called


def test_pickles_are_read_only_by_a_worker_of_its_parent() -> None:
    """Nothing else may run what a stream of bytes says."""
    wrong = {}
    for path in FILES:
        names = names_used(path)
        found = {"torch.load", "marshal.loads", "shelve.open"} & names
        if shown(path) != "data/workers.py":
            found |= {"pickle.load", "pickle.loads", "pickle.Unpickler"} & names
        if found:
            wrong[shown(path)] = found
    source = (ROOT / "stylecli/data/workers.py").read_text(encoding="utf-8")
    serving = source[source.index("def serve()") : source.index("def _describe")]
    assert wrong == {}
    assert source.count("pickle.loads(") == serving.count("pickle.loads(") == 2


def test_nothing_beside_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "RAN"
    for name in BESIDE:
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(tmp_path)
    # An empty entry of PYTHONPATH means the working folder to Python.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(ROOT)]))
    for module in ("stylecli.data.workers", "stylecli"):
        started = start_python(
            module, "--help", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = started.communicate(timeout=120)
        assert started.returncode == 0, errors.decode()
    assert launch(2, ["-m", "stylecli", "--version"]) == 0
    assert not mark.exists(), mark.read_text()


def test_the_parents_environment_and_more_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLECLI_TEST_ONE", "1")
    options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    started = start_python(
        "timeit", "-n1", "-r1", "-s", "import os",
        "print(os.environ['STYLECLI_TEST_ONE'], os.environ['STYLECLI_TEST_TWO'])",
        environment={"STYLECLI_TEST_TWO": "2"}, **options,
    )  # fmt: skip
    assert started.communicate(timeout=60)[0].startswith(b"1 2")


def test_a_python_without_a_program_of_its_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert not processes.can_start_python()
    with pytest.raises(StyleCLIError, match="--workers 1"):
        start_python("stylecli")


RANK = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
{}
"""


def ranks_that(tmp_path: Path, do: str, *words: str) -> int:
    """Launch two ranks that ``do`` something; return their exit code."""
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(do))
    return launch(2, [str(script), *words])


def test_ranks_know_their_place_and_get_their_words(tmp_path: Path) -> None:
    words = ["$$", "${local_rank}", "a b", ""]
    do = f"assert sys.argv[1:] == {words}; open(sys.argv[0] + str(rank), 'w').write('here')"
    before = (dict(os.environ), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert ranks_that(tmp_path, do, *words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank.py", "rank.py0", "rank.py1"]
    assert before == (
        dict(os.environ), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    )  # fmt: skip


@pytest.mark.parametrize("failing", [0, 1])
def test_ranks_end_with_the_code_of_the_one_that_failed(failing: int, tmp_path: Path) -> None:
    assert ranks_that(tmp_path, f"sys.exit(3) if rank == {failing} else time.sleep(60)") == 3


def test_a_rank_that_is_killed_is_named_where_no_other_says_so(tmp_path: Path) -> None:
    do = "os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(60)"
    with pytest.raises(StyleCLIError, match=r"process 1 ended with exit code -9 \(killed"):
        ranks_that(tmp_path, do)


def test_a_save_after_an_interrupt_has_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the launcher's own limit, which is set to a second here."""
    do = """
def save(number, frame):
    time.sleep(4)
    open(sys.argv[0] + str(rank), "w").write("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
open(sys.argv[0] + f"-ready{rank}", "w")
if rank == 0:
    while not os.path.exists(sys.argv[0] + "-ready1"): time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""
    agents = "torch.distributed.elastic.agent.server.local_elastic_agent.LocalElasticAgent"
    limits: list[int] = []
    own = LocalElasticAgent._shutdown

    def shutdown(self: Any, death_sig: Any = signal.SIGTERM, timeout: int = 1) -> None:
        limits.append(timeout)
        own(self, death_sig, timeout)

    monkeypatch.setattr(f"{agents}._shutdown", shutdown)
    with pytest.raises(KeyboardInterrupt):  # nobody has said how it ended
        ranks_that(tmp_path, do)
    assert (tmp_path / "rank.py0").read_text() == (tmp_path / "rank.py1").read_text() == "saved"
    assert min(limits) > 3600
