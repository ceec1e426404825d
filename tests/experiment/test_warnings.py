"""Warnings of a finished run: when there is one, what it says, and what it advises."""

import numpy as np
import pytest

from fedpeft_jax.evaluation import Ranks
from fedpeft_jax.evaluation.metrics import summarize
from fedpeft_jax.experiment import configure
from fedpeft_jax.experiment.warnings import find_warnings, warning_lines

RNG = np.random.default_rng(0)
POPULARITY = RNG.integers(0, 30, 400)
SOUND = {"unsound": [], "log_odds_over_popularity": None}


def ranks_of(**above):
    """Ranks in both rankings by model or baseline; an array, or one per ranking."""

    def ranks(values):
        return Ranks(np.asarray(values), np.zeros(len(values), int))

    return {
        name: {
            "test": {
                "sampled": ranks(both[0] if isinstance(both, tuple) else both),
                "catalogue": ranks(both[1] if isinstance(both, tuple) else both),
            }
        }
        for name, both in above.items()
    }


def curve(*values, step=100):
    """A history with these validations."""
    return [
        {"round": step * i, "metrics": {"valid": {"sampled": {"ndcg@10": value}}}}
        for i, value in enumerate(values, start=1)
    ]


FLAT = curve(0.1, 0.2, 0.3, 0.31, 0.31, 0.311, 0.312, 0.311, 0.312, 0.31)


def warn(ranks, history=FLAT, protocol=SOUND, users=400, has_text=True, **settings):
    """The warnings about a run with these ranks, by their kind."""

    def metrics(one):
        sampled, full = one["test"]["sampled"], one["test"]["catalogue"]
        return {"test": {"sampled": summarize(sampled), "full": summarize(full)}}

    config = configure(**settings)
    summary = {
        "protocol": protocol,
        "dataset": {"users": users},
        "metrics": metrics(ranks["model"]),
        "baselines": {k: metrics(v) for k, v in ranks.items() if k != "model"},
        "rounds": {"run": config.run.rounds},
    }
    found = find_warnings(config, summary, ranks, history, has_text=has_text)
    return {warning["kind"]: warning for warning in found}


BELOW = ranks_of(model=POPULARITY + 3, most_popular=POPULARITY)


# Below popularity


def test_a_model_below_popularity_is_reported_with_both_figures():
    [(kind, warning)] = warn(BELOW).items()
    assert kind == "below_popularity"
    model, baseline = (np.mean(POPULARITY + n < 10) for n in (3, 0))
    figures = f"HR@10 {model:.3f} against {baseline:.3f}"
    assert f"{figures} among sampled items" in warning["message"]
    assert f"{figures} among all items" in warning["message"]
    assert warning["try"][0] == "aggregator=row_mean"


@pytest.mark.parametrize(
    "model",
    [
        POPULARITY,  # equal
        np.maximum(POPULARITY - 3, 0),  # above
        RNG.permutation(POPULARITY),  # as good, but for other users
    ],
)
def test_a_model_that_is_not_below_popularity_has_no_warning(model):
    assert warn(ranks_of(model=model, most_popular=POPULARITY)) == {}


def test_a_difference_within_two_standard_errors_is_no_warning():
    # Of 400 users 16 differ. One way only, that is 4 standard errors; 10 to 6 is one.
    above = np.full(400, 5)
    worse, mixed = above.copy(), above.copy()
    worse[:16] = mixed[:10] = 20
    other = above.copy()
    other[10:16] = 20
    assert "below_popularity" in warn(ranks_of(model=worse, most_popular=above))
    assert warn(ranks_of(model=mixed, most_popular=other)) == {}


def test_a_model_below_popularity_in_one_ranking_only():
    two = (POPULARITY, POPULARITY + 3)
    found = warn(ranks_of(model=two, most_popular=POPULARITY))["below_popularity"]
    assert "among all items" in found["message"]
    assert "among sampled items" not in found["message"]


def test_few_users_or_no_popularity_baseline_are_not_compared():
    few = np.full(19, 0)
    assert warn(ranks_of(model=few + 20, most_popular=few)) == {}
    assert warn(ranks_of(model=POPULARITY + 3)) == {}


# Remedies


def remedies(history=FLAT, has_text=True, **settings):
    return warn(BELOW, history, has_text=has_text, **settings)["below_popularity"][
        "try"
    ]


def test_remedies_depend_on_the_settings():
    trained = {"full": "trained", "embedding": "none"}
    assert remedies() == ["aggregator=row_mean", "full=trained embedding=none"]
    assert remedies(**trained) == ["aggregator=row_mean"]
    step = "server_optimizer=sgd(learning_rate=1.0)"
    by_row = {**trained, "aggregator": "row_mean"}
    assert remedies(**by_row) == [step]
    assert remedies(**by_row, server_optimizer="sgd(learning_rate=1.0)") == []
    assert remedies(embedding="none") == ["embedding=lora"]
    assert remedies(full="none", embedding="hash") == ["full=frozen"]
    assert remedies(full="none", has_text=False)[-1] == "full=frozen full_init=random"


def test_remedies_without_text():
    random = {
        **{"full": "trained", "embedding": "none", "full_init": "random"},
        **{"aggregator": "mean", "latent_scale": 0.5},
    }
    table = "full_init=text text_embeddings=FILE.npz"
    assert remedies(has_text=False, **random) == [
        "aggregator=row_mean", "latent_scale=0.1", table,
    ]  # fmt: skip
    assert remedies(has_text=True, **random)[-1] == "full_init=text"
    best = {**random, "aggregator": None, "latent_scale": None}
    step = "server_optimizer=sgd(learning_rate=1.0)"
    assert remedies(has_text=False, **best) == [step, table]


def test_remedies_for_a_run_that_is_too_short_or_too_long():
    falling = curve(0.3, 0.4, 0.38, 0.35, 0.34)
    assert remedies(rounds=300)[-1] == "rounds=600"  # 30 participations per client
    assert remedies(falling, rounds=500)[-1] == "early_stopping_rounds=100"
    assert "early_stopping_rounds=100" not in remedies(rounds=500)
    assert remedies(curve(0.1, 0.2, 0.3), rounds=600)[-1] == "rounds=1200"


def test_remedies_are_settings_that_can_be_used():
    for settings in (
        {},
        {"embedding": "none"},
        {"full": "none", "embedding": "hash"},
        {"full": "trained", "embedding": "none", "full_init": "random"},
    ):
        for remedy in remedies(has_text=False, **settings):
            changes = dict(word.split("=", 1) for word in remedy.split())
            if "latent_scale" in changes:
                changes["latent_scale"] = float(changes["latent_scale"])
            configure(**{**settings, **changes})


# Convergence


GOOD = ranks_of(model=np.maximum(POPULARITY - 3, 0), most_popular=POPULARITY)


def test_a_run_that_still_improves_is_reported():
    found = warn(GOOD, curve(0.1, 0.2, 0.25, 0.28, 0.3), rounds=500)["not_converged"]
    assert "0.280 after round 400, 0.300 after round 500" in found["message"]
    assert found["try"] == ["rounds=1000"]


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"round": 10, "metrics": {}}],
        curve(0.3),
        curve(0.1, 0.2, 0.31, 0.305, 0.3),  # the best is not the last
        curve(0.1, 0.2, 0.298, 0.299, 0.3),  # rises by less than 2 %
        FLAT,
    ],
)
def test_a_run_that_has_converged_or_was_not_validated_has_no_warning(history):
    assert warn(GOOD, history) == {}


# Protocol


def test_the_protocol_comes_first():
    leak = {"difference": 0.2, "standard_error": 0.02, "leaks": True}
    protocol = {"unsound": ["split=file: x"], "log_odds_over_popularity": leak}
    found = warn(BELOW, protocol=protocol)
    assert list(found) == ["unsound_protocol", "leak", "below_popularity"]
    assert "10 standard errors" in found["leak"]["message"]
    assert warning_lines({"protocol": protocol}) == warning_lines(
        {"warnings": [found["unsound_protocol"], found["leak"]]}
    )
