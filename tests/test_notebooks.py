"""The notebooks: the same cells in both files, small outputs, nothing of a machine.

`./check` executes them with nbmake.
"""

import json
import pathlib
import re

import jupytext
import pytest

from tests.helpers import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def test_every_notebook_is_paired_and_listed():
    sources = {path.stem for path in FOLDER.glob("*.py")} - {"render"}
    assert sources == set(NAMES) and NAMES
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(NAMES)
    assert all(f"\nnotebooks/{name}\n" in page for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_files_have_the_same_cells(name):
    source = jupytext.read(FOLDER / f"{name}.py")
    expected = [(cell.cell_type, cell.source) for cell in source.cells]
    cells = read(name)["cells"]
    assert [(c["cell_type"], "".join(c["source"])) for c in cells] == expected


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_there_small_and_of_no_machine(name):
    path = FOLDER / f"{name}.ipynb"
    text, cells = path.read_text(), read(name)["cells"]
    assert len(text) < 300_000
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", ()) for output in shown)
    for output in shown:
        assert output["output_type"] != "error" and output.get("name") != "stderr"
        said = {k: v for k, v in output.get("data", {}).items() if k != "image/png"}
        words = json.dumps([said, output.get("text")])
        assert not re.search(r"(?<![\w.:/<])/(?:\w+/)+\w+|[A-Z]:\\\\\w", words), words
    home = str(pathlib.Path.home())
    assert home == "/" or home not in text


@pytest.mark.parametrize("name", NAMES)
def test_each_notebook_reads_as_text_and_uses_no_trick(name):
    cells = read(name)["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert "".join(cells[0]["source"]).startswith("# ")
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    for trick in ("sys.path", "os.environ", "os.chdir", "%load_ext", "!pip"):
        assert trick not in code
