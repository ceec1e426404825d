"""Tests of core/cache_folder.py: complete or absent, and notes instead of errors."""

from fedpeft_jax.core.cache_folder import read_cached, write_cached
from fedpeft_jax.core.user_cache import user_cache


def save(path):
    (path / "text").write_text("content")


def load(path, facts):
    return (path / "text").read_text(), facts


def test_what_was_written_is_read(tmp_path):
    notes = []
    folder = tmp_path / "[1] *?" / "one"
    assert read_cached(folder, load, notes.append) is None
    write_cached(folder, save, {"a": 1}, notes.append)
    assert read_cached(folder, load, notes.append) == ("content", {"a": 1})
    assert notes == [] and [path.name for path in folder.parent.iterdir()] == ["one"]


def test_the_first_of_two_runs_wins(tmp_path):
    notes = []
    write_cached(tmp_path / "one", save, {}, notes.append)
    write_cached(tmp_path / "one", save, {"second": 1}, notes.append)
    assert read_cached(tmp_path / "one", load, notes.append) == ("content", {})
    assert notes == [] and len(list(tmp_path.iterdir())) == 1


def test_other_content_is_removed(tmp_path):
    notes = []
    write_cached(tmp_path / "one", save, {}, notes.append)
    assert (
        read_cached(tmp_path / "one", lambda path, facts: facts["a"], notes.append)
        is None
    )
    assert not (tmp_path / "one").exists()
    for place in ("file", "link"):
        if place == "file":
            (tmp_path / "one").write_text("")
        else:
            (tmp_path / "one").symlink_to(tmp_path)
        assert read_cached(tmp_path / "one", load, notes.append) is None
        write_cached(tmp_path / "one", save, {}, notes.append)
        assert read_cached(tmp_path / "one", load, notes.append) == ("content", {})
        (tmp_path / "one" / "text").write_text("Content")
        assert read_cached(tmp_path / "one", load, notes.append) is None
    assert len(notes) == 5
    assert all("is damaged and is made again" in note for note in notes)
    assert not any("\n" in note for note in notes)


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "file").write_text("")
    for parent in (tmp_path / "file", tmp_path / ("a" * 300), tmp_path / "a\0b"):
        notes = []
        write_cached(parent / "one", save, {}, notes.append)
        assert read_cached(parent / "one", load, notes.append) is None
        [note] = notes
        assert "cannot be written, so nothing is cached there" in note


def test_a_home_that_is_no_absolute_path_is_a_note(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "somewhere")
    notes = []
    assert user_cache("datasets", notes.append) is None
    [note] = notes
    assert note == (
        "files of 'datasets' are not cached: HOME is 'somewhere', no absolute path"
    )
    assert list(tmp_path.iterdir()) == []
