"""Squeezes text encodings into the small full item embedding, on the server.

FedPEFT's pretraining (arXiv 2512.13734, section 4): an autoencoder with a mirrored
decoder reconstructs the item encodings, its latents become the full item table. There
is no weight decay: the published one outweighed the error and made all latents equal.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.features.latents import refuse_collapse, standardize_encodings
from fedpeft_jax.features.layers import MLP
from fedpeft_jax.features.minibatches import Minibatches, Progress, fit_network


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

    def errors(self, noisy: Array, clean: Array) -> Array:
        """Returns each item's mean squared error of the reconstruction, float32[B]."""
        return jnp.square(self(noisy) - clean).mean(axis=-1)

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


@functools.partial(jax.jit, static_argnames="model")
def _init(model: Autoencoder, key: Key) -> PyTree:
    return model.init(key, jnp.zeros((1, model.features)))


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
    minibatches = Minibatches(epochs, batch_size, learning_rate, noise)
    model, params, history = train_autoencoder(
        key, data, latent, hidden, minibatches, progress
    )
    latents, explained = _evaluate(model, params, data)
    spread = np.asarray(latents, np.float64).std(axis=0).astype(np.float32)
    refuse_collapse(float(explained), spread)
    return Pretrained(latents, float(explained), spread, history)


def train_autoencoder(
    key: Key,
    data: Array,
    latent: int,
    hidden: Sequence[int],
    minibatches: Minibatches,
    progress: Progress | None = None,
) -> tuple[Autoencoder, PyTree, np.ndarray]:
    """Returns an autoencoder, its trained variables and its loss an epoch.

    Args:
      key: of the initial weights, the order of the items and the noise.
      data: float32[I, F], standardised.
      latent: D.
      hidden: widths between F and D.
      minibatches: how it is trained.
      progress: called about ten times.

    Raises:
      InputError: for settings out of range.
    """
    sizes = {"latent": latent}
    sizes |= {f"hidden[{layer}]": size for layer, size in enumerate(hidden)}
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"the autoencoder's {name} must be 1 or more, got {value}")
    minibatches.check("the autoencoder's")
    # No parent: an embedding may ask for one from within its own method.
    model = Autoencoder(data.shape[1], tuple(hidden), latent, parent=None)
    init_key, train_key = jax.random.split(key)
    params = _init(model, init_key)
    params, history = fit_network(
        model, params, data, train_key, minibatches, progress=progress
    )
    return model, params, history
