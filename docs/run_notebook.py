"""Runs docs/notebook.ipynb from its first cell to its last, and keeps what it shows.

    python docs/run_notebook.py        or  make notebook

It works in a folder of its own, so that nothing is left from an earlier run.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"
LONGEST_S = 1800
"""Seconds that a cell may take."""


def main() -> None:
    """Run it and write it back, with its pictures and without the times of its run."""
    # Warnings of libraries, with paths of this machine in them, are nothing to keep.
    os.environ["PYTHONWARNINGS"] = "ignore"
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    with TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=LONGEST_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
