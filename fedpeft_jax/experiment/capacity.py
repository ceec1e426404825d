"""What an item embedding can represent, measured with random parameters.

The frozen table stays as it is between two merges, so training can only move the items
in the ways that the trained part of the embedding allows: items that share all codes
move alike, and a product of thin matrices moves all items in a few dimensions.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones import Backbone, item_variables
from fedpeft_jax.core.roles import FROZEN, SENT
from fedpeft_jax.core.typing import Variables

_DECIMALS = 9  # equal sums in another order differ by less, in float64


class Capacity(NamedTuple):
    """What an item embedding can represent.

    Attributes:
      vectors: the number of different item vectors among all I items that the trained
        part gives, if its parameters are random.
      rank: the rank of these vectors as a matrix [I, D]: the number of dimensions in
        which training can move the items until the next merge.
      vectors_with_table: the number of different item vectors with the frozen table
        added.
    """

    vectors: int
    rank: int
    vectors_with_table: int


def measure_capacity(model: Backbone, server: Variables) -> Capacity:
    """Measures what the item embedding of a model can represent.

    Every parameter that is sent is drawn from a normal distribution. The vectors are
    computed in float64 and rounded, so that equal sums in another order count as equal.

    Args:
      model: the recommender.
      server: the server's variables by collection, with frozen tables and codes that
        are fitted.

    Example:
      >>> from fedpeft_jax.backbones import FedMF
      >>> from fedpeft_jax.embeddings import ItemEmbedding
      >>> from fedpeft_jax.federated import init_server
      >>> model = FedMF(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> measure_capacity(model, init_server(model, jax.random.key(0)))
      Capacity(vectors=5, rank=2, vectors_with_table=5)
    """
    generator = np.random.default_rng(0)

    def draw(value: Any) -> Any:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return np.asarray(value)
        return generator.standard_normal(value.shape)

    drawn = {
        role: jax.tree.map(draw if role in SENT else np.asarray, tree)
        for role, tree in item_variables(server).items()
    }
    frozen = dict(drawn.get(FROZEN, {}))
    table = frozen.get("full")
    if table is not None:  # zero, so that what remains is the trained part
        frozen["full"] = np.zeros_like(table)
    embedding = model.item_embedding.clone(parent=None, name=None)
    with _float64():
        found = embedding.apply({**drawn, FROZEN: frozen}, None)
    vectors = np.asarray(found, np.float64)
    return Capacity(
        vectors=_count_distinct(vectors),
        rank=int(np.linalg.matrix_rank(vectors)),
        vectors_with_table=_count_distinct(vectors + (0 if table is None else table)),
    )


def _count_distinct(vectors: np.ndarray) -> int:
    """Returns the number of different rows of a matrix."""
    rounded = np.round(vectors, _DECIMALS) + 0.0  # -0.0 becomes 0.0
    return len(np.unique(rounded, axis=0))


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """Lets JAX compute in float64, where its input is float64."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
