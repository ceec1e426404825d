"""The folder of a run: its number, its order of writing, and disks that fail."""

import errno
import json
import os
import pathlib

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.run_folder import RunFolder


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def assert_one_line(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


# Which folder


def test_the_first_free_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [RunFolder(None, name).path for name in ("a", "a", "b", "a")]
    runs = pathlib.Path("runs")
    assert paths == [runs / "a-1", runs / "a-2", runs / "b-1", runs / "a-3"]
    assert all(path.is_dir() for path in paths)
    (runs / "a-2").rmdir()
    assert RunFolder(None, "a").path == runs / "a-2"


def test_a_given_folder_is_made_with_its_parents(tmp_path):
    path = tmp_path / "some" / "where"
    assert RunFolder(path, "a").path == path
    assert path.is_dir()


def test_other_files_are_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder(str(tmp_path), "a").path == tmp_path


@pytest.mark.parametrize(
    "entry", ["config.json", "metrics.jsonl", "summary.json", "checkpoints"]
)
def test_another_run_is_never_written_over(tmp_path, entry):
    (tmp_path / entry).mkdir()
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "a", resume="never")
    assert_one_line(
        caught, tmp_path, f"already holds another run ({entry})", "set `out`"
    )


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_way(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path / "file" / below, "a")
    assert_one_line(caught, f"cannot write {tmp_path / 'file'}", "set `out`")


# What is in it


def test_what_is_written(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.write_config({"seed": 3})
    folder.append_metrics({"round": 1})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"round": 1}\n'
    folder.append_metrics({"round": 2})
    folder.save_variables("final", {"params": {"w": np.ones(2)}})
    assert not (tmp_path / "summary.json").exists()
    folder.write_summary({"format": 1})
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 3}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"round": 1}, {"round": 2}]
    assert json.loads((tmp_path / "summary.json").read_text()) == {"format": 1}
    assert (tmp_path / "checkpoints" / "final").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints", "config.json", "metrics.jsonl", "summary.json",
    ]  # fmt: skip


@pytest.mark.parametrize("fails", ["open", "fsync", "replace"])
def test_a_summary_that_cannot_be_written_is_not_there(tmp_path, monkeypatch, fails):
    folder = RunFolder(tmp_path, "a")
    owner = os if fails == "fsync" else pathlib.Path
    with monkeypatch.context() as patch:
        patch.setattr(owner, fails, full_disk)
        with pytest.raises(InputError) as caught:
            folder.write_summary({"format": 1})
    path = tmp_path / "summary.json"
    assert_one_line(caught, f"cannot write {path}: No space left on device; free some")
    assert not path.exists()
    folder.write_summary({"format": 1})
    assert json.loads(path.read_text()) == {"format": 1}


def test_a_summary_that_is_no_json_is_not_there(tmp_path):
    with pytest.raises(TypeError):
        RunFolder(tmp_path, "a").write_summary({"format": object()})
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("method", ["write_config", "append_metrics"])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, method):
    folder = RunFolder(tmp_path, "a")
    monkeypatch.setattr(pathlib.Path, "open", full_disk)
    with pytest.raises(InputError) as caught:
        getattr(folder, method)({"round": 1})
    assert_one_line(caught, tmp_path, "No space left on device", "set `out`")


# Closing


def test_close_removes_a_folder_that_stayed_empty(tmp_path):
    RunFolder(tmp_path / "run", "a").close()
    assert not (tmp_path / "run").exists()


def test_close_keeps_whatever_was_written(tmp_path):
    folder = RunFolder(tmp_path / "run", "a")
    folder.write_config({"seed": 3})
    folder.close()
    assert (tmp_path / "run" / "config.json").exists()


def test_close_twice(tmp_path):
    folder = RunFolder(tmp_path / "run", "a")
    folder.close()
    folder.close()
    assert not (tmp_path / "run").exists()


def test_files_of_a_run_without_its_settings_are_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "a")
    assert_one_line(caught, tmp_path, "already holds another run (metrics.jsonl)")


def test_of_two_runs_at_once_one_gets_the_folder(tmp_path):
    first = RunFolder(tmp_path, "a")
    first.write_config({"seed": 0})
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "a")
    assert_one_line(caught, "another process is writing to", tmp_path, "set `out`")
    first.close()
    assert RunFolder(tmp_path, "a").held_config() == {"seed": 0}


@pytest.mark.parametrize("content", ["[]", "{", "\x00", ""])
def test_settings_that_cannot_be_read_are_one_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "a").held_config()
    assert_one_line(caught, tmp_path / "config.json", "set `out`")


def test_lines_of_metrics_are_those_that_the_checkpoint_saw(tmp_path):
    folder = RunFolder(tmp_path, "a")
    folder.append_metrics({"round": 1})
    seen = folder.metrics_length()
    folder.append_metrics({"round": 2})
    assert folder.read_metrics(*seen) == [{"round": 1}]
    folder.cut_metrics(seen[0])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"round": 1}\n'
    (tmp_path / "metrics.jsonl").write_text('{"round": 9}\n')
    with pytest.raises(InputError, match="is not as the checkpoint left it"):
        folder.read_metrics(*seen)


def test_a_file_in_the_place_of_all_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(InputError) as caught:
        RunFolder(None, "a")
    assert_one_line(caught, "cannot write runs", "set `out`")
