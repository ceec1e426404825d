"""Tests of filters.py: each filter against a loop, and its note."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, Raw
from fedpeft_jax.data.filters import apply_filters

PAIRS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=80
)


def filtered(pairs, ratings=None, strings=False, **filters):
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    if strings:
        frame = frame.cast(pl.String)
    if ratings is not None:
        frame = frame.with_columns(rating=pl.Series(ratings, dtype=pl.Float64))
    raw = apply_filters(Raw("toy", frame, notes=("first",)), DataSettings(**filters))
    return raw.interactions.select("user", "item").cast(pl.Int64).rows(), raw.notes


def core(pairs, k):
    """Takes users and items away one at a time."""
    left = list(pairs)
    while True:
        for place in (0, 1):
            for one in {pair[place] for pair in left}:
                partners = {pair[1 - place] for pair in left if pair[place] == one}
                if len(partners) < k:
                    left = [pair for pair in left if pair[place] != one]
                    break
            else:
                continue
            break
        else:
            return left


@settings(deadline=None)
@given(PAIRS, st.integers(2, 4), st.booleans())
def test_k_core_is_what_is_left_in_the_end(pairs, k, strings):
    expected = core(pairs, k)
    if not expected:
        with pytest.raises(InputError, match=f"`k_core={k}` leaves none of"):
            filtered(pairs, k_core=k, strings=strings)
        return
    kept, notes = filtered(pairs, k_core=k, strings=strings)
    assert kept == expected  # in file order, repeated pairs and all
    dropped = len(pairs) - len(expected)
    users, left = ({user for user, _ in some} for some in (pairs, expected))
    said = [
        f"k_core={k} dropped {dropped} of {len(pairs)} interactions, and with them "
        f"{len(users) - len(left)} of {len(users)} users"
    ]
    assert list(notes) == ["first", *(said if dropped else [])]


@settings(deadline=None)
@given(PAIRS, st.integers(1, 4))
def test_min_interactions_counts_distinct_items_once(pairs, least):
    items = {user: {i for u, i in pairs if u == user} for user, _ in pairs}
    expected = [(u, i) for u, i in pairs if len(items[u]) >= least]
    if expected:
        assert filtered(pairs, min_interactions=least)[0] == expected
    else:
        with pytest.raises(
            InputError, match=f"`min_interactions={least}` leaves none of"
        ):
            filtered(pairs, min_interactions=least)


def test_ratings_go_first():
    pairs, ratings = [(1, 1), (1, 2), (2, 1), (2, 2)], [5, 5, 5, 1]
    kept, notes = filtered(pairs, ratings, min_rating=4, min_interactions=2)
    assert kept == [(1, 1), (1, 2)]
    assert notes[1:] == (
        "min_rating=4 dropped 1 of 4 interactions, and with them 0 of 2 users",
        "min_interactions=2 dropped 1 of 3 interactions, and with them 1 of 2 users",
    )


def test_ratings_have_to_be_there():
    with pytest.raises(InputError, match=r"needs ratings.*set `rating_column`"):
        filtered([(1, 1)], min_rating=3)
    with pytest.raises(InputError, match="1 of 2 interactions have no rating"):
        filtered([(1, 1), (1, 2)], [5, None], min_rating=3)


def test_nothing_is_dropped_unasked():
    pairs = [(1, 1), (1, 1), (2, 1)]
    assert filtered(pairs, [1, 2, 3]) == (pairs, ("first",))
