"""``python execute_notebook.py NOTEBOOK``: runs all cells as Jupyter does and prints what they show, as JSON.

In a process of its own: what Jupyter warns of is no concern of the tests.
"""

import json
import sys

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 120

notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3").execute()
outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
json.dump(outputs, sys.stdout)
