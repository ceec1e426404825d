"""Item embeddings, and the compressed embeddings by name."""

from collections.abc import Callable

from fedpeft_jax.embeddings.base import (
    CompressedEmbedding,
    Fitted,
    ItemEmbedding,
    ItemFeatures,
    take,
)
from fedpeft_jax.embeddings.hashing import Hash
from fedpeft_jax.embeddings.lora import LoRA
from fedpeft_jax.embeddings.merging import can_restart, factors_of, merge, table_of
from fedpeft_jax.embeddings.rq import RQ

EMBEDDINGS: dict[str, Callable[..., CompressedEmbedding]] = {
    "lora": LoRA,
    "hash": Hash,
    "rq": RQ,
}

__all__ = [
    "EMBEDDINGS",
    "RQ",
    "CompressedEmbedding",
    "Fitted",
    "Hash",
    "ItemEmbedding",
    "ItemFeatures",
    "LoRA",
    "can_restart",
    "factors_of",
    "merge",
    "table_of",
    "take",
]
