"""Item embeddings: a full table, a compressed part beside it, or both summed."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.errors import InputError
from fedpeft_jax.roles import FROZEN, ROWS
from fedpeft_jax.typing import Array, Key, PyTree

FullTable: TypeAlias = Literal["trained", "frozen"] | None


class ItemFeatures(NamedTuple):
    """What the server knows of the items before any client took part.

    Attributes:
      encodings: float32[I, F], item text as its encoder sees it, or None.
      latents: float32[I, D], normalised initial embeddings, or None.
    """

    encodings: np.ndarray | Array | None
    latents: np.ndarray | Array | None


def take(table: Array, ids: Array | None) -> Array:
    """Returns `table[ids]`; `ids=None` means every row that the table holds.

    A client scores all rows that it gathered, an evaluation the whole catalogue.
    Saying so, instead of passing 0, 1, 2, ..., spares a gather and its transpose.

    Example:
      >>> take(jnp.arange(3) * 10, jnp.array([2, 0])).tolist(), take(jnp.arange(3), None).tolist()
      ([20, 0], [0, 1, 2])
    """  # noqa: E501
    return table if ids is None else table[ids]


class CompressedEmbedding(nn.Module):
    """A small item embedding that is trained and sent every round (abstract).

    A strategy declares its variables in `setup`: shared ones with `self.param`,
    per-item ones with `self.variable(ROWS | FROZEN, ...)`, because the same module
    runs on whole tables [I, ...] and on a client's gathered rows [K, ...].

    Attributes:
      num_items: I, the size of the catalogue.
      features: D.
      alone: True if there is no full table beside it, so that it must not start at 0.
    """

    num_items: int
    features: int
    alone: bool = False

    def __call__(self, ids: Array | None = None) -> Array:
        """Returns the embeddings of some rows: int32[...] -> float32[..., D]."""
        raise NotImplementedError

    def inner(self, ids: Array | None, vector: Array) -> Array:
        """Returns `self(ids) @ vector`, float32[...]; override it where cheaper.

        Args:
          ids: int32[...] rows, or None for every row.
          vector: float32[D].
        """
        return self(ids) @ vector

    def fit(self, key: Key, item_features: ItemFeatures) -> Mapping[str, PyTree]:
        """Returns initial values by collection, learned on the server from item text.

        Runs once, outside of any jit. What it leaves out keeps its random initial
        value.
        """
        del key, item_features
        return {}


class ItemEmbedding(nn.Module):
    r"""The embedding of an item, :math:`e(i) = full(i) + compressed(i)`.

    Args:
      num_items: I.
      features: D.
      full: `'trained'` (in `rows`, sent every round), `'frozen'` (in `frozen`, sent
        once) or None (no table at all, in training and in evaluation).
      compressed: a factory `(num_items, features, alone) -> CompressedEmbedding`, or
        None.
      init_scale: standard deviation of a full table that no `fit` replaces.

    Raises:
      InputError: with neither part.

    Source:
      FedPEFT, arXiv 2512.13734, section 4.

    Example:
      >>> import jax
      >>> embedding = ItemEmbedding(num_items=5, features=2, full="frozen")
      >>> variables = embedding.init(jax.random.key(0), jnp.array([3]))
      >>> jax.tree.map(jnp.shape, variables)
      {'frozen': {'full': (5, 2)}}
    """

    num_items: int
    features: int
    full: FullTable = "trained"
    compressed: Callable[..., CompressedEmbedding] | None = None
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.full is None and self.compressed is None:
            raise InputError(
                "full=none with embedding=none leaves no item embedding: "
                "set --full=trained or name an --embedding"
            )
        super().__post_init__()

    def setup(self) -> None:
        shape = (self.num_items, self.features)
        if self.full is not None:
            self.table = self.variable(
                ROWS if self.full == "trained" else FROZEN,
                "full",
                lambda: nn.initializers.normal(self.init_scale)(
                    self.make_rng("params"), shape
                ),
            )
        if self.compressed is not None:
            self.adapter = self._compressed(name="compressed")

    def _compressed(self, **kwargs: Any) -> CompressedEmbedding:
        assert self.compressed is not None
        return self.compressed(
            num_items=self.num_items,
            features=self.features,
            alone=self.full is None,
            **kwargs,
        )

    def check(self) -> None:
        """Builds the compressed part once, so that a bad argument shows at once."""
        self._compressed(parent=None)

    def __call__(self, ids: Array | None = None) -> Array:
        """Returns embeddings: int32[...] (or None for every row) -> float32[..., D]."""
        parts = []
        if self.full is not None:
            parts.append(take(self.table.value, ids))
        if self.compressed is not None:
            parts.append(self.adapter(ids))
        return sum(parts[1:], start=parts[0])

    def inner(self, ids: Array | None, vector: Array) -> Array:
        """Returns `self(ids) @ vector` without building the vectors: float32[...]."""
        parts = []
        if self.full is not None:
            parts.append(take(self.table.value, ids) @ vector)
        if self.compressed is not None:
            parts.append(self.adapter.inner(ids, vector))
        return sum(parts[1:], start=parts[0])

    def fit(self, key: Key, item_features: ItemFeatures) -> dict[str, PyTree]:
        """Returns initial values by collection: the text latents and the adapter's."""
        values: dict[str, PyTree] = {}
        if self.compressed is not None:
            part = self._compressed(parent=None)
            for role, tree in part.fit(key, item_features).items():
                values.setdefault(role, {})["compressed"] = tree
        if self.full is not None and item_features.latents is not None:
            role = ROWS if self.full == "trained" else FROZEN
            latents = jnp.asarray(item_features.latents, jnp.float32)
            values.setdefault(role, {})["full"] = latents
        return values
