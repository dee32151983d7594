"""Run the cells of ``docs/notebook.ipynb``, keep what they show: python tests/update_notebook.py

A notebook is JSON and its cells are Python, so neither Jupyter nor a kernel is needed: each cell is
executed here, and the value of its last expression is shown as Jupyter would show it.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells that are code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Execute one cell with ``names``; return its outputs as a notebook holds them."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        outputs.append({"data": shown(value), "execution_count": None, "metadata": {},
                        "output_type": "execute_result"})  # fmt: skip
    return outputs


def shown(value: Any) -> dict[str, str]:
    """Return what Jupyter keeps of a value: text, and HTML or a PNG where it has one."""
    data = {"text/plain": re.sub(r" at 0x[0-9A-F]+", "", repr(value))}
    if hasattr(value, "_repr_html_"):
        data["text/html"] = value._repr_html_()
    elif hasattr(value, "_repr_png_"):
        data["image/png"] = base64.b64encode(value._repr_png_()).decode()
    return data


def run_notebook(folder: Path) -> dict[str, Any]:
    """Return the notebook with the outputs of its cells, all run in ``folder``."""
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder):
        for number, cell in enumerate(code_cells(notebook), 1):
            cell["outputs"] = run_cell("".join(cell["source"]), names)
            cell["execution_count"] = number
            for output in cell["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = number
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = run_notebook(Path(folder))
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    temporary = NOTEBOOK.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, NOTEBOOK)
    print(NOTEBOOK)
