"""A cache that is hit by content alone, and that can break without breaking a run."""

import logging

import numpy as np
import pytest

from fedpeft_jax.features import cache, encode_texts, text

TEXTS = [
    "Toy Story (1995) animation children comedy",
    "Toy Story 2 (1999) animation children comedy",
    "Alien (1979) horror science fiction",
    "Aliens (1986) horror science fiction",
]


@pytest.fixture
def counted(monkeypatch):
    """Counts how often TF-IDF really runs."""
    calls = []
    encode = text._encode_tfidf

    def count(texts, seed):
        calls.append(list(texts))
        return encode(texts, seed)

    monkeypatch.setattr(text, "_encode_tfidf", count)
    return calls


def test_cache_hit(counted, tmp_path, caplog):
    texts = [*TEXTS, ""]
    first = encode_texts(texts, cache_dir=tmp_path)
    again = encode_texts(texts, cache_dir=tmp_path)
    assert len(counted) == 1
    np.testing.assert_array_equal(first.encodings, again.encodings)
    np.testing.assert_array_equal(first.missing, again.missing)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    assert not caplog.records


def test_other_content_is_encoded_again(counted, tmp_path, monkeypatch):
    encode_texts(TEXTS, cache_dir=tmp_path)
    encode_texts(TEXTS[::-1], cache_dir=tmp_path)
    encode_texts(TEXTS, cache_dir=tmp_path, seed=1)
    encode_texts(["a bc", "d"], cache_dir=tmp_path)
    encode_texts(["a b", "cd"], cache_dir=tmp_path)
    monkeypatch.setattr(cache, "SCHEME_VERSION", cache.SCHEME_VERSION + 1)
    encode_texts(TEXTS, cache_dir=tmp_path)
    assert len(counted) == len(list(tmp_path.iterdir())) == 6


def _whole(path):
    with np.load(path) as arrays:
        return dict(arrays)


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
def test_damaged_cache_is_recomputed(damage, counted, tmp_path, caplog):
    first = encode_texts(TEXTS, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    again = encode_texts(TEXTS, cache_dir=tmp_path)
    assert len(counted) == 2
    np.testing.assert_array_equal(first.encodings, again.encodings)
    assert "encoding again" in caplog.text
    encode_texts(TEXTS, cache_dir=tmp_path)
    assert len(counted) == 2  # the damaged file was replaced


def test_unwritable_cache_is_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    features = encode_texts(TEXTS, cache_dir=blocked)
    assert features.encodings.shape == (4, 4)
    assert "not cached" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_full_disk_is_a_warning_and_leaves_nothing(tmp_path, caplog, monkeypatch):
    def full(file, **_):
        file.write(b"some bytes")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    features = encode_texts(TEXTS, cache_dir=tmp_path)
    assert features.encodings.shape == (4, 4)
    assert "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


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
