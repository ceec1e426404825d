"""Rows of different lengths, on the host and read into windows on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.ragged import Ragged, read_row, sort_rows

ROWS = [[5, 1, 8], [7], [], [0, 9, 4, 2]]
RAGGED = Ragged.from_rows(ROWS)


def lists(ragged):
    return [ragged.row(r).tolist() for r in range(ragged.num_rows)]


def test_rows_counts_and_owners():
    assert lists(RAGGED) == ROWS
    assert RAGGED.counts.tolist() == [3, 1, 0, 4]
    assert RAGGED.owners.tolist() == [0, 0, 0, 1, 3, 3, 3, 3]
    assert RAGGED.offsets.dtype == np.int64
    again = Ragged.from_counts(RAGGED.values, RAGGED.counts)
    np.testing.assert_array_equal(again.offsets, RAGGED.offsets)


def test_keeping_values_and_rows():
    assert lists(RAGGED.keep_values(RAGGED.values > 3)) == [[5, 8], [7], [], [9, 4]]
    kept = RAGGED.keep_rows(np.array([True, False, True, True]))
    assert lists(kept) == [ROWS[0], ROWS[2], ROWS[3]]


def test_sort_rows_keeps_rows_apart():
    rows = sort_rows(Ragged.from_rows([[9, 0, 5], [], [8, 1]]), 10)
    assert rows.values.tolist() == [0, 5, 9, 1, 8]
    assert rows.values.dtype == np.int32 and rows.counts.tolist() == [3, 0, 2]


def test_no_rows_at_all():
    empty = Ragged.from_rows([])
    assert (empty.num_rows, empty.values.size) == (0, 0)
    values, count = read_row(empty.to_device(), jnp.int32(0), length=2, fill=9)
    assert values.tolist() == [9, 9] and count == 0


@pytest.mark.parametrize(
    ("row", "length", "values"),
    [
        (0, 3, [5, 1, 8]),
        (0, 5, [5, 1, 8, 10, 10]),  # the window reaches into the next row's values
        (1, 2, [7, 10]),
        (2, 1, [10]),
        (3, 6, [0, 9, 4, 2, 10, 10]),  # and beyond the end of all values
        (4, 2, [10, 10]),  # beyond the rows
        (2**31 - 2, 2, [10, 10]),
    ],
)
def test_read_row(row, length, values):
    read = jax.jit(lambda ragged, row: read_row(ragged, row, length, fill=10))
    found, count = read(RAGGED.to_device(), jnp.int32(row))
    assert found.tolist() == values
    assert count == sum(value != 10 for value in values)


def test_rows_are_read_together_as_alone():
    device = RAGGED.to_device()
    together, counts = jax.vmap(lambda r: read_row(device, r, 4, -1))(jnp.arange(5))
    for row in range(5):
        alone, count = read_row(device, jnp.int32(row), 4, -1)
        assert together[row].tolist() == alone.tolist()
        assert counts[row] == count


def test_it_is_a_pytree_of_two_arrays():
    leaves, structure = jax.tree.flatten(RAGGED)
    assert len(leaves) == 2
    assert isinstance(jax.tree.unflatten(structure, leaves), Ragged)
