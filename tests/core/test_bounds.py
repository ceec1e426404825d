"""Bounds of numbers: the words, the edges, and what is no number."""

import math

import pytest

from fedpeft_jax.core.bounds import Bounds, check_number, check_sizes
from fedpeft_jax.core.errors import InputError


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        (Bounds(least=1, most=3), "at least 1 and at most 3", (1, 3), (0, 4)),
        (Bounds(above=0, below=1), "above 0 and below 1", (0.5,), (0, 1)),
        (Bounds(), "", (-(10**400), 1e300), ()),
    ],
)
def test_edges(bounds, words, inside, outside):
    assert bounds.words() == words
    assert all(bounds.hold(x) for x in inside)
    assert not any(bounds.hold(x) for x in (*outside, math.nan))


@pytest.mark.parametrize("value", [0, 11, 1.5, True, "1", None, math.nan, 10**400])
def test_what_is_no_integer_within_bounds(value):
    with pytest.raises(InputError, match="^rank must be an integer of at least 1 and"):
        check_number("rank", value, Bounds(least=1, most=10), whole=True)


@pytest.mark.parametrize("value", [1e-40, -1e-310])
def test_what_float32_rounds_to_zero(value):
    with pytest.raises(InputError, match="rounded to zero"):
        check_number("rate", value, Bounds(least=-1, most=1))


@pytest.mark.parametrize("sizes", [(), (0,), (9,), (1.0,), (True,), 3, "ab", (1,) * 17])
def test_sizes_that_are_refused(sizes):
    with pytest.raises(InputError, match="^hidden=.* 1 to 16 numbers from 1 to 8: x"):
        check_sizes("hidden", sizes, 8, "x")
