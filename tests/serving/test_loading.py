"""Run folders: finished, unfinished, damaged, foreign, and made to do harm."""

import json
import shutil
import signal

import numpy as np
import pytest

from fedpeft_jax import (
    InputError,
    RunFolder,
    TrainedModel,
    configure,
    from_frame,
    leave_one_out,
    load,
    run,
)
from fedpeft_jax.core.errors import StoppedError
from fedpeft_jax.experiment.checkpoint import load_variables, save_variables
from fedpeft_jax.experiment.id_tables import frames_of, id_tables
from tests.small_runs import SETTINGS, finished, leaf, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture
def folder(tmp_path):
    """A copy of a finished run, to be damaged."""
    return shutil.copytree(finished().path, tmp_path / "run")


def refused(path, *says):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    for part in says:
        assert str(part) in message


def stopped_after(path, calls):
    """A run that a signal stopped when it was about to begin its next rounds."""
    left = [calls]

    def stop():
        left[0] -= 1
        return signal.SIGTERM if left[0] < 0 else None

    with pytest.raises(StoppedError):
        run(configure(**SETTINGS, out=str(path)), stop=stop)


def test_a_finished_run(folder):
    model = load(str(folder))
    assert isinstance(model, TrainedModel)
    assert model.summary == json.loads((folder / "summary.json").read_text())
    assert model.config == configure(**SETTINGS)
    assert model.round == 6
    assert repr(model).startswith("TrainedModel('synthetic': 60 users, 40 items, fedmf")


@pytest.mark.parametrize(("calls", "round_", "parts"), [(0, 0, 1), (2, 4, 2)])
def test_an_unfinished_run_in_either_phase(tmp_path, calls, round_, parts):
    stopped_after(tmp_path / "run", calls)
    model = load(tmp_path / "run")
    assert model.summary is None and model.round == round_
    assert len(model.recommend(k=3)) == 60 * 3
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob(f"round-*{round_}")
    held = load_variables(checkpoint)
    table = leaf(held, "full")
    if parts == 2:
        table = table + leaf(held["rounds"], "A") @ leaf(held["rounds"], "B").T
    np.testing.assert_allclose(model.item_embeddings, table, atol=1e-5)
    assert model.fold_in([1, 2, 3], k=2).recommendations.height == 2


def test_a_run_that_continues_after_its_checkpoint_was_loaded(tmp_path):
    stopped_after(tmp_path / "run", 2)
    load(tmp_path / "run")
    run(configure(**SETTINGS, out=str(tmp_path / "run")))
    expected = load(finished().path).recommend(k=5)
    assert load(tmp_path / "run").recommend(k=5).equals(expected)


def test_a_run_without_a_checkpoint(folder):
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    refused(folder, folder, "has no checkpoint yet", "`checkpoint_every`")


def test_no_folder_and_no_run(tmp_path):
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, tmp_path / "config.json", "name the folder of a run")


def test_a_run_of_an_older_version_has_no_tables(folder):
    (folder / "tables.json").unlink()
    refused(folder, folder / "tables.json")


@pytest.mark.parametrize("name", ["config.json", "summary.json", "tables.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\xff", "nan"])
def test_damaged_json(folder, name, content):
    (folder / name).write_text(content)
    refused(folder, folder / name, "is damaged")


@pytest.mark.parametrize("name", ["config.json", "items.parquet", "summary.json"])
def test_links_are_not_followed(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refused(folder, folder / name)


def test_a_link_in_the_place_of_the_checkpoints(folder, tmp_path):
    (folder / "checkpoints").rename(tmp_path / "elsewhere")
    (folder / "checkpoints").symlink_to(tmp_path / "elsewhere")
    refused(folder, "is a link")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backbone": "os.system('true')"}, "cannot read"),
        ({"backbone": "__import__('os')"}, "cannot read"),
        ({"embedding": "evil"}, "unknown embedding 'evil'"),
        ({"client_optimizer": "adam"}, "needs 'learning_rate'"),
        ({"features": "8"}, "`features='8'` must be an integer"),
        ({"features": 10**12}, "`features=1000000000000` must be at least 1"),
        ({"embedding": "lora(rank=3)"}, "are not those of its configuration"),
        ({"backbone": "pfedrec"}, "are not those of its configuration"),
        ({"full": "none"}, "are not those of its configuration"),
        ({"flux": 3}, "there is no setting 'flux'"),
    ],
)
def test_a_configuration_that_is_not_the_runs(folder, settings, says):
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, **settings}))
    refused(folder, folder, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: {**v, "private": {"user": v["private"]["user"][:-1]}}, "[59, 8]"),
        (lambda v: {**v, "private": {}}, "private/user is missing"),
        (lambda v: {**v, "params": {}}, "is missing"),
        (lambda v: {**v, "private": {"user": v["private"]["user"] * np.nan}}, "finite"),
        (
            lambda v: {**v, "private": {"user": v["private"]["user"].astype(np.int32)}},
            "int32[60, 8], not float32[60, 8]",
        ),
    ],
)
def test_variables_of_another_model(folder, change, says):
    final = folder / "checkpoints" / "final"
    save_variables(final, change(load_variables(final)))
    refused(folder, folder, says)


def test_a_model_with_a_flipped_bit(folder):
    tree = folder / "checkpoints" / "final" / "tree"
    path = max(
        (p for p in tree.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(folder, folder / "checkpoints" / "final", "another content")


def test_tables_of_another_run(folder, tmp_path):
    table = {"user": [1, 1, 1, 1], "item": [1, 2, 3, 4]}
    data = from_frame(table, name="other")
    tables = id_tables(data, leave_one_out(data))
    other = RunFolder(tmp_path / "other", "other")
    other.write_tables(tables.name, frames_of(tables))
    for path in other.path.iterdir():
        shutil.copy(path, folder)
    refused(folder, "are not those of its configuration")
