"""The tables with the original ids: what they hold, and what is refused."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from fedpeft_jax import from_frame
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import leave_one_out
from fedpeft_jax.experiment.id_tables import frames_of, id_tables, read_id_tables
from fedpeft_jax.experiment.run_folder import TABLES, RunFolder


def dataset(**columns):
    rows = {
        "user": ["ann", "ann", "ann", "ann", "bob", "cyd"],
        "item": [30, 10, 20, 40, 10, 20],
        "time": [1, 4, 2, 3, 9, 9],
    }
    items = {"item": [10, 20, 30], "title": ["Ten", "Twenty", "Thirty"]}
    return from_frame({**rows, **columns}, items, name="toy")


def written(path, data=None):
    data = data or dataset()
    tables = id_tables(data, leave_one_out(data))
    folder = RunFolder(path, "toy")
    folder.write_tables(tables.name, frames_of(tables))
    folder.close()
    return tables


def test_rows_are_numbers_and_everybody_is_listed(tmp_path):
    written(tmp_path)
    items = pl.read_parquet(tmp_path / "items.parquet")
    assert items.rows() == [
        (10, "Ten", 2), (20, "Twenty", 2), (30, "Thirty", 1), (40, None, 1),
    ]  # fmt: skip
    users = pl.read_parquet(tmp_path / "users.parquet")
    assert users.rows() == [("ann", 4, 2), ("bob", 1, 1), ("cyd", 1, 1)]
    histories = pl.read_parquet(tmp_path / "histories.parquet")
    assert histories.rows() == [
        (0, 2, True), (0, 1, True), (0, 3, False), (0, 0, False),
        (1, 0, True), (2, 1, True),
    ]  # fmt: skip


@pytest.mark.parametrize("ids", ["words", "numbers"])
def test_what_is_read_is_what_was_written(tmp_path, ids):
    columns = {} if ids == "words" else {"user": [5, 5, 5, 5, 6, 9]}
    tables = written(tmp_path, dataset(**columns))
    found = read_id_tables(tmp_path)
    assert (found.name, found.titles) == ("toy", tables.titles)
    for name in ("item_ids", "user_ids", "trains"):
        one, other = getattr(found, name), getattr(tables, name)
        assert one.dtype.kind == other.dtype.kind and one.tolist() == other.tolist()
    assert found.items.values.tolist() == tables.items.values.tolist()
    assert found.items.offsets.tolist() == tables.items.offsets.tolist()


def refused(path, *says):
    with pytest.raises(InputError) as caught:
        read_id_tables(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in says:
        assert str(part) in message


@pytest.mark.parametrize("name", [f"{table}.parquet" for table in TABLES])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "foreign", "link"])
def test_a_file_that_is_not_the_one_that_was_written(tmp_path, name, damage):
    written(tmp_path / "run")
    path = tmp_path / "run" / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-9])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "foreign":
        pl.DataFrame({"a": [1]}).write_parquet(path)
    elif damage == "link":
        (tmp_path / "other").write_bytes(content)
        path.symlink_to(tmp_path / "other")
    refused(tmp_path / "run", path, "is damaged", "copy the run folder again")


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "null", "{}", '{"sha256": 3}', "[" * 100_000]
)
def test_a_manifest_that_is_none(tmp_path, content):
    written(tmp_path)
    path = tmp_path / "tables.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    refused(tmp_path, path)


def test_a_manifest_of_another_run(tmp_path):
    written(tmp_path / "one")
    written(tmp_path / "two", dataset(user=["x", "x", "x", "x", "y", "z"]))
    manifest = (tmp_path / "two" / "tables.json").read_text()
    (tmp_path / "one" / "tables.json").write_text(manifest)
    refused(tmp_path / "one", "users.parquet is damaged")


def test_a_manifest_that_was_edited(tmp_path):
    written(tmp_path)
    path = tmp_path / "tables.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "dataset": "another"}))
    refused(tmp_path, path, "another content than when it was written")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t._replace(item_ids=t.item_ids[[0, 0, 1, 2]]), "not distinct"),
        (lambda t: t._replace(item_ids=t.item_ids / 2), "item of items is Float64"),
        (
            lambda t: t._replace(
                items=dataclasses.replace(t.items, values=t.items.values + 1)
            ),
            "not listed",
        ),
        (
            lambda t: t._replace(
                items=dataclasses.replace(t.items, values=t.items.values - 1)
            ),
            "not listed",
        ),
        (lambda t: t._replace(trains=t.trains.astype(np.int8)), "is Int8"),
    ],
)
def test_a_consistent_folder_with_bad_content(tmp_path, change, says):
    data = dataset()
    tables = id_tables(data, leave_one_out(data))
    frames = frames_of(tables)
    changed = change(tables)
    frames |= {
        "items": frames["items"].with_columns(
            item=pl.Series(changed.item_ids.tolist())
        ),
        "histories": pl.DataFrame(
            {
                "user": tables.items.owners.astype(np.int32),
                "item": changed.items.values.astype(np.int32),
                "trains": changed.trains,
            }
        ),
    }
    folder = RunFolder(tmp_path, "toy")
    folder.write_tables("toy", frames)
    refused(tmp_path, tmp_path / "tables.json", says)
