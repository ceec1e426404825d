"""When to stop, and which model is kept."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.experiment.early_stopping import should_stop, update_best
from fedpeft_jax.experiment.state import Best

NOTHING = Best(np.float64(-math.inf), np.int64(0), None)


def stops(patience, values, every=10):
    """The round that it stops after (None for never), and the best validation."""
    best = NOTHING
    for number, value in enumerate(values):
        round_ = every * (number + 1)
        best = update_best(best, round_, value, {"params": {"w": jnp.float32(round_)}})
        if should_stop(best, round_, patience):
            return round_, best
    return None, best


@pytest.mark.parametrize(
    ("patience", "values", "after", "kept"),
    [
        (20, [0.1, 0.2, 0.15, 0.2], 40, 20),  # level is not better
        (20, [0.1, 0.2, 0.15, 0.21, 0.1], None, 40),
        (5, [0.1, 0.2, 0.15], 30, 20),  # less than between two validations
        (30, [0.5, 0.4, 0.3, 0.2, 0.1], 40, 10),
        (20, [math.nan, 0.1, 0.2], None, 30),
        (20, [0.3, math.nan, math.nan], 30, 10),
        (20, [math.nan, math.nan, math.nan], 30, 10),
    ],
)
def test_stops_after_the_patience_and_keeps_the_best(patience, values, after, kept):
    found, best = stops(patience, values)
    assert found == after
    assert best.round == kept
    assert best.variables == {"params": {"w": kept}}


def test_without_patience_it_never_stops():
    found, best = stops(0, [0.3, 0.2, 0.1])
    assert found is None
    assert (best.value, best.round) == (0.3, 10)


def test_variables_are_kept_only_if_they_are_given():
    assert update_best(NOTHING, 10, 0.5, None).variables is None


def test_donated_arrays_are_copied_and_frozen_tables_are_not():
    given = {"rows": {"A": jnp.arange(3.0)}, "frozen": {"full": jnp.ones(2)}}
    best = update_best(NOTHING, 10, 0.5, given)
    given["rows"]["A"].delete()
    assert best.variables["rows"]["A"].tolist() == [0.0, 1.0, 2.0]
    assert best.variables["frozen"]["full"] is given["frozen"]["full"]
