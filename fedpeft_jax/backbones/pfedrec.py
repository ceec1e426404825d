"""PFedRec: the item embedding is shared, the function that scores it is the user's own.

Zhang et al., Dual personalization on federated recommendation, IJCAI 2023.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn

from fedpeft_jax.backbones.base import Backbone, Schedule
from fedpeft_jax.backbones.layers import Dropout, check_hidden
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED, TRAINED, private
from fedpeft_jax.core.typing import Array, History


class PFedRec(Backbone):
    r""":math:`s(i) = MLP_u(e(i))` with a private network for every user.

    There is no user vector. All clients start from one common network, which their own
    data then part; a client that never took part scores with that one.

    Args:
      item_embedding: the item embedding.
      hidden: units of the hidden layers, all with relu and dropout.
      dropout: share of the hidden units that a training step drops.
      alternate: whether a local step moves the score function first and the item
        embedding after it, each by a gradient of its own, as the paper does; otherwise
        both move at once, at half the cost.

    Raises:
      InputError: without a hidden layer, or for a dropout that is no share below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedpeft_jax.embeddings.base import ItemEmbedding
      >>> model = PFedRec(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> history = History(jnp.array([0]), jnp.array([True]))
      >>> ids = jnp.array([3, 4])
      >>> scores, variables = model.init_with_output(
      ...     jax.random.key(0), history, ids, deterministic=True, method="score"
      ... )
      >>> scores.shape, sorted(variables), sorted(variables["private"])
      ((2,), ['private', 'rows'], ['layers_0', 'layers_1', 'output'])
    """

    hidden: Sequence[int] = (64, 32)
    dropout: float = 0.5
    alternate: bool = False
    private_init: ClassVar[Literal["per_client", "common"]] = "common"

    def __post_init__(self) -> None:
        check_hidden(self.hidden, self.dropout)
        super().__post_init__()

    @property
    def local_schedule(self) -> Schedule:
        return ((PRIVATE,), (SHARED, ROWS)) if self.alternate else (TRAINED,)

    def setup(self) -> None:
        self.layers = [private(nn.Dense)(size) for size in self.hidden]
        self.output = private(nn.Dense)(1, use_bias=False)
        self.drop = Dropout(self.dropout)

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        del history
        units = self.item_embedding(ids)
        for layer in self.layers:
            units = self.drop(nn.relu(layer(units)), deterministic=deterministic)
        return self.output(units)[..., 0]
