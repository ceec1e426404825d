"""Trains a small network on item encodings in minibatches, on the server."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedpeft_jax.core.bounds import MOST_FLOAT, MOST_INT, Bounds, check_number
from fedpeft_jax.core.typing import Array, Key, PyTree

_MIN_STEPS, _MIN_EPOCHS = 600, 20

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called as ``progress(done_epochs, total_epochs, loss)``."""

_State: TypeAlias = tuple[PyTree, PyTree, Array]  # variables, moments, loss history


class Minibatches(NamedTuple):
    """Hyper-parameters of the training of a network.

    Attributes:
      epochs: passes over the items, each in a new order; None for about 600 steps (40
        epochs of 3,706 items), and at least 20 epochs.
      batch_size: the most items per step; the batches of an epoch have equal sizes.
      learning_rate: Adam's peak learning rate, with linear warm-up over the first tenth
        of the steps and cosine decay to 0 after it.
      noise: standard deviation of the Gaussian noise on the inputs.
    """

    epochs: int | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    noise: float = 1.0

    def check(self, owner: str) -> None:
        """Raises InputError if a value is out of its range.

        Args:
          owner: what the message names as the owner, e.g. `"the autoencoder's"`.
        """
        size, epochs = Bounds(least=1, most=MOST_INT), Bounds(least=1, most=1_000_000)
        check_number(f"{owner} batch_size", self.batch_size, size, whole=True)
        if self.epochs is not None:
            check_number(f"{owner} epochs", self.epochs, epochs, whole=True)
        rate, noise = Bounds(above=0, most=MOST_FLOAT), Bounds(least=0, most=1e6)
        check_number(f"{owner} learning_rate", self.learning_rate, rate)
        check_number(f"{owner} noise", self.noise, noise)

    def num_epochs(self, num_items: int) -> int:
        """Returns the number of epochs, also if `epochs` is None."""
        if self.epochs is not None:
            return self.epochs
        steps = math.ceil(num_items / self.batch_size)
        return max(_MIN_EPOCHS, math.ceil(_MIN_STEPS / steps))


def fit_network(
    model: nn.Module,
    variables: PyTree,
    data: Array,
    key: Key,
    minibatches: Minibatches,
    *,
    progress: Progress | None = None,
    between: Callable[[PyTree, int], PyTree] | None = None,
    pieces: int = 10,
) -> tuple[PyTree, np.ndarray]:
    """Minimises the mean over items of ``model.errors(item + noise, item)``.

    The epochs are divided into pieces, with one dispatch each; the program is compiled
    once for all of them.

    Args:
      model: a module with a method ``errors(noisy, clean) -> float32[B]`` of two
        arrays float32[B, F].
      variables: its initial variables, which are donated.
      data: float32[I, F].
      key: random key of the order of the items and of the noise.
      minibatches: the hyper-parameters.
      progress: called after each piece.
      between: ``(variables, done_epochs) -> variables``, called between two pieces.
      pieces: the most pieces. Their number changes the result only through `between`.

    Returns:
      The trained variables, and the mean loss of each epoch, float32[epochs].
    """
    epochs = minibatches.num_epochs(data.shape[0])
    train = functools.partial(_train, model, epochs, minibatches.batch_size)
    rates = jnp.float32(minibatches.learning_rate), jnp.float32(minibatches.noise)
    state = (variables, _init_moments(variables), jnp.zeros(epochs, jnp.float32))
    piece = math.ceil(epochs / pieces)
    for start in range(0, epochs, piece):
        stop = min(start + piece, epochs)
        state = train(state, data, key, rates, jnp.int32(start), jnp.int32(stop))
        if progress is not None:
            progress(stop, epochs, float(state[2][stop - 1]))
        if between is not None and stop < epochs:
            state = (between(state[0], stop), *state[1:])
    return state[0], np.asarray(state[2])


def _optimizer(
    learning_rate: float | Array, steps: int
) -> optax.GradientTransformation:
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps)
    return optax.adam(lambda count: learning_rate * shape(count))


@jax.jit
def _init_moments(variables: PyTree) -> PyTree:
    # The shapes of the moments depend on neither argument.
    return _optimizer(learning_rate=0.0, steps=1).init(variables)


@functools.partial(
    jax.jit,
    static_argnames=("model", "epochs", "batch_size"),
    donate_argnames="state",
)
def _train(
    model: nn.Module,
    epochs: int,
    batch_size: int,
    state: _State,
    data: Array,
    key: Key,
    rates: tuple[Array, Array],
    start: Array,
    stop: Array,
) -> _State:
    """Runs the epochs start to stop - 1, dynamic bounds of a single compilation."""
    learning_rate, noise = rates
    num_items = data.shape[0]
    steps = math.ceil(num_items / batch_size)
    size = math.ceil(num_items / steps)  # of every batch; at most steps - 1 fillers
    optimizer = _optimizer(learning_rate, epochs * steps)
    weights = (jnp.arange(steps * size) < num_items).astype(data.dtype)

    def loss_fn(variables: PyTree, batch: Array, weight: Array, key: Key) -> Array:
        noisy = batch + noise * jax.random.normal(key, batch.shape, batch.dtype)
        errors: Any = model.apply(variables, noisy, batch, method="errors")
        return jnp.sum(weight * errors) / jnp.sum(weight)

    def step(
        carry: tuple[PyTree, PyTree], inputs: tuple[Array, Array, Key]
    ) -> tuple[tuple[PyTree, PyTree], Array]:
        variables, moments = carry
        rows, weight, key = inputs
        loss, grads = jax.value_and_grad(loss_fn)(variables, data[rows], weight, key)
        updates, moments = optimizer.update(grads, moments, variables)
        return (optax.apply_updates(variables, updates), moments), loss * weight.sum()

    def epoch(index: Array, carry: _State) -> _State:
        variables, moments, history = carry
        order_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
        order = jnp.pad(
            jax.random.permutation(order_key, num_items), (0, steps * size - num_items)
        )
        inputs = (
            order.reshape(steps, size),
            weights.reshape(steps, size),
            jax.random.split(noise_key, steps),
        )
        (variables, moments), losses = jax.lax.scan(step, (variables, moments), inputs)
        return variables, moments, history.at[index].set(losses.sum() / num_items)

    trained: _State = jax.lax.fori_loop(start, stop, epoch, state)
    return trained
