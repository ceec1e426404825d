"""What a client returns, and the sums over clients that the server learns.

The server never uses the update of one client alone. Updates are mapped to sums, and
sums are added over clients, tiles and devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, PyTree


class ClientUpdate(NamedTuple):
    """Everything that leaves a client.

    Inside an upload pipeline `shared` and `rows` may be any trees. They are what is
    sent, and their size is counted.

    Attributes:
      shared: the update, after - before, of the shared parameters.
      rows: the update, after - before, of the gathered rows, arrays [K, ...]. A real
        client sends dense rows [I, ...], with zeros for the items that it did not
        gather.
      item_ids: int32[K], the item of each gathered row; `num_items` on padding. The
        simulation needs these ids; they are not sent.
      weight: float32[], the client's weight in means; 0 for an empty place.
      loss: float32[], the training loss with its proximal term, averaged over the local
        steps. With several groups in the local schedule it is the first group's.
    """

    shared: PyTree
    rows: PyTree
    item_ids: Array
    weight: Array
    loss: Array


class Sum(NamedTuple):
    """A sum of weighted values over clients, and the sum of the weights.

    Attributes:
      value: a tree of arrays.
      weight: float32 array whose axes are the leading axes of the values; None if the
        weight of another sum applies.
    """

    value: PyTree
    weight: Array | None


class Sums(NamedTuple):
    """Everything that the server learns from a cohort.

    Attributes:
      shared: sum of the updates of the shared parameters, with weight float32[].
      rows: sum of the updates of the rows. An aggregator's `map` returns arrays
        [K, ...], one entry per gathered row, and its `apply` receives arrays [I, ...],
        added by item. The weight, if there is one, is float32[K] or float32[I].
      loss: sum of the reported training losses; value and weight are float32[].
    """

    shared: Sum
    rows: Sum
    loss: Sum


def dense_update(server: PyTree, num_items: int) -> ClientUpdate:
    """Returns an update of zeros that holds every row, as a real client sends it.

    Call it under `jax.eval_shape` or in a traced function, where no array is made.

    Args:
      server: the server's variables `{'params': ..., 'rows': ...}`.
      num_items: I, the number of items.

    Example:
      >>> server = {"params": {}, "rows": {"A": jnp.ones((3, 4))}}
      >>> jax.eval_shape(lambda: dense_update(server, num_items=3)).rows["A"].shape
      (3, 4)
    """
    zeros = jax.tree.map(jnp.zeros_like, server)
    ids = jnp.arange(num_items, dtype=jnp.int32)
    return ClientUpdate(zeros[SHARED], zeros[ROWS], ids, jnp.float32(0), jnp.float32(0))
