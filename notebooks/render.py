"""Executes the notebooks, and writes them with their outputs.

The text and the code of a notebook are in NAME.py. NAME.ipynb has the same cells and
their outputs, without what differs between machines. Arguments are names; without any,
all notebooks are executed.
"""

import pathlib
import sys
import tempfile
import time

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def render(source: pathlib.Path) -> nbformat.NotebookNode:
    """Returns an executed notebook.

    Args:
      source: the file with its cells.
    """
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as folder:  # no run is left from another time
        client = NotebookClient(
            notebook, timeout=600, resources={"metadata": {"path": folder}}
        )
        client.execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem}-{number}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            for one in cell.outputs:
                one.pop("transient", None)
    return notebook


def main(names: list[str]) -> None:
    """Renders notebooks by name."""
    for path in sorted(FOLDER.glob("*.py")):
        if path.name == "render.py" or (names and path.stem not in names):
            continue
        begin = time.perf_counter()
        notebook = render(path)
        target = path.with_suffix(".ipynb")
        nbformat.write(notebook, target)
        size, seconds = target.stat().st_size / 1e3, time.perf_counter() - begin
        print(f"{target.name}: {seconds:.0f} s, {size:.0f} KB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
