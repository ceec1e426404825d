"""Item embeddings, and the registry of compressed ones."""

from collections.abc import Callable

from fedpeft_jax.embeddings.base import (
    CompressedEmbedding,
    ItemEmbedding,
    ItemFeatures,
    take,
)
from fedpeft_jax.embeddings.lora import LoRA

EMBEDDINGS: dict[str, Callable[..., CompressedEmbedding]] = {"lora": LoRA}

__all__ = [
    "EMBEDDINGS",
    "CompressedEmbedding",
    "ItemEmbedding",
    "ItemFeatures",
    "LoRA",
    "take",
]
