"""The interface of a recommender, which scores items for one client."""

from typing import Any, ClassVar, Literal, TypeAlias

import flax.linen as nn
import jax

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.roles import PRIVATE, TRAINED
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import Array, History, Key, PyTree, Variables
from fedpeft_jax.embeddings import (
    Fitted,
    ItemEmbedding,
    ItemFeatures,
    factors_of,
    merge,
    table_of,
)

_ITEM_EMBEDDING = "item_embedding"  # the scope of its variables, by Flax's rule

Schedule: TypeAlias = tuple[tuple[str, ...], ...]
"""Groups of roles that a local step trains one after the other."""


def user_vector(module: nn.Module, features: int, mean: float, scale: float) -> Any:
    """Declares a private user vector `user [D]`, normal around a common mean.

    With a mean other than zero, all user vectors share a direction at the start, and
    along it the server learns the items' popularity from the first round. With a mean
    of zero it learns this only after training has aligned the vectors: on MovieLens-1M,
    HR@10 after 20 rounds of warm-up is then 0.18 instead of 0.42 (validation; the
    popularity baseline has 0.45).

    Args:
      module: the recommender, in its `setup`.
      features: D.
      mean: mean of every entry.
      scale: standard deviation of every entry.

    Returns:
      The Flax variable, whose `value` is float32[D].
    """

    def init() -> Array:
        random = jax.random.normal(module.make_rng("params"), (features,))
        return mean + scale * random

    return module.variable(PRIVATE, "user", init)


def check_user_vector(mean: float, scale: float) -> None:
    """Raises InputError if user vectors cannot be drawn with this mean and scale.

    Args:
      mean: mean of every entry.
      scale: standard deviation of every entry.
    """
    check_number("init_mean", mean, Bounds(least=-1000, most=1000))
    check_number("init_scale", scale, Bounds(least=0, most=1000))


class Backbone(nn.Module):
    """A recommender that scores items for one client (abstract).

    A subclass may also define `fit(item_features)`, which returns initial values of its
    own variables by collection (see `fit_model`), an attribute `local_schedule`,
    the groups of roles that a local step trains one after the other (see
    `schedule_of`), a method `user_embedding(history) -> float32[D]` if its user vector
    is another than the private variable `user`, and a property `statistics`, what the
    server has to learn from the data of all clients before the first round (see
    `statistics_of`).

    Attributes:
      item_embedding: the item embedding. Every recommender works with every embedding.
      suggestions: values for run settings that the user leaves out. They win over the
        embedding's suggestions.
      merging: values that win over `suggestions` in a run with merges.
      private_init: `'per_client'` draws each client's private parameters from the
        client's own key (user vectors have to differ from the start); `'common'` gives
        all clients the same initial ones (e.g. those of a score function).
    """

    item_embedding: ItemEmbedding
    suggestions: ClassVar[Suggestions] = Suggestions()
    merging: ClassVar[Suggestions] = Suggestions()
    private_init: ClassVar[Literal["per_client", "common"]] = "per_client"

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        """Scores items for one client.

        Args:
          history: the client's training items, as rows of the model's item tables.
          ids: int32[...] rows to score, or None for every row.
          deterministic: whether dropout is off; False in training.

        Returns:
          float32[...], higher is better, in the shape of `ids`; [rows] if that is None.
        """
        raise NotImplementedError


def statistics_of(model: Backbone) -> dict[str, str]:
    """Returns what the server learns from all clients' data before the first round.

    Such a statistic is released without noise, so that differential privacy does not
    allow it.

    Args:
      model: the recommender.

    Returns:
      The spec of a recommender that does without, by the name of the statistic.
    """
    found: dict[str, str] = getattr(model, "statistics", {})
    return found


def fit_model(model: Backbone, key: Key, item_features: ItemFeatures) -> Fitted:
    """Returns initial values that the server learns; called once, outside jit.

    Args:
      model: its method `fit(item_features)`, if it has one, returns the values of its
        own variables by collection. The item embedding fits itself.
      key: random key of the fit.
      item_features: what the server has about the items before the first round.
    """
    learned, figures = model.item_embedding.fit(key, item_features)
    values = {role: {_ITEM_EMBEDDING: tree} for role, tree in learned.items()}
    own = getattr(model, "fit", None)
    for role, tree in ({} if own is None else own(item_features)).items():
        values[role] = {**values.get(role, {}), **tree}
    return Fitted(values, figures)


def merge_adapter(model: Backbone, server: Variables, key: Key) -> dict[str, Any]:
    """Returns the server's variables after its compressed embedding was merged.

    Variables of the recommender, such as the network of FedNCF, keep their values.

    Args:
      model: the recommender, whose compressed embedding can restart.
      server: the server's variables by collection.
      key: random key of the restart.

    Returns:
      New variables of the same structure, shapes and types.
    """
    merged = merge(model.item_embedding, item_variables(server), key)
    return {
        role: {**tree, _ITEM_EMBEDDING: merged[role]} if role in merged else tree
        for role, tree in server.items()
    }


def merged_factors(server: Variables) -> dict[str, PyTree]:
    """Returns the server's variables that a merge adds to the table, by collection.

    Args:
      server: the server's variables (or their shapes) by collection.
    """
    return factors_of(item_variables(server))


def merged_table(server: Variables) -> PyTree:
    """Returns the frozen table, to which a merge adds; None if there is none.

    Args:
      server: the server's variables (or their shapes) by collection.
    """
    return table_of(item_variables(server))


def item_variables(server: Variables) -> dict[str, PyTree]:
    """Returns the variables of the item embedding by collection, without empty ones.

    Args:
      server: the server's variables (or their shapes) by collection.
    """
    return {
        role: tree[_ITEM_EMBEDDING]
        for role, tree in server.items()
        if _ITEM_EMBEDDING in tree
    }


def schedule_of(model: Backbone) -> Schedule:
    """Returns the groups of roles that a local step trains one after the other.

    Each group has its own gradient and optimizer state.

    Args:
      model: its `local_schedule` is used if it has one; otherwise all trained roles are
        one group.
    """
    own: Schedule | None = getattr(model, "local_schedule", None)
    return (TRAINED,) if own is None else own
