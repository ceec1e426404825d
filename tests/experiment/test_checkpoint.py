"""Variables on disk: what comes back, and the error when nothing can."""

import errno

import numpy as np
import orbax.checkpoint as ocp
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.checkpoint import (
    load_tree,
    load_variables,
    save_tree,
    save_variables,
)


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


def files_of(saved):
    return sorted(path for path in saved.rglob("*") if path.is_file())


def test_every_flipped_bit_is_noticed(saved):
    """One bit of every file at three places; nothing is read from such a folder."""
    for path in files_of(saved):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            spoiled = bytearray(content)
            spoiled[place] ^= 0x10
            path.write_bytes(spoiled)
            with pytest.raises(InputError) as caught:
                load_variables(saved)
            assert_one_line(caught, f"cannot read the variables at {saved}: ")
        path.write_bytes(content)
    assert load_variables(saved)["rows"] == {}


@pytest.mark.parametrize("damage", ["lost", "empty", "short", "another", "link"])
def test_a_file_that_is_not_as_it_was_written_is_noticed(saved, damage, tmp_path):
    for path in files_of(saved):
        content = path.read_bytes()
        path.unlink()
        if damage == "empty":
            path.write_bytes(b"")
        elif damage == "short":
            path.write_bytes(content[:-1])
        elif damage == "another":
            path.write_bytes(b"garbage" * 9)
        elif damage == "link":
            (tmp_path / "elsewhere").write_bytes(content)
            path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError) as caught:
            load_variables(saved)
        assert_one_line(caught, f"cannot read the variables at {saved}: ")
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    assert load_variables(saved)["rows"] == {}


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"files": 3}', "{", "\x00"])
def test_a_manifest_of_another_form_is_one_error(saved, content):
    (saved / "manifest.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load_variables(saved)
    assert_one_line(caught, f"cannot read the variables at {saved}: ")


def test_a_file_that_was_added_is_noticed(saved):
    (saved / "tree" / "more").write_bytes(b"")
    with pytest.raises(InputError, match="its files are not those of its manifest"):
        load_variables(saved)


def test_the_facts_come_back(tmp_path):
    facts = {"round": 3, "seconds": 0.1, "list": [1, None]}
    save_tree(tmp_path / "one", tree(), facts)
    assert load_tree(tmp_path / "one").facts == facts


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


def test_a_folder_that_is_renamed_while_orbax_writes(tmp_path, monkeypatch):
    """Orbax makes the folders again, so that the write itself does not fail."""
    save = ocp.Checkpointer.save

    def renamed_first(*arguments, **named):
        (tmp_path / "run").rename(tmp_path / "removed")
        save(*arguments, **named)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(ocp.Checkpointer, "save", renamed_first)
    with pytest.raises(InputError, match="removed or renamed") as caught:
        save_tree(tmp_path / "run" / "checkpoints" / "round-000003", {"B": np.eye(2)})
    assert str(tmp_path / "run") in str(caught.value)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
