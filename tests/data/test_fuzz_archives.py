"""Damaged archives and caches are noticed: what is read is what was written.

The seeds are fixed, so a failure is repeated by its number.
"""

import gzip
import io
import zipfile

import numpy as np

from fedpeft_jax.data import DataSettings, load, load_dataset, make_split
from fedpeft_jax.features import encode_texts
from tests.data.fuzzing import ROWS, TEXTS, csv, damaged, right_or_refused
from tests.data.helpers import assert_same, assert_same_array


def test_damaged_archives(tmp_path):
    rng = np.random.default_rng(2)
    ratings = "".join(f"{u[1:]}::{i[1:]}::{r}::{t}\n" for u, i, t, r in ROWS)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-1m/ratings.dat", ratings)
        archive.writestr("ml-1m/movies.dat", "1::One (1990)::Drama\n")
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(packed.getvalue())
    whole = load_dataset("ml-1m", tmp_path, cache=False)
    for _ in range(80):
        path.write_bytes(damaged(rng, packed.getvalue()))
        data = right_or_refused(lambda: load_dataset("ml-1m", tmp_path, cache=False))
        if data is not None:  # it has checksums
            assert_same(data, whole)


def test_damaged_reviews(tmp_path):
    rng = np.random.default_rng(3)
    line = '{{"reviewerID": "{}", "asin": "{}", "unixReviewTime": {}, "overall": {}}}\n'
    reviews = "".join(line.format(*row) for row in ROWS)
    (tmp_path / "meta_Toys.json").write_text('{"asin": "i1", "title": "Kite"}\n')
    plain, packed = tmp_path / "Toys_5.json", tmp_path / "Toys_5.json.gz"
    settings = {"category": "Toys", "cache": False}
    load_it = lambda: load_dataset("amazon-2018", tmp_path, **settings)  # noqa: E731
    plain.write_text(reviews)
    whole = load_it()
    for number in range(60):
        plain.unlink(missing_ok=True)
        packed.unlink(missing_ok=True)
        if number % 2:
            plain.write_bytes(damaged(rng, reviews.encode()))
        else:
            packed.write_bytes(damaged(rng, gzip.compress(reviews.encode(), mtime=0)))
        data = right_or_refused(load_it)
        if data is not None and number % 2 == 0:
            assert_same(data, whole)


def faults(rng, folder):
    """Damages a folder of a cache in one way."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    kind = rng.integers(8)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        (folder / "more").write_bytes(rng.bytes(9))
    elif kind == 2:
        other = files[int(rng.integers(len(files)))]
        path.write_bytes(other.read_bytes())
    elif kind == 3:
        path.write_text(["[]", "{}", "null", "3", "", '{"files": {}}'][rng.integers(6)])
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))


def test_damaged_prepared_data(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(4)
    path = tmp_path / "log.csv"
    path.write_text(csv())
    settings = DataSettings(dataset="table", interactions=str(path))
    whole = load(settings)
    [folder] = (tmp_path / "cache" / "fedpeft_jax" / "datasets").iterdir()
    noted = 0
    for _ in range(120):
        faults(rng, folder)
        notes = []
        data = load(settings, note=notes.append)
        assert_same(data, whole)
        assert (data.name, data.notes) == (whole.name, whole.notes)
        one, other = make_split(data)[1], make_split(whole)[1]
        assert_same_array(one.train.values, other.train.values)
        assert_same_array(one.test, other.test)
        assert len(notes) <= 1 and not any("\n" in note for note in notes)
        noted += len(notes)
    assert noted > 90  # a file that is copied to itself is not damaged


def test_damaged_encodings(tmp_path):
    rng = np.random.default_rng(5)
    whole = encode_texts(TEXTS, cache_dir=tmp_path)
    [folder] = tmp_path.iterdir()
    for _ in range(25):
        faults(rng, folder)
        again = encode_texts(TEXTS, cache_dir=tmp_path, note=lambda text: None)
        assert_same_array(again.encodings, whole.encodings)
        assert_same_array(again.missing, whole.missing)
