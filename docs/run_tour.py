"""Run the tour from top to bottom, and keep its outputs: ``python docs/run_tour.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
TOUR = HERE / "tour.ipynb"


def run(timeout: float = 300) -> Any:
    """Return the notebook, run in a fresh kernel beside its own files; an error in a cell raises."""
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()  # fmt: skip
    for cell in notebook.cells:
        # When each cell ran is of no interest to readers, and differs every time.
        cell.metadata.pop("execution", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> int:
    """Run it and write it."""
    nbformat.write(run(), TOUR)
    return 0


if __name__ == "__main__":
    sys.exit(main())
