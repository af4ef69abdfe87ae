"""The example notebook: its cells run without Jupyter, and the page that the site makes of it with its stored outputs.

`python -m docs_build.notebook` runs docs/example.ipynb on the home of DASD_HOME and stores what its cells show; the
outputs in the repository are of a home that `dasd run --recipe demo` made.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "example.ipynb"
Cell = dict[str, Any]  # as nbformat 4 has it


def read(path: Path = NOTEBOOK) -> dict[str, Any]:
    """The notebook as plain values."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def run(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells with what they show now; code runs in one namespace, as in a notebook, and raises what it raises."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            yield cell
            continue
        number += 1
        shown = _run_code("".join(cell["source"]), namespace)
        outputs = [] if shown is None else [_output(number, shown)]
        yield {**cell, "execution_count": number, "outputs": outputs}


def _run_code(source: str, namespace: dict[str, object]) -> object:
    """Run a cell; the value of its last expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
    return (
        eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace) if isinstance(last, ast.Expr) else None
    )


def _output(number: int, shown: object) -> Cell:
    data = {"text/plain": _lines(repr(shown))}
    as_html = getattr(shown, "_repr_html_", None)
    if as_html is not None:
        data = {"text/html": _lines(as_html()), **data}
    return {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def page(notebook: Mapping[str, Any]) -> str:
    """The notebook as a page in Markdown: what its cells say, and what they have shown."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: Cell) -> Iterator[str]:
    source = "".join(cell["source"])
    yield f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
    for output in cell.get("outputs", ()):
        data = output["data"]
        if "text/html" in data:
            yield f'<div class="output">\n{"".join(data["text/html"])}\n</div>'
        else:
            yield f"```text\n{''.join(data['text/plain'])}\n```"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the notebook's cells and store what they show."""
    notebook = read()
    notebook["cells"] = list(run(notebook["cells"]))
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
