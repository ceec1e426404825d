"""The cache depends on content alone, and a broken cache does not break a run."""

import logging

import numpy as np
import pytest

from fedpeft_jax.core.manifest import write_manifest
from fedpeft_jax.features import encode_texts
from fedpeft_jax.features.cache import SCHEME_VERSION, encodings_folder

TEXTS = [
    "Toy Story (1995) animation children comedy",
    "Toy Story 2 (1999) animation children comedy",
    "Alien (1979) horror science fiction",
    "Aliens (1986) horror science fiction",
]


def _whole(folder):
    with np.load(folder / "encodings.npz") as arrays:
        return dict(arrays)


def _plant(folder, **arrays):
    """Writes other arrays with a manifest that fits them."""
    np.savez(folder / "encodings.npz", **arrays)
    (folder / "manifest.json").unlink()
    write_manifest(folder, {})


def _assert_reads_the_cache(folder, texts, caplog):
    """Checks that `encode_texts` returns the cached arrays and keeps the folder."""
    arrays = _whole(folder)
    planted = np.full_like(arrays["encodings"], 7.0)
    _plant(folder, encodings=planted, missing=arrays["missing"])
    before = (folder / "encodings.npz").stat()
    caplog.clear()
    cached = encode_texts(texts, cache_dir=folder.parent)
    np.testing.assert_array_equal(cached.encodings, planted)
    np.testing.assert_array_equal(cached.missing, arrays["missing"])
    assert cached.source == "tfidf"
    after = (folder / "encodings.npz").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not caplog.records


def test_cache_hit(tmp_path, caplog):
    texts = [*TEXTS, ""]
    first = encode_texts(texts, cache_dir=tmp_path)
    again = encode_texts(texts, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.encodings, again.encodings)
    np.testing.assert_array_equal(first.missing, again.missing)
    (path,) = tmp_path.iterdir()
    assert not caplog.records
    _assert_reads_the_cache(path, texts, caplog)


def test_other_content_is_encoded_again(tmp_path):
    encode_texts(TEXTS, cache_dir=tmp_path)
    encode_texts(TEXTS[::-1], cache_dir=tmp_path)
    encode_texts(TEXTS, cache_dir=tmp_path, seed=1)
    encode_texts(["a bc", "d"], cache_dir=tmp_path)
    encode_texts(["a b", "cd"], cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_another_version_of_the_scheme_has_another_file(tmp_path):
    encode_texts(TEXTS, cache_dir=tmp_path)
    identity = ["tfidf", 0]
    assert list(tmp_path.iterdir()) == [encodings_folder(tmp_path, identity, TEXTS)]
    newer = encodings_folder(tmp_path, identity, TEXTS, scheme=SCHEME_VERSION + 1)
    assert newer.parent == tmp_path and not newer.exists()


def _rewrite(change):
    def damage(folder):
        path = folder / "encodings.npz"
        path.write_bytes(change(path.read_bytes()))

    return damage


def _manifest(content):
    return lambda folder: (folder / "manifest.json").write_text(content)


@pytest.mark.parametrize(
    "damage",
    [
        _rewrite(lambda content: b""),
        _rewrite(lambda content: b"not an archive"),
        _rewrite(lambda content: content[:-30]),
        _rewrite(lambda content: content[:150] + b"\xff" + content[151:]),
        _rewrite(lambda content: content + b"\0"),
        lambda folder: (folder / "encodings.npz").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "more").write_text(""),
        _manifest("[]"),
        _manifest("{}"),
        _manifest("[" * 100_000),
        lambda folder: _plant(folder, encodings=np.zeros((4, 2), np.float32)),
        lambda folder: _plant(
            folder, **_whole(folder) | {"encodings": np.zeros((9, 2), np.float32)}
        ),
        lambda folder: _plant(
            folder, **_whole(folder) | {"encodings": np.full((4, 2), np.nan, "f4")}
        ),
    ],
)
def test_damaged_cache_is_recomputed(damage, tmp_path, caplog):
    first = encode_texts(TEXTS, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    notes = []
    again = encode_texts(TEXTS, cache_dir=tmp_path, note=notes.append)
    np.testing.assert_array_equal(first.encodings, again.encodings)
    [note] = notes
    assert f"cache folder {path} is damaged and is made again: " in note
    assert list(tmp_path.iterdir()) == [path]
    _assert_reads_the_cache(path, TEXTS, caplog)  # the damaged folder was replaced


def test_unwritable_cache_is_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    features = encode_texts(TEXTS, cache_dir=blocked)
    assert features.encodings.shape == (4, 4)
    assert "nothing is cached" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_file_in_the_place_of_the_folder_is_replaced(tmp_path, caplog):
    path = encodings_folder(tmp_path, ["tfidf", 0], TEXTS)
    path.write_text("a file")
    features = encode_texts(TEXTS, cache_dir=tmp_path)
    assert features.encodings.shape == (4, 4)
    assert "is damaged and is made again" in caplog.text
    _assert_reads_the_cache(path, TEXTS, caplog)


@pytest.mark.parametrize("name", ["[1]", "a*b", "a?b"])
def test_a_folder_with_signs_of_patterns(tmp_path, name, caplog):
    encode_texts(TEXTS, cache_dir=tmp_path / name)
    (path,) = (tmp_path / name).iterdir()
    _assert_reads_the_cache(path, TEXTS, caplog)


@pytest.mark.parametrize("xdg", ["absolute", "relative", None])
def test_default_cache_folder(xdg, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg is not None:
        value = str(tmp_path / "xdg") if xdg == "absolute" else "xdg"
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    encode_texts(TEXTS)
    base = tmp_path / ("xdg" if xdg == "absolute" else "home/.cache")
    assert len(list((base / "fedpeft_jax" / "encodings").iterdir())) == 1
