"""What a client returns, and the sums over clients that the server learns.

The server never handles one client's update for its own sake: updates become sums, and
sums add over clients, tiles and devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, PyTree


class ClientUpdate(NamedTuple):
    """All that leaves a client.

    Inside an upload pipeline `shared` and `rows` may be any trees: they are what is
    sent, and their size is what is counted.

    Attributes:
      shared: after - before of the shared parameters.
      rows: after - before of the gathered rows, arrays [K, ...]. On the wire the rows
        are dense, [I, ...], with zeros for the items that the client did not gather.
      item_ids: int32[K], which items the rows are; `num_items` on padding. The
        simulator needs them; they are not sent.
      weight: float32[], the client's weight in means; 0 for an empty place.
      loss: float32[], the training loss averaged over the local steps.
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
      weight: float32 array that broadcasts against them from the left, or None where
        the weight of another part counts.
    """

    value: PyTree
    weight: Array | None


class Sums(NamedTuple):
    """Everything that the server learns from a cohort.

    Attributes:
      shared: of the shared parameters, with the total weight float32[].
      rows: of the rows. An aggregator's `map` returns arrays [K, ...], one entry for
        each gathered row, and its `apply` receives arrays [I, ...], added up by item. A
        weight, if there is one, is float32[K] and float32[I].
      loss: of the reported training losses, float32[] each.
    """

    shared: Sum
    rows: Sum
    loss: Sum


def dense_update(server: PyTree, num_items: int) -> ClientUpdate:
    """Returns an update of zeros with every row, as it is on the wire.

    Call it under `jax.eval_shape`, or within a function that is being traced, where no
    array is made.

    Args:
      server: the server's variables `{'params': ..., 'rows': ...}`.
      num_items: I.
    """
    zeros = jax.tree.map(jnp.zeros_like, server)
    ids = jnp.arange(num_items, dtype=jnp.int32)
    return ClientUpdate(zeros[SHARED], zeros[ROWS], ids, jnp.float32(0), jnp.float32(0))
