"""A continued run reads the latents that it has learned before."""

import jax
import numpy as np
import pytest

from fedpeft_jax.experiment.kept_pretraining import Learned, inputs_of, keep, recall
from fedpeft_jax.features import Pretrained
from tests.experiment.test_resume import in_folder, stopped
from tests.small_runs import Listener, results, small_runs

PRETRAINED = Pretrained(np.eye(3, 2, dtype=np.float32), 0.25, np.ones(2), np.zeros(4))


def test_what_was_kept_comes_back(tmp_path):
    notes = []
    assert recall(tmp_path / "kept", "a", notes.append) is None
    keep(tmp_path / "kept", Learned("a", PRETRAINED), notes.append)
    found = recall(tmp_path / "kept", "a", notes.append)
    for name, value in PRETRAINED._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert recall(tmp_path / "kept", "b", notes.append) is None
    assert (tmp_path / "kept").is_dir() and not notes


def test_a_damaged_folder_is_a_note(tmp_path):
    notes = []
    keep(tmp_path, Learned("a", PRETRAINED), notes.append)  # it exists: left alone
    assert list(tmp_path.iterdir()) == []
    keep(tmp_path / "kept", Learned("a", PRETRAINED), notes.append)
    path = tmp_path / "kept" / "pretrained.npz"
    path.write_bytes(path.read_bytes()[:-1])
    assert recall(tmp_path / "kept", "a", notes.append) is None
    assert len(notes) == 1 and "is damaged" in notes[0]


@pytest.mark.parametrize("other", ["spec", "features", "key", "encodings"])
def test_other_inputs_have_another_name(other):
    given = {
        "spec": ("a", "b"),
        "features": (2, 3),
        "key": (jax.random.key(0), jax.random.key(1)),
        "encodings": (np.eye(3), np.eye(4)),
    }
    first = {name: values[0] for name, values in given.items()}
    assert inputs_of(**first) != inputs_of(**{**first, other: given[other][1]})


def test_a_continued_run_does_not_pretrain(tmp_path):
    with small_runs():
        in_folder(tmp_path / "straight", {})
        stopped(tmp_path / "run", {}, calls=2)
        listener = Listener()
        in_folder(tmp_path / "run", {}, callbacks=[listener])
        assert "pretraining" not in {task for task, *_ in listener.tasks}
        assert "rounds" in {task for task, *_ in listener.tasks}
        assert results(tmp_path / "run") == results(tmp_path / "straight")
