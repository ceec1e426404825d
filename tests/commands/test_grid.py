"""The command grid: rows of settings, seeds, and runs that are not repeated."""

import json
import re

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import FIELDS, cli, configure
from fedpeft_jax.experiment.folder_lock import FolderLock
from fedpeft_jax.grids.addresses import apply
from fedpeft_jax.grids.axes import read_row
from fedpeft_jax.grids.cells import expand
from fedpeft_jax.grids.command import read_axes
from tests.helpers import ROOT
from tests.small_runs import SETTINGS, load_command, run_cli, small_runs

ROWS = ("full=trained embedding=none warm_up_rounds=0", "embedding=lora(rank=2)")
TRAINED, LORA = (
    "full=trained,embedding=none,warm_up_rounds=0,seed={}",
    "embedding=lora(rank=2),seed={}",
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def grid(out, *arguments, rows=ROWS):
    vary = [f"--vary={row}" for row in rows]
    given = ("--seeds=0,1", "--executor=one", *vary, *arguments)
    return run_cli(*given, script="grid", out=out)


def summaries(out):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(out.glob("*/summary.json"))
    }


def test_a_table_of_means_over_seeds_and_nothing_twice(tmp_path, capsys):
    assert grid(tmp_path) == 0
    done, first = summaries(tmp_path), capsys.readouterr().out
    assert set(done) == {name.format(s) for name in (TRAINED, LORA) for s in (0, 1)}
    assert done[LORA.format(1)]["config"]["embedding"] == "lora(rank=2)"
    assert done[LORA.format(1)]["config"]["seed"] == 1
    values = [
        done[LORA.format(s)]["metrics"]["test"]["sampled"]["hit_rate@10"]
        for s in (0, 1)
    ]
    (line,) = [x for x in first.splitlines() if re.match(r"1\s+0", x)]
    spread = abs(values[0] - values[1]) / 2**0.5
    assert f"{sum(values) / 2:.3f} ±{f'{spread:.3f}'.lstrip('0')}" in line
    assert "most popular" in first

    # A run that lacks its end continues from its checkpoint; a finished one is read.
    (tmp_path / LORA.format(1) / "summary.json").unlink()
    capsys.readouterr()
    marked = tmp_path / TRAINED.format(0) / "summary.json"
    marked.write_text(marked.read_text().replace('"format": 1', '"format": 1, "x": 1'))
    assert grid(tmp_path) == 0
    again = summaries(tmp_path)
    assert again[TRAINED.format(0)]["x"] == 1
    assert again[LORA.format(1)]["metrics"] == done[LORA.format(1)]["metrics"]
    shown = capsys.readouterr()
    assert "4 cells, 3 have a result, 1 continue, 0 are new" in shown.out
    assert f"finished: {LORA.format(1)}" in shown.err

    # Validation items, for tuning.
    assert grid(tmp_path, "--target=valid") == 0
    assert "valid items" in capsys.readouterr().out

    # A second grid in the same folder at the same time would mix the two.
    held = FolderLock(tmp_path)
    assert grid(tmp_path) == 2
    assert f"another process is writing to {tmp_path}" in capsys.readouterr().err
    held.release()

    # Other settings never take the place of a run.
    assert grid(tmp_path, "--local_epochs=3") == 2
    assert f"{tmp_path} holds a grid with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("embedding", "'embedding' is not setting=value"),
        ("rank=4", "there is no setting 'rank'"),
        ("rounds=many", "many"),
        ("embedding=lora(rank=0)", "rank"),
    ],
)
def test_rows_that_are_refused(tmp_path, capsys, row, says):
    assert grid(tmp_path / "out", rows=(row,)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line
    assert not (tmp_path / "out").exists()


def test_seeds_are_a_list_or_a_range():
    module = load_command("grid")
    assert module.read_seeds(["3", "1"]) == [3, 1]
    assert module.read_seeds(["0:3"]) == [0, 1, 2] and module.read_seeds(None) is None


@pytest.mark.parametrize("seeds", ["0,one", "0,0", "", "0,-1", "3:3"])
def test_seeds_that_are_refused(tmp_path, capsys, seeds):
    assert grid(tmp_path / "out", f"--seeds={seeds}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert any(x in line for x in (f"--seeds={seeds}: write", "--seed=-1", "seed=3:3"))


def test_a_model_that_is_named_is_the_only_row(tmp_path, capsys):
    given = ("--executor=one", "--seeds=0:2", "--dry_run", "--warm_up_rounds=0")
    assert run_cli(*given, script="grid", out=tmp_path / "out") == 0
    assert "10 cells" in capsys.readouterr().out
    named = (*given, "--embedding=hash")
    assert run_cli(*named, script="grid", out=tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["waiting: seed=0", "waiting: seed=1"] and "2 cells" in lines[2]


@pytest.mark.parametrize("flag", ["workers=-1", "grid_memory=much", "grid_memory=1"])
def test_a_plan_that_fails_leaves_no_folder(tmp_path, capsys, flag):
    assert grid(tmp_path / "out", f"--{flag}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag.partition("=")[0] in line
    assert not (tmp_path / "out").exists()


def test_the_file_of_embeddings_is_for_rows_that_read_it():
    module = load_command("grid")
    settings = dict.fromkeys(FIELDS) | SETTINGS | {"text_embeddings": "x.npz"}
    settings.update(warm_up_rounds=None, rounds=30)
    rows = [apply(settings, read_row(row)) for row in module.REFERENCES]
    read = [cli.configure_row(row).text.text_embeddings for row in rows]
    assert read == ["x.npz", "x.npz", None, "x.npz", "x.npz"]
    with pytest.raises(InputError):
        configure(**{**settings, "full_init": "random", "embedding": "none"})


GRIDS = sorted((ROOT / "experiments" / "grids").glob("*.flags"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_cells_of_the_grids_are_settings(path):
    settings = {name: field.default for name, field in FIELDS.items()}
    given = {"vary": [], "sweep": []}
    for line in path.read_text().splitlines():
        name, _, value = line.removeprefix("--").partition("=")
        if name in given:
            given[name].append(value)
        elif line and not line.startswith("#"):
            settings = apply(settings, read_row(f"{name}={value}"))
    axes = read_axes(vary=given["vary"], sweeps=given["sweep"], seeds=[0])
    cells = expand({k: v for k, v in settings.items() if k != "out"}, axes, {})
    assert len(cells) > 2
    assert len({cell.name for cell in cells}) == len(cells)
