"""Tests of given_candidates.py: lists are numbered as the data, and checked."""

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, from_frame, given_candidates, make_split

TRAIN = {"user": [7, 7, 9, 9, 8, 8], "item": [10, 20, 20, 30, 10, 20]}
VALID = {"user": [7], "item": [40]}
TEST = {"user": [7, 9, 9], "item": [30, 40, 50]}
GIVEN = DataSettings(dataset="table", split="given")


def lists(*rows):
    """Rows (user, item, candidates), where user 8 has no test item."""
    return pl.DataFrame(
        rows, schema=["user", "item", "candidates"], orient="row", strict=False
    )


GOOD = [(9, 40, [10]), (7, 30, [60, 50]), (9, 50, [60, 10])]


def found(rows, path=None):
    more = {"user": [8], "item": [60]}  # item 60 is of user 8 only
    train = {name: TRAIN[name] + more[name] for name in TRAIN}
    candidates = None if path else lists(*rows)
    data = from_frame(train, valid=VALID, test=TEST, candidates=candidates)
    data, split = make_split(data, GIVEN)
    candidates, notes = given_candidates(data, split, path)
    assert candidates.dtype == "int32"
    users = data.user_ids[split.evaluated].tolist()
    named = [[data.item_ids[i].item() for i in row if i >= 0] for row in candidates]
    return dict(zip(users, named, strict=True)), candidates, notes


def test_lists_of_different_lengths_in_their_order():
    # The candidates of a user are those of all its rows, once each.
    named, candidates, notes = found(GOOD)
    assert named == {7: [60, 50], 9: [10, 60]}
    assert candidates.shape == (2, 2)
    assert notes == ("candidates: dropped 1 repeated candidates",)
    named, candidates, notes = found([*GOOD[:2], (9, 50, []), (8, 10, [50])])
    assert named == {7: [60, 50], 9: [10]}
    assert candidates.tolist()[1][1] == -1
    assert notes == ("candidates: 1 users with candidates are not evaluated",)


def test_a_file_is_read_as_a_frame(tmp_path):
    path = tmp_path / "toy.test.negative"
    path.write_text("(9,40)\t10\n(7,30)\t60\t50\n(9,50)\t60\t10\n")
    named, candidates, notes = found(None, str(path))
    assert named == {7: [60, 50], 9: [10, 60]} and str(path) in notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, (5, 30, [60])], "1 users are not in the data (the first is user '5')"),
        ([(7, 30, [61, 62])], "2 items are not in the data (the first is item '61')"),
        ([(7, 33, [60])], "1 items are not in the data (the first is item '33')"),
        (GOOD[:1], "1 of 2 evaluated users have no candidates (the first is user 7)"),
        ([*GOOD, (7, 50, [60])], "1 rows have an item that is not a test item of its "
         "user (the first is user '7', item '50', candidate '60')"),
        ([*GOOD, (7, 30, [10])], "1 candidates are training, validation or test items "
         "of their user (the first is user '7', item '30', candidate '10')"),
        ([*GOOD, (7, 30, [40])], "1 candidates are training, validation or test"),
        ([*GOOD, (9, 40, [50])], "1 candidates are training, validation or test"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_the_data(rows, message):
    with pytest.raises(InputError) as caught:
        found(rows)
    assert message in str(caught.value) and "\n" not in str(caught.value)
