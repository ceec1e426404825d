"""The command pareto: its table, its files, and what it says of bad input."""

import importlib.util
import json
import xml.etree.ElementTree

import pytest

from tests.small_runs import run_cli
from tests.summaries import FULL, LORA, make_summary, write_grid

INT8 = {**FULL, "upload": "int8()", "download": "int8()"}


def pareto(*arguments):
    return run_cli(*arguments, script="pareto")


@pytest.fixture
def grid(tmp_path):
    return write_grid(tmp_path / "grid", [INT8, LORA, FULL], seeds=(0, 1))


def refused(capsys, *arguments):
    assert pareto(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_the_table_and_its_markdown(grid, tmp_path, capsys):
    more = write_grid(tmp_path / "more", [{**LORA, "embedding": "lora(rank=64)"}])
    run = more / "row0-seed0"
    run.joinpath("summary.json").write_text(
        json.dumps(
            make_summary({**LORA, "embedding": "lora(rank=64)"}, size=2000, ndcg=0.1)
        )
    )
    (more / "row1-seed0").mkdir()
    (more / "row1-seed0" / "config.json").write_text("{}")
    path = tmp_path / "table.md"
    assert pareto(f"--grids={grid},{more}", f"--markdown={path}") == 0
    printed = capsys.readouterr().out
    assert "* Full, int8" in printed and "* LoRA 64" not in printed
    assert "1 run has no result and is left out" in printed
    assert "row1-seed0 has not finished" in printed
    assert "different seeds" in printed
    text = path.read_text()
    first, _, *rows = text.splitlines()
    assert first.startswith(
        "toy: test items, mean ± standard deviation over seeds 0, 1"
    )
    assert "The rows have different seeds" in first
    assert rows == [
        "|  | HR@10 | NDCG@10 | HR@10, all | NDCG@10, all | bytes | of Full |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| **Full, int8** | 0.410 ±.014 | 0.205 ±.007 | 0.082 ±.003 | 0.041 ±.001 | "
        "100 B | 33.3 % |",
        "| **LoRA 4** | 0.610 ±.014 | 0.305 ±.007 | 0.122 ±.003 | 0.061 ±.001 | "
        "200 B | 66.7 % |",
        "| **Full** | 0.810 ±.014 | 0.405 ±.007 | 0.162 ±.003 | 0.081 ±.001 | "
        "300 B | 100.0 % |",
        "| LoRA 64 | 0.200 | 0.100 | 0.040 | 0.020 | 2 KB | 666.7 % |",
        "| most popular | 0.200 | 0.100 | 0.040 | 0.020 |  |  |",
    ]


def test_a_grid_of_one_seed(tmp_path, capsys):
    grid = write_grid(tmp_path, [FULL])
    assert pareto(f"--grids={grid},{grid}") == 0
    printed = capsys.readouterr().out
    assert "±" not in printed and "toy: test items, seed 0" in printed


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_plot_is_the_same_every_time(grid, tmp_path, ending):
    pytest.importorskip("matplotlib")
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    for path in (first, second):
        assert pareto(f"--grids={grid}", f"--plot={path}") == 0
    assert first.read_bytes() == second.read_bytes()
    if ending == "png":
        header = first.read_bytes()
        assert int.from_bytes(header[16:20]) == 2000  # pixels
    else:
        root = xml.etree.ElementTree.parse(first).getroot()
        assert root.tag.endswith("svg")
        # Letters are drawn, and matplotlib keeps each text as a comment.
        text = first.read_text()
        for label in ("Full, int8", "LoRA 4", "HR@10", "NDCG@10", "Pareto front"):
            assert f"<!-- {label} -->" in text


def test_a_plot_of_one_row_and_of_rows_that_send_nothing(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    one = write_grid(tmp_path / "one", [LORA])
    assert pareto(f"--grids={one}", f"--plot={tmp_path / 'one.svg'}") == 0
    run = one / "row0-seed0" / "summary.json"
    run.write_text(json.dumps(make_summary(LORA, size=0)))
    line = refused(capsys, f"--grids={one}", f"--plot={tmp_path / 'none.svg'}")
    assert "no run sends a byte" in line


def test_nothing_is_given(capsys):
    assert "no grids are given: set --grids=" in refused(capsys)


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_without_finished_runs(tmp_path, capsys, made):
    folder = tmp_path / "grid"
    if made:
        (folder / "row0-seed0").mkdir(parents=True)
    line = refused(capsys, f"--grids={folder}")
    assert str(folder) in line
    assert ("holds no run that has finished" if made else "cannot be read") in line


def test_a_damaged_summary(grid, capsys):
    path = grid / "row1-seed1" / "summary.json"
    path.write_text("{")
    assert f"{path} cannot be read" in refused(capsys, f"--grids={grid}")


def test_different_data(grid, tmp_path, capsys):
    data = {"name": "other", "users": 9}
    other = write_grid(tmp_path / "other", [FULL], dataset=data)
    line = refused(capsys, f"--grids={grid},{other}")
    assert "dataset name is 'toy' and 'other'" in line
    assert str(other / "row0-seed0") in line


@pytest.mark.parametrize("flag", ["plot", "markdown"])
def test_a_file_that_cannot_be_written(grid, tmp_path, capsys, flag):
    folder = tmp_path / "folder.svg"
    line = refused(capsys, f"--grids={grid}", f"--{flag}={folder / 'a.svg'}")
    assert f"--{flag}={folder / 'a.svg'} is in a folder that does not exist" in line
    folder.mkdir()
    line = refused(capsys, f"--grids={grid}", f"--{flag}={folder}")
    assert f"--{flag}={folder} is a folder" in line


def test_a_device_without_room(grid, capsys):
    line = refused(capsys, f"--grids={grid}", "--markdown=/dev/full")
    assert "cannot write --markdown=/dev/full: No space left" in line


def test_a_plot_of_no_known_kind(grid, capsys):
    line = refused(capsys, f"--grids={grid}", "--plot=plot.gif")
    assert "--plot=plot.gif is of no known kind: let it end in .png or .svg" in line


@pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is here"
)
def test_a_plot_without_matplotlib(grid, tmp_path, capsys):
    line = refused(capsys, f"--grids={grid}", f"--plot={tmp_path / 'a.svg'}")
    assert "pip install -e '.[plot]'" in line
