"""Embeddings from a file: reordered, or refused with a line that names the file."""

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features import load_text_embeddings
from tests.helpers import REAL_DATA


def _assert_one_line(caught, *parts):
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def _save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "ids", [["9", "10", "2"], [9, 10, 2], [b"9", b"10", b"2"]], ids=["str", "int", "b"]
)
def test_embeddings_are_reordered(dtype, ids, tmp_path):
    rows = np.arange(6).reshape(3, 2).astype(dtype)
    path = _save(tmp_path / "text.npz", item_id=np.array(ids), embedding=rows)
    for wanted in (np.array([2, 9]), np.array(["2", "9"], object)):
        features = load_text_embeddings(path, wanted)
        assert features.encodings.tolist() == [[4.0, 5.0], [0.0, 1.0]]
        assert features.encodings.dtype == np.float32
        assert features.missing.tolist() == [False, False]
        assert features.source == str(path)


def test_absent_file(tmp_path):
    with pytest.raises(InputError) as caught:
        load_text_embeddings(tmp_path / "absent.npz", np.array(["1"]))
    _assert_one_line(caught, "absent.npz", "no such file")


def test_folder_for_a_file(tmp_path):
    with pytest.raises(InputError) as caught:
        load_text_embeddings(tmp_path, np.array(["1"]))
    _assert_one_line(caught, str(tmp_path), "cannot be read")


def _npy(path):
    with open(path, "wb") as file:
        np.save(file, np.eye(2))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"item_id,embedding\n"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(
            path.read_bytes()[:150] + b"\xff" * 20 + path.read_bytes()[170:]
        ),
        _npy,
        lambda path: _save(path, item_id=np.array(["1", 2], object), embedding=1.0),
    ],
    ids=["empty", "csv", "cut", "flipped", "npy", "pickled"],
)
def test_damaged_file(spoil, tmp_path):
    path = _save(tmp_path / "text.npz", item_id=["1", "2"], embedding=np.eye(2))
    spoil(path)
    with pytest.raises(InputError) as caught:
        load_text_embeddings(path, np.array(["1"]))
    _assert_one_line(caught, "text.npz", "damaged", "item_id [n]")


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"item_id": ["1"]}, ["no array embedding"]),
        ({"ids": ["1"], "x": [1.0]}, ["no array item_id and embedding"]),
        ({"item_id": ["1", "2"], "embedding": np.eye(3)}, ["[2]", "[3, 3]"]),
        ({"item_id": ["1", "2"], "embedding": np.ones(2)}, ["float64[2]"]),
        ({"item_id": [["1"], ["2"]], "embedding": np.eye(2)}, ["[2, 1]"]),
        ({"item_id": ["1", "2"], "embedding": np.zeros((2, 0))}, ["[2, 0]"]),
        ({"item_id": ["1", "2"], "embedding": np.eye(2, dtype=int)}, ["int64"]),
        ({"item_id": np.zeros(0, str), "embedding": np.zeros((0, 2))}, ["lacks 6 of"]),
        ({"item_id": list("1212"), "embedding": np.eye(4)}, ["repeats", "'1', '2'"]),
        (
            {"item_id": ["1", "x"], "embedding": np.eye(2)},
            ["lacks 5 of 6 items ('2', '3', '4', ...)"],
        ),
        (
            {
                "item_id": list("123456x"),
                "embedding": [[1.0], [np.nan], [np.inf], [1e300], [0.0], [0.0], [0.0]],
            },
            ["for 3 items ('2', '3', '4')"],
        ),
    ],
    ids=[
        *("absent", "both-absent", "lengths", "vector", "id-matrix", "no-width"),
        *("integer", "no-rows", "repeated", "lacking", "not-finite"),
    ],
)
def test_bad_file(arrays, parts, tmp_path):
    path = _save(tmp_path / "text.npz", **arrays)
    with pytest.raises(InputError) as caught:
        load_text_embeddings(path, np.arange(1, 7))
    _assert_one_line(caught, "text.npz", *parts)


def test_nan_outside_the_catalogue_does_not_matter(tmp_path):
    embedding = np.array([[1.0], [np.nan]])
    path = _save(tmp_path / "text.npz", item_id=["1", "2"], embedding=embedding)
    assert load_text_embeddings(path, np.array([1])).encodings.tolist() == [[1.0]]


def test_real_file():
    path = REAL_DATA / "ml-1m_text_minilm.npz"
    if not path.exists():
        pytest.skip("no shared/data/ml-1m_text_minilm.npz beside the repository")
    features = load_text_embeddings(path, np.array([2, 1, 3114]))
    with np.load(path) as arrays:
        ids, rows = arrays["item_id"], arrays["embedding"].astype(np.float32)
    assert features.encodings.shape == (3, 384)
    for row, item in enumerate(["2", "1", "3114"]):
        expected = rows[np.flatnonzero(ids == item)[0]]
        np.testing.assert_array_equal(features.encodings[row], expected)
    # Toy Story and its sequel (1 and 3114) are nearer than Toy Story and Jumanji (2).
    likeness = features.encodings @ features.encodings[1]
    assert likeness[2] > likeness[0]
