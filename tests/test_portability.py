"""Windows and macOS, held by reading the source: what runs on Linux only must say so."""

import ast
from pathlib import Path

import pytest

from tests.source import FILES, PACKAGE, around, calls_of, nodes_of

# Where a file or folder changes its name, always within one folder: a rename across drives fails.
RENAMES = {
    "files.py": "a temporary file beside the one it replaces",
    "weights.py": "a partial download beside the file",
    "interop/published_networks.py": "a download once checked, or as another network, beside it",
    "hub.py": "a file once checked, beside it",
    "publishing.py": "a dataset's folder once checked, beside it",
    "data/unfinished.py": "a dataset's unfinished folder beside it",
}
# Where a path is measured from a folder that os.walk found below it: never on another drive.
WALKS = ("metrics/picture_sets.py", "data/alignment/photographs.py", "data/sources/")
# Names of entries in archives, lists and foreign files, which have "/" on every system.
ARCHIVES = (
    "hub.py",
    "interop/",
    "data/sources/",
    "data/alignment/ffhq.py",
    "data/alignment/photographs.py",
)
# Tensors that were read from files or made on the CPU, or float64 that only comes where it went in.
CPU_FOLDERS = ("data/alignment/", "ops/")
CPU_FILES = {
    "sampling.py": "map_latents returns on the CPU",
    "feature_weights.py": "weights as they were read",
}
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"}
WINDOWS_MODULES = {"msvcrt", "winreg", "_winapi"}
# Of os and signal; what both systems have is not listed.
POSIX_NAMES = {
    "os": {
        "getuid", "geteuid", "getgid", "getegid", "getpgid", "getpgrp", "setsid", "killpg", "kill",
        "sched_getaffinity", "sched_setaffinity", "statvfs", "fchmod", "chown", "fchown", "mkfifo",
        "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "posix_fadvise", "posix_fallocate",
        "memfd_create", "sendfile", "sysconf", "nice", "getloadavg", "uname", "pread", "pwrite",
        "WNOHANG", "waitpid",
    },
    "signal": {
        "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGBUS", "SIGPIPE",
        "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGWINCH", "setitimer", "alarm", "pthread_sigmask",
    },
}  # fmt: skip
OWN_WRITERS = ("files.write_text", "write_text")  # the project's own, which write UTF-8
SEPARATORS = ("/", "./", "../", "//", "\\")
SLASHED = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix",
           "removesuffix", "strip", "lstrip", "rstrip", "count", "find", "rfind"}  # fmt: skip


def shown(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def is_guarded(node: ast.AST) -> bool:
    """Whether the code around asks for the system, or what it has, or copes with its absence."""
    for outer in around(node):
        if isinstance(outer, ast.FunctionDef | ast.If) and any(
            word in ast.unparse(outer) for word in ("sys.platform", "os.name", "hasattr(")
        ):
            return True
        if isinstance(outer, ast.Try) and any(
            handler.type is not None and "ImportError" in ast.unparse(handler.type)
            for handler in outer.handlers
        ):
            return True
    return False


def is_rename(call: ast.Call, name: str) -> bool:
    if name in ("os.rename", "os.renames", "os.replace", "shutil.move"):
        return True
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    # A text's replace() has two arguments, dataclasses.replace() is no method.
    return method == "rename" or (method == "replace" and len(call.args) == 1 and not call.keywords)


def test_renames_stay_within_a_folder() -> None:
    found = {shown(path) for path in FILES if any(is_rename(*call) for call in calls_of(path))}

    assert found == set(RENAMES)


def test_paths_are_not_measured_across_drives_unprepared() -> None:
    """``os.path.relpath`` raises ValueError on Windows where the drives differ."""
    wrong = [
        f"{shown(path)}:{call.lineno}"
        for path in FILES
        for call, name in calls_of(path)
        if name == "os.path.relpath" and not shown(path).startswith(WALKS)
        if not any(isinstance(outer, ast.Try) and "ValueError" in ast.unparse(outer.handlers[0])
                   for outer in around(call))
    ]  # fmt: skip

    assert wrong == []


def test_no_path_is_taken_to_have_slashes() -> None:
    wrong = []
    for path in FILES:
        if shown(path).startswith(ARCHIVES):
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                tested = node.args[:1] if node.func.attr in SLASHED else []
            elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
                tested = [node.left]
            else:
                continue
            if any(isinstance(item, ast.Constant) and item.value in SEPARATORS for item in tested):
                wrong.append(f"{shown(path)}:{node.lineno}")

    assert wrong == []


def test_no_float64_is_asked_of_mps() -> None:
    """Apple's GPUs have none: what may lie there comes to the CPU first."""
    wrong = []
    for path in FILES:
        if shown(path).startswith(CPU_FOLDERS) or path.name in CPU_FILES:
            continue
        for node in nodes_of(path):
            if not isinstance(node, ast.Attribute) or node.attr not in ("double", "float64"):
                continue
            text = ast.unparse(node)
            if node.attr == "float64" and text != "torch.float64":
                continue  # of numpy
            call = next((outer for outer in around(node) if isinstance(outer, ast.Call)), None)
            if (
                call is not None
                and ast.unparse(call.func).startswith("torch.")
                and not any(keyword.arg == "device" for keyword in call.keywords)
            ):
                continue  # made on the CPU
            line = ast.unparse(next(outer for outer in around(node) if isinstance(outer, ast.stmt)))
            if ".cpu()" not in text and "mps" not in line:
                wrong.append(f"{shown(path)}:{node.lineno} {text}")

    assert wrong == []


def test_text_files_name_their_encoding() -> None:
    """Windows would take its own."""
    wrong = []
    for path in FILES:
        for call, dotted in calls_of(path):
            name = dotted.rpartition(".")[2]
            keywords = {keyword.arg for keyword in call.keywords}
            if name in ("read_text", "write_text") and len(call.args) < (name == "write_text") + 1:
                unnamed = "encoding" not in keywords and dotted not in OWN_WRITERS
            elif dotted in ("open", "io.open", "os.fdopen", "io.TextIOWrapper"):
                mode = ast.unparse(call.args[1]) if len(call.args) > 1 else "'r'"
                unnamed = "b" not in mode and "encoding" not in keywords
            else:
                continue
            if unnamed:
                wrong.append(f"{shown(path)}:{call.lineno}")

    assert wrong == []


def test_what_one_system_lacks_is_asked_for() -> None:
    wrong = []
    for path in FILES:
        for node in nodes_of(path):
            found = ""
            if isinstance(node, ast.Import):
                found = next((alias.name for alias in node.names
                              if alias.name in POSIX_MODULES | WINDOWS_MODULES), "")  # fmt: skip
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found = node.attr if node.attr in POSIX_NAMES.get(node.value.id, ()) else ""
            if found and not is_guarded(node):
                wrong.append(f"{shown(path)}:{node.lineno} {found}")

    assert wrong == []


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("path.rename(other)", True),
        ("path.replace(other)", True),
        ("text.replace('a', 'b')", False),
        ("replace(settings, origin=None)", False),
        ("shutil.move(a, b)", True),
    ],
)
def test_renames_are_told_from_replacements(source: str, is_found: bool) -> None:
    call = ast.parse(source).body[0].value  # type: ignore[attr-defined]
    assert is_rename(call, ast.unparse(call.func)) is is_found
