"""One client's participation in one round. Nothing here knows of a second client."""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.aggregators import ClientUpdate
from fedpeft_jax.federated.losses import Loss
from fedpeft_jax.federated.sampler import ClientData, pair_scores

_LARGE_DENSE = 8192  # parameters; codebooks and hash tables are above, LoRA's B below


class Purpose(enum.IntEnum):
    """What a client's key of a round is folded with, so that no two uses share bits."""

    NEGATIVES = 0
    SHUFFLE = 1
    DROPOUT = 2


class LocalTraining(NamedTuple):
    """How every client trains.

    Attributes:
      model: the recommender.
      loss: a mean over the client's valid pairs.
      optimizer: an optax optimizer, started afresh for every participation.
      num_items: I.
      num_negatives: M, negatives a positive.
      local_epochs: passes over the client's pairs.
      local_batch_size: pairs in a local step; 0 means all of them at once.
      proximal: the weight of FedProx's proximal term; 0 leaves it out.
      num_slots: negatives are drawn from the first so many items; 0 for all.
      fixed_negatives: whether a client draws them once, and not in every round.
    """

    model: Backbone
    loss: Loss
    optimizer: optax.GradientTransformation
    num_items: int
    num_negatives: int = 1
    local_epochs: int = 2
    local_batch_size: int = 0
    proximal: float = 0.0
    num_slots: int = 0
    fixed_negatives: bool = False


class Batch(NamedTuple):
    """Some pairs of a client: their indices int32[b] and mask bool[b]; None is all."""

    pairs: Array
    mask: Array


def train_client(
    training: LocalTraining,
    uploaded: PyTree,
    private: PyTree,
    frozen: PyTree,
    data: ClientData,
    key: Key,
) -> tuple[ClientUpdate, PyTree, Array]:
    """Trains one client from the server's parameters.

    Args:
      training: how.
      uploaded: `{'params': ..., 'rows': ...}`, the shared parameters and the gathered
        rows [K, ...] as the server sent them.
      private: the client's own parameters.
      frozen: the gathered rows [K, ...] of the frozen tables.
      data: the client's pairs.
      key: the client's key of this round.

    Returns:
      The update that leaves the client, its new private parameters, and the training
      loss float32[] averaged over the local steps.
    """
    before = {**uploaded, PRIVATE: private}
    states = tuple(
        training.optimizer.init({role: before[role] for role in group})
        for group in training.model.local_schedule
    )

    def step(carry: PyTree, batch: Batch | None, step_key: Key) -> tuple[PyTree, Array]:
        params, states = carry
        moved, losses = [], []
        for group, state in zip(training.model.local_schedule, states, strict=True):
            part = {role: params[role] for role in group}

            def objective(part: PyTree, params: PyTree = params) -> Array:
                variables = {**params, **part, FROZEN: frozen}
                loss = _loss(training, variables, data, batch, step_key)
                if training.proximal:
                    loss += _proximal(training.proximal, variables, uploaded)
                return loss

            loss, gradient = jax.value_and_grad(objective)(part)
            change, state = training.optimizer.update(gradient, state, part)
            params = {**params, **optax.apply_updates(part, change)}
            moved.append(state)
            losses.append(loss)
        new = (params, tuple(moved))
        if batch is not None:
            # All padding: nothing may move, and that includes Adam's moments.
            alive = jnp.any(batch.mask)
            new = jax.tree.map(lambda n, o: jnp.where(alive, n, o), new, carry)
        return new, losses[0]

    def epoch(carry: PyTree, index: Array) -> tuple[PyTree, Array]:
        dropout = jax.random.fold_in(jax.random.fold_in(key, Purpose.DROPOUT), index)
        if not training.local_batch_size:
            return step(carry, None, dropout)
        shuffle = jax.random.fold_in(jax.random.fold_in(key, Purpose.SHUFFLE), index)
        batches = _shuffle(shuffle, data.mask, training.local_batch_size)
        steps = jnp.arange(batches.mask.shape[0])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(dropout, steps)
        carry, losses = jax.lax.scan(lambda c, x: step(c, *x), carry, (batches, keys))
        alive = jnp.any(batches.mask, axis=1)
        mean = jnp.sum(losses * alive) / jnp.maximum(jnp.sum(alive), 1)
        return carry, mean

    epochs = jnp.arange(training.local_epochs)
    # Unrolled, the first step knows that the moments are zero, and a step's arithmetic
    # fuses into a few passes over the rows: a third of the time of the rolled loop. Of
    # large dense parameters it would be computed again in each pass.
    dense = sum(x.size for x in jax.tree.leaves((before[SHARED], private)))
    unroll = (
        training.local_epochs <= 3
        and not training.local_batch_size
        and dense <= _LARGE_DENSE
    )
    (after, _), losses = jax.lax.scan(
        epoch, (before, states), epochs, unroll=unroll or 1
    )
    change = jax.tree.map(jnp.subtract, after, before)
    weight = jnp.sum(data.mask).astype(jnp.float32)
    update = ClientUpdate(change[SHARED], change[ROWS], data.item_ids, weight)
    return update, after[PRIVATE], jnp.mean(losses)


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
        # Every gathered row is scored once, however many pairs it is part of.
        pairs = pair_scores(
            score(None),
            data,
            num_items=training.num_items,
            num_slots=training.num_slots,
        )
        return training.loss(*pairs, data.mask)
    positives, negatives = data.positives[batch.pairs], data.negatives[batch.pairs]
    scores = score(jnp.concatenate([positives[:, None], negatives], axis=1))
    return training.loss(scores[:, 0], scores[:, 1:], batch.mask)


def _proximal(weight: float, variables: PyTree, sent: PyTree) -> Array:
    r"""FedProx's :math:`\frac{\mu}{2} |w - w^t|^2` over what the client will upload.

    Rows that it did not gather are where the server sent them, and private parameters
    have no such place (Li et al., Federated optimization in heterogeneous networks,
    MLSys 2020, equation 2).
    """
    moved = {role: variables[role] for role in sent}
    apart = jax.tree.map(lambda w, s: jnp.sum(jnp.square(w - s)), moved, sent)
    return 0.5 * weight * jax.tree.reduce(jnp.add, apart, jnp.float32(0))


def _shuffle(key: Key, mask: Array, batch_size: int) -> Batch:
    """Splits the valid pairs into random batches; padding fills the last ones."""
    size = mask.shape[0]
    # Padding sorts last whatever its draw, so the order does not depend on its length.
    order = jnp.argsort(jnp.where(mask, jax.random.uniform(key, (size,)), 2.0))
    order = jnp.pad(order, (0, -size % batch_size))
    alive = jnp.arange(order.shape[0]) < jnp.sum(mask)
    return Batch(order.reshape(-1, batch_size), alive.reshape(-1, batch_size))
