"""One client's local training in one round.

This file handles a single client; `round.py` vectorises it over a cohort.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.backbones.base import Backbone, schedule_of
from fedpeft_jax.core.keys import ClientPurpose, purpose_key
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.losses import Loss
from fedpeft_jax.federated.sampler import ClientData, Sampler
from fedpeft_jax.federated.updates import ClientUpdate

# Number of parameters: codebooks and hash tables have more, LoRA's B has fewer.
_LARGE_DENSE = 8192


class LocalTraining(NamedTuple):
    """How every client trains.

    Attributes:
      model: the recommender.
      loss: a mean over the client's valid pairs.
      optimizer: an optax optimizer; its state starts anew in every participation.
      sampler: decides which pairs the client trains on.
      local_epochs: passes over the client's pairs per round.
      local_batch_size: pairs per local step; 0 for all pairs at once.
      proximal: the weight of FedProx's proximal term; 0 for none.
      uniform_weights: whether the weight of every client is 1 instead of its number of
        positives.
    """

    model: Backbone
    loss: Loss
    optimizer: optax.GradientTransformation
    sampler: Sampler
    local_epochs: int = 2
    local_batch_size: int = 0
    proximal: float = 0.0
    uniform_weights: bool = False


class Batch(NamedTuple):
    """Some pairs of a client, by the positives that they belong to.

    Attributes:
      pairs: int32[..., b], indices of the positives.
      mask: bool[..., b], False on padding.
    """

    pairs: Array
    mask: Array


def train_client(
    training: LocalTraining,
    received: PyTree,
    private: PyTree,
    frozen: PyTree,
    data: ClientData,
    key: Key,
    num_epochs: Array | None = None,
) -> tuple[ClientUpdate, PyTree]:
    """Trains one client from the server's variables.

    Args:
      training: the settings of the local training.
      received: `{'params': ..., 'rows': ...}`, the shared parameters and the gathered
        rows [K, ...] as the client received them.
      private: the client's own parameters.
      frozen: the gathered rows [K, ...] of the frozen tables.
      data: the client's pairs.
      key: random key of the client in this round.
      num_epochs: int32[], how many of the local epochs the client runs, at least 1;
        None for all of them.

    Returns:
      The update that leaves the client, and the client's new private parameters.
    """
    before = {**received, PRIVATE: private}
    schedule = schedule_of(training.model)
    states = tuple(
        training.optimizer.init({role: before[role] for role in group})
        for group in schedule
    )

    def step(carry: PyTree, batch: Batch | None, step_key: Key) -> tuple[PyTree, Array]:
        trained, states = carry
        moved, losses = [], []
        for group, state in zip(schedule, states, strict=True):
            part = {role: trained[role] for role in group}

            def objective(part: PyTree, trained: PyTree = trained) -> Array:
                variables = {**trained, **part, FROZEN: frozen}
                loss = _loss(training, variables, data, batch, step_key)
                if training.proximal:
                    loss += _proximal(training.proximal, variables, received)
                return loss

            loss, gradient = jax.value_and_grad(objective)(part)
            change, state = training.optimizer.update(gradient, state, part)
            trained = {**trained, **optax.apply_updates(part, change)}
            moved.append(state)
            losses.append(loss)
        new = (trained, tuple(moved))
        if batch is not None:
            # A batch of padding must change nothing, Adam's moments included.
            alive = jnp.any(batch.mask)
            new = jax.tree.map(lambda n, o: jnp.where(alive, n, o), new, carry)
        return new, losses[0]

    def epoch(carry: PyTree, index: Array) -> tuple[PyTree, Array]:
        dropout = jax.random.fold_in(purpose_key(key, ClientPurpose.DROPOUT), index)
        if not training.local_batch_size:
            return step(carry, None, dropout)
        shuffle = jax.random.fold_in(purpose_key(key, ClientPurpose.SHUFFLE), index)
        batches = make_batches(shuffle, data.mask, training.local_batch_size)
        steps = jnp.arange(batches.mask.shape[0])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout, steps)
        carry, losses = jax.lax.scan(lambda c, x: step(c, *x), carry, (batches, keys))
        alive = jnp.any(batches.mask, axis=1)
        mean = jnp.sum(losses * alive) / jnp.maximum(jnp.sum(alive), 1)
        return carry, mean

    def epoch_in_time(carry: PyTree, index: Array) -> tuple[PyTree, Array]:
        if num_epochs is None:
            return epoch(carry, index)
        new, loss = epoch(carry, index)
        runs = index < num_epochs
        return jax.tree.map(lambda n, o: jnp.where(runs, n, o), (new, loss), (carry, 0))

    epochs = jnp.arange(training.local_epochs)
    # If the loop is unrolled, the compiler can use that the moments start at zero. It
    # fuses a step into a few passes over the rows, which takes a third of the time.
    # Large dense parameters are excluded, because every pass would compute them again.
    dense = sum(x.size for x in jax.tree.leaves((before[SHARED], private)))
    unroll = (
        training.local_epochs <= 3
        and not training.local_batch_size
        and dense <= _LARGE_DENSE
    )
    (after, _), losses = jax.lax.scan(
        epoch_in_time, (before, states), epochs, unroll=unroll or 1
    )
    change = jax.tree.map(jnp.subtract, after, before)
    weight = jnp.sum(data.mask).astype(jnp.float32)
    if training.uniform_weights:
        weight = jnp.minimum(weight, 1.0)  # an empty place keeps weight 0
    loss = jnp.mean(losses)
    if num_epochs is not None:
        loss = jnp.sum(losses) / num_epochs
    update = ClientUpdate(change[SHARED], change[ROWS], data.item_ids, weight, loss)
    return update, after[PRIVATE]


def _loss(
    training: LocalTraining,
    variables: PyTree,
    data: ClientData,
    batch: Batch | None,
    key: Key,
) -> Array:
    def score(ids: Array | None) -> Array:
        scores: Any = training.model.apply(
            variables,
            data.history,
            ids,
            deterministic=False,
            rngs={"dropout": key},
            method="score",
        )
        return scores

    if batch is None:
        # Every gathered row is scored once, even if it belongs to several pairs.
        pairs = training.sampler.pair_scores(score(None), data)
        return training.loss(*pairs, data.mask)
    positives, negatives = data.positives[batch.pairs], data.negatives[batch.pairs]
    scores = score(jnp.concatenate([positives[:, None], negatives], axis=1))
    return training.loss(scores[:, 0], scores[:, 1:], batch.mask)


def _proximal(weight: float, variables: PyTree, received: PyTree) -> Array:
    r"""Returns FedProx's :math:`\frac{\mu}{2} |w - w^t|^2` over what a client uploads.

    Rows that the client did not gather do not move, and private parameters have no
    counterpart on the server (Li et al., Federated optimization in heterogeneous
    networks, MLSys 2020, equation 2).
    """
    moved = {role: variables[role] for role in received}
    apart = jax.tree.map(lambda w, s: jnp.sum(jnp.square(w - s)), moved, received)
    return 0.5 * weight * jax.tree.reduce(jnp.add, apart, jnp.float32(0))


def make_batches(key: Key, mask: Array, batch_size: int) -> Batch:
    """Divides the valid pairs into random batches; padding fills the last batches.

    Args:
      key: random key of the epoch.
      mask: bool[N], False on padding.
      batch_size: b, pairs per batch.

    Returns:
      Indices int32[ceil(N / b), b] and their mask.

    Example:
      >>> mask = jnp.array([True, True, True, False])
      >>> batches = make_batches(jax.random.key(0), mask, batch_size=2)
      >>> batches.mask.tolist()
      [[True, True], [True, False]]
      >>> sorted(batches.pairs[batches.mask].tolist())
      [0, 1, 2]
    """
    size = mask.shape[0]
    # Padding always sorts last, so the order does not depend on the amount of padding.
    order = jnp.argsort(jnp.where(mask, jax.random.uniform(key, (size,)), 2.0))
    order = jnp.pad(order, (0, -size % batch_size))
    alive = jnp.arange(order.shape[0]) < jnp.sum(mask)
    return Batch(order.reshape(-1, batch_size), alive.reshape(-1, batch_size))
