"""The package's source as trees, read once for all tests that read it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stylecli"
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the tree of a file, every node knowing the one around it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.around = node  # type: ignore[attr-defined]
    return tree


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a file."""
    return tuple(ast.walk(tree_of(path)))


@cache
def calls_of(path: Path) -> tuple[tuple[ast.Call, str], ...]:
    """Return the calls of a file, each with the dotted name of what it calls."""
    calls = (node for node in nodes_of(path) if isinstance(node, ast.Call))
    return tuple((call, ast.unparse(call.func)) for call in calls)


def around(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all that surrounds a node, the nearest first."""
    while (found := getattr(node, "around", None)) is not None:
        yield found
        node = found
