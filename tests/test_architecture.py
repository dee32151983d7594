"""The house rules, read from the source: who may import whom, what a file may be."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stylecli.networks.registry import FAMILIES as FAMILY_ROWS
from tests.source import FILES, PACKAGE, ROOT, nodes_of, tree_of

FAMILIES = set(FAMILY_ROWS)

# A row imports only rows above it, nothing beside it; docs/architecture.md says what each is for.
ROWS = (
    ("errors", "lazy", "progress"),
    ("files", "settings", "shapes", "cache_folder", "ffmpeg"),
    ("shipped", "hub"),
    (
        "seeds",
        "workspace",
        "weights",
        "hardware",
        "provenance",
    ),
    ("styles", "images", "distributed"),
    ("ops",),
    ("networks",),
    ("interop",),
    ("checkpoint", "saved_ws"),
    ("statistics", "features"),
    ("data",),
    ("rendering", "video", "graphs"),
    ("sampling",),
    ("latents",),
    ("sheets",),
    ("training", "metrics"),
    ("report",),
    ("demo", "export", "health", "bench", "descriptions", "signs", "commands"),
    ("peers", "explorer", "publishing"),
    ("cli",),
    ("__main__",),
)
HEIGHT = {unit: height for height, row in enumerate(ROWS) for unit in row}
ONLY_IN = {
    "typer": "cli", "rich": "cli", "lmdb": "data", "starlette": "explorer", "uvicorn": "explorer",
}  # fmt: skip
TORCH_FREE_MODULES = (
    "stylecli.networks.config",
    "stylecli.networks.registry",
    "stylecli.training.config",
    "stylecli.settings",
    "stylecli.training.presets",
)
# JSON text that becomes a digest must not change with how files are written.
DIGESTS_OF_JSON = {
    "stylecli/data/alignment/geometry.py",
    "stylecli/metrics/classifier_training.py",
    "stylecli/ops/cuda/compiler.py",
}
# Where families of networks are named: everywhere else networks are asked for their properties.
FAMILY_ROOMS = re.compile(
    r"stylecli/(networks/|interop/|training/(presets|losses|\w*transfer\w*)\.py$)"
)
FAMILY_NAMES = re.compile(r"stylegan_?\d|stylegan\d?config|r3gan|progan|lucidrains", re.IGNORECASE)
DRAWERS = {"utils", "util", "misc", "helpers", "helper", "common"}
MAX_FILE_LINES = 600
MAX_CHAIN = 18  # files, each importing the next
SMALL_FILE_LINES = 100
# What a table alone names is a file of its own.
TABLES = {"stylecli.cli.app", "stylecli.interop.families", "stylecli.metrics.planning"}
MAX_FUNCTION_LINES = 70
# What several commands share; every other file of cli/ is a command and bears its name.
SHARED_BY_COMMANDS = {
    "__init__",
    "app",
    "drawing",
    "faces",
    "options",
    "output",
    "parameters",
    "refusals",
    "targets",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported_names(node: ast.AST) -> Iterator[str]:
    """Yield what is imported at any depth, ``a.b.c`` for ``from a.b import c``.

    Imports inside functions count too; those for the type checker alone do not.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for alternative in child.orelse:
                yield from imported_names(alternative)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imported_names(child)


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    return tuple(imported_names(tree_of(path)))


def own_imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for name in imports_of(path):
        if name == "stylecli" or name.startswith("stylecli."):
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


def unit_of(module: str) -> str:
    """Return the row entry a module belongs to; the root itself (``__version__``) is ''."""
    return module.split(".")[1] if "." in module else ""


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_module_has_its_place_in_the_table() -> None:
    units = {unit_of(module) for module in MODULES} - {""}

    assert units == set(HEIGHT)


def test_a_module_imports_only_from_rows_above_its_own() -> None:
    wrong = [
        f"{shown(path)} imports {target}"
        for path in FILES
        for target in own_imports(path)
        if (unit := unit_of(module_name(path)))
        and (other := unit_of(target)) not in ("", unit)
        and HEIGHT[other] >= HEIGHT[unit]
    ]

    assert wrong == []


def test_the_root_takes_nothing_but_lazy_names() -> None:
    assert own_imports(PACKAGE / "__init__.py") == {"stylecli.lazy"}


def test_nothing_is_imported_by_way_of_a_lazy_public_name() -> None:
    wrong = [
        f"{shown(path)}: {name}"
        for path in FILES
        for name in imports_of(path)
        if name == "stylecli"
        or (
            name.startswith("stylecli.")
            and name.count(".") == 1
            and name not in MODULES
            and name != "stylecli.__version__"
        )
    ]

    assert wrong == []


def test_a_name_is_imported_from_its_home() -> None:
    """A module that moved leaves nothing behind: only packages pass names of their modules on."""
    passed_on = [
        f"{shown(path)}: {alias.name}"
        for path in FILES
        if path.name != "__init__.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if alias.asname == alias.name
    ]

    assert passed_on == []


def test_imports_have_no_cycle() -> None:
    graph = {name: own_imports(path) - {name, "stylecli"} for name, path in MODULES.items()}
    graph.pop("stylecli")
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}

    assert sorted(graph) == []  # what is left lies on a cycle or imports one


def test_no_chain_of_imports_is_long() -> None:
    """What somebody reads who follows the imports of one file down to the last."""
    longest: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in longest:
            below = own_imports(MODULES[name]) - {name, "stylecli"}
            longest[name] = [name, *max(map(chain, below), key=len, default=[])]
        return longest[name]

    found = max(map(chain, MODULES), key=len)

    assert len(found) <= MAX_CHAIN, " imports ".join(found)


def test_imports_are_absolute() -> None:
    relative = [
        shown(path)
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


@pytest.mark.parametrize(("library", "home"), ONLY_IN.items())
def test_a_library_stays_in_its_package(library: str, home: str) -> None:
    users = [
        shown(path)
        for path in FILES
        if any(name.split(".")[0] == library for name in imports_of(path))
    ]

    assert users
    assert [user for user in users if not user.startswith(f"stylecli/{home}/")] == []


def test_nothing_but_the_output_prints() -> None:
    """So that text of strangers is escaped: errors.printable is in each of these."""
    prints = re.compile(r"(?<![.\w])print\(|\becho\(|stdout\.write|stderr\.write")
    users = {shown(path) for path in FILES if prints.search(path.read_text("utf-8"))}

    assert users == {
        "stylecli/__main__.py",
        "stylecli/cli/app.py",  # the version
        "stylecli/cli/output.py",
        "stylecli/distributed/watching.py",  # what ends a rank that hangs
    }


def test_json_is_read_and_written_in_one_place() -> None:
    users = {shown(path) for path in FILES if "json" in imports_of(path)}

    assert users == {"stylecli/files.py", *DIGESTS_OF_JSON}
    for path in FILES:
        if shown(path) in DIGESTS_OF_JSON:
            assert not re.search(r"json\.(?!dumps\()", path.read_text("utf-8")), shown(path)


@pytest.mark.parametrize("module", TORCH_FREE_MODULES)
def test_a_configuration_module_needs_the_standard_library_only(module: str) -> None:
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo += own_imports(MODULES[name]) - seen
    foreign = {
        imported
        for name in seen
        for imported in imports_of(MODULES[name])
        if imported.split(".")[0] not in sys.stdlib_module_names | {"stylecli"}
    }

    assert foreign == set()


def family_words(path: Path) -> Iterator[str]:
    """Yield the names in code, and the texts, by which it speaks of one family of networks."""
    yield from filter(FAMILY_NAMES.search, imports_of(path))
    for node in nodes_of(path):
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", "")
        if FAMILY_NAMES.search(name or ""):
            yield str(name)
        if isinstance(node, ast.Constant) and FAMILIES.intersection({node.value}):
            yield repr(node.value)


def test_no_family_of_networks_is_named_outside_its_rooms() -> None:
    rooms = {shown(path) for path in FILES if FAMILY_ROOMS.match(shown(path))}
    named = {shown(path): sorted(set(family_words(path))) for path in FILES}

    assert {"stylecli/networks/registry.py", "stylecli/training/transfer.py"} <= rooms
    assert named["stylecli/networks/registry.py"]  # so that the search finds what there is
    assert {name: words for name, words in named.items() if words and name not in rooms} == {}


def test_every_module_says_its_job_first() -> None:
    tests = (ROOT / "tests").rglob("*.py")

    assert [shown(path) for path in FILES if not ast.get_docstring(tree_of(path))] == []
    # a test file begins with one: parsing them all takes seconds
    assert [shown(path) for path in tests if not path.read_text("utf-8").startswith('"""')] == []


def lazy_table(path: Path) -> dict[str, str]:
    """Return a package's lazy names and the modules that define them, "" for a sub-package."""
    for node in tree_of(path).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if {"_WHERE", "_PUBLIC"} & set(names):
                return ast.literal_eval(node.value)
    return {}


def test_no_submodule_bears_a_name_of_its_packages_lazy_table() -> None:
    """Importing such a submodule would put it in the place of the function of its name."""
    tables = {path: lazy_table(path) for path in FILES if path.name == "__init__.py"}
    wrong = [
        f"{module_name(path)}.{name}"
        for path, table in tables.items()
        for name, home in table.items()
        if home and f"{module_name(path)}.{name}" in MODULES
    ]

    assert sum(bool(table) for table in tables.values()) >= 3
    assert wrong == []


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [shown(path) for path in FILES if DRAWERS & set(path.with_suffix("").parts)] == []


@pytest.mark.parametrize(
    ("names", "homes"),
    [
        ({"adam_epsilon", "--adam-epsilon"}, {"training/config.py", "training/step.py"}),
        (
            {"minibatch_repeats", "--minibatch-repeats"},
            {"training/config.py", "training/loop.py", "training/presets.py"},
        ),
    ],
    ids=["optimizer", "schedule"],
)
def test_a_setting_is_named_where_it_is_declared_and_where_it_is_heeded(
    names: set[str], homes: set[str]
) -> None:
    """Options, plan, --dry-run, resuming and the report know it from its declaration."""
    word = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in names))
    found = {shown(path) for path in FILES if word.search(path.read_text("utf-8"))}

    assert found == {f"stylecli/{home}" for home in homes}


def test_durations_and_bytes_for_people_have_one_home() -> None:
    own = re.compile(r"\{[^{}\n]*/ ?(60|3600|86_?400|2 ?\*\* ?[23]0|1e[69])\b[^{}\n]*\}")
    written = {shown(path) for path in FILES if own.search(path.read_text("utf-8"))}

    assert written == set()  # stylecli/progress.py has them, and needs no such braces


# Lists that are the same by chance, or whose second home may not load what the first one loads.
ALIKE = {
    ("G", "D", "G_ema"),  # the order of official files, and that of checkpoints
    ("weight", "bias", "running_mean", "running_var"),  # torch's
    ("onnx", "onnxscript", "onnxruntime"),  # what export asks for, and what the extra brings
    ("png", "jpeg", "webp"),  # images.py loads numpy, cli/targets.py must not
}


def test_a_list_of_words_has_one_home() -> None:
    homes: dict[tuple[str, ...], set[str]] = {}
    for path in FILES:
        for node in nodes_of(path):
            parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []
            words = tuple(getattr(part, "value", None) for part in parts)
            if len(words) >= 3 and all(isinstance(word, str) for word in words):
                homes.setdefault(words, set()).add(shown(path))

    assert {
        words: found for words, found in homes.items() if len(found) > 1 and words not in ALIKE
    } == {}


def test_files_stay_short() -> None:
    lengths = {shown(path): len(path.read_text("utf-8").splitlines()) for path in FILES}

    assert {name: count for name, count in lengths.items() if count > MAX_FILE_LINES} == {}


def test_modules_and_files_that_are_named_exist() -> None:
    """In tests that no suite runs, in pages and in comments, names outlive what they name."""
    imported = re.compile(r"^\s*from (stylecli[\w.]*) import", re.MULTILINE)
    path_named = re.compile(r"`((?:\w+/)*\w+\.py)`")
    wrong = [
        f"{shown(path)} imports {name}"
        for path in (ROOT / "tests").rglob("*.py")
        for name in imported.findall(path.read_text("utf-8"))
        if name not in MODULES
    ]
    known = [
        shown(path) for folder in ("stylecli", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    for path in (*FILES, ROOT / "docs/architecture.md"):
        named = set(path_named.findall(path.read_text("utf-8")))
        if path.suffix == ".py":  # a bare name may be anybody's
            named = {name for name in named if "/" in name}
        wrong += [
            f"{shown(path)} names {name}"
            for name in named
            if not any(f"/{one}".endswith(f"/{name}") for one in known)
        ]

    assert wrong == []


def test_the_page_has_a_row_for_every_unit_in_the_order_of_the_layers() -> None:
    table = (ROOT / "docs/architecture.md").read_text("utf-8").partition("| row |")[2]
    rows = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.MULTILINE)

    assert sorted(rows) == sorted(HEIGHT.keys() - {"__main__"})
    heights = [HEIGHT[row] for row in rows]
    assert heights == sorted(heights)


def test_a_small_file_has_more_than_one_importer_in_its_package() -> None:
    """What one other file of the package alone needs is part of that file."""
    importers: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, path in MODULES.items():
        for target in own_imports(path):
            importers[target].add(name)
    wrong = [
        f"{name} belongs into {importer}"
        for name, path in MODULES.items()
        if path.name != "__init__.py"
        if len(path.read_text("utf-8").splitlines()) < SMALL_FILE_LINES
        if len(importers[name]) == 1
        for importer in importers[name] - TABLES
        if importer.rpartition(".")[0] == name.rpartition(".")[0]
    ]

    assert wrong == []


def homes_of_commands() -> dict[str, str]:
    """Return the module of every command."""
    from typer.main import get_command

    from stylecli.cli.app import app

    group: Any = get_command(app)
    homes = {}
    for name, one in group.commands.items():
        while one.callback is None:  # a command of commands
            one = next(iter(one.commands.values()))
        homes[name] = one.callback.__module__
    return homes


def test_a_command_is_a_file_of_its_name() -> None:
    homes = {name.replace("-", "_"): module for name, module in homes_of_commands().items()}
    wrong = {name: home for name, home in homes.items() if home != f"stylecli.cli.{name}"}
    files = {path.stem for path in FILES if path.parent == PACKAGE / "cli"}

    assert len(homes) >= 17
    assert wrong == {}
    assert files - homes.keys() - SHARED_BY_COMMANDS == set()


def test_a_command_has_one_file_of_tests() -> None:
    commands = {name.replace("-", "_") for name in homes_of_commands()}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests/cli").glob("test_*.py")}

    assert commands - tests == set()
    assert tests - commands - SHARED_BY_COMMANDS == set()


def test_functions_stay_short() -> None:
    """The signature of a command is its list of options, so in cli/ only the body counts."""
    long = {}
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0].lineno if path.parent.name == "cli" else node.lineno
                length = (node.end_lineno or first) - first + 1
                if length > MAX_FUNCTION_LINES:
                    long[f"{shown(path)}:{node.name}"] = length

    assert long == {}


@pytest.mark.parametrize(
    "statement",
    [
        "import stylecli",
        "from stylecli import metrics, ops",
        "import sys; sys.argv = ['stylecli', '--help']; from stylecli.cli.app import main; main()",
        "import sys; sys.argv = ['stylecli', 'train', '--help']; "
        "from stylecli.cli.app import main; main()",
    ],
    ids=["import", "packages", "help", "train-help"],
)
def test_what_only_talks_loads_neither_torch_nor_numpy(statement: str) -> None:
    report = (
        "import atexit, sys\n"
        "heavy = {'torch', 'numpy', 'PIL', 'lmdb', 'imageio', 'safetensors'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", report + statement],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )

    assert done.stderr == "[]\n"
