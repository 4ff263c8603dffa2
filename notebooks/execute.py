"""Executes notebooks from their first cell to their last, and fails at the first error.

    python execute.py NOTEBOOK...

What they print and draw is thrown away: notebooks are kept without outputs, and one that has some is
refused. Results are read from where FLEDGLING_RESULTS says.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

for path in map(Path, sys.argv[1:]):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for number, cell in enumerate(notebook.cells, 1):
        if cell.get("outputs") or cell.get("execution_count"):
            sys.exit(f"{path}: cell {number} has outputs; clear them before it is kept")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    drawn = sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    print(f"{path.name}: {len(notebook.cells)} cells, {drawn} figures")
