"""Tests of prepared.py: what is cached is the same, and never out of date."""

import dataclasses
import json
import multiprocessing

import polars as pl
import pytest

from fedpeft_jax.data import DATASETS, Dataset, DataSettings, Raw, build, load_dataset
from fedpeft_jax.data.prepared import cached
from tests.data.helpers import assert_same

ROWS = "user,item,timestamp,rating\n" + "".join(
    f"u{u},{7 * u % 5 + i},{i},{i}\n" for u in range(6) for i in range(1, 6)
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table, and a list of the times that it was read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "log.csv"
    path.write_text(ROWS)
    read = []
    source = DATASETS["table"]

    def reading(settings):
        read.append(settings)
        return source.read(settings)

    monkeypatch.setitem(DATASETS, "table", source._replace(read=reading))
    return path, read


def load(path, **settings):
    return load_dataset("table", interactions=str(path), **settings)


def test_the_second_time_nothing_is_read(table):
    path, read = table
    first, second = load(path), load(path)
    assert len(read) == 1
    assert_same(first, second)
    assert (first.name, first.notes) == (second.name, second.notes)


def test_splits_share_what_is_prepared(table):
    path, read = table
    load(path)
    load(path, split="random", valid_items=0, time_cut=0.5, data_seed=9)
    assert len(read) == 1


@pytest.mark.parametrize(
    "changed",
    [{"k_core": 2}, {"min_rating": 2.0}, {"time_column": "none"},
     {"min_interactions": 2}, {"catalogue": "slots"}],
)  # fmt: skip
def test_another_setting_is_another_data_set(table, changed):
    path, read = table
    load(path)
    fresh = load(path, **changed, cache=False)
    assert_same(load(path, **changed), fresh)
    assert len(read) == 3


def test_the_same_files_in_other_roles_are_another_data_set(table, tmp_path):
    path, read = table
    header, *rows = ROWS.splitlines(keepends=True)
    train, held = tmp_path / "train.csv", tmp_path / "held.csv"
    train.write_text(header + "".join(r for r in rows if ",5,5" not in r))
    held.write_text(header + "".join(r for r in rows if ",5,5" in r))
    more = tmp_path / "more.csv"
    more.write_text(header + "u1,99,9,9\n")
    given = {"split": "given", "cache": True}
    one = {"valid_interactions": str(held), "test_interactions": str(more)}
    other = {"test_interactions": str(held), "items": str(more)}
    first = load(train, **given, **one)
    second = load(train, **given, **other)
    assert len(read) == 2
    assert (len(first.items.values), len(second.items.values)) == (31, 30)


def test_another_source_is_another_data_set(table):
    path, read = table
    before = load(path)
    path.write_text(ROWS.replace("u3,", "u9,"))
    after = load(path)
    assert before.user_ids.tolist() != after.user_ids.tolist()
    assert len(read) == 2
    path.write_text(ROWS)  # and back
    assert_same(load(path), before)
    assert len(read) == 2


def test_the_manifest_says_what_it_is_of(table, tmp_path):
    load(table[0], k_core=2)
    [folder] = (tmp_path / "cache" / "fedpeft_jax" / "datasets").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())["facts"]["of"]
    assert manifest["settings"]["k_core"] == 2
    after = {"split", "valid_items", "time_cut", "data_seed"}
    where = {"data_dir", "fetch", "cache"}
    files = {"interactions", "valid_interactions", "test_interactions", "items"}
    every = {field.name for field in dataclasses.fields(DataSettings)}
    assert set(manifest["settings"]) == every - after - where - files
    [[name, digest]] = manifest["sources"]
    assert name == "log.csv" and len(digest) == 64


@pytest.mark.parametrize("file", ["manifest", "users", "items", "interactions"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "swapped"])
def test_a_damaged_cache_is_made_again(table, tmp_path, file, damage, caplog):
    path, read = table
    before = load(path)
    [folder] = (tmp_path / "cache" / "fedpeft_jax" / "datasets").iterdir()
    suffix = "json" if file == "manifest" else "parquet"
    target = folder / f"{file}.{suffix}"
    if damage == "cut":
        target.write_bytes(target.read_bytes()[:-9])
    elif damage == "empty":
        target.write_bytes(b"")
    elif damage == "gone":
        target.unlink()
    elif suffix == "json":
        target.write_text("{}")
    else:
        pl.DataFrame({"id": [1], "item": [1], "count": [3]}).write_parquet(target)
    assert_same(load(path), before)
    assert len(read) == 2 and "is damaged and is made again" in caplog.text
    load(path)
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_is_no_error(table, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file in its place")
    load(table[0])
    assert "nothing is cached" in caplog.text


def test_ids_of_both_kinds_and_no_text(tmp_path):
    source = tmp_path / "x"
    source.write_text("")
    frame = pl.DataFrame({"user": ["é", "b", "b", "b"], "item": [30, 4, 30, 5]})
    for text in (None, {4: "four"}):
        data = build(Raw("x", frame, text))
        for _ in range(2):
            again = cached(
                DataSettings(k_core=int(text is None)), [source], lambda d=data: d,
                tmp_path / "cache",
            )  # fmt: skip
            assert_same(again, data)


def _load_in_process(path, queue):
    data = load_dataset("table", interactions=str(path))
    queue.put({f.name: getattr(data, f.name) for f in dataclasses.fields(Dataset)})


def test_two_runs_at_once(table):
    path, _ = table
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=_load_in_process, args=(path, queue)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    expected = load(path)
    for fields in found:
        assert_same(Dataset(**fields), expected)
