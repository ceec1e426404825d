"""What every recommender is: it scores items for one client."""

from typing import ClassVar, Literal, TypeAlias

import flax.linen as nn

from fedpeft_jax.embeddings.base import ItemEmbedding, ItemFeatures
from fedpeft_jax.roles import TRAINED
from fedpeft_jax.typing import Array, History, Key, PyTree

Schedule: TypeAlias = tuple[tuple[str, ...], ...]


class Backbone(nn.Module):
    """A recommender that scores items for one client (abstract).

    Attributes:
      item_embedding: injected, so that no class for a pair of a recommender and an
        embedding ever exists.
      private_init: `'per_client'` draws every client's private parameters from the
        client's own key (user vectors must differ from the start), `'common'` gives
        all clients the same ones (a score function that starts from one state).
      local_schedule: groups of roles that a local step trains one after the other,
        each with its own gradient and optimizer state.
    """

    item_embedding: ItemEmbedding
    private_init: ClassVar[Literal["per_client", "common"]] = "per_client"
    local_schedule: ClassVar[Schedule] = (TRAINED,)

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        """Scores items for one client.

        Args:
          history: the client's training items, rows of the tables the model holds.
          ids: int32[...] rows to score, or None for every row.
          deterministic: False while training, for dropout.

        Returns:
          float32[...], higher is better; the shape of `ids`, or [rows].
        """
        raise NotImplementedError

    def fit(self, key: Key, item_features: ItemFeatures) -> dict[str, PyTree]:
        """Returns initial values by collection, learned on the server from text."""
        values = self.item_embedding.fit(key, item_features)
        return {role: {"item_embedding": tree} for role, tree in values.items()}
