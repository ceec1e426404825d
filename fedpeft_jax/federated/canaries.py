"""Canaries: clients that an audit adds, and whose updates are random directions.

A canary takes part like everybody: it is drawn into cohorts, trains, and its update
passes the upload pipeline, the bound and the noise. Only what its training returns is
replaced by a direction of its own, which is the same in all rounds and is so long that
it is clipped. An audit then asks of the released sums on which *side* each canary was,
which a fair coin decided:

- replace-one adjacency: a canary that is in sends its direction, one that is out sends
  the opposite direction;
- add-or-remove-one adjacency: a canary that is in sends its direction, one that is out
  does not take part, and its place in a cohort stays empty.

The direction covers all shared parameters and the rows of the client's own training
items. The rows of its negatives differ between rounds, and a canary leaves them alone.

Source:
  Andrew et al., One-shot empirical privacy estimation for federated learning, ICLR 2024
  (arXiv 2302.03098), algorithm 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.keys import NO_ROUND, ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.sampler import ClientData
from fedpeft_jax.federated.updates import ClientUpdate


class Canaries(NamedTuple):
    """The canaries of a run.

    Attributes:
      first: the id of the first canary. All clients from it on are canaries.
      norm: the L2 norm of what a canary's training returns.
      opposed: whether a canary that is out sends the opposite direction; otherwise it
        does not take part, which needs cohorts of varying size.
      sparse: whether a direction has a single number that is not zero, which is best
        where the L1 norm is bounded. Otherwise it is uniform on a sphere.
      alone: whether all other clients send zeros. What they send is noise for the
        audit, and differential privacy has to hold whatever it is.
    """

    first: int
    norm: float
    opposed: bool
    sparse: bool = False
    alone: bool = False


def is_in(key: Key, client_id: Array | int) -> Array:
    """Returns whether a canary is in, bool[], with probability 1/2.

    Args:
      key: the run's key for its rounds.
      client_id: int32[], the id of a canary.

    Example:
      >>> [bool(is_in(jax.random.key(0), canary)) for canary in range(5)]
      [True, True, False, True, False]
    """
    return jax.random.bernoulli(_keys(key, client_id)[0])


def direction(
    canaries: Canaries,
    key: Key,
    client_id: Array | int,
    update: tuple[PyTree, PyTree],
    item_ids: Array,
    own: Array,
) -> tuple[PyTree, PyTree]:
    """Returns the direction of a canary, of L2 norm 1.

    It depends on the canary and, for rows, on the item, and not on which other rows
    were gathered.

    Args:
      canaries: the canaries of the run.
      key: the run's key for its rounds.
      client_id: int32[], the id of the canary.
      update: arrays of the shapes of the shared parameters, and of gathered rows
        [K, ...].
      item_ids: int32[K], the item of each gathered row.
      own: bool[K], whether it is a training item of the canary.
    """
    _, shared_key, rows_key = _keys(key, client_id)

    def draw(own_key: Key, tree: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        drawn = [
            jax.random.normal(jax.random.fold_in(own_key, place), x.shape)
            for place, x in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, drawn)

    def draw_row(item_id: Array, is_own: Array, rows: PyTree) -> PyTree:
        drawn = draw(jax.random.fold_in(rows_key, item_id), rows)
        return jax.tree.map(lambda x: jnp.where(is_own, x, 0.0), drawn)

    shared, rows = update
    found = draw(shared_key, shared), jax.vmap(draw_row)(item_ids, own, rows)
    leaves = jax.tree.leaves(found)
    if canaries.sparse:
        most = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in leaves]))
        found = jax.tree.map(lambda x: jnp.where(jnp.abs(x) < most, 0.0, x), found)
    square = sum((jnp.sum(x * x) for x in jax.tree.leaves(found)), jnp.float32(0))
    scale = jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
    return jax.tree.map(lambda x: x * scale, found)


def replace_update(
    canaries: Canaries | None,
    key: Key,
    client_id: Array,
    update: ClientUpdate,
    data: ClientData,
) -> ClientUpdate:
    """Returns the update of one client, which is a direction if it is a canary.

    The update is replaced before the upload pipeline, where the client of the local
    model bounds it.

    Args:
      canaries: the canaries of the run; None for none.
      key: the run's key for its rounds.
      client_id: int32[].
      update: what the training of the client returned.
      data: what the client trained on.
    """
    if canaries is None:
        return update
    own = jnp.zeros(data.item_ids.shape, bool).at[data.positives].set(data.mask)
    true = update.shared, update.rows
    unit = direction(canaries, key, client_id, true, data.item_ids, own)
    factor = jnp.float32(canaries.norm)
    if canaries.opposed:
        factor = jnp.where(is_in(key, client_id), factor, -factor)
    # An empty place has the largest id, and a weight of zero.
    canary = (client_id >= canaries.first) & (update.weight > 0)
    shared, rows = jax.tree.map(
        lambda x, y: jnp.where(canary, factor * x, 0.0 if canaries.alone else y),
        unit,
        true,
    )
    return update._replace(shared=shared, rows=rows)


def leave_out(
    canaries: Canaries | None, key: Key, client_ids: Array, nobody: int
) -> Array:
    """Returns the cohort with an empty place for every canary that does not take part.

    Args:
      canaries: the canaries of the run; None for none.
      key: the run's key for its rounds.
      client_ids: int32[C], the cohort.
      nobody: the id of an empty place.

    Example:
      >>> cohort, canaries = jnp.arange(5), Canaries(2, norm=1.0, opposed=False)
      >>> leave_out(canaries, jax.random.key(0), cohort, nobody=9).tolist()
      [0, 1, 9, 3, 9]
    """
    if canaries is None or canaries.opposed:
        return client_ids
    is_out = ~jax.vmap(lambda client_id: is_in(key, client_id))(client_ids)
    return jnp.where((client_ids >= canaries.first) & is_out, nobody, client_ids)


def _keys(key: Key, client_id: Array | int) -> Array:
    """Returns the keys of a canary's coin, of its shared numbers and of its rows."""
    own = purpose_key(client_key(key, NO_ROUND, client_id), ClientPurpose.CANARY)
    return jax.random.split(own, 3)
