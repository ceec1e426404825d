"""Centralised matrix factorisation, as a reference.

It shows how much accuracy federated training loses.

Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009. This
version trains with Adam on minibatches of pairs, draws a new negative for every pair,
and returns the epoch with the best validation loss.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.data.splits import Split

_MOST_PAIRS, _STEPS = 8192, 100  # most pairs per step, fewest steps per epoch
_OPTIMIZER = optax.adam(5e-3)
_INIT_SCALE = 0.1
_DECAY = 1e-4  # weight of the squared entries of the vectors that a pair touches


def bpr_mf(
    split: Split, *, features: int = 32, epochs: int = 60, seed: int = 0
) -> dict[str, Array]:
    r"""Trains client and item vectors on the pairs of all clients.

    The loss is a mean over the pairs of a client u, its item i and a negative j:

    .. math:: -\ln \sigma(u \cdot (v_i - v_j)) + 10^{-4} (|u|^2 + |v_i|^2 + |v_j|^2)

    Args:
      split: the training items, and the validation items that decide when to stop, if
        there are any.
      features: D, the length of a vector.
      epochs: the most passes over the pairs. Training stops earlier after five epochs
        without a better validation loss.
      seed: seed of the initial vectors, the order and the negatives.

    Returns:
      The vectors of the best epoch: `users` float32[U, D] and `items` float32[I, D].
      Without validation items, those of the last epoch.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> train = Ragged.from_rows([[0, 1], [4, 5]])
      >>> split = Split(name='toy', num_items=6, train=train,
      ...               valid=np.array([-1, -1]), test=np.array([2, 3]))
      >>> jax.tree.map(jnp.shape, bpr_mf(split, features=4, epochs=2))
      {'items': (6, 4), 'users': (2, 4)}
    """
    key, init_key = jax.random.split(jax.random.key(seed))
    sizes = {"users": split.num_clients, "items": split.num_items}
    vectors = {
        name: _INIT_SCALE
        * jax.random.normal(jax.random.fold_in(init_key, place), (size, features))
        for place, (name, size) in enumerate(sizes.items())
    }
    train = split.train
    pairs = jnp.asarray(train.owners, jnp.int32), jnp.asarray(train.values, jnp.int32)
    held = split.held_out("valid")
    valid = jnp.asarray(held.owners, jnp.int32), jnp.asarray(held.values, jnp.int32)
    state, best, best_loss, waited = _OPTIMIZER.init(vectors), vectors, np.inf, 0
    for epoch in range(epochs):
        vectors, state = _epoch(vectors, state, jax.random.fold_in(key, epoch), *pairs)
        if not len(held.values):
            best = vectors
            continue
        loss = float(_valid_loss(vectors, jax.random.fold_in(key, epochs), *valid))
        if loss < best_loss:
            best, best_loss, waited = vectors, loss, 0
        else:
            waited += 1
            if waited == 5:
                break
    return best


def _loss(vectors: PyTree, users: Array, positives: Array, negatives: Array) -> Array:
    own = vectors["users"][users]
    better, worse = vectors["items"][positives], vectors["items"][negatives]
    margin = jnp.sum(own * (better - worse), axis=-1)
    squares = sum(jnp.square(x).sum(axis=-1) for x in (own, better, worse))
    return jnp.mean(jax.nn.softplus(-margin) + _DECAY * squares)


@jax.jit
def _epoch(
    vectors: PyTree, state: PyTree, key: Key, users: Array, items: Array
) -> tuple[PyTree, PyTree]:
    order_key, negatives_key = jax.random.split(key)
    size = min(_MOST_PAIRS, max(users.shape[0] // _STEPS, 1))
    steps = users.shape[0] // size
    order = jax.random.permutation(order_key, users.shape[0])[: steps * size]
    num_items = vectors["items"].shape[0]
    # Uniform over the catalogue. A negative that is one of the client's own items is
    # rare and does little harm; a lookup for every draw would cost more.
    negatives = jax.random.randint(negatives_key, (steps, size), 0, num_items)

    def step(carry: PyTree, batch: PyTree) -> tuple[PyTree, None]:
        vectors, state = carry
        pairs, negatives = batch
        gradient = jax.grad(_loss)(vectors, users[pairs], items[pairs], negatives)
        change, state = _OPTIMIZER.update(gradient, state, vectors)
        return (optax.apply_updates(vectors, change), state), None

    carry, _ = jax.lax.scan(
        step, (vectors, state), (order.reshape(steps, size), negatives)
    )
    return carry


@jax.jit
def _valid_loss(vectors: PyTree, key: Key, users: Array, items: Array) -> Array:
    negatives = jax.random.randint(key, (64, users.shape[0]), 0, len(vectors["items"]))
    return jnp.mean(jax.vmap(lambda n: _loss(vectors, users, items, n))(negatives))
