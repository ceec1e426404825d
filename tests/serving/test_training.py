"""One call that trains: in memory, into a folder, and on data sets of one's own."""

import json

import numpy as np
import pytest

from fedpeft_jax import InputError, from_frame, load, load_dataset, run, train
from fedpeft_jax.experiment import configure
from tests.small_runs import SETTINGS, finished, small_runs

OWN = {**SETTINGS, "full_init": "random", "rounds": 3, "baselines": "random"}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def mine():
    """A data set with ids of its own: words, and no text."""
    data = load_dataset("synthetic")
    frame = {
        "user": [f"user {u}" for u in data.items.owners],
        "item": [f"item {i}" for i in data.items.values],
        "time": np.arange(len(data.items.values)),
    }
    return from_frame(frame, name="my shop")


def test_in_memory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = train("synthetic", progress=False, **SETTINGS)
    assert list(tmp_path.iterdir()) == []
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    expected = load(finished().path)
    assert model.summary["metrics"] == expected.summary["metrics"]
    assert model.config == expected.config and model.round == expected.round == 6
    np.testing.assert_array_equal(model.item_embeddings, expected.item_embeddings)
    assert model.recommend(k=4).equals(expected.recommend(k=4))


def test_progress_goes_to_standard_error(capsys):
    train(**{**SETTINGS, "rounds": 3})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "synthetic: 60 users" in captured.err and "rounds 3/3" in captured.err


def test_a_folder_that_is_loaded_the_second_time(tmp_path, capsys):
    settings = {**SETTINGS, "rounds": 3}
    first = train(out=tmp_path / "run", progress=False, **settings)
    assert (tmp_path / "run" / "summary.json").exists()
    again = train(out=str(tmp_path / "run"), **settings)
    assert "holds this run, and it has finished" in capsys.readouterr().err
    assert again.recommend(k=3).equals(first.recommend(k=3))


def test_a_data_set_has_its_own_name_and_ids(mine, tmp_path):
    model = train(mine, out=tmp_path / "run", progress=False, **OWN)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["dataset"] == model.config.data.dataset == "my shop"
    assert model.summary["config"]["dataset"] == "my shop"
    assert model.summary["dataset"]["name"] == "my shop"
    loaded = load(tmp_path / "run")
    assert loaded.recommend("user 7", k=3)["item"].str.starts_with("item ").all()
    assert loaded.titles == (None,) * len(loaded.item_ids)
    memory = train(mine, progress=False, **OWN)
    assert memory.recommend(k=3).equals(loaded.recommend(k=3))
    assert memory.config == loaded.config.__class__(
        **{**vars(loaded.config), "run": memory.config.run}
    )


def test_run_records_the_name_too(mine):
    result = run(configure(**OWN), dataset=mine)
    assert result.summary["config"]["dataset"] == "my shop"


def test_the_same_command_on_another_data_set_is_refused(mine, tmp_path):
    settings = {**OWN, "rounds": 2}
    train(mine, out=tmp_path / "run", progress=False, **settings)
    with pytest.raises(InputError, match="dataset is 'my shop' there and 'synthetic'"):
        train(out=tmp_path / "run", progress=False, **settings)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({"user": [1], "item": [2]},), "dataset is a dict: use `from_frame`"),
        (("netflix",), "`dataset='netflix'` is not known"),
    ],
)
def test_what_is_no_data_set(arguments, says):
    with pytest.raises(InputError) as caught:
        train(*arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_settings_are_checked():
    with pytest.raises(InputError, match="there is no setting 'roundz'"):
        train(roundz=3)
