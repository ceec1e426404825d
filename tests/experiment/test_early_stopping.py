"""When to stop, and which model is kept."""

import math

import jax.numpy as jnp
import pytest

from fedpeft_jax.experiment.early_stopping import EarlyStopping


def stops(patience, values, every=10):
    """The round that it stops after (None for never), and the object."""
    stopping = EarlyStopping(patience)
    for number, value in enumerate(values):
        round_ = every * (number + 1)
        if stopping.should_stop(round_, value, {"w": jnp.float32(round_)}):
            return round_, stopping
    return None, stopping


@pytest.mark.parametrize(
    ("patience", "values", "after", "best"),
    [
        (20, [0.1, 0.2, 0.15, 0.2], 40, 20),  # level is not better
        (20, [0.1, 0.2, 0.15, 0.21, 0.1], None, 40),
        (5, [0.1, 0.2, 0.15], 30, 20),  # less than between two validations
        (30, [0.5, 0.4, 0.3, 0.2, 0.1], 40, 10),
        (20, [math.nan, 0.1, 0.2], None, 30),
        (20, [0.3, math.nan, math.nan], 30, 10),
    ],
)
def test_stops_after_the_patience_and_keeps_the_best(patience, values, after, best):
    found, stopping = stops(patience, values)
    assert found == after
    assert stopping.round == best
    assert stopping.state == {"w": best}


def test_without_patience_it_neither_stops_nor_keeps():
    found, stopping = stops(0, [0.3, 0.2, 0.1])
    assert found is None and stopping.state is None


def test_what_is_kept_outlives_what_was_given():
    stopping, given = EarlyStopping(10), jnp.arange(3.0)
    stopping.should_stop(10, 0.5, given)
    given.delete()
    assert stopping.state.tolist() == [0.0, 1.0, 2.0]
