"""The interface of a pretrainer, which learns item latents from text encodings."""

from typing import NamedTuple, Protocol

import numpy as np

from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.features.minibatches import Progress


class Pretrained(NamedTuple):
    """Item latents, and figures of how well they were learned.

    Attributes:
      latents: float32[I, D], in the encoder's own scale; see ``normalize_latents``.
      explained_variance: 1 - squared error / variance of the encodings, at most 1. The
        best linear autoencoder of the same width is PCA.
      latent_spread: float32[D], standard deviation of each latent dimension.
      loss_history: float32[epochs], mean loss of each epoch, in units of the encodings'
        variance, with noise on the inputs.
    """

    latents: Array
    explained_variance: float
    latent_spread: np.ndarray
    loss_history: np.ndarray


class Pretrainer(Protocol):
    """A function that learns item latents from text encodings, on the server.

    A run chooses one by its ``pretraining`` setting from the registry ``PRETRAINERS``.
    """

    def __call__(
        self,
        key: Key,
        encodings: np.ndarray | Array,
        *,
        latent: int,
        progress: Progress | None = None,
    ) -> Pretrained:
        """Returns the latents of all items.

        Args:
          key: a typed random key; the same key and encodings give the same latents.
          encodings: float[I, F].
          latent: D, width of the latents.
          progress: called from time to time, as
            ``progress(done_epochs, epochs, loss)``.
        """
