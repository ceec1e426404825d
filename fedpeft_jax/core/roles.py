"""Federated roles of variables.

A variable's Flax collection determines who trains it and whether it is sent.

==========  ================  =========================  ===================
collection  client trains it  client uploads it          leading axis
==========  ================  =========================  ===================
`params`    yes               yes, as a whole            none (`SHARED`)
`rows`      gathered rows     gathered rows              item
`frozen`    no                no                         item
`private`   yes               never                      client, in the store
==========  ================  =========================  ===================

The rest of the library follows from these four names: the arguments of `jax.grad`, the
contents of a client's update, what the server averages and what counts as sent. There
are no path patterns, no masks and no `stop_gradient`.
"""

import math

import flax.linen as nn
import jax

from fedpeft_jax.core.typing import Array, PyTree, Variables

SHARED = "params"
"""Dense parameters that every client trains, and uploads as a whole."""

ROWS = "rows"
"""Per-item tables; a client trains and uploads only the rows that it gathers."""

FROZEN = "frozen"
"""Per-item tables that are not trained: text embeddings, hash buckets, codes."""

PRIVATE = "private"
"""Parameters that never leave the client."""

SENT = (SHARED, ROWS)
"""The roles that travel every round, in both directions."""

TRAINED = (SHARED, ROWS, PRIVATE)
"""The roles that a client's optimizer changes."""


def select(variables: Variables, roles: tuple[str, ...]) -> dict[str, PyTree]:
    """Returns the trees of some roles; a role without variables is an empty tree.

    Example:
      >>> select({"params": {"w": 1}, "frozen": {"t": 2}}, ("params", "private"))
      {'params': {'w': 1}, 'private': {}}
    """
    return {role: variables.get(role, {}) for role in roles}


def gather_rows(tables: PyTree, item_ids: Array) -> PyTree:
    """Returns the rows of some items from every per-item table.

    Args:
      tables: arrays [I, ...].
      item_ids: int32[K] global ids. Ids beyond the table (padding) read its last row.

    Returns:
      The same tree with arrays [K, ...].

    Example:
      >>> import jax.numpy as jnp
      >>> gather_rows({"t": jnp.arange(4.0) * 10}, jnp.array([2, 0, 4]))["t"].tolist()
      [20.0, 0.0, 30.0]
    """
    return jax.tree.map(lambda t: t.at[item_ids].get(mode="clip"), tables)


def scatter_add_rows(tables: PyTree, item_ids: Array, values: PyTree) -> PyTree:
    """Adds row values onto per-item tables; repeated ids add up.

    Args:
      tables: arrays [I, ...].
      item_ids: int32[...], global ids. Ids beyond the table (padding) are dropped.
      values: the same tree with arrays [..., *row shape].

    Returns:
      Tables like `tables`.

    Example:
      >>> import jax.numpy as jnp
      >>> ids, values = jnp.array([1, 1, 3]), {"t": jnp.array([1.0, 2.0, 9.0])}
      >>> scatter_add_rows({"t": jnp.zeros(3)}, ids, values)["t"].tolist()
      [0.0, 3.0, 0.0]
    """
    return jax.tree.map(lambda t, v: t.at[item_ids].add(v, mode="drop"), tables, values)


def num_bytes(tree: PyTree) -> int:
    """Returns the size of all arrays of a tree in bytes (arrays or their shapes).

    Example:
      >>> import jax.numpy as jnp
      >>> num_bytes({"a": jnp.zeros((10, 4)), "b": jnp.zeros(2, jnp.int8)})
      162
    """
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def private_layer(module: type[nn.Module]) -> type[nn.Module]:
    """Returns a module class whose parameters live in the `private` collection.

    Standard layers keep their weights in `params`, which are shared. The wrapped class
    computes the same, but its weights belong to the client. (A call that creates them
    beside variables that already exist must list `params` in `mutable` too, as
    `init_private` does.)

    Args:
      module: a Flax module class, e.g. `nn.Dense`.

    Example:
      >>> import jax.numpy as jnp
      >>> layer = private_layer(nn.Dense)(3)
      >>> sorted(layer.init(jax.random.key(0), jnp.ones(2)))
      ['private']
    """
    return nn.map_variables(
        module,
        mapped_collections=(SHARED, PRIVATE),
        trans_in_fn=lambda v: {SHARED: v[PRIVATE]} if PRIVATE in v else {},
        trans_out_fn=lambda v: {PRIVATE: v[SHARED]} if SHARED in v else {},
        init=True,
        mutable=True,
    )
