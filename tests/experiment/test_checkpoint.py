"""Variables on disk: what comes back, and the error when nothing can."""

import errno
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.checkpoint import load_variables, save_variables


def tree():
    rng = np.random.default_rng(0)
    return {
        "params": {"B": rng.normal(size=(4, 3)).astype(np.float32)},
        "rows": {},
        "frozen": {"codes": np.arange(6, dtype=np.int32).reshape(3, 2)},
        "private": {"user": np.array([0.1, -0.0, np.inf, np.nan], np.float32)},
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints" / "final"
    save_variables(path, tree())
    return path


def assert_one_line(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


def test_round_trip_bit_for_bit(saved):
    found, expected = load_variables(saved), tree()
    assert set(found) == set(expected)
    assert found["rows"] == {}
    for role, name in (("params", "B"), ("frozen", "codes"), ("private", "user")):
        assert isinstance(found[role][name], np.ndarray)
        assert found[role][name].dtype == expected[role][name].dtype
        assert found[role][name].tobytes() == expected[role][name].tobytes()


def test_saving_again_replaces(saved):
    save_variables(saved, {"params": {"w": np.ones(2, np.float32)}})
    found = load_variables(saved)
    assert list(found) == ["params"]
    assert found["params"]["w"].tolist() == [1.0, 1.0]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError) as caught:
        load_variables(tmp_path / "absent")
    assert_one_line(caught, tmp_path / "absent", "name a folder under checkpoints/")


def spoil(saved, damage):
    files = [path for path in saved.rglob("*") if path.is_file()]
    if damage == "no metadata":
        (saved / "_METADATA").unlink()
    elif damage == "no manifest":
        (saved / "manifest.ocdbt").unlink()
    else:
        for path in files:
            path.unlink() if damage == "empty" else path.write_bytes(b"garbage" * 9)


LOAD = """
import pathlib, sys
from fedpeft_jax.experiment.checkpoint import load_variables
from fedpeft_jax.core.errors import InputError
for path in sys.argv[1:]:
    try:
        load_variables(pathlib.Path(path))
        print("no error")
    except InputError as error:
        print(error)
"""


def test_damaged(tmp_path):
    """In a process of its own: reads under way complain there, long after a failure."""
    paths = []
    for damage in ("no metadata", "no manifest", "garbage", "empty"):
        paths.append(tmp_path / damage)
        save_variables(paths[-1], tree())
        spoil(paths[-1], damage)
    command = [sys.executable, "-c", LOAD, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = run.stdout.splitlines()
    assert len(messages) == len(paths)
    for message, path in zip(messages, paths, strict=True):
        assert message.startswith(f"cannot read the variables at {path}: ")


def test_unwritable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError) as caught:
        save_variables(tmp_path / "file" / "final", tree())
    assert_one_line(caught, "cannot write", tmp_path / "file" / "final", "set `out`")


def test_full_disk(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(InputError) as caught:
        save_variables(tmp_path / "final", tree())
    assert_one_line(caught, "No space left on device", "free some space")
    assert not (tmp_path / "final").exists()
