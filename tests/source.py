"""The package's source as trees, read once for all tests that read it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "stylecli"
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a file in the order of ``ast.walk``, each knowing the one around it."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in nodes:  # which grows meanwhile
        for child in ast.iter_child_nodes(node):
            child.around = node  # type: ignore[attr-defined]
            nodes.append(child)
    return nodes


def tree_of(path: Path) -> ast.Module:
    """Return the tree of a file."""
    tree = nodes_of(path)[0]
    assert isinstance(tree, ast.Module)
    return tree


def dotted(node: ast.AST) -> str | None:
    """Return ``a.b.c`` of names alone, None of anything else; ``ast.unparse`` takes far longer."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


@cache
def calls_of(path: Path) -> tuple[tuple[ast.Call, str], ...]:
    """Return the calls of a file, each with the dotted name of what it calls."""
    calls = (node for node in nodes_of(path) if isinstance(node, ast.Call))
    return tuple((call, dotted(call.func) or ast.unparse(call.func)) for call in calls)


def around(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all that surrounds a node, the nearest first."""
    while (found := getattr(node, "around", None)) is not None:
        yield found
        node = found
