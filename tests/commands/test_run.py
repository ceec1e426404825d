"""The command run as typed: what it prints, and how it refuses."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from fedpeft_jax.experiment import FIELDS, RunFolder, cli, configure
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.features import PRETRAINERS
from tests.helpers import ROOT
from tests.small_runs import load_command, run_cli, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def write_movielens(folder, ratings=None):
    """A data set in GroupLens' layout: 6 users with 4 of 8 movies each."""
    folder.mkdir(exist_ok=True)
    if ratings is None:
        ratings = [f"{u}::{(u + t) % 8}::5::{t}" for u in range(6) for t in range(4)]
    movies = [f"{m}::Movie {m} (1999)::Drama" for m in range(8)]
    (folder / "ratings.dat").write_text("".join(f"{line}\n" for line in ratings))
    (folder / "movies.dat").write_text("".join(f"{line}\n" for line in movies))
    return folder


def refused(capsys, *arguments, **settings):
    """The one line that a run which cannot be ends with."""
    assert run_cli(*arguments, **settings) == 2
    captured = capsys.readouterr()
    *progress, line = captured.err.splitlines()
    assert line.startswith("error: ")
    assert not any("error" in earlier for earlier in progress)
    assert captured.out == ""
    return line


# What works


def test_a_run_prints_its_table_and_says_where_it_is(capsys, tmp_path):
    assert run_cli(out=tmp_path / "run") == 0
    captured = capsys.readouterr()
    for text in ("fedmf: frozen + lora(rank=4)", "most popular", "random", "NDCG@10",
                 "bytes", "warm-up", f"results: {tmp_path / 'run'}"):  # fmt: skip
        assert text in captured.out
    assert "rounds 6/6" in captured.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"{summary['metrics']['test']['sampled']['ndcg@10']:.4f}" in captured.out


def test_the_same_command_again_prints_the_same_table(capsys, tmp_path):
    assert run_cli(out=tmp_path / "run") == 0
    first = capsys.readouterr().out
    assert run_cli(out=tmp_path / "run") == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert "holds this run, and it has finished" in captured.err


def test_more_rounds_are_one_flag(capsys, tmp_path):
    assert run_cli(out=tmp_path / "run", rounds=4) == 0
    assert run_cli(out=tmp_path / "run", rounds=8) == 0
    assert run_cli(out=tmp_path / "straight", rounds=8) == 0
    summaries = [
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("run", "straight")
    ]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    assert summaries[0]["rounds"] == {"run": 8, "evaluated": 8}
    kept = json.loads((tmp_path / "run" / "summary-4-rounds.json").read_text())
    assert kept["rounds"]["run"] == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"rounds": 4}, "rounds is 6 there and 4 here (--rounds may only grow)"),
        ({"resume": "never"}, "already holds another run"),
    ],
)
def test_another_run_never_continues_a_run(capsys, tmp_path, changes, says):
    assert run_cli(out=tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("*.json*")}
    capsys.readouterr()
    assert says in refused(capsys, out=tmp_path, **changes)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json*")} == before


@pytest.mark.parametrize("out", ["absent", "empty"])
def test_a_run_that_must_continue_needs_one(capsys, tmp_path, out):
    (tmp_path / "empty").mkdir()
    line = refused(capsys, out=tmp_path / out, resume="must")
    assert "--resume=must" in line and "set --out" in line
    assert not (tmp_path / "absent").exists()


def test_references_stand_beside_the_run(capsys, tmp_path):
    assert run_cli("--references", out=tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    for full in ("trained", "frozen"):
        path = tmp_path / "references" / full / "summary.json"
        summary = json.loads(path.read_text())
        assert (summary["config"]["full"], summary["config"]["embedding"]) == (
            full, "none",
        )  # fmt: skip
        (row,) = [line for line in lines if f"fedmf: {full} + none" in line]
        assert f"{summary['metrics']['test']['full']['hit_rate@10']:.4f}" in row


def test_a_run_is_not_its_own_reference(tmp_path):
    given, folder = {"full": "trained", "embedding": "none"}, RunFolder(tmp_path, "a")
    others = list(load_command("run").references(given, folder))
    assert [other.model.full for other in others] == ["frozen"]


def test_print_config_resolves_what_is_derived(capsys):
    assert run_cli("--print_config", warm_up_rounds=3, seed=7) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["warm_up_rounds"], printed["seed"]) == (3, 7)
    assert printed["shared_server_optimizer"] == "sgd(learning_rate=5.0)"
    assert list(printed) == list(FIELDS)


def test_list_shows_every_plugin(capsys):
    assert run_cli("--list") == 0
    printed = capsys.readouterr().out
    assert "dataset: synthetic, ml-100k, ml-1m, " in printed
    assert "baselines: most_popular, log_odds, " in printed
    for setting, registry in REGISTRIES.items():
        assert f"{setting}:" in printed
        assert all(f"  {name}(" in printed for name in registry)
    assert "lora(rank=4, alpha=None, init_scale=0.1, restart_scale=1.0, " in printed


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "experiments" / "presets").glob("*.flags")),
    ids=lambda path: path.stem,
)
def test_presets_are_flags_that_exist(capsys, path):
    assert run_cli(f"--flagfile={path}", "--print_config") == 0
    configure(**json.loads(capsys.readouterr().out))


def test_every_setting_has_a_flag():
    load_command("run")
    assert set(cli.settings_from_flags()) == set(FIELDS)


def test_the_compilation_cache_is_in_the_users_folder(tmp_path):
    code = (
        "import jax; from fedpeft_jax.experiment import cli;"
        "cli.use_compilation_cache();"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(tmp_path / "fedpeft_jax" / "jax")
    told = {**environment, "JAX_COMPILATION_CACHE_DIR": "/somewhere"}
    run = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "/somewhere"


# What is refused, each with exit code 2 and one line


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--no_such_flag=1", "no_such_flag"),
        ("--rounds=many", "--rounds=many"),
        ("--flagfile=/no/such.flags", "/no/such.flags"),
        ("stray", "unexpected argument 'stray'"),
        ("--embedding=lora(size=4)", "no argument 'size': use lora(rank=4"),
        ("--embedding=lorra", "unknown embedding 'lorra': use one of hash, lora"),
        ("--embedding=lora(rank=0)", "rank"),
        ("--embedding=lora(rank=-3)", "rank"),
        ("--client_optimizer=adam", "needs 'learning_rate'"),
        ("--full=thawed", "use one of trained, frozen, none"),
        ("--cohort_size=61", "between 1 and 60"),
        ("--cohort_size=0", "--cohort_size=0 must be at least 1"),
        ("--upload=clip_by_norm(max_norm=0.0)", "max_norm must be above 0"),
        ("--local_epochs=0", "--local_epochs=0 must be at least 1"),
        ("--dataset=netflix", "synthetic"),
        ("--dataset=ml-1m", "--data_dir"),
        ("--data_dir=/no/such/folder", "/no/such/folder"),
    ],
)
def test_settings_that_are_refused(capsys, tmp_path, argument, says):
    if argument.startswith("--data_dir"):
        argument = f"{argument} --dataset=ml-1m"
    line = refused(capsys, *argument.split(), out=tmp_path / "run")
    assert says in line
    assert not (tmp_path / "run").exists(), "a run that cannot be claims no folder"


def test_trained_with_a_warm_up_is_refused(capsys):
    line = refused(capsys, "--full=trained", "--embedding=none")
    assert "warm_up_rounds=2" in line


def test_no_such_file(capsys, tmp_path):
    line = refused(capsys, dataset="ml-1m", data_dir=tmp_path / "ml-1m.zip")
    assert str(tmp_path / "ml-1m.zip") in line


def test_a_truncated_zip(capsys, tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(b"PK\x03\x04 and then the line went dead")
    line = refused(capsys, dataset="ml-1m", data_dir=tmp_path)
    assert "ml-1m.zip" in line


def test_a_malformed_row_is_named_by_its_number(capsys, tmp_path):
    ratings = ["1::1::5::10", "1::2::5::11", "1::three::5::12"]
    folder = write_movielens(tmp_path / "ml-1m", ratings)
    line = refused(capsys, dataset="ml-1m", data_dir=folder)
    assert "ratings.dat" in line and "3" in line and "three" in line


def test_nobody_has_three_interactions(capsys, tmp_path):
    ratings = [f"{u}::{u % 3}::5::1\n{u}::{u % 3 + 3}::5::2" for u in range(6)]
    folder = write_movielens(tmp_path / "ml-1m", ratings)
    line = refused(capsys, dataset="ml-1m", data_dir=folder)
    assert "3 " in line


@pytest.mark.parametrize("defect", ["missing", "nan"])
def test_text_embeddings_that_cannot_be_used(capsys, tmp_path, defect):
    folder = write_movielens(tmp_path / "ml-1m")
    ids, rows = np.arange(8), np.random.default_rng(0).normal(size=(8, 12))
    if defect == "missing":
        ids, rows = ids[:-2], rows[:-2]
    else:
        rows[5, 3] = np.nan
    np.savez(tmp_path / "text.npz", item_id=ids, embedding=rows)
    line = refused(
        capsys,
        dataset="ml-1m",
        data_dir=folder,
        num_candidates=2,
        text_embeddings=tmp_path / "text.npz",
    )
    assert "text.npz" in line and {"missing": "6", "nan": "5"}[defect] in line


def test_a_folder_that_holds_another_run(capsys, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    line = refused(capsys, out=tmp_path)
    assert str(tmp_path) in line and "another run" in line and "--out" in line
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_a_run_that_diverges_keeps_what_it_has(capsys, tmp_path):
    optimizer = "--client_optimizer=sgd(learning_rate=1e30)"
    code = run_cli(optimizer, warm_up_rounds=0, eval_every=1, out=tmp_path)
    captured = capsys.readouterr()
    assert code == 1
    line = captured.err.splitlines()[-1]
    assert line.startswith("error: round ") and "non-finite" in line
    assert str(tmp_path) in line and captured.out == ""
    assert (tmp_path / "config.json").exists()
    assert (tmp_path / "checkpoints" / "last_finite").is_dir()
    assert not (tmp_path / "summary.json").exists()


class _Raises:
    """A pretrainer that ends the run with an error, as a plugin may."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *args, **kwargs):
        raise self.error


def test_an_interruption_before_the_rounds_leaves_no_folder(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRETRAINERS, "stop", lambda: _Raises(KeyboardInterrupt()))
    assert run_cli(out=tmp_path / "run", pretraining="stop") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_is_one_line(capsys, tmp_path, monkeypatch):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nat op 7")
    monkeypatch.setitem(PRETRAINERS, "grow", lambda: _Raises(error))
    assert run_cli(out=tmp_path / "run", pretraining="grow") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "RESOURCE_EXHAUSTED" in line and "lower --tile_rows" in line


@pytest.mark.parametrize("script", ["run.py", "grid.py"])
def test_from_a_shell(tmp_path, script):
    """The real thing once: another process, another working folder."""
    command = [sys.executable, str(ROOT / "experiments" / script)]
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}

    def start(argument):
        return subprocess.run(
            [*command, argument],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    run = start("--roundz=3")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and "roundz" in run.stderr
    assert run.stdout == "" and list(tmp_path.iterdir()) == []
    shown = start("--help").stdout
    for name in FIELDS:
        flag = f"--{name}:" in shown or f"--[no]{name}:" in shown
        assert flag or (script, name) == ("grid.py", "seed")
