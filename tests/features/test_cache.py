"""The cache depends on content alone, and a broken cache does not break a run."""

import logging

import numpy as np
import pytest

from fedpeft_jax.features import encode_texts
from fedpeft_jax.features.cache import SCHEME_VERSION, encodings_path

TEXTS = [
    "Toy Story (1995) animation children comedy",
    "Toy Story 2 (1999) animation children comedy",
    "Alien (1979) horror science fiction",
    "Aliens (1986) horror science fiction",
]


def _whole(path):
    with np.load(path) as arrays:
        return dict(arrays)


def _assert_reads_the_cache(path, texts, caplog):
    """Checks that `encode_texts` returns the cached arrays and keeps the file."""
    arrays = _whole(path)
    planted = np.full_like(arrays["encodings"], 7.0)
    np.savez(path, encodings=planted, missing=arrays["missing"])
    before = path.stat()
    caplog.clear()
    cached = encode_texts(texts, cache_dir=path.parent)
    np.testing.assert_array_equal(cached.encodings, planted)
    np.testing.assert_array_equal(cached.missing, arrays["missing"])
    assert cached.source == "tfidf"
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not caplog.records


def test_cache_hit(tmp_path, caplog):
    texts = [*TEXTS, ""]
    first = encode_texts(texts, cache_dir=tmp_path)
    again = encode_texts(texts, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.encodings, again.encodings)
    np.testing.assert_array_equal(first.missing, again.missing)
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".npz"
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
    assert list(tmp_path.iterdir()) == [encodings_path(tmp_path, identity, TEXTS)]
    newer = encodings_path(tmp_path, identity, TEXTS, scheme=SCHEME_VERSION + 1)
    assert newer.parent == tmp_path and not newer.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(
            path.read_bytes()[:150] + b"\xff" * 20 + path.read_bytes()[170:]
        ),
        lambda path: np.savez(path, encodings=np.zeros((4, 2), np.float32)),
        lambda path: np.savez(
            path, **_whole(path) | {"encodings": np.zeros((9, 2), np.float32)}
        ),
        lambda path: np.savez(
            path, **_whole(path) | {"encodings": np.full((4, 2), np.nan, np.float32)}
        ),
    ],
    ids=["empty", "text", "cut", "flipped", "lacking", "shape", "nan"],
)
def test_damaged_cache_is_recomputed(damage, tmp_path, caplog):
    first = encode_texts(TEXTS, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    again = encode_texts(TEXTS, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.encodings, again.encodings)
    assert "encoding again" in caplog.text
    assert list(tmp_path.iterdir()) == [path]
    _assert_reads_the_cache(path, TEXTS, caplog)  # the damaged file was replaced


def test_unwritable_cache_is_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    features = encode_texts(TEXTS, cache_dir=blocked)
    assert features.encodings.shape == (4, 4)
    assert "not cached" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_failed_write_is_a_warning_and_leaves_nothing(tmp_path, caplog):
    path = encodings_path(tmp_path, ["tfidf", 0], TEXTS)
    path.mkdir()  # a folder where the file should be: the last step of a write fails
    features = encode_texts(TEXTS, cache_dir=tmp_path)
    assert features.encodings.shape == (4, 4)
    assert "not cached" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("xdg", ["absolute", "relative", None])
def test_default_cache_folder(xdg, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if xdg is not None:
        value = str(tmp_path / "xdg") if xdg == "absolute" else "xdg"
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    encode_texts(TEXTS)
    base = tmp_path / ("xdg" if xdg == "absolute" else "home/.cache")
    assert len(list((base / "fedpeft_jax" / "encodings").glob("*.npz"))) == 1
