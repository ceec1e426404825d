"""FedMF: matrix factorisation with user vectors that never leave the clients.

Chai et al., Secure federated matrix factorization, IEEE Intelligent Systems 2021.
"""

from fedpeft_jax.backbones.base import Backbone, check_user_vector, user_vector
from fedpeft_jax.core.typing import Array, History


class FedMF(Backbone):
    r""":math:`s(i) = e(i) \cdot u` with a private user vector `u [D]`.

    Args:
      item_embedding: the item embedding.
      init_mean: mean of the entries of the user vectors.
      init_scale: standard deviation of these entries.

    Raises:
      InputError: for a mean or a standard deviation out of its bounds.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from fedpeft_jax.embeddings.base import ItemEmbedding
      >>> model = FedMF(item_embedding=ItemEmbedding(num_items=5, features=2))
      >>> history = History(jnp.array([0]), jnp.array([True]))
      >>> ids = jnp.array([3, 4])
      >>> scores, variables = model.init_with_output(
      ...     jax.random.key(0), history, ids, deterministic=True, method="score"
      ... )
      >>> scores.shape, variables["private"]["user"].shape
      ((2,), (2,))
    """

    init_mean: float = 0.1
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        check_user_vector(self.init_mean, self.init_scale)
        super().__post_init__()

    def setup(self) -> None:
        features = self.item_embedding.features
        self.user = user_vector(self, features, self.init_mean, self.init_scale)

    def score(
        self, history: History, ids: Array | None, *, deterministic: bool
    ) -> Array:
        del history, deterministic
        return self.item_embedding.inner(ids, self.user.value)
