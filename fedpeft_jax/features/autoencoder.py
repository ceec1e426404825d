"""Squeezes text encodings into the small full item embedding, on the server.

FedPEFT's pretraining (arXiv 2512.13734, section 4): an autoencoder with a mirrored
decoder reconstructs the item encodings, its latents become the full item table. There
is no weight decay: the published one outweighed the error and made all latents equal.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedpeft_jax.errors import InputError
from fedpeft_jax.features.latents import refuse_collapse, standardize_encodings
from fedpeft_jax.layers import MLP
from fedpeft_jax.typing import Array, Key, PyTree

_MIN_STEPS, _MIN_EPOCHS, _PIECES = 600, 20, 10

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called as ``progress(done_epochs, total_epochs, loss)``."""

_State: TypeAlias = tuple[PyTree, PyTree, Array]  # parameters, moments, loss history


class Autoencoder(nn.Module):
    """An encoder ``F -> hidden -> latent`` and its mirror image as the decoder.

    Attributes:
      features: F, width of an encoding.
      hidden: widths between the encoding and the latent.
      latent: D, width of the latent.
      activation: between layers; none on the latent or on the reconstruction.

    Example:
      >>> model = Autoencoder(features=16, hidden=(8,), latent=2)
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((5, 16)))
      >>> model.apply(variables, jnp.zeros((5, 16)), method="encode").shape
      (5, 2)
    """

    features: int
    hidden: Sequence[int] = (512, 256, 128)
    latent: int = 32
    activation: Callable[[Array], Array] = nn.gelu

    def setup(self) -> None:
        mirror = (*reversed(self.hidden), self.features)
        self.encoder = MLP((*self.hidden, self.latent), activation=self.activation)
        self.decoder = MLP(mirror, activation=self.activation)

    def encode(self, encodings: Array) -> Array:
        """Maps encodings float32[..., F] to latents float32[..., D]."""
        return self.encoder(encodings)

    def decode(self, latents: Array) -> Array:
        """Maps latents float32[..., D] to reconstructions float32[..., F]."""
        return self.decoder(latents)

    def __call__(self, encodings: Array) -> Array:
        """Reconstructs encodings float32[..., F] through the latent."""
        return self.decode(self.encode(encodings))


class Pretrained(NamedTuple):
    """What the autoencoder learnt.

    Attributes:
      latents: float32[I, D], as encoded: see ``normalize_latents`` for their scale.
      explained_variance: 1 - squared error / variance of the encodings, at most 1; the
        linear optimum of the same width is PCA's.
      latent_spread: float32[D], standard deviation of each latent dimension.
      loss_history: float32[epochs], mean loss of each epoch, in units of the encodings'
        variance and with the noise on the inputs.
    """

    latents: Array
    explained_variance: float
    latent_spread: np.ndarray
    loss_history: np.ndarray


def _optimizer(
    learning_rate: float | Array, steps: int
) -> optax.GradientTransformation:
    shape = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps)
    return optax.adam(lambda count: learning_rate * shape(count))


@functools.partial(jax.jit, static_argnames="model")
def _init(model: Autoencoder, key: Key) -> tuple[PyTree, PyTree]:
    params = model.init(key, jnp.zeros((1, model.features)))
    # The moments' shapes depend on neither, and so this compiles once a model.
    return params, _optimizer(learning_rate=0.0, steps=1).init(params)


@functools.partial(
    jax.jit,
    static_argnames=("model", "epochs", "batch_size"),
    donate_argnames="state",
)
def _train(
    model: Autoencoder,
    epochs: int,
    batch_size: int,
    state: _State,
    data: Array,
    key: Key,
    rates: tuple[Array, Array],
    start: Array,
    stop: Array,
) -> _State:
    """Runs epochs start to stop - 1; the bounds are dynamic, so it compiles once."""
    learning_rate, noise = rates
    num_items = data.shape[0]
    steps = math.ceil(num_items / batch_size)
    size = math.ceil(num_items / steps)  # equal batches: at most steps - 1 fillers
    optimizer = _optimizer(learning_rate, epochs * steps)
    weights = (jnp.arange(steps * size) < num_items).astype(data.dtype)

    def loss_fn(params: PyTree, batch: Array, weight: Array, key: Key) -> Array:
        noisy = batch + noise * jax.random.normal(key, batch.shape, batch.dtype)
        output: Any = model.apply(params, noisy)
        errors = jnp.square(output - batch).mean(axis=-1)
        return jnp.sum(weight * errors) / jnp.sum(weight)

    def step(
        carry: tuple[PyTree, PyTree], inputs: tuple[Array, Array, Key]
    ) -> tuple[tuple[PyTree, PyTree], Array]:
        params, moments = carry
        rows, weight, key = inputs
        loss, grads = jax.value_and_grad(loss_fn)(params, data[rows], weight, key)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), loss * weight.sum()

    def epoch(index: Array, carry: _State) -> _State:
        params, moments, history = carry
        order_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
        order = jnp.pad(
            jax.random.permutation(order_key, num_items), (0, steps * size - num_items)
        )
        inputs = (
            order.reshape(steps, size),
            weights.reshape(steps, size),
            jax.random.split(noise_key, steps),
        )
        (params, moments), losses = jax.lax.scan(step, (params, moments), inputs)
        return params, moments, history.at[index].set(losses.sum() / num_items)

    trained: _State = jax.lax.fori_loop(start, stop, epoch, state)
    return trained


@functools.partial(jax.jit, static_argnames="model")
def _evaluate(model: Autoencoder, params: PyTree, data: Array) -> tuple[Array, Array]:
    latents: Any = model.apply(params, data, method="encode")
    output: Any = model.apply(params, latents, method="decode")
    return latents, 1.0 - jnp.square(output - data).mean() / jnp.square(data).mean()


def pretrain_autoencoder(
    key: Key,
    encodings: np.ndarray | Array,
    *,
    latent: int = 32,
    hidden: Sequence[int] = (512, 256, 128),
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 1.0,
    progress: Progress | None = None,
) -> Pretrained:
    """Trains a denoising autoencoder on item encodings and returns its latents.

    Minimises ``mean |decode(encode(x + noise * n)) - x|^2``, ``n ~ N(0, 1)``, for x
    centred and scaled to a variance of 1 a dimension on average. Without noise so many
    parameters memorise a few thousand items: the explained variance rises, but falls on
    held-out items, and the neighbours in latent space get worse.

    Args:
      key: a typed random key; same key and inputs, same latents.
      encodings: float[I, F], as from ``encode_texts`` or ``load_text_embeddings``.
      latent: D, width of the latents.
      hidden: widths of the layers between F and D.
      epochs: passes over the items, reshuffled each time; None for about 600 steps of
        Adam (40 epochs of 3,706 items), and at least 20 epochs.
      batch_size: most items a step; the items are divided evenly.
      learning_rate: Adam's peak; linear warm-up over a tenth, then cosine decay to 0.
      noise: standard deviation of the noise on the inputs, in units of the encodings'
        root mean variance; 0 for a plain autoencoder.
      progress: called about ten times as ``progress(done_epochs, epochs, loss)``.

    Returns:
      A ``Pretrained``.

    Raises:
      InputError: for encodings that are not a finite matrix or all equal, for settings
        out of range, and for a collapsed latent space.

    Example:
      >>> encodings = np.random.default_rng(0).normal(size=(64, 2)) @ np.eye(2, 8)
      >>> result = pretrain_autoencoder(
      ...     jax.random.key(0), encodings, latent=4, hidden=(16,), epochs=200,
      ...     learning_rate=1e-2)
      >>> result.latents.shape, result.explained_variance > 0.8
      ((64, 4), True)

    Source: FedPEFT, arXiv 2512.13734; the noise: Vincent et al., ICML 2008.
    """
    data = jnp.asarray(standardize_encodings(np.asarray(encodings)))
    sizes = {"latent": latent, "batch_size": batch_size, "epochs": epochs}
    sizes |= {f"hidden[{layer}]": size for layer, size in enumerate(hidden)}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise InputError(f"the autoencoder's {name} must be 1 or more, got {value}")
    if not (0 < learning_rate < math.inf and 0 <= noise < math.inf):
        raise InputError(
            "the autoencoder's learning_rate must be positive and its noise 0 or more, "
            f"got {learning_rate} and {noise}"
        )
    steps = math.ceil(data.shape[0] / batch_size)
    if epochs is None:
        epochs = max(_MIN_EPOCHS, math.ceil(_MIN_STEPS / steps))
    model = Autoencoder(data.shape[1], tuple(hidden), latent)
    init_key, train_key = jax.random.split(key)
    params, moments = _init(model, init_key)
    state = (params, moments, jnp.zeros(epochs, jnp.float32))
    rates = (jnp.float32(learning_rate), jnp.float32(noise))
    train = functools.partial(_train, model, epochs, batch_size)
    piece = math.ceil(epochs / _PIECES)
    for start in range(0, epochs, piece):
        stop = min(start + piece, epochs)
        state = train(state, data, train_key, rates, jnp.int32(start), jnp.int32(stop))
        if progress is not None:
            progress(stop, epochs, float(state[2][stop - 1]))
    latents, explained = _evaluate(model, state[0], data)
    spread = np.asarray(latents, np.float64).std(axis=0).astype(np.float32)
    refuse_collapse(float(explained), spread)
    return Pretrained(latents, float(explained), spread, np.asarray(state[2]))
