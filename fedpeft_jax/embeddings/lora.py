"""LoRA: the compressed embedding as a product of two thin matrices.

Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022, section 4.1,
applied to an item table as in FedPEFT (arXiv 2512.13734).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.embeddings.base import CompressedEmbedding, take


class LoRA(CompressedEmbedding):
    r""":math:`compressed(i) = \frac{\alpha}{k} B a_i`, `A [I, k]`, `B [D, k]`.

    Beside a full table `B` starts at zero, so the first forward pass equals that of the
    frozen table bit for bit, and at first only `B` has a gradient. With Adam, the size
    of `B`'s step does not depend on `A`, so learning starts at once for any scale of
    `A`. With a small scale, `B` has to grow before the product matters, and then a step
    of an item's own `a_i` changes its embedding considerably. On the validation items
    of MovieLens-1M, a scale of 0.1 was as good as 0.3 or better.

    Args:
      rank: k, at least 1.
      alpha: numerator of LoRA's scaling factor; None means k, that is, a factor of 1.
      init_scale: standard deviation of `A`.
      restart_scale: length of the columns of `B` after a merge.
      train_b: whether clients train `B`; with False they train only `A`, as in CoLR
        (Nguyen et al., WWW 2024), which is of use after a merge alone.

    Raises:
      InputError: for an argument that is out of its bounds.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> lora = LoRA(num_items=10, features=3, rank=2)
      >>> variables = lora.init(jax.random.key(0), jnp.array([4, 1]))
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'B': (3, 2)}, 'rows': {'A': (10, 2)}}
      >>> lora.apply(variables, jnp.array([4, 1])).tolist()
      [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    rank: int = 4
    alpha: float | None = None
    init_scale: float = 0.1
    restart_scale: float = 1.0
    train_b: bool = True
    # B changes by the mean of all clients' updates, for which a step of 1 is too slow.
    suggestions: ClassVar[Suggestions] = Suggestions(
        shared_server_optimizer="sgd(learning_rate=5.0)"
    )
    # Chosen on the validation items of MovieLens-1M; docs/bytes.md has what was tried.
    merging: ClassVar[Suggestions] = Suggestions(
        merge_every=50, latent_scale=0.3, server_optimizer="sgd(learning_rate=10.0)"
    )

    def __post_init__(self) -> None:
        scale, hint = Bounds(above=0, most=1000), "try 'lora(rank=4)'"
        check_number(
            "rank", self.rank, Bounds(least=1, most=65536), whole=True, remedy=hint
        )
        if self.alpha is not None:
            check_number("lora: alpha", self.alpha, Bounds(above=0, most=1e6))
        check_number("lora: init_scale", self.init_scale, scale)
        check_number("lora: restart_scale", self.restart_scale, scale)
        super().__post_init__()

    def setup(self) -> None:
        # Without a full table, B = 0 would be a saddle point: all scores, and all
        # gradients except that of B, would be zero.
        init_b = nn.initializers.normal(0.1) if self.alone else nn.initializers.zeros
        matrix = self.param("B", init_b, (self.features, self.rank))
        self.B = matrix if self.train_b else jax.lax.stop_gradient(matrix)
        self.A = self.variable(
            ROWS,
            "A",
            lambda: nn.initializers.normal(self.init_scale)(
                self.make_rng("params"), (self.num_items, self.rank)
            ),
        )

    @property
    def _scaling(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def __call__(self, ids: Array | None = None) -> Array:
        return self._scaling * take(self.A.value, ids) @ self.B.T

    def inner(self, ids: Array | None, vector: Array) -> Array:
        # A (B^T u) instead of (A B^T) u: k products per item instead of D.
        return take(self.A.value, ids) @ (self._scaling * (vector @ self.B))

    def weighted_sum(self, ids: Array, weights: Array) -> Array:
        return self._scaling * self.B @ (weights @ take(self.A.value, ids))

    def restart(self, key: Key) -> dict[str, PyTree]:
        """Returns a random orthonormal `B` and `A = 0`.

        With `A = 0` the product is zero, and the first step moves each item in the span
        of `B`. (With `B = 0` and a random `A`, as at the start, all items would first
        move by multiples of common directions.)
        """
        orthonormal = nn.initializers.orthogonal(self.restart_scale)
        b = orthonormal(key, (self.features, self.rank), jnp.float32)
        a = jnp.zeros((self.num_items, self.rank), jnp.float32)
        return {SHARED: {"B": b}, ROWS: {"A": a}}
