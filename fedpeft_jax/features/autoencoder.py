"""Autoencoder: the server's pretraining of the full item embedding from item text.

FedPEFT (arXiv 2512.13734, section 4): an autoencoder with a mirrored decoder
reconstructs the items' text encodings, and its latents become the full item table.
There is no weight decay: the published weight decay was larger than the reconstruction
error and made all latents equal.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.bounds import check_sizes
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.features.base import Pretrained, Pretrainer
from fedpeft_jax.features.latents import refuse_collapse, standardize_encodings
from fedpeft_jax.features.layers import MLP
from fedpeft_jax.features.minibatches import Minibatches, Progress, fit_network


class Autoencoder(nn.Module):
    """An encoder ``F -> hidden -> latent``, and a decoder with the layers mirrored.

    Attributes:
      features: F, width of an encoding.
      hidden: widths of the layers between the encoding and the latent.
      latent: D, width of the latent.
      activation: elementwise function between the layers; neither the latent nor the
        reconstruction has one.

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


@functools.partial(jax.jit, static_argnames="model")
def _init(model: Autoencoder, key: Key) -> PyTree:
    return model.init(key, jnp.zeros((1, model.features)))


@functools.partial(jax.jit, static_argnames="model")
def _evaluate(
    model: Autoencoder, variables: PyTree, data: Array
) -> tuple[Array, Array]:
    latents: Any = model.apply(variables, data, method="encode")
    output: Any = model.apply(variables, latents, method="decode")
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

    Minimises ``mean |decode(encode(x + noise * n)) - x|^2``, ``n ~ N(0, 1)``, where the
    encodings x are centred and have a variance of 1 per dimension on average. Without
    noise, this many parameters memorise a few thousand items: the explained variance
    rises, but on held-out items it falls, and the neighbours in latent space get worse.

    Args:
      key: a typed random key; the same key and inputs give the same latents.
      encodings: float[I, F], as from ``encode_texts`` or ``load_text_embeddings``.
      latent: D, width of the latents.
      hidden: widths of the layers between F and D.
      epochs: passes over the items, each in a new order; None for about 600 steps of
        Adam (40 epochs of 3,706 items), and at least 20 epochs.
      batch_size: the most items per step; the batches of an epoch have equal sizes.
      learning_rate: Adam's peak learning rate, with linear warm-up over the first tenth
        of the steps and cosine decay to 0 after it.
      noise: standard deviation of the noise on the inputs, in units of the encodings'
        root mean variance; 0 for a plain autoencoder.
      progress: called about ten times as ``progress(done_epochs, epochs, loss)``.

    Returns:
      A ``Pretrained``.

    Raises:
      InputError: if the encodings are not a finite matrix or are all equal, an argument
        is out of range, or the latent space collapses.

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
    model, variables, history = train_autoencoder(
        key, data, latent, hidden, minibatches, progress
    )
    latents, explained = _evaluate(model, variables, data)
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
    """Returns an autoencoder, its trained variables and the mean loss of each epoch.

    Args:
      key: random key of the initial weights, the order of the items and the noise.
      data: float32[I, F], standardised.
      latent: D, width of the latents.
      hidden: widths of the layers between F and D.
      minibatches: the hyper-parameters of the training.
      progress: called about ten times.

    Raises:
      InputError: if an argument is out of range.
    """
    _check(hidden, minibatches)
    if latent < 1:
        raise InputError(f"the autoencoder's latent must be 1 or more, got {latent}")
    # Without `parent=None`, Flax would attach it to an embedding that calls this.
    model = Autoencoder(data.shape[1], tuple(hidden), latent, parent=None)
    init_key, train_key = jax.random.split(key)
    variables = _init(model, init_key)
    variables, history = fit_network(
        model, variables, data, train_key, minibatches, progress=progress
    )
    return model, variables, history


def _check(hidden: Sequence[int], minibatches: Minibatches) -> None:
    if hidden != ():  # without hidden layers it is linear
        what = "the autoencoder's hidden"
        check_sizes(what, hidden, 8192, "write sizes such as (512, 256, 128)")
    minibatches.check("the autoencoder's")


def autoencoder(
    hidden: Sequence[int] = (512, 256, 128),
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 1.0,
) -> Pretrainer:
    """Returns ``pretrain_autoencoder`` with these arguments.

    They are documented there.

    Raises:
      InputError: if an argument is out of range.

    Example:
      >>> pretrain = autoencoder(hidden=(16,), epochs=200, learning_rate=1e-2)
      >>> encodings = np.random.default_rng(0).normal(size=(64, 2)) @ np.eye(2, 8)
      >>> pretrain(jax.random.key(0), encodings, latent=4).latents.shape
      (64, 4)
    """
    _check(hidden, Minibatches(epochs, batch_size, learning_rate, noise))
    return functools.partial(
        pretrain_autoencoder,
        hidden=hidden,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        noise=noise,
    )
