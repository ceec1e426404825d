"""Faults of clients: they vanish, stop early, lie, or send values that are not finite.

A *vanished* client downloads the server's variables and never answers, so that the
round proceeds as if it had not been drawn. Whatever it trained is lost, its private
parameters included. A *straggler* runs fewer local epochs than the others. A
*sign-flipping* client is an attacker, which makes the server decode minus a multiple of
its update. These three are simulated. An update with a NaN or an infinity in it is a
real fault, and stops the run unless such updates are *dropped*.

The means of a round are over the clients that are *counted*: they answered, and their
answer was not dropped. A round that counts no client changes nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.release import Figures, merge_figures
from fedpeft_jax.federated.updates import ClientUpdate

VANISHED = "vanished"
"""The figure of a round that counts the clients that never answered."""

DROPPED = "dropped"
"""The figure of a round that counts the clients whose answers were dropped."""


class Faults(NamedTuple):
    """Which faults occur in a run, and how often. Without any, the round has no masks.

    Attributes:
      dropout_rate: probability that a client of a cohort vanishes.
      straggler_rate: probability that a client of a cohort runs fewer local epochs.
      sign_flip_rate: probability that a client of the run is an attacker, in all
        rounds.
      sign_flip_scale: the multiple of its update that an attacker subtracts.
      drop_nonfinite: whether the server drops an update that is not finite, in place of
        stopping the run.
    """

    dropout_rate: float = 0.0
    straggler_rate: float = 0.0
    sign_flip_rate: float = 0.0
    sign_flip_scale: float = 1.0
    drop_nonfinite: bool = False

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that every round counts."""
        vanished = (VANISHED,) if self.dropout_rate else ()
        return (*vanished, DROPPED) if self.drop_nonfinite else vanished


class Counted(NamedTuple):
    """The clients of a cohort that a round counts.

    Attributes:
      ids: int32[C], their ids, and the id of an empty place for all others.
      size: int32[], how many they are.
    """

    ids: Array
    size: Array


def check_faults(faults: Faults, local_epochs: int) -> None:
    """Raises InputError for faults that cannot occur.

    Args:
      faults: the faults of a run.
      local_epochs: passes of a client over its pairs per round.

    Example:
      >>> check_faults(Faults(straggler_rate=0.5), local_epochs=1)
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `straggler_rate=0.5` needs clients that could run fewer
      epochs: set `local_epochs` to at least 2, or leave it out
    """
    if faults.straggler_rate and local_epochs < 2:
        raise InputError(
            f"`straggler_rate={faults.straggler_rate}` needs clients that could run "
            "fewer epochs: set `local_epochs` to at least 2, or leave it out"
        )
    if faults.sign_flip_scale != 1 and not faults.sign_flip_rate:
        raise InputError(
            f"`sign_flip_scale={faults.sign_flip_scale}` has no effect without "
            "attackers: set `sign_flip_rate`, or leave it out"
        )


def who_answers(
    faults: Faults, key: Key, round_: Array, client_ids: Array, nobody: int
) -> Array:
    """Returns the cohort with an empty place for every client that vanishes.

    Args:
      faults: the faults of the run.
      key: the run's key for its rounds.
      round_: int32[], index of the round.
      client_ids: int32[C], the cohort.
      nobody: the id of an empty place.

    Example:
      >>> cohort, key = jnp.arange(4), jax.random.key(0)
      >>> who_answers(Faults(dropout_rate=0.5), key, 3, cohort, nobody=9).tolist()
      [9, 9, 2, 9]
    """
    if not faults.dropout_rate:
        return client_ids

    def vanishes(client_id: Array) -> Array:
        own = client_key(key, round_, client_id)
        drawn = jax.random.uniform(purpose_key(own, ClientPurpose.VANISH))
        return drawn < faults.dropout_rate

    return jnp.where(jax.vmap(vanishes)(client_ids), nobody, client_ids)


def epochs_of(faults: Faults, key: Key, local_epochs: int) -> Array | None:
    """Returns the number of local epochs of one client in one round.

    Args:
      faults: the faults of the run.
      key: the client's key of the round.
      local_epochs: the number of epochs of a client that is no straggler, at least 2.

    Returns:
      int32[], drawn uniformly from `1..local_epochs - 1` for a straggler; None if there
      are no stragglers in the run.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 6)
      >>> [int(epochs_of(Faults(straggler_rate=0.5), key, 3)) for key in keys]
      [3, 2, 2, 1, 3, 3]
    """
    if not faults.straggler_rate:
        return None
    late, fewer = jax.random.split(purpose_key(key, ClientPurpose.STRAGGLE))
    return jnp.where(
        jax.random.uniform(late) < faults.straggler_rate,
        jax.random.randint(fewer, (), 1, local_epochs),
        local_epochs,
    )


def drop_nonfinite(update: ClientUpdate, kept: PyTree) -> tuple[ClientUpdate, Array]:
    """Replaces the update of one client by zeros of weight 0 if it is not finite.

    Args:
      update: what the client sent, decoded.
      kept: what the client keeps: its private parameters and its upload state. A client
        in which these are not finite is dropped, too.

    Returns:
      The update, and whether everything was finite, bool[].

    Example:
      >>> ids, one = jnp.zeros(0, int), jnp.float32(1)
      >>> update = ClientUpdate(jnp.array([jnp.nan, 1.0]), {}, ids, one, one)
      >>> update, finite = drop_nonfinite(update, {})
      >>> update.shared.tolist(), float(update.weight), bool(finite)
      ([0.0, 0.0], 0.0, False)
    """
    finite = all_finite((update, kept))
    # A product with a weight of 0 would still be NaN.
    clean = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), update)
    return clean._replace(item_ids=update.item_ids), finite


def count(
    faults: Faults,
    drawn: Array,
    client_ids: Array,
    nobody: int,
    finite: Array | None,
    kept: PyTree,
    figures: Figures,
    *,
    varying: bool,
) -> tuple[Counted, PyTree, dict[str, Array]]:
    """Returns the clients that a round counts, what they keep, and their figures.

    Args:
      faults: the faults of the run.
      drawn: int32[C], the cohort before some of it vanished.
      client_ids: int32[C], the result of `who_answers`.
      nobody: the id of an empty place.
      finite: bool[C], whether each answer was finite; None if no answer is dropped.
      kept: what each client keeps, arrays [C, ...].
      figures: what is reported of each client, float32[C] by name.
      varying: whether the cohort may have empty places.

    Returns:
      The clients; what they keep, with zeros for all others; and the means of the
      figures over the clients, with the figures of the faults.
    """
    if not faults.figures and not varying:
        everyone = Counted(client_ids, jnp.int32(client_ids.shape[0]))
        return everyone, kept, jax.tree.map(jnp.mean, dict(figures))
    answered = client_ids < nobody
    counted = answered if finite is None else answered & finite
    size = jnp.sum(counted, dtype=jnp.int32)

    def mask(x: Array) -> Array:
        here = counted.reshape((-1,) + (1,) * (x.ndim - 1))
        return jnp.where(here, x, jnp.zeros_like(x))

    means = {k: jnp.sum(mask(v)) / jnp.maximum(size, 1) for k, v in figures.items()}
    vanished = (drawn < nobody) & ~answered
    found = {VANISHED: vanished, DROPPED: answered & ~counted}
    totals = {name: jnp.sum(found[name], dtype=jnp.float32) for name in faults.figures}
    ids = jnp.where(counted, client_ids, nobody)
    return (
        Counted(ids, size),
        jax.tree.map(mask, kept),
        merge_figures(means, totals),
    )


def all_finite(tree: PyTree) -> Array:
    """Returns whether all numbers of a tree are finite, bool[].

    Example:
      >>> bool(all_finite({"a": jnp.ones(2), "b": jnp.array(jnp.inf)}))
      False
    """
    flags = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(flags))
