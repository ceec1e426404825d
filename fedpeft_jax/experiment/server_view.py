"""What an honest but curious server computes from an update and its own variables."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED, select
from fedpeft_jax.core.typing import Array, PyTree
from fedpeft_jax.experiment.state import RunState, variables_of

_SCOPE = "item_embedding"


class ServerView(NamedTuple):
    """Functions of the server for one model.

    Attributes:
      moves: `(server, shared update, rows update) -> float32[I, d]`, how an update
        moves the vector of each item: its rows where the model trains rows, and
        otherwise its embedding. Rows are arrays [I, ...].
      reference: `(server, shared update) -> float32[d]`, the direction in which a
        positive moves if every entry of the user vector is the same and positive.
      table: `(shared update) -> float32[b, D]`, the update of the table that items
        share; None if the model trains rows, or has no such table.
      incidence: `(server) -> float32[b, I]`, the weight of each item in each vector of
        that table; None without one.
    """

    moves: Callable[[PyTree, PyTree, PyTree], Array]
    reference: Callable[[PyTree, PyTree], Array]
    table: Callable[[PyTree], np.ndarray] | None
    incidence: Callable[[PyTree], np.ndarray] | None


def server_view(model: Backbone, server: PyTree) -> ServerView:
    """Returns the functions of the server for one model.

    Args:
      model: the recommender.
      server: the server's variables by collection, for their shapes.
    """
    embedding: Any = model.item_embedding
    has_rows = bool(jax.tree.leaves(_item(server, ROWS)))

    def embed(variables: PyTree) -> Array:
        found: Array = embedding.apply(variables, None)
        return found

    def variables_after(server: PyTree, shared: PyTree) -> dict[str, Any]:
        found = {role: _item(server, role) for role in (SHARED, ROWS, FROZEN)}
        return {
            **found,
            SHARED: jax.tree.map(jnp.add, found[SHARED], shared.get(_SCOPE, {})),
        }

    def moves(server: PyTree, shared: PyTree, rows: PyTree) -> Array:
        if has_rows:
            return _flat(rows[_SCOPE])
        after = variables_after(server, shared)
        return embed(after) - embed({**after, SHARED: _item(server, SHARED)})

    def reference(server: PyTree, shared: PyTree) -> Array:
        if not has_rows:
            return jnp.ones(embedding.features)
        # For LoRA, B of the update: it may be zero before.
        after = variables_after(server, shared)

        def score(row: PyTree) -> Array:
            one = jax.tree.map(lambda x: x[:1], {**after, ROWS: row})
            return jnp.sum(embed({**one, SHARED: after[SHARED]}))

        row = jax.tree.map(lambda x: x[:1], after[ROWS])
        return _flat(jax.grad(score)(row))[0]

    name = None if has_rows else _table_name(server, embedding.features)

    def table(shared: PyTree) -> np.ndarray:
        assert name is not None
        change = traverse_util.flatten_dict(shared[_SCOPE])[name]
        return np.asarray(change).reshape(-1, embedding.features)

    @jax.jit
    def weights(server: PyTree, first: Array) -> Array:
        # Vector first + d of the table moves along axis d, for all axes at once.
        assert name is not None
        before = {role: _item(server, role) for role in (SHARED, ROWS, FROZEN)}
        flat = traverse_util.flatten_dict(before[SHARED])
        value, features = flat[name], embedding.features
        vectors = jnp.arange(value.size // features)[:, None] - first
        moving = vectors == jnp.arange(features)[None]

        def moved(value: Array) -> Array:
            tree = traverse_util.unflatten_dict({**flat, name: value})
            return embed({**before, SHARED: tree})

        tangent = moving.astype(value.dtype).reshape(value.shape)
        return jax.jvp(moved, (value,), (tangent,))[1].T

    def incidence(server: PyTree) -> np.ndarray:
        assert name is not None
        value = traverse_util.flatten_dict(_item(server, SHARED))[name]
        size, features = value.size // embedding.features, embedding.features
        blocks = [weights(server, jnp.int32(i)) for i in range(0, size, features)]
        return np.concatenate([np.asarray(block) for block in blocks])[:size]

    has_table = name is not None
    return ServerView(
        moves=jax.jit(moves),
        reference=jax.jit(reference),
        table=table if has_table else None,
        incidence=incidence if has_table else None,
    )


def server_of(state: RunState) -> dict[str, Any]:
    """Returns the variables that the server holds, by collection."""
    return select(variables_of(state), (SHARED, ROWS, FROZEN))


def embeddings_of(model: Backbone, server: PyTree) -> np.ndarray:
    """Returns the server's item embeddings, float32[I, D].

    Args:
      model: the recommender.
      server: the server's variables by collection.
    """
    found = {role: _item(server, role) for role in (SHARED, ROWS, FROZEN)}
    embedding: Any = model.item_embedding
    return np.asarray(embedding.apply(found, None))


def _item(variables: PyTree, role: str) -> PyTree:
    """Returns the variables of the item embedding in one collection."""
    return select(variables, (role,))[role].get(_SCOPE, {})


def _flat(tree: PyTree) -> Array:
    """Returns arrays [I, ...] side by side, float32[I, d]."""
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)


def _table_name(server: PyTree, features: int) -> tuple[str, ...] | None:
    """Returns the path of the largest shared table of item vectors."""
    flat = traverse_util.flatten_dict(_item(server, SHARED))
    tables = {k: v.size for k, v in flat.items() if v.shape[-1] == features}
    return max(tables, key=lambda k: tables[k]) if tables else None
