"""Exported models, used by a process that does not have the library."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from fedpeft_jax import InputError, load
from tests.small_runs import finish, finished, small_runs

READ = """
import json, sys
import numpy as np
import jax, jax.export
assert "fedpeft_jax" not in sys.modules
given = json.load(sys.stdin)
score = jax.export.deserialize(open(given["path"], "rb").read())
for users, history in given["calls"]:
    users, history = np.array(users, np.int32), np.array(history, np.int32)
    print(json.dumps(score.call(users, history).tolist()))
"""


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def padded(model, users):
    """The training items of users by number, with -1 after the last."""
    rows = {item: row for row, item in enumerate(model.item_ids.tolist())}
    lists = []
    for user in users:
        frame = model.history(model.user_ids[user])
        lists.append([rows[i] for i, _, p in frame.iter_rows() if p == "train"])
    length = max(map(len, lists))
    return [items + [-1] * (length - len(items)) for items in lists]


def call_elsewhere(path, calls, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps({"path": str(path), "calls": calls}),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"JAX_PLATFORMS": "cpu", "PATH": os.environ["PATH"]},
    )
    assert run.returncode == 0, run.stderr
    return [np.array(json.loads(line)) for line in run.stdout.splitlines()]


def test_vectors_and_ids(tmp_path):
    model = load(finished().path)
    model.export(tmp_path / "exported")
    with safe_open(tmp_path / "exported" / "vectors.safetensors", "numpy") as held:
        assert held.metadata() == {
            "dataset": "synthetic",
            "item_ids": "items.parquet",
            "user_ids": "users.parquet",
        }
        for name in ("item_embeddings", "user_embeddings"):
            np.testing.assert_array_equal(held.get_tensor(name), getattr(model, name))
    items = pl.read_parquet(tmp_path / "exported" / "items.parquet")
    assert items["item"].to_list() == model.item_ids.tolist()
    assert items["title"].to_list() == list(model.titles)
    users = pl.read_parquet(tmp_path / "exported" / "users.parquet")
    assert users["user"].to_list() == model.user_ids.tolist()
    assert sorted(p.name for p in (tmp_path / "exported").iterdir()) == [
        "items.parquet", "score.jax", "users.parquet", "vectors.safetensors",
    ]  # fmt: skip
    model.export(tmp_path / "exported")  # again, over the files


@pytest.mark.parametrize("backbone", ["fedmf", "fedpergnn"])
def test_scores_without_the_library_for_any_number_of_users(backbone, tmp_path):
    path = finished().path
    if backbone != "fedmf":
        settings = {"warm_up_rounds": 0, "rounds": 2, "baselines": "random"}
        path = finish(tmp_path / "run", backbone=backbone, **settings).path
    model = load(path)
    model.export(tmp_path / "exported")
    calls = [(users, padded(model, users)) for users in ([3], [5, 0, 59])]
    found = call_elsewhere(tmp_path / "exported" / "score.jax", calls, tmp_path)
    for (users, _), scores in zip(calls, found, strict=True):
        expected = model.score(model.user_ids[users])
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write .*file.*another folder"):
        load(finished().path).export(tmp_path / "file")


def test_a_package_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(InputError, match=r"pip install 'fedpeft_jax\[export\]'"):
        load(finished().path).export(tmp_path / "exported")


def test_a_nearest_neighbour_index_finds_what_the_model_recommends():
    """The example of docs/using-a-model.md."""
    index_of = pytest.importorskip("usearch.index").Index
    model = load(finished().path)
    items, users = model.item_embeddings, model.user_embeddings
    index = index_of(ndim=items.shape[1], metric="ip")
    index.add(np.arange(len(items)), items)
    found = index.search(users, 5)
    best = model.recommend(k=5, exclude_history=False)["item"].to_numpy().reshape(-1, 5)
    ids = model.item_ids[np.asarray(found.keys)]
    recall = np.mean([len({*a} & {*b}) / 5 for a, b in zip(ids, best, strict=True)])
    assert recall > 0.9
