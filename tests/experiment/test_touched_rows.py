"""Runs that send touched rows, fewer bits or fewer numbers: what they count and say."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import ClientPurpose, purpose_key
from fedpeft_jax.experiment import configure, prepare, run
from fedpeft_jax.experiment.clients import make_clients, plan_rounds
from fedpeft_jax.experiment.memory import check_memory, predict
from fedpeft_jax.experiment.phases import make_phases
from fedpeft_jax.experiment.reporting import print_summary
from tests.experiment.test_resume import after, in_folder, stopped
from tests.helpers import client_key
from tests.small_runs import (
    FEATURES,
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    finished,
    history,
    results,
    run_cli,
    small_runs,
)

RATE = 0.4
ROWS = {
    "upload": "int8(block='row'), rows",
    "download": "int4",
    "dropout_rate": RATE,
    "num_negatives": 2,
}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """The folder and the result of a run with touched rows and clients that vanish."""
    path = tmp_path_factory.mktemp("rows")
    return path, in_folder(path, ROWS)


def rows_by_hand(key):
    """The touched rows and the answers of each phase, client by client."""
    config = configure(**SETTINGS, **ROWS)
    prepared = prepare(config)
    sampler = make_phases(config, prepared)[0].algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler)
    train = prepared.split.train
    trains = np.split(np.asarray(train.values), np.asarray(train.offsets)[1:-1])
    touched, answers = [0, 0], [0, 0]
    for round_ in range(6):
        phase = int(round_ >= 2)
        for client in plan_rounds(clients, round_).client_ids[0].tolist():
            own = client_key(key.copy(), round_, client)
            vanish = jax.random.uniform(purpose_key(own, ClientPurpose.VANISH))
            if vanish >= RATE:
                positives = len(set(trains[client]))
                answers[phase] += 1
                touched[phase] += positives + min(2 * positives, NUM_ITEMS - positives)
    return touched, answers


def test_a_run_counts_the_rows_of_the_clients_that_answered(sent):
    path, (summary, _, state) = sent
    touched, answers = rows_by_hand(state.rounds.key)
    assert 0 < answers[0] < state.phase_clients[0]
    assert state.phase_answers.tolist() == answers
    assert state.phase_touched.tolist() == touched
    # A row has its id and its scale; the table has 8 columns, LoRA's A has 4.
    table, rank = FEATURES, 4
    up = [touched[0] * (8 + table), answers[1] * (FEATURES * (rank + 4))]
    up[1] += touched[1] * (8 + rank)
    down = [
        NUM_ITEMS * table // 2 + 4 * table,
        NUM_ITEMS * rank // 2 + 4 * rank + FEATURES * rank // 2 + 4 * rank,
    ]
    down_total = int(np.dot(down, state.phase_clients))
    found = summary["communication"]
    assert found["total_bytes"] == sum(up) + down_total + found["one_time_bytes"]
    assert history(path)[-1]["bytes"] == found["total_bytes"]
    for phase, total, count in zip(found["phases"], up, answers, strict=True):
        assert phase["uplink_bytes_per_client_round"] == round(total / count)
    assert found["downlink_bytes_per_client_round"] == dict(
        zip(("warm_up", "peft"), down, strict=True)
    )


def test_the_output_says_what_an_upload_reveals(sent):
    summary = sent[1][0]
    (text,) = summary["communication"]["reveals"]
    assert text.startswith("which items each client touched")
    out = io.StringIO()
    print_summary(summary, console=Console(file=out, width=200))
    assert f"the upload reveals {text}" in out.getvalue()
    plain = finished().summary
    assert plain["communication"]["reveals"] == []
    out = io.StringIO()
    print_summary(plain, console=Console(file=out, width=200))
    assert "reveals" not in out.getvalue()


@pytest.mark.slow
def test_a_continued_run_counts_the_same_rows(sent, tmp_path):
    stopped(tmp_path, ROWS, calls=1)
    in_folder(tmp_path, ROWS, stop=after(100))
    assert results(tmp_path) == results(sent[0])


@pytest.mark.slow
def test_feedback_is_part_of_a_checkpoint(tmp_path):
    settings = {"upload": "top_k(k=20), int8", "download": "int8"}
    whole = in_folder(tmp_path / "whole", settings)
    communication = whole.summary["communication"]
    assert communication["uplink_bytes_per_client_round"] == {
        "warm_up": 20 * 5 + 4,
        "peft": 20 * 5 + 4,
    }
    assert len(communication["reveals"]) == 1
    kept = jax.tree.leaves(whole.state.rounds.upload)
    assert {len(x) for x in kept} == {NUM_USERS} and any(np.any(x) for x in kept)
    stopped(tmp_path / "again", settings, calls=1)
    in_folder(tmp_path / "again", settings, stop=after(100))
    assert results(tmp_path / "again") == results(tmp_path / "whole")


# What is refused before a run begins


def split_and(**settings):
    config = configure(**{**SETTINGS, **settings})
    return config, prepare(configure(**SETTINGS)).split


def test_the_memory_of_the_clients_feedback_is_predicted():
    config, split = split_and(upload="top_k", warm_up_rounds=0)
    parts = {part.name: part for part in predict(config, split)}
    one = 4 * 4 * (NUM_ITEMS + FEATURES)  # LoRA's A and B
    assert parts["the clients' state of `upload`"].size == NUM_USERS * one
    assert parts["the cohort's state of `upload`"].size == 6 * one
    config, split = split_and(upload="top_k", num_candidates=5)
    with pytest.raises(InputError) as caught:
        check_memory(config, split, host=10**5, device=None)
    message = str(caught.value)
    assert "the largest part is the clients' state of `upload`" in message
    assert message.endswith(
        "lower what `upload` keeps, with `upload=top_k(error_feedback=False)`"
    )
    config, split = split_and(upload="top_k(error_feedback=False)")
    parts = {part.name: part.size for part in predict(config, split)}
    assert parts["the clients' state of `upload`"] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--upload=int8, top_k"], "the stage top_k cannot follow int8 or int4"),
        (["--upload=top_k, rows"], "the stage rows cannot follow top_k"),
        (["--download=int8, int4"], "the stage int4 cannot follow int8 or int4"),
        (["--download=top_k"], "unknown download 'top_k'"),
        (["--upload=int8(block='items')"], "block must be one of column, row, tensor"),
        (["--upload=top_k(k=0)"], "top_k: k must be an integer of at least 1"),
        (
            ["--upload=rows", "--train_negatives=unseen"],
            "leave out --negative_slots and --train_negatives=unseen",
        ),
    ],
)
def test_stages_that_cannot_work_are_refused(flags, message, tmp_path, capsys):
    assert run_cli(f"--out={tmp_path / 'run'}", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_the_default_run_has_no_new_arrays():
    config = configure(**SETTINGS)
    assert config.training.upload == config.server.download == "identity"
    result = run(config)
    assert result.state.phase_touched.tolist() == [0, 0]
    assert result.state.rounds.upload == ()
