"""Item embeddings: a full table, a compressed embedding, or the sum of both."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, ROWS
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import Array, Key, PyTree

FullTable: TypeAlias = Literal["trained", "frozen"] | None


class ItemFeatures(NamedTuple):
    """What the server knows about the items before the first round.

    Attributes:
      encodings: float32[I, F], encodings of the item text, or None.
      latents: float32[I, D], their normalised latents from pretraining, or None.
      table: float32[I, D], the initial full table: the latents, or random entries.
      degrees: int32[I], how many clients have the item in their training data. Only
        this attribute depends on user data: the server would have to collect it by
        secure aggregation, so a plugin that reads it must document that.
    """

    encodings: np.ndarray | Array | None = None
    latents: np.ndarray | Array | None = None
    table: np.ndarray | Array | None = None
    degrees: np.ndarray | None = None


class Fitted(NamedTuple):
    """What a module learns on the server before the first round.

    Attributes:
      values: initial values by collection. A variable that is not among them keeps its
        random initial value.
      figures: numbers, or lists of numbers, that describe the result for the run's
        output.
    """

    values: Mapping[str, PyTree]
    figures: Mapping[str, Any]


def take(table: Array, ids: Array | None) -> Array:
    """Returns `table[ids]`, or the whole table if `ids` is None.

    A client scores all rows that it gathered, and an evaluation scores the whole
    catalogue. Without ids, neither needs a gather and its transpose.

    Example:
      >>> take(jnp.arange(3) * 10, jnp.array([2, 0])).tolist(), take(jnp.arange(3), None).tolist()
      ([20, 0], [0, 1, 2])
    """  # noqa: E501
    return table if ids is None else table[ids]


class CompressedEmbedding(nn.Module):
    """A small item embedding that is trained and sent every round (abstract).

    A subclass declares its variables in `setup`: shared parameters with `self.param`,
    per-item tables with `self.variable(ROWS, ...)` or `self.variable(FROZEN, ...)`. The
    same module runs on whole tables [I, ...] and on a client's gathered rows [K, ...].

    A subclass may define four more methods: `inner(ids, vector)` and
    `weighted_sum(ids, weights)` where it can compute these without building vectors,
    `fit(key, item_features) -> Fitted` where the server learns initial values, and
    `restart(key)` if it can be merged into the table (`merging.py`). The functions of
    the first three names below fall back where it does not.

    Attributes:
      num_items: I, the size of the catalogue.
      features: D, the width of an item vector.
      alone: True if there is no full table; the embedding must then not start at
        zero.
      uses_text: whether `fit` needs item text.
      suggestions: values for run settings that the user leaves out. The recommender's
        suggestions win over these.
      merging: values that win over `suggestions` in a run that merges the embedding
        into the table. With a `merge_every` among them, runs merge by default.
    """

    num_items: int
    features: int
    alone: bool = False
    uses_text: ClassVar[bool] = False
    suggestions: ClassVar[Suggestions] = Suggestions()
    merging: ClassVar[Suggestions] = Suggestions()

    def __call__(self, ids: Array | None = None) -> Array:
        """Returns the embeddings of some rows: int32[...] -> float32[..., D]."""
        raise NotImplementedError


def inner(embedding: CompressedEmbedding, ids: Array | None, vector: Array) -> Array:
    """Returns `embedding(ids) @ vector`, float32[...].

    Args:
      embedding: its method `inner(ids, vector)` is used if it has one.
      ids: int32[...] rows, or None for every row.
      vector: float32[D].
    """
    own = getattr(embedding, "inner", None)
    found: Array = embedding(ids) @ vector if own is None else own(ids, vector)
    return found


def weighted_sum(embedding: CompressedEmbedding, ids: Array, weights: Array) -> Array:
    """Returns `weights @ embedding(ids)`, float32[D].

    Args:
      embedding: its method `weighted_sum(ids, weights)` is used if it has one.
      ids: int32[N] rows.
      weights: float32[N].
    """
    own = getattr(embedding, "weighted_sum", None)
    found: Array = weights @ embedding(ids) if own is None else own(ids, weights)
    return found


def fit_embedding(
    embedding: CompressedEmbedding, key: Key, item_features: ItemFeatures
) -> Fitted:
    """Returns initial values that the server learns; called once, outside jit.

    Args:
      embedding: its method `fit(key, item_features)` is used if it has one; without one
        every value stays random.
      key: random key of the fit.
      item_features: what the server has about the items before the first round.
    """
    own = getattr(embedding, "fit", None)
    found: Fitted = Fitted({}, {}) if own is None else own(key, item_features)
    return found


class ItemEmbedding(nn.Module):
    r"""The embedding of an item, :math:`e(i) = full(i) + compressed(i)`.

    Args:
      num_items: I, the size of the catalogue.
      features: D, the width of an item vector.
      full: `'trained'` (in `rows`, sent every round), `'frozen'` (in `frozen`, sent
        once) or None (no full table, neither in training nor in evaluation).
      compressed: a factory `(num_items, features, alone) -> CompressedEmbedding`, or
        None.
      init_scale: standard deviation of the full table, unless `fit` replaces it.

    Raises:
      InputError: if there is neither a full table nor a compressed embedding.

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
                "`full=none` with `embedding=none` leaves no item embedding: "
                "use `full=trained`, or name an `embedding`"
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

    def adapter_alone(self) -> CompressedEmbedding:
        """Returns the compressed embedding as a module of its own.

        Raises:
          InputError: if it has a bad argument.
        """
        return self._compressed(parent=None)

    def __call__(self, ids: Array | None = None) -> Array:
        """Returns embeddings: int32[...] (or None for every row) -> float32[..., D]."""
        parts = []
        if self.full is not None:
            parts.append(take(self.table.value, ids))
        if self.compressed is not None:
            parts.append(self.adapter(ids))
        return sum(parts[1:], start=parts[0])

    def inner(self, ids: Array | None, vector: Array) -> Array:
        """Returns `self(ids) @ vector`, float32[...], without computing the vectors."""
        parts = []
        if self.full is not None:
            parts.append(take(self.table.value, ids) @ vector)
        if self.compressed is not None:
            parts.append(inner(self.adapter, ids, vector))
        return sum(parts[1:], start=parts[0])

    def weighted_sum(self, ids: Array, weights: Array) -> Array:
        """Returns `weights @ self(ids)`, float32[D], without computing the vectors."""
        parts = []
        if self.full is not None:
            parts.append(weights @ take(self.table.value, ids))
        if self.compressed is not None:
            parts.append(weighted_sum(self.adapter, ids, weights))
        return sum(parts[1:], start=parts[0])

    def fit(self, key: Key, item_features: ItemFeatures) -> Fitted:
        """Returns the initial full table and the compressed embedding's values."""
        values: dict[str, PyTree] = {}
        figures: Mapping[str, Any] = {}
        if self.compressed is not None:
            adapter = self.adapter_alone()
            learned, figures = fit_embedding(adapter, key, item_features)
            for role, tree in learned.items():
                values.setdefault(role, {})["compressed"] = tree
        if self.full is not None and item_features.table is not None:
            role = ROWS if self.full == "trained" else FROZEN
            table = jnp.asarray(item_features.table, jnp.float32)
            values.setdefault(role, {})["full"] = table
        return Fitted(values, figures)
