"""A run that was stopped and continued has the results of one that was not."""

import json
import shutil
import signal

import pytest

from fedpeft_jax import from_frame, generate_long_tailed
from fedpeft_jax.core.errors import InputError, StoppedError
from fedpeft_jax.experiment import Callback, RunFolder, configure, load_variables, run
from tests.small_runs import (
    BACKBONES,
    SETTINGS,
    STRATEGIES,
    Listener,
    history,
    results,
    small_runs,
)

# The others are slow: they compile more.
QUICK = {("fedmf", "full"), ("fedpergnn", "rq")}
STATEFUL = {
    "server_optimizer": "adam(learning_rate=0.1)",
    "shared_server_optimizer": "yogi(learning_rate=0.1)",
    "upload": "clip_by_norm(max_norm=0.5), bfloat16",
    "checkpoint_every": 3,
}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def after(calls):
    """A `stop` that asks for the end when it is called once more than `calls` times."""
    left = [calls]

    def stop():
        left[0] -= 1
        return signal.SIGTERM if left[0] < 0 else None

    return stop


def in_folder(path, settings, **arguments):
    config = configure(**{**SETTINGS, **settings, "out": str(path)})
    return run(config, **arguments)


def stopped(path, settings, calls):
    with pytest.raises(StoppedError) as caught:
        in_folder(path, settings, stop=after(calls))
    return str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "strategy"),
    [
        pytest.param(b, s, marks=() if (b, s) in QUICK else pytest.mark.slow)
        for b in BACKBONES
        for s in STRATEGIES
    ],
)
def test_a_continued_run_has_the_same_bytes(backbone, strategy, tmp_path):
    """Stopped in the warm-up, at the change of phases and in the main phase."""
    check_continued({"backbone": backbone, **STRATEGIES[strategy]}, tmp_path)


@pytest.mark.parametrize(
    "strategy",
    ["lora", *(pytest.param(s, marks=pytest.mark.slow) for s in ("hash", "rq"))],
)
def test_a_continued_run_with_merges_has_the_same_bytes(strategy, tmp_path):
    """A merge follows every round of the main phase, so that a stop is beside two."""
    check_continued({**STRATEGIES[strategy], "merge_every": 1}, tmp_path)


def check_continued(settings, tmp_path):
    settings = {**settings, **STATEFUL}
    settings |= {"eval_every": 2, "early_stopping_rounds": 100}
    in_folder(tmp_path / "straight", settings)
    expected = results(tmp_path / "straight")
    path = tmp_path / "stopped"
    for rounds in (0, 2, 3, 4):
        message = stopped(path, settings, calls=1 if rounds else 0)
        assert f"after round {rounds}: " in message or f"round {rounds};" in message
        assert str(path) in message
    in_folder(path, settings)
    assert results(path) == expected


def test_figures_since_the_last_line_survive(tmp_path):
    """The stop falls between two lines, and the mean covers the rounds before it."""
    settings = {**STATEFUL, "eval_every": 4, "checkpoint_every": 1, "rounds": 8}
    in_folder(tmp_path / "straight", settings)
    stopped(tmp_path / "stopped", settings, calls=5)
    in_folder(tmp_path / "stopped", settings)
    assert results(tmp_path / "stopped") == results(tmp_path / "straight")
    assert all("clipped" in entry["figures"] for entry in history(tmp_path / "stopped"))


def test_a_run_that_stopped_early_is_not_trained_on(tmp_path):
    settings = {"rounds": 40, "early_stopping_rounds": 2, "warm_up_rounds": 0}
    result = in_folder(tmp_path / "run", settings)
    rounds = result.summary["rounds"]
    assert rounds["run"] < 40
    before = results(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    again = in_folder(tmp_path / "run", settings)
    assert again.summary["rounds"] == rounds
    assert results(tmp_path / "run") == before
    longer = in_folder(tmp_path / "run", {**settings, "rounds": 50})
    assert longer.summary["rounds"] == rounds


def test_what_was_stopped_in_the_last_evaluation_is_evaluated(tmp_path):
    """No round runs again: the last checkpoint is of the last round."""
    in_folder(tmp_path / "run", {})
    before = results(tmp_path / "run")
    for name in ("summary.json", "per_user.parquet"):
        (tmp_path / "run" / name).unlink()
    listener = Listener()
    in_folder(tmp_path / "run", {}, callbacks=[listener])
    assert all(task[0] != "rounds" for task in listener.tasks)
    assert results(tmp_path / "run") == before


def test_a_warm_up_alone_may_grow_into_the_main_phase(tmp_path):
    in_folder(tmp_path / "grown", {"rounds": 2})
    in_folder(tmp_path / "grown", {"rounds": 6})
    in_folder(tmp_path / "straight", {"rounds": 6})
    assert results(tmp_path / "grown") == results(tmp_path / "straight")


def checkpoints(path):
    names = sorted(p.name for p in (path / "checkpoints").iterdir())
    return [name for name in names if name != "pretrained"]


def test_the_last_checkpoints_and_the_best_one_are_kept(tmp_path):
    settings = {"rounds": 12, "eval_every": 2, "checkpoint_every": 1}
    in_folder(tmp_path, {**settings, "keep_checkpoints": 3})
    summary = json.loads((tmp_path / "summary.json").read_text())
    best = f"round-{summary['best_valid']['round']:06d}"
    last = {"round-000010", "round-000011", "round-000012"}
    assert set(checkpoints(tmp_path)) == {"final", best, *last}


def test_without_checkpoints_the_last_state_is_kept(tmp_path):
    in_folder(tmp_path, {"checkpoint_every": 0})
    assert checkpoints(tmp_path) == ["final", "round-000006"]


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "half", "gone", "manifest", "all"])
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path):
    """The one before it is used, and the user hears of it."""
    settings = {"checkpoint_every": 1, "keep_checkpoints": 9}
    in_folder(tmp_path / "straight", settings)
    path = tmp_path / "run"
    stopped(path, settings, calls=4)
    newest = sorted((path / "checkpoints").glob("round-*"))
    for folder in newest if damage == "all" else newest[-1:]:
        largest = max(
            (p for p in (folder / "tree").rglob("*") if p.is_file()),
            key=lambda p: p.stat().st_size,
        )
        if damage in ("flip", "all"):
            flip(largest)
        elif damage == "half":
            largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        elif damage == "gone":
            shutil.rmtree(folder / "tree")
        else:
            flip(folder / "manifest.json")
    listener = Listener()
    in_folder(path, settings, callbacks=[listener])
    round_ = 0 if damage == "all" else 3
    assert any(f"continues after round {round_}" in note for note in listener.notes)
    passed = [n for n in listener.notes if "an older checkpoint is used" in n]
    assert len(passed) == (len(newest) if damage == "all" else 1)
    assert results(path) == results(tmp_path / "straight")


def test_lines_that_are_not_as_they_were_are_written_again(tmp_path):
    settings = {"checkpoint_every": 1, "eval_every": 1, "keep_checkpoints": 9}
    in_folder(tmp_path / "straight", settings)
    path = tmp_path / "run"
    stopped(path, settings, calls=4)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    listener = Listener()
    in_folder(path, settings, callbacks=[listener])
    assert any("is not as the checkpoint left it" in note for note in listener.notes)
    assert any("continues after round 3" in note for note in listener.notes)
    assert results(path) == results(tmp_path / "straight")


def test_a_damaged_model_of_a_finished_run_is_made_again(tmp_path):
    in_folder(tmp_path, {})
    before = results(tmp_path)
    flip(tmp_path / "checkpoints" / "final" / "manifest.json")
    listener = Listener()
    in_folder(tmp_path, {}, callbacks=[listener])
    assert any("made again from a checkpoint" in note for note in listener.notes)
    assert results(tmp_path) == before
    load_variables(tmp_path / "checkpoints" / "final")


def test_a_folder_that_vanishes_is_one_error(tmp_path):
    class Removes(Callback):
        def progress(self, task, done, total, **values):
            if task == "rounds" and done == 4:
                (tmp_path / "run").rename(tmp_path / "removed")

    with pytest.raises(InputError) as caught:
        in_folder(tmp_path / "run", {"checkpoint_every": 1}, callbacks=[Removes()])
    assert "\n" not in str(caught.value) and str(tmp_path / "run") in str(caught.value)


def test_a_full_disk_at_the_end_loses_nothing(tmp_path):
    """The device is really full: /dev/full. Then there is space, and it goes on."""
    in_folder(tmp_path / "straight", {})
    path = tmp_path / "run"
    path.mkdir()
    (path / ".per_user.parquet.partial").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left on device") as caught:
        in_folder(path, {})
    assert "per_user.parquet" in str(caught.value) and "\n" not in str(caught.value)
    assert not (path / "summary.json").exists()
    listener = Listener()
    in_folder(path, {}, callbacks=[listener])
    assert any("continues after round 6" in note for note in listener.notes)
    assert results(path) == results(tmp_path / "straight")


# What is not the same run


def test_other_data_never_continue_a_run(tmp_path):
    def data(seed):
        made = generate_long_tailed(
            num_users=50, num_items=40, mean_length=8, seed=seed
        )
        users = made.user_ids[made.items.owners]
        return from_frame({"user": users, "item": made.item_ids[made.items.values]})

    settings = {"full_init": "random", "split": "file", "out": str(tmp_path)}
    config = configure(**{**SETTINGS, **settings})
    with pytest.raises(StoppedError):
        run(config, dataset=data(0), stop=after(1))
    with pytest.raises(InputError) as caught:
        run(config, dataset=data(1))
    assert "holds a run on other data" in str(caught.value)
    run(config, dataset=data(0))


def test_a_stopped_run_without_a_folder_says_that_nothing_is_kept():
    with pytest.raises(StoppedError, match="no folder") as caught:
        run(configure(**SETTINGS), stop=after(1))
    assert caught.value.signal == signal.SIGTERM


def test_a_folder_and_an_out_setting_mean_the_folder(tmp_path):
    config = configure(**SETTINGS, out=str(tmp_path / "out"))
    run(config, folder=RunFolder(tmp_path / "folder", "a"))
    assert (tmp_path / "folder" / "summary.json").exists()
    assert not (tmp_path / "out").exists()
