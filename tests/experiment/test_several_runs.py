"""Whole runs with several held-out items per user, and with given candidates."""

import io
import signal

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from fedpeft_jax.core.errors import InputError, StoppedError
from fedpeft_jax.data import from_frame
from fedpeft_jax.evaluation import JointRanks, summarize_ranks
from fedpeft_jax.experiment import configure, print_summary, run
from tests.small_runs import SETTINGS, Listener, results, run_cli, small_runs

GIVEN = {
    **SETTINGS,
    "dataset": "table",
    "split": "given",
    "full_init": "random",
    "baselines": "most_popular,log_odds,random",
}
del GIVEN["pretraining"]


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def tables(seed=0):
    """Training, validation and test rows of 60 users, and lists of candidates."""
    rng = np.random.default_rng(seed)
    rows, lists = {"train": [], "valid": [], "test": []}, []
    for user in range(60):
        items = rng.permutation(40)
        rows["train"] += [(user, item) for item in items[:12]]
        rows["valid"] += [(user, item) for item in items[12 : 12 + user % 3]]
        held = 1 + user % 5 if user else 0
        rows["test"] += [(user, item) for item in items[14 : 14 + held]]
        if held:
            lists.append([f"({user},{items[14]})", *items[20 : 30 + user % 3]])
    frames = {
        name: pl.DataFrame(part, schema=["user", "item"], orient="row")
        for name, part in rows.items()
    }
    return frames, lists


def data(**more):
    frames, _ = tables()
    return from_frame(
        frames["train"], valid=frames["valid"], test=frames["test"], **more
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The flags of the same data in files, and the file of candidates."""
    folder = tmp_path_factory.mktemp("files")
    frames, lists = tables()
    for name, frame in frames.items():
        frame.write_csv(folder / f"{name}.csv")
    text = "".join("\t".join(map(str, row)) + "\n" for row in lists)
    (folder / "toy.test.negative").write_text(text)
    names = {"interactions": "train", "valid_interactions": "valid"}
    names["test_interactions"] = "test"
    flags = {name: str(folder / f"{file}.csv") for name, file in names.items()}
    return flags, str(folder / "toy.test.negative")


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "run"
    run(configure(**GIVEN, out=str(path)), dataset=data())
    return path


def printed(summary):
    console = Console(file=io.StringIO(), width=80)
    print_summary(summary, console=console)
    return console.file.getvalue()


def test_the_results_of_several_items_per_user(several):
    summary = results(several)["summary"]
    assert summary["dataset"]["evaluated_users"] == 59
    assert summary["dataset"]["valid_pairs"] == 60
    assert summary["dataset"]["test_pairs"] == 60 // 5 * (1 + 2 + 3 + 4 + 5) - 1
    table = pl.read_parquet(several / "per_user.parquet")
    assert len(table) == 59 and "test_item" not in table.columns
    frames, _ = tables()
    held = frames["test"].filter(pl.col("user") == 4)["item"].to_list()
    assert sorted(table.row(3, named=True)["test_items"]) == sorted(held)
    ranked = {"model": summary["metrics"], **summary["baselines"]}
    del ranked["random"]  # a closed form, not ranks
    for name, metrics in ranked.items():
        for target in ("valid", "test"):
            for ranking in ("sampled", "full"):
                column = f"{name}_{target}_{ranking}"
                lists = [table[f"{column}_{part}"] for part in ("above", "ties")]
                counts = lists[0].list.len().fill_null(0).to_numpy()
                flat = [part.drop_nulls().explode().to_numpy() for part in lists]
                again = summarize_ranks(JointRanks(*flat, counts[counts > 0]))
                assert again == pytest.approx(metrics[target][ranking])
                assert "recall@10" in again
    assert "recall@10" in summary["baselines"]["random"]["test"]["full"]
    for parts in summary["slices"].values():
        assert sum(part["users"] for part in parts.values()) == 59
        total = sum(p["users"] * p["full"]["recall@10"] for p in parts.values())
        recall = summary["metrics"]["test"]["full"]["recall@10"]
        assert total / 59 == pytest.approx(recall)


def test_the_table_has_recall_where_users_have_several(several):
    summary = run(configure(**GIVEN), dataset=data()).summary
    text = printed(summary)
    table = text.partition("sampled: ")[0]
    assert table.count("Recall@10") == 2 and max(map(len, table.splitlines())) <= 80
    full = summary["metrics"]["test"]["full"]
    assert f"{full['recall@10']:.4f}" in table and "HR@10" not in table
    assert "3.0 test items per user, ranked together" in text


def test_files_and_frames_are_the_same_run(several, files, tmp_path):
    flags, candidates = files
    path = tmp_path / "run"
    settings = {**GIVEN, "out": path, **flags}
    assert run_cli(**settings) == 0
    found, expected = results(path), results(several)
    for one in (found, expected):
        one["summary"]["dataset"].pop("name")
    assert found == expected


def test_given_candidates_from_a_file_and_from_a_frame(files, capsys):
    flags, file = files
    config = configure(**{**GIVEN, "num_candidates": None}, given_candidates=file)
    listener = Listener()
    one = run(config, dataset=data(), callbacks=[listener]).summary
    assert one["protocol"]["candidates"] == {"given": file, "fewest": 10, "most": 12}
    assert any("10 to 12 per user" in note for note in listener.notes)
    assert f"against the 10 to 12 candidates of {file}" in " ".join(
        printed(one).split()
    )
    _, lists = tables()
    pairs = [row[0].strip("()").split(",") for row in lists]
    frame = pl.DataFrame(
        {
            "user": [int(user) for user, _ in pairs],
            "item": [int(item) for _, item in pairs],
            "candidates": [[int(item) for item in row[1:]] for row in lists],
        }
    )
    other = run(configure(**GIVEN), dataset=data(candidates=frame)).summary
    assert other["protocol"]["candidates"]["given"] == "from_frame"
    assert other["metrics"] == one["metrics"]
    with pytest.raises(InputError, match="the data set has candidates, too"):
        run(config, dataset=data(candidates=frame))


@pytest.mark.parametrize(
    "setting", [{"num_candidates": 5}, {"candidates": "popularity"}]
)
def test_given_candidates_are_not_drawn(setting):
    [name] = setting
    with pytest.raises(InputError, match=f"`{name}=.*` has no effect with `given_cand"):
        configure(given_candidates="lists.tsv", **setting)


def test_a_list_that_does_not_fit_is_one_line(files, tmp_path, capfd):
    flags, _ = files
    (tmp_path / "lists").write_text("(1,99)\t3\n")
    settings = {**GIVEN, **flags, "given_candidates": tmp_path / "lists"}
    settings["num_candidates"] = 100
    settings["out"] = tmp_path / "run"
    assert run_cli(**settings) == 2
    errors = capfd.readouterr().err
    assert "items are not in the data (the first is item '99')" in errors
    assert "Traceback" not in errors


def test_early_stopping_needs_validation_rows():
    frames, _ = tables()
    config = configure(**GIVEN, early_stopping_rounds=2)
    with pytest.raises(InputError, match="needs validation items, and table has none"):
        run(config, dataset=from_frame(frames["train"], test=frames["test"]))


def test_the_last_evaluation_reports_its_progress(tmp_path):
    listener = Listener()
    run(configure(**GIVEN), dataset=data(), callbacks=[listener])
    calls = [task[1:3] for task in listener.tasks if task[0] == "evaluate"]
    total = calls[0][1]
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert total >= 3 * 2 * 2  # the model and two baselines, targets, rankings


def test_a_signal_ends_the_last_evaluation_and_the_run_continues(several, tmp_path):
    evaluating = []

    class Watch(Listener):
        def progress(self, task, done, total, **values):
            evaluating.append(task == "evaluate" and done == 3)

    def stop():
        return signal.SIGTERM if any(evaluating) else None

    path = tmp_path / "run"
    config = configure(**GIVEN, out=str(path))
    with pytest.raises(StoppedError, match="stopped the run after round 6"):
        run(config, dataset=data(), callbacks=[Watch()], stop=stop)
    assert len([one for one in evaluating if one]) == 1
    assert not (path / "summary.json").exists()
    run(config, dataset=data())
    assert results(path) == results(several)
