"""Original ids: found as integers or strings, and near matches for the others."""

import numpy as np
import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.serving.names import Names, several

NUMBERS = Names("user", np.array([3, 10, 200]))
WORDS = Names("item", np.array(["B07", "b7", "kite"]), ["Up (2009)", None, "A [red] K"])


@pytest.mark.parametrize("id_", [10, "10", np.int32(10), np.int64(10), 10.0])
def test_an_id_is_found_in_every_spelling(id_):
    assert NUMBERS.row(id_) == 1
    assert NUMBERS.rows(id_).tolist() == [1]


@pytest.mark.parametrize(
    "ids", [[200, 3], (200, 3), np.array([200, 3]), pl.Series([200, 3]), ["200", "3"]]
)
def test_several_keep_their_order(ids):
    assert NUMBERS.rows(ids).tolist() == [2, 0]


def test_none_is_all_and_nothing_is_nothing():
    assert NUMBERS.rows(None).tolist() == [0, 1, 2]
    assert NUMBERS.rows([]).tolist() == []
    assert several("kite") == ["kite"]


@pytest.mark.parametrize(
    ("names", "id_", "says"),
    [
        (NUMBERS, 11, "there is no user 11: did you mean 10 or 200?"),
        (NUMBERS, 999, "integers from 3 to 200, see `user_ids`"),
        (NUMBERS, 10**40, "integers from 3 to 200"),
        (NUMBERS, -1, "there is no user -1: the ids are integers from 3 to 200"),
        (NUMBERS, float("nan"), "there is no user nan"),
        (NUMBERS, True, "there is no user True"),
        (NUMBERS, None, "there is no user None"),
        (WORDS, "B08", "did you mean B07 (Up (2009))"),
        (WORDS, "up (2", "did you mean B07 (Up (2009))?"),
        (WORDS, "zzzzzz", "the ids are such as B07 (Up (2009)), b7, kite (A [red] K)"),
        (WORDS, "x" * 5000, "there is no item 'xxxx"),
    ],
)
def test_an_unknown_id_is_one_line_with_a_remedy(names, id_, says):
    with pytest.raises(InputError) as caught:
        names.row(id_)
    message = str(caught.value)
    assert says in message and "\n" not in message and len(message) < 400


def test_a_long_list_is_searched_around_the_place_of_the_id():
    names = Names("item", np.array(sorted(f"A{n:06d}" for n in range(30_000))))
    with pytest.raises(InputError, match="did you mean A020120 or"):
        names.row("A020120x")
