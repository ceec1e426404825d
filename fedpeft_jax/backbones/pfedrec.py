"""PFedRec: clients share the item embedding, and each has its own score function.

Zhang et al., Dual personalization on federated recommendation, IJCAI 2023.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn

from fedpeft_jax.backbones.base import Backbone, Schedule
from fedpeft_jax.backbones.layers import Dropout, check_hidden
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED, TRAINED, private_layer
from fedpeft_jax.core.typing import Array, History


class PFedRec(Backbone):
    r""":math:`s(i) = MLP_u(e(i))` with a private network for every client.

    There is no user vector. All clients start from one common network, and each trains
    its own copy. A client that never took part scores with the common network.

    Args:
      item_embedding: the item embedding.
      hidden: sizes of the hidden layers, each with ReLU and dropout.
      dropout: share of the hidden units that a training step drops.
      alternate: if True, a local step first trains the score function and then the item
        embedding, each with its own gradient, as in the paper. Otherwise it trains both
        at once, at half the cost.

    Raises:
      InputError: if there is no hidden layer, or the dropout is not in [0, 1).

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
        self.layers = [private_layer(nn.Dense)(size) for size in self.hidden]
        self.output = private_layer(nn.Dense)(1, use_bias=False)
        self.drop = Dropout(self.dropout)

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        del history
        units = self.item_embedding(ids)
        for layer in self.layers:
            units = self.drop(nn.relu(layer(units)), deterministic=deterministic)
        return self.output(units)[..., 0]
