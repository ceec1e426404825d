"""Learning from item text on the server, and the registry of pretrainers."""

from collections.abc import Callable

from fedpeft_jax.features import autoencoder
from fedpeft_jax.features.autoencoder import Autoencoder, pretrain_autoencoder
from fedpeft_jax.features.base import Pretrained, Pretrainer
from fedpeft_jax.features.latents import normalize_latents, random_latents
from fedpeft_jax.features.precomputed import load_text_embeddings
from fedpeft_jax.features.quantization import Quantized, residual_kmeans
from fedpeft_jax.features.rqvae import pretrain_rqvae
from fedpeft_jax.features.text import TextFeatures, encode_texts

PRETRAINERS: dict[str, Callable[..., Pretrainer]] = {
    "autoencoder": autoencoder.autoencoder,
}

__all__ = [
    "PRETRAINERS",
    "Autoencoder",
    "Pretrained",
    "Pretrainer",
    "Quantized",
    "TextFeatures",
    "encode_texts",
    "load_text_embeddings",
    "normalize_latents",
    "pretrain_autoencoder",
    "pretrain_rqvae",
    "random_latents",
    "residual_kmeans",
]
