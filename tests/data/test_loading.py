"""Tests of loading.py: data sets by name, missing files, and tables in memory."""

import zipfile

import numpy as np
import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import (
    DATASETS,
    DataSettings,
    Raw,
    build,
    from_frame,
    load,
    load_dataset,
    load_synthetic,
)
from fedpeft_jax.data.readers.download import File
from tests.data.helpers import assert_same


def test_generated_data_are_of_the_data_seed():
    assert_same(load_dataset("synthetic", data_seed=7), load_synthetic(7))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nope", {}, "`dataset='nope'` is not known"),
        ("ml-1m", {}, "'ml-1m' is read from files: set `data_dir=DIR`.*ml-1m.zip"),
        ("amazon-2018", {}, "set `data_dir=DIR`.*CATEGORY_5.json.gz.*set `fetch`"),
        ("ml-1m", {"data_dir": "/nowhere"}, "/nowhere: no such file.*ml-1m.zip"),
        (
            "amazon-2018",
            {"data_dir": ".", "category": "../x"},
            "'../x'` is no category",
        ),
        (
            "amazon-2018",
            {"data_dir": ".", "category": "a/b", "fetch": True},
            "'a/b'` is no category",
        ),
        ("table", {}, "set `interactions=FILE`, or pass a data set that from_frame"),
    ],
)
def test_files_that_are_missing(name, settings, message):
    with pytest.raises(InputError, match=message):
        load_dataset(name, **settings)


def test_the_settings_apply_to_what_was_read():
    settings = DataSettings(k_core=15, catalogue="listed", repeated_pairs="latest")
    raw = DATASETS["synthetic"].read(settings)
    assert_same(load(settings), build(raw, settings))
    assert load(settings).num_users < load_synthetic().num_users


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes a small MovieLens archive at a file URL."""
    archive = tmp_path / "published" / "ml-1m.zip"
    archive.parent.mkdir()
    rows = "".join(f"{u}::{i}::3::{7 * i}\n" for u in range(1, 4) for i in range(1, 5))
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-1m/ratings.dat", rows)
        packed.writestr("ml-1m/movies.dat", "1::One::Drama\n")
    file = File("ml-1m.zip", (archive.as_uri(),))
    source = DATASETS["ml-1m"]._replace(published=lambda settings: [file])
    monkeypatch.setitem(DATASETS, "ml-1m", source)
    return archive


def test_missing_files_are_downloaded_once(published, tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(InputError, match="or set `fetch`"):
        load_dataset("ml-1m", folder, cache=False)
    notes, progress = [], []
    for _ in range(2):
        data = load(
            DataSettings(
                dataset="ml-1m", data_dir=str(folder), fetch=True, cache=False
            ),
            note=notes.append,
            progress=lambda *report: progress.append(report),
        )
        assert (data.num_users, data.num_items) == (3, 4)
        published.unlink(missing_ok=True)
    size = (folder / "ml-1m.zip").stat().st_size
    assert len(notes) == 1 and notes[0].startswith("ml-1m.zip from https://grouplens")
    assert progress[-1] == ("ml-1m.zip", size, size)


def test_files_are_downloaded_into_a_folder_of_their_own(
    published, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    load_dataset("ml-1m", fetch=True, cache=False)
    assert (tmp_path / "data" / "ml-1m" / "ml-1m.zip").is_file()


LOG = {"user": [1, 1, 1, 2, 2], "item": [9, 8, 7, 9, 7], "rating": [1, 5, 5, 5, 5]}


def test_a_table_in_memory_is_filtered_and_numbered():
    data = from_frame(LOG, {"item": [8], "title": ["Up"]}, name="mine")
    expected = build(Raw("mine", pl.DataFrame(LOG), {8: "Title: Up."}))
    assert_same(data, expected)
    assert (data.name, data.notes) == (expected.name, expected.notes)
    data = from_frame(LOG, min_interactions=3, repeated_pairs="latest")
    assert data.name == "table" and data.user_ids.tolist() == [1]


def test_a_table_in_memory_needs_what_its_filters_need():
    with pytest.raises(InputError, match="table: `min_rating=3` needs ratings"):
        from_frame(np.array([[1, 2], [1, 3], [1, 4]]), min_rating=3)
    with pytest.raises(InputError, match="table: `k_core=3` leaves none of 5"):
        from_frame(LOG, k_core=3)
