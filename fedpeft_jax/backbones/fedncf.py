"""FedNCF: a shared network scores the pair of a private user vector and an item.

Perifanis & Efraimidis, Federated neural collaborative filtering, Knowledge-Based
Systems 2022, after the MLP of He et al., Neural collaborative filtering, WWW 2017.
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from fedpeft_jax.backbones.base import Backbone, check_user_vector, user_vector
from fedpeft_jax.backbones.layers import Dropout, check_hidden
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import Array, History

# For each half of the first layer, which has half of the layer's inputs.
_HALF = nn.initializers.variance_scaling(0.5, "fan_in", "truncated_normal")


class FedNCF(Backbone):
    r""":math:`s(i) = MLP([u, e(i)])` with a private user vector `u [D]`.

    The MLP is shared and sent. Its first layer is split into two,
    :math:`W_u u + (W_e e(i) + b)`, so that the user's half is computed once per client.

    Args:
      item_embedding: the item embedding.
      hidden: sizes of the hidden layers, each with ReLU and dropout.
      dropout: share of the hidden units that a training step drops.
      init_mean: mean of the entries of the user vectors.
      init_scale: standard deviation of these entries.

    Raises:
      InputError: if there is no hidden layer, or the dropout is not in [0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedpeft_jax.embeddings.base import ItemEmbedding
      >>> model = FedNCF(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> history = History(jnp.array([0]), jnp.array([True]))
      >>> ids = jnp.array([3, 4])
      >>> scores, variables = model.init_with_output(
      ...     jax.random.key(0), history, ids, deterministic=True, method="score"
      ... )
      >>> scores.shape, sorted(variables["params"])
      ((2,), ['from_item', 'from_user', 'layers_0', 'layers_1', 'output'])
    """

    hidden: Sequence[int] = (64, 128, 64)
    dropout: float = 0.5
    init_mean: float = 0.1
    init_scale: float = 0.1

    # A user vector changes only when its client takes part, in about one round of ten,
    # but the MLP changes in every round: the user vector needs larger steps.
    suggestions: ClassVar[Suggestions] = Suggestions(
        private_optimizer="adam(learning_rate=0.1)",
        shared_server_optimizer="sgd(learning_rate=1.0)",
    )

    def __post_init__(self) -> None:
        check_hidden(self.hidden, self.dropout)
        check_user_vector(self.init_mean, self.init_scale)
        super().__post_init__()

    def setup(self) -> None:
        features = self.item_embedding.features
        self.user = user_vector(self, features, self.init_mean, self.init_scale)
        first, *rest = self.hidden
        self.from_user = nn.Dense(first, use_bias=False, kernel_init=_HALF)
        self.from_item = nn.Dense(first, kernel_init=_HALF)
        self.layers = [nn.Dense(size) for size in rest]
        self.output = nn.Dense(1, use_bias=False)
        self.drop = Dropout(self.dropout)

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        del history
        items = self.from_item(self.item_embedding(ids))
        units = items + jnp.broadcast_to(self.from_user(self.user.value), items.shape)
        for layer in self.layers:
            units = layer(self.drop(nn.relu(units), deterministic=deterministic))
        units = self.drop(nn.relu(units), deterministic=deterministic)
        return self.output(units)[..., 0]
