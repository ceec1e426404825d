"""Sending the largest numbers of an update alone, and the rest of it later.

Seide et al., 1-bit stochastic gradient descent, Interspeech 2014, for the feedback, and
Karimireddy et al., Error feedback fixes SignSGD, ICML 2019, for its convergence.
"""

import math

import jax
import jax.numpy as jnp

from fedpeft_jax.core.bounds import MOST_INT, Bounds, check_number
from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.pipelines.base import TOUCHED_ITEMS, Upload
from fedpeft_jax.federated.pipelines.payloads import ENCODED, Sparse, check_order
from fedpeft_jax.federated.release import Figures
from fedpeft_jax.federated.updates import ClientUpdate


def top_k(k: int = 4096, error_feedback: bool = True) -> Upload:
    """Returns the stage that sends the k numbers of largest magnitude.

    They are chosen from shared parameters and rows together. A number costs 8 bytes
    with its index. With error feedback a client keeps what it did not send, and adds
    it to its next update: all of it for shared parameters, and for rows that of the
    items that it touches then.

    Args:
      k: how many numbers are sent, at least 1; all of them if there are fewer.
      error_feedback: whether clients keep the rest. Every client of the run then keeps
        an array of the size of everything that is sent without this stage.

    Raises:
      InputError: if k is not an integer of at least 1.

    Example:
      >>> ids = jnp.zeros(0, jnp.int32)
      >>> update = ClientUpdate(jnp.array([1.0, -3.0, 2.0]), {}, ids, 1.0, 0.5)
      >>> stage = top_k(k=2)
      >>> kept = stage.init({"params": update.shared, "rows": {}})
      >>> payload, kept, _ = stage.encode(update, kept, None)
      >>> stage.decode(payload).shared.tolist(), kept["params"].tolist()
      ([0.0, -3.0, 2.0], [1.0, 0.0, 0.0])
    """
    check_number("top_k: k", k, Bounds(least=1, most=MOST_INT), whole=True)

    def init(received: PyTree) -> PyTree:
        return jax.tree.map(jnp.zeros_like, received) if error_feedback else ()

    def encode(
        update: ClientUpdate, kept: PyTree, key: Key
    ) -> tuple[ClientUpdate, PyTree, Figures]:
        del key
        exact = (update.shared, update.rows)
        check_order("top_k", exact, ENCODED)
        if error_feedback:
            late = (kept[SHARED], _rows_of(kept[ROWS], update.item_ids))
            exact = jax.tree.map(jnp.add, exact, late)
        leaves, structure = jax.tree.flatten(exact)
        shapes = tuple(x.shape for x in leaves)
        flat = jnp.concatenate([x.ravel() for x in leaves] or [jnp.zeros(0)])
        if k < flat.size:
            _, indices = jax.lax.top_k(jnp.abs(flat), k)
        else:  # no sort, which takes most of a round's time
            indices = jnp.arange(flat.size)
        sent = Sparse(flat[indices], indices.astype(jnp.int32), structure, shapes)
        if error_feedback:
            shared, rows = _split(flat.at[indices].set(0.0), structure, shapes)
            put = lambda table, x: table.at[update.item_ids].set(x, mode="drop")  # noqa: E731
            kept = {SHARED: shared, ROWS: jax.tree.map(put, kept[ROWS], rows)}
        return update._replace(shared=sent, rows={}), kept, {}

    def decode(payload: ClientUpdate) -> ClientUpdate:
        sent = payload.shared
        size = sum(map(math.prod, sent.shapes))
        flat = jnp.zeros(size).at[sent.indices].set(sent.values)
        shared, rows = _split(flat, sent.structure, sent.shapes)
        return payload._replace(shared=shared, rows=rows)

    return Upload(init, encode, decode, reveals=(TOUCHED_ITEMS,))


def _rows_of(tables: PyTree, item_ids: Array) -> PyTree:
    """Returns the rows of some items, and zeros on padding."""

    def mask(table: Array, rows: Array) -> Array:
        real = item_ids < table.shape[0]
        return jnp.where(real.reshape((-1,) + (1,) * (rows.ndim - 1)), rows, 0.0)

    return jax.tree.map(mask, tables, gather_rows(tables, item_ids))


def _split(
    flat: Array, structure: PyTree, shapes: tuple[tuple[int, ...], ...]
) -> PyTree:
    """Returns the arrays that a vector holds one after the other."""
    leaves, first = [], 0
    for shape in shapes:
        size = math.prod(shape)
        leaves.append(flat[first : first + size].reshape(shape))
        first += size
    return structure.unflatten(leaves)
