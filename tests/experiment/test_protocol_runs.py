"""Whole runs under other protocols, and their results by user."""

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from fedpeft_jax.evaluation.metrics import summarize
from fedpeft_jax.experiment import (
    advance,
    configure,
    make_clients,
    make_phases,
    make_program,
    prepare,
    print_summary,
    start,
)
from fedpeft_jax.experiment.warnings import protocol_warnings
from tests.small_runs import NUM_USERS, TRAINED, finish, finished, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def test_per_user_ranks_average_to_the_metrics():
    run = finished()
    table = pl.read_parquet(run.path / "per_user.parquet")
    assert len(table) == run.summary["dataset"]["evaluated_users"]
    everything = {"model": run.summary["metrics"], **run.summary["baselines"]}
    del everything["random"]  # a closed form, not ranks
    assert len(everything) == 4
    for name, metrics in everything.items():
        for target in ("valid", "test"):
            for ranking in ("sampled", "full"):
                column = f"{name}_{target}_{ranking}"
                above, ties = (table[f"{column}_{part}"] for part in ("above", "ties"))
                again = summarize((above.to_numpy(), ties.to_numpy()))
                assert again == pytest.approx(metrics[target][ranking])


def test_slices_average_to_the_metrics():
    summary = finished().summary
    users = summary["dataset"]["evaluated_users"]
    for parts in summary["slices"].values():
        assert sum(part["users"] for part in parts.values()) == users
        for ranking in ("sampled", "full"):
            total = sum(
                part["users"] * part[ranking]["ndcg@10"] for part in parts.values()
            )
            expected = summary["metrics"]["test"][ranking]["ndcg@10"]
            assert total / users == pytest.approx(expected)


def test_without_validation_items(tmp_path):
    run = finish(tmp_path / "run", valid_items=0)
    assert run.summary["best_valid"] is None
    assert set(run.summary["metrics"]) == {"test"}
    assert all(entry["metrics"] == {} for entry in run.history)
    assert run.summary["protocol"]["unsound"][0].startswith("valid_items=0")
    pairs = run.summary["dataset"]["train_pairs"]
    assert pairs == finished().summary["dataset"]["train_pairs"] + NUM_USERS
    table = pl.read_parquet(run.path / "per_user.parquet")
    assert table["valid_item"].null_count() == NUM_USERS
    assert not any("_valid_" in column for column in table.columns)


def test_baselines_are_those_that_were_asked_for(tmp_path):
    run = finish(tmp_path / "run", baselines="random, bpr_mf")
    assert set(run.summary["baselines"]) == {"bpr_mf", "random"}
    assert run.summary["protocol"]["log_odds_over_popularity"] is None
    without = finish(tmp_path / "other", full_init="random")
    assert "text_neighbours" not in without.summary["baselines"]


@pytest.mark.parametrize("draws", ["fixed", "fresh"])
def test_negatives_are_drawn_once_or_for_every_participation(draws):
    """All take part from the same start: only their draws can tell two rounds apart."""
    changes = {"rounds": 1, "cohort_fraction": 1.0, "negative_draws": draws}
    config = configure(**{**TRAINED, **changes})
    prepared = prepare(config)
    [phase] = make_phases(config, prepared)
    sampler = phase.algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler)
    program = make_program(phase.model, phase.algorithm, clients)
    tables = []
    for round_ in (0, 1):
        state = start(config.run.seed, [phase], NUM_USERS)
        rounds = state.rounds._replace(round=jnp.int32(round_))
        after, _ = advance(program, state._replace(rounds=rounds), 1)
        tables.append(np.asarray(jax.tree.leaves(after.rounds.rows)[0]))
    same = np.allclose(tables[0], tables[1], rtol=1e-4, atol=1e-6)
    assert same == (draws == "fixed")


def test_a_leaking_protocol_is_reported(tmp_path, capsys):
    summary = finish(tmp_path / "run", train_negatives="unseen").summary
    assert summary["protocol"]["unsound"][0].startswith("train_negatives=unseen")
    assert summary["warnings"][0]["kind"] == "unsound_protocol"
    summary["protocol"]["log_odds_over_popularity"] = {
        "difference": 0.2, "standard_error": 0.02, "leaks": True,
    }  # fmt: skip
    summary["warnings"] = protocol_warnings(summary["protocol"])
    print_summary(summary)
    printed = capsys.readouterr().out
    assert "unsound protocol: train_negatives=unseen" in printed
    assert "this protocol leaks" in printed and "10 standard errors" in printed
