"""Puts canaries into a run, and scores them on what the run released."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.ragged import Ragged, sort_rows
from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.data import Split
from fedpeft_jax.experiment.phases import Phase
from fedpeft_jax.experiment.privacy_plan import PrivacyPlan
from fedpeft_jax.federated import Cohort, Release, Sums, chain_releases
from fedpeft_jax.federated.canaries import Canaries, direction, is_in
from fedpeft_jax.federated.release import Figures

_MOST_ITEMS = 10  # training items of a canary
_LENGTH = 100.0  # of what a canary's training returns, in clips


def add_clients(split: Split, num_clients: int, seed: int) -> tuple[Split, np.ndarray]:
    """Appends clients with random training items, which are not evaluated.

    Args:
      split: the clients' training and held-out items.
      num_clients: M, the number of new clients.
      seed: seed of their items.

    Returns:
      The split of all clients, and the items of the new ones, int32[M, n], ascending.

    Example:
      >>> train, nobody = Ragged.from_rows([[0, 3]]), np.array([-1])
      >>> split, items = add_clients(Split("toy", 4, train, nobody, nobody), 2, seed=0)
      >>> split.num_clients, items.shape, split.counts.tolist(), len(split.evaluated)
      (3, (2, 2), [2, 2, 2], 0)
    """
    each = max(1, min(_MOST_ITEMS, split.num_items // 2))
    rng = np.random.default_rng([seed, num_clients, 1])
    drawn = [
        rng.choice(split.num_items, each, replace=False) for _ in range(num_clients)
    ]
    new = sort_rows(Ragged.from_rows(drawn), split.num_items)
    counts = np.concatenate([split.counts, new.counts])
    values = np.concatenate([split.train.values, new.values])

    def nobody(column: np.ndarray) -> np.ndarray:
        return np.concatenate([column, np.full(num_clients, -1, column.dtype)])

    return (
        Split(
            name=split.name,
            num_items=split.num_items,
            train=Ragged.from_counts(values, counts),
            valid=nobody(split.valid),
            test=nobody(split.test),
        ),
        new.values.reshape(num_clients, each),
    )


def make_canaries(privacy: PrivacyPlan, first: int, *, alone: bool = False) -> Canaries:
    """Returns canaries that are clipped, and on sides that the adjacency compares.

    Args:
      privacy: the privacy of the run.
      first: the id of the first canary.
      alone: whether all other clients send zeros.
    """
    mechanism = privacy.mechanism
    clip = mechanism.clip if math.isfinite(mechanism.clip) else 1.0
    return Canaries(
        first=first,
        norm=_LENGTH * clip,
        opposed=privacy.accountant.adjacency == "replace_one",
        sparse=mechanism.name == "laplace",
        alone=alone,
    )


def with_canaries(phases: list[Phase], canaries: Canaries) -> list[Phase]:
    """Returns the phases with canaries; phases that shared an algorithm still do.

    Args:
      phases: all phases of the run.
      canaries: the canaries of the run.
    """
    changed: dict[int, Any] = {}
    for phase in phases:
        old = phase.algorithm
        stages = old.release, record_releases()
        new = old._replace(release=chain_releases(*stages), canaries=canaries)
        changed.setdefault(id(old), new)
    return [phase._replace(algorithm=changed[id(phase.algorithm)]) for phase in phases]


def record_releases() -> Release:
    """Returns the stage that adds up everything that the stages before it released.

    Its state is the sum of the released sums over all rounds, a pair of trees like the
    server's `params` and `rows`.
    """

    def init(server: PyTree) -> tuple[PyTree, PyTree]:
        zeros = jax.tree.map(jnp.zeros_like, server)
        return zeros[SHARED], zeros[ROWS]

    def apply(
        sums: Sums, state: tuple[PyTree, PyTree], cohort: Cohort, key: Key
    ) -> tuple[Sums, tuple[PyTree, PyTree], Figures]:
        del cohort, key
        released = sums.shared.value, sums.rows.value
        return sums, jax.tree.map(jnp.add, state, released), {}

    return Release(init, apply)


@functools.partial(jax.jit, static_argnums=0)
def score_canaries(
    canaries: Canaries, key: Key, released: tuple[PyTree, PyTree], items: Array
) -> tuple[Array, Array]:
    """Returns the inner product of each canary's direction with what was released.

    Args:
      canaries: the canaries of the run.
      key: the run's key for its rounds.
      released: the sums of shared parameters and of rows [I, ...].
      items: int32[M, n], the training items of each canary.

    Returns:
      The scores, float32[M], and whether each canary was in, bool[M].
    """
    shared, rows = released

    def score(canary: tuple[Array, Array]) -> tuple[Array, Array]:
        client_id, item_ids = canary
        own = shared, gather_rows(rows, item_ids)
        everywhere = jnp.ones(item_ids.shape, bool)
        unit = direction(canaries, key, client_id, own, item_ids, everywhere)
        products = jax.tree.map(lambda x, y: jnp.sum(x * y), unit, own)
        return sum(jax.tree.leaves(products), jnp.float32(0)), is_in(key, client_id)

    ids = canaries.first + jnp.arange(items.shape[0], dtype=jnp.int32)
    scores, sides = jax.lax.map(score, (ids, items))
    return scores, sides
