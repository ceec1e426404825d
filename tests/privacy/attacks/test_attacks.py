"""The attacks on hand-made updates, and their figures against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedpeft_jax.privacy.attacks import (
    auc,
    main_direction,
    mean_over_victims,
    oriented,
    precision_at_positives,
    score_moves,
    score_table,
    shadow_votes,
    side_of_positives,
    sparse_recovery,
    standardised,
    whitened,
)

NUM_ITEMS, FEATURES = 300, 8


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000])
def test_auc_is_that_of_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(levels, size=200) / levels, rng.random(200) < 0.3
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_figures_without_positives_are_left_out():
    nothing = np.zeros(3, bool)
    found = [auc(np.arange(3.0), nothing), precision_at_positives(np.ones(3), nothing)]
    assert np.isnan(found).all()
    assert mean_over_victims([0.5, *found]).victims == 1


def test_precision_under_ties_is_the_mean_over_orders():
    scores = np.array([5.0, 3, 3, 3, 1])
    labels = np.array([False, True, False, True, True])
    found = []
    for seed in range(4000):
        jitter = np.random.default_rng(seed).random(5) * 1e-3
        top = np.argsort(-(scores + jitter))[:3]
        found.append(labels[top].mean())
    assert precision_at_positives(scores, labels) == pytest.approx(4 / 9)
    assert np.mean(found) == pytest.approx(4 / 9, abs=0.01)


def hand_made(seed=0, positives=30, mean=0.1):
    """Items, a client's positives, its negatives, and how it moves their vectors."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(NUM_ITEMS, FEATURES))
    user = mean + 0.1 * rng.normal(size=FEATURES)
    # The client has the items that it likes most; negatives are uniform.
    liked = np.argsort(-(table @ user) + 0.1 * rng.normal(size=NUM_ITEMS))[:positives]
    drawn = rng.choice(np.setdiff1d(np.arange(NUM_ITEMS), liked), positives, False)
    labels, known = np.zeros(NUM_ITEMS, bool), np.zeros(NUM_ITEMS, bool)
    labels[liked] = known[liked] = known[drawn] = True
    strength = np.zeros(NUM_ITEMS)
    strength[liked], strength[drawn] = 1, -1
    strength *= rng.uniform(0.5, 1, NUM_ITEMS)
    return table, labels, known, strength, user


def test_the_direction_of_multiples_of_a_vector():
    _, _, _, strength, user = hand_made()
    found = main_direction(strength[:, None] * user)
    assert abs(found @ user) == pytest.approx(np.linalg.norm(user))
    assert not main_direction(np.zeros((3, 2))).any()


@pytest.mark.parametrize("mean", [0.1, -0.1])
def test_moves_reveal_positives_for_any_sign_of_the_user(mean):
    """With a negative mean, the reference is wrong and the geometry has to decide."""
    table, labels, known, strength, user = hand_made(mean=mean)
    moves, white = strength[:, None] * user, whitened(table)
    for who in (known, None):
        assert auc(score_moves(moves, np.ones(FEATURES), white, who), labels) == 1.0
    # Where the embeddings say nothing, the reference decides.
    nothing = np.zeros_like(white)
    expected = 1.0 if mean > 0 else 0.0
    scores = score_moves(moves, np.ones(FEATURES), nothing, known)
    assert auc(scores[known], labels[known]) == expected


def test_whitened_embeddings():
    white = whitened(hand_made()[0] @ np.diag(np.arange(FEATURES)) + 5.0)
    covariance = white.T @ white / NUM_ITEMS
    expected = np.eye(FEATURES)
    expected[0, 0] = 0.0  # an axis without variance
    np.testing.assert_allclose(covariance, expected, atol=1e-9)
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-9)


def test_noise_decides_no_sign():
    table, _, known, strength, _ = hand_made()
    white, rng = whitened(table), np.random.default_rng(1)
    sides = [side_of_positives(rng.normal(size=NUM_ITEMS), white) for _ in range(200)]
    assert np.mean(np.abs(sides) > 3) < 0.05
    # Among the items that a client trained on, half of which are no uniform draw:
    sides = [
        side_of_positives(known * rng.normal(size=NUM_ITEMS), white) for _ in range(200)
    ]
    assert np.mean(np.abs(sides) > 3) < 0.05
    assert side_of_positives(strength, white) > 5
    np.testing.assert_array_equal(oriented(-strength, white), strength)


def test_moves_of_noise_are_chance():
    table, labels, known, _, _ = hand_made()
    white, rng = whitened(table), np.random.default_rng(2)
    found = []
    for _ in range(200):
        noise = rng.normal(size=(NUM_ITEMS, FEATURES))
        scores = score_moves(noise, np.ones(FEATURES), white, known)
        found.append(auc(scores[known], labels[known]))
    mean = mean_over_victims(found)
    assert abs(mean.value - 0.5) < 4 * mean.error


def test_recovery_of_a_planted_sparse_vector():
    rng = np.random.default_rng(0)
    incidence = np.zeros((64, 200))
    for item in range(200):
        incidence[rng.choice(64, 3, replace=False), item] = 1 / 3
    planted = np.zeros(200)
    planted[rng.choice(200, 10, replace=False)] = [1, -1] * 5
    found = sparse_recovery(incidence, incidence @ planted, strength=0.01)
    np.testing.assert_allclose(found, planted, atol=0.15)
    assert not sparse_recovery(incidence, np.zeros(64)).any()


def test_a_shared_table_reveals_positives():
    table, labels, known, strength, user = hand_made(positives=15)
    rng = np.random.default_rng(3)
    incidence = np.zeros((120, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        incidence[rng.choice(120, 2, replace=False), item] = 0.5
    change, white = (incidence @ strength)[:, None] * user, whitened(table)
    for who, least in ((known, 0.95), (None, 0.85)):
        scores = score_table(change, incidence, np.ones(FEATURES), white, who)
        among = known if who is not None else np.ones(NUM_ITEMS, bool)
        assert auc(scores[among], labels[among]) > least
    # An item with a vector that did not move has no score.
    still = ~change.any(axis=1)
    untouched = (incidence[still] != 0).any(axis=0)
    assert untouched.any() and not scores[untouched].any()


def test_shadows_vote_for_right_guesses():
    _, labels, known, _, user = hand_made()
    sign = np.where(labels, 1, -1) * known
    moves = sign[:, None] * user
    guesses = np.random.default_rng(4).choice([1, -1], (8, NUM_ITEMS)) * known
    shadows = guesses[:, :, None] * (user + 0.05)
    votes = shadow_votes(moves, shadows, guesses).mean(axis=0)
    assert auc(votes[known], labels[known]) > 0.99
    assert not votes[~known].any()


def test_observations_add_up():
    rng = np.random.default_rng(5)
    labels = np.arange(NUM_ITEMS) < 40
    weak = [labels + 2 * rng.normal(size=NUM_ITEMS) for _ in range(9)]
    total = sum(standardised(scores) for scores in weak)
    assert auc(total, labels) > auc(weak[0], labels) + 0.1
    # An item that was not trained on in one round is no positive.
    known = labels | (rng.random(NUM_ITEMS) < 0.5)
    scores = standardised(weak[0], known)
    assert scores[~known].max() < scores[known].min()
    assert scores[known].mean() == pytest.approx(0, abs=1e-9)
