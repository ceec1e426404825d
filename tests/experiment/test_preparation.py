"""What comes before the first round: data, text, and a defined start of every table."""

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DATASETS, Source, from_frame
from fedpeft_jax.experiment import configure, prepare
from tests.small_runs import (
    FEATURES,
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    Listener,
    small_runs,
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def prepared(**settings):
    listener = Listener()
    return prepare(configure(**{**SETTINGS, **settings}), listener), listener


def test_text_becomes_normalised_latents():
    result, listener = prepared(latent_scale=0.5)
    latents = np.asarray(result.item_features.latents)
    assert latents.shape == (NUM_ITEMS, FEATURES)
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(latents.std(0), 0.5, rtol=1e-3)
    assert result.item_features.encodings.shape[0] == NUM_ITEMS
    assert set(result.pretraining) == {
        "source", "items_without_text", "explained_variance", "latent_spread",
    }  # fmt: skip
    assert result.pretraining["source"] == "tfidf"
    assert result.pretraining["explained_variance"] > 0.3
    assert result.pretrain_s > 0
    text = "\n".join(listener.notes)
    for part in (f"{NUM_USERS} users", f"{NUM_ITEMS} items", "explains", "spread"):
        assert part in text
    assert listener.tasks[-1] == ("pretraining", 100, 100, {"loss"})


def test_a_random_table_reads_no_text():
    result, listener = prepared(full_init="random", latent_scale=0.5)
    assert result.item_features.encodings is None
    assert result.item_features.latents is None
    table = np.asarray(result.item_features.table)
    assert table.shape == (NUM_ITEMS, FEATURES)
    assert abs(table.std() - 0.5) < 0.1
    assert result.pretraining == {} and listener.tasks == []


def test_without_a_table_nothing_is_prepared_for_one():
    result, _ = prepared(full="none", warm_up_rounds=None)
    assert result.item_features[:3] == (None, None, None)


def test_codes_are_learned_from_text_beside_a_random_table():
    result, _ = prepared(full_init="random", embedding="rq(codebook_size=8)")
    features = result.item_features
    assert features.encodings is not None
    correlation = np.corrcoef(np.ravel(features.latents), np.ravel(features.table))
    assert abs(correlation[0, 1]) < 0.2


def test_degrees_count_the_clients_that_train_on_an_item():
    result, _ = prepared()
    degrees = result.item_features.degrees
    expected = [np.sum(result.split.train.values == item) for item in range(NUM_ITEMS)]
    np.testing.assert_array_equal(degrees, expected)


def test_the_seed_draws_the_pretraining_and_the_data_seed_the_candidates():
    base, other, data = (prepared(**s)[0] for s in ({}, {"seed": 1}, {"data_seed": 1}))
    np.testing.assert_array_equal(base.candidates, other.candidates)
    assert np.any(
        np.asarray(base.item_features.latents)
        != np.asarray(other.item_features.latents)
    )
    assert base.candidates.shape == (NUM_USERS, 10)
    assert data.candidates.shape != base.candidates.shape or np.any(
        base.candidates != data.candidates
    )


def test_the_same_settings_prepare_the_same_bits():
    one, two = prepared()[0], prepared()[0]
    np.testing.assert_array_equal(one.item_features.latents, two.item_features.latents)
    np.testing.assert_array_equal(one.split.train.values, two.split.train.values)


def test_items_without_text_start_at_the_mean_and_are_counted(monkeypatch):
    read = DATASETS["synthetic"].read

    def with_gaps(settings):
        raw = read(settings)
        return raw._replace(item_text={**raw.item_text, 0: "", 1: None})

    monkeypatch.setitem(DATASETS, "synthetic", Source(with_gaps))
    result, listener = prepared()
    assert result.pretraining["items_without_text"] == 2
    assert any("2 items without text start at the mean" in n for n in listener.notes)
    encodings = np.asarray(result.item_features.encodings)
    mean = encodings[2:].mean(0)
    np.testing.assert_allclose(encodings[0], mean, rtol=1e-4, atol=1e-6)


def test_a_data_set_without_text_says_what_to_do(monkeypatch):
    read = DATASETS["synthetic"].read
    without = Source(lambda settings: read(settings)._replace(item_text=None))
    monkeypatch.setitem(DATASETS, "synthetic", without)
    with pytest.raises(InputError, match="=FILE.npz`, or set `full_init=random`"):
        prepared()
    prepared(full_init="random")
    with pytest.raises(InputError, match="=FILE.npz`, or set another `embedding`"):
        prepared(full_init="random", embedding="rq")


def test_users_with_too_few_unseen_items_are_counted():
    result, listener = prepared(num_candidates=NUM_ITEMS)
    num = len(result.split.evaluated)
    told = f"  {num} of {num} evaluated users have fewer than {NUM_ITEMS} unseen items"
    assert any(note.startswith(told) for note in listener.notes)
    _, listener = prepared(num_candidates=1)
    assert not any("unseen items" in note for note in listener.notes)


def test_a_cohort_larger_than_the_clients_is_refused_early():
    with pytest.raises(InputError, match=f"between 1 and {NUM_USERS}"):
        prepared(cohort_size=NUM_USERS + 1)


def _log(histories):
    """A data set of these histories, in time order."""
    rows = [(user, item) for user, items in enumerate(histories) for item in items]
    table = np.array([(user, item, time) for time, (user, item) in enumerate(rows)])
    return from_frame(table)


# Users 0 and 1 have every item, and user 2 has not.
FULL = [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3]]
TABLE = {"dataset": "table", "full_init": "random", "cohort_size": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_negatives": "unseen"},
            "2 users .* is 0.: set `train_negatives=unseen_",
        ),
        ({"negative_slots": 2}, "2 users .*raise `negative_slots`"),
    ],
)
def test_a_client_without_any_negative_is_an_error(settings, message):
    config = configure(**{**SETTINGS, **TABLE, **settings})
    with pytest.raises(InputError, match=f"^table: {message}") as caught:
        prepare(config, dataset=_log(FULL))
    assert "\n" not in str(caught.value)


def test_users_without_unseen_items_are_counted():
    listener = Listener()
    config = configure(**{**SETTINGS, **TABLE})
    prepare(config, listener, dataset=_log(FULL))
    notes = "\n".join(listener.notes)
    assert "2 of 3 evaluated users have no unseen item: their held-out item" in notes
    with pytest.raises(InputError, match="no evaluated user has an unseen item"):
        prepare(config, dataset=_log(FULL[:2]))


def test_equal_times_are_noted():
    listener = Listener()
    table = {"user": [1, 1, 1, 2, 2, 2], "item": [1, 2, 3, 4, 5, 6], "time": [9] * 6}
    config = configure(**{**SETTINGS, **TABLE})
    prepare(config, listener, dataset=from_frame(table))
    assert "all 6 times are equal" in "\n".join(listener.notes)
    listener = Listener()
    random = configure(**{**SETTINGS, **TABLE, "split": "random"})
    prepare(random, listener, dataset=from_frame(table))
    assert "times are equal" not in "\n".join(listener.notes)
