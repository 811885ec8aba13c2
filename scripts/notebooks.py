"""The tutorials as Jupyter notebooks: text, commands and Python of a page of docs/, a cell each."""

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PAGES = ("my-plate", "my-table", "reproduce", "own-encoder")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n", flags=re.DOTALL | re.MULTILINE)


def notebook(page: Path) -> nbformat.NotebookNode:
    """The page as a notebook; its links lead to the page's folder no longer, so their text stays."""
    text = re.sub(r"\[([^]]*)\]\((?!http)[^)]*\)", r"\1", page.read_text(encoding="utf-8"))
    cells, done = [], 0
    for block in BLOCK.finditer(text):
        cells.append(new_markdown_cell(text[done : block.start()].strip()))
        language, code = block.groups()
        cells.append(new_code_cell(("%%bash\n" if language == "bash" else "") + code.strip()))
        done = block.end()
    cells.append(new_markdown_cell(text[done:].strip()))
    made = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # else random
    return made


def write_notebook(page: Path, out: Path) -> None:
    """Write the page as a notebook."""
    nbformat.write(notebook(page), out)
