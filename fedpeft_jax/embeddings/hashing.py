"""Hash: an item vector combines a few rows of one small shared table.

Svenstrup et al., Hash embeddings for efficient word representations, NeurIPS 2017, with
SENet pooling (Hu et al., CVPR 2018; over fields, Huang et al., FiBiNET, RecSys 2019),
and with a table that the clients share, as in FedPEFT (arXiv 2512.13734).
"""

from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, SHARED
from fedpeft_jax.core.settings import Suggestions
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.embeddings.base import (
    CompressedEmbedding,
    Fitted,
    ItemFeatures,
    take,
)
from fedpeft_jax.embeddings.codes import code_dtype, shared_codes

Pooling = Literal["mean", "senet"]

_PRIME = 2**31 - 1  # above every item id, which is an int32


class Hash(CompressedEmbedding):
    r""":math:`compressed(i) = \sum_j w_j(i)\, T_{h_j(i)}` with a shared `T [d_H, D]`.

    The :math:`h_j` are universal hash functions, drawn once and then frozen until a
    merge draws others. Mean pooling has :math:`w_j = 1/h`, and with `signed` a random
    sign for every item and function, as a count sketch has. SENet pooling has
    :math:`w = \sigma(W_2\,relu(W_1 z))`, where :math:`z_j` is the mean over the
    dimensions of the j-th vector; `W_1` and `W_2` are shared, sent, and have no biases.

    Args:
      num_buckets: d_H, the number of rows of the table.
      num_hashes: h, the number of hash functions, which is also the number of rows per
        item.
      pooling: `'mean'` or `'senet'`.
      reduction: SENet's hidden layer has `max(1, h // reduction)` units.
      init_scale: standard deviation of the table if there is no full table. Beside a
        full table it starts at zero.
      signed: whether items are added to their rows with random signs (Charikar et al.,
        Finding frequent items in data streams, ICALP 2002).

    Raises:
      InputError: for an argument that is out of its bounds, or another pooling.

    Example:
      >>> embedding = Hash(num_items=10, features=3, num_buckets=4)
      >>> variables = embedding.init(jax.random.key(0), jnp.array([4, 1]))
      >>> jax.tree.map(jnp.shape, variables)
      {'frozen': {'buckets': (10, 2)}, 'params': {'table': (4, 3)}}
    """

    num_buckets: int = 512
    num_hashes: int = 2
    pooling: Pooling = "mean"
    reduction: int = 2
    init_scale: float = 0.1
    signed: bool = False

    # Every client changes the whole table T, so a large step overshoots. Its rows
    # distinguish the items only in part. The full table therefore has to learn the
    # rest during the warm-up, and needs large steps.
    suggestions: ClassVar[Suggestions] = Suggestions(
        server_optimizer="sgd(learning_rate=10.0)",
        shared_server_optimizer="sgd(learning_rate=0.3)",
    )
    # Chosen on the validation items of MovieLens-1M; docs/bytes.md has what was tried.
    merging: ClassVar[Suggestions] = Suggestions(
        merge_every=25,
        latent_scale=0.3,
        shared_server_optimizer="sgd(learning_rate=5.0)",
    )

    def __post_init__(self) -> None:
        hint = "try 'hash(num_buckets=512, num_hashes=2)'"
        most = {"num_buckets": 2**24, "num_hashes": 1024, "reduction": 1024}
        for name, bound in most.items():
            bounds = Bounds(least=1, most=bound)
            check_number(name, getattr(self, name), bounds, whole=True, remedy=hint)
        scale = Bounds(above=0, most=1000)
        check_number("hash: init_scale", self.init_scale, scale)
        if self.pooling not in get_args(Pooling):
            raise InputError(
                f"pooling={self.pooling!r} is not known: use 'mean' or 'senet'"
            )
        super().__post_init__()

    def setup(self) -> None:
        scale = nn.initializers.normal(self.init_scale)
        self.table = self.param(
            "table",
            scale if self.alone else nn.initializers.zeros,
            (self.num_buckets, self.features),
        )
        self.buckets = self.variable(
            FROZEN, "buckets", lambda: self._draw(self.make_rng("params"))
        )
        if self.pooling == "senet":
            hidden = max(1, self.num_hashes // self.reduction)
            self.squeeze = nn.Dense(hidden, use_bias=False)
            self.excite = nn.Dense(self.num_hashes, use_bias=False)

    def _draw(self, key: Key) -> Array:
        # The last bit of a signed code is its sign.
        codes = self.num_buckets * (2 if self.signed else 1)
        buckets = universal_hash(key, self.num_items, codes, self.num_hashes)
        return buckets.astype(code_dtype(codes))

    def _read(self, ids: Array | None) -> tuple[Array, Array]:
        """Returns buckets int32[..., h] and weights float32[..., h] of some rows."""
        buckets = take(self.buckets.value, ids).astype(jnp.int32)
        signs = jnp.ones(buckets.shape)
        if self.signed:
            signs, buckets = 1.0 - 2.0 * (buckets & 1), buckets >> 1
        if self.pooling == "mean":
            return buckets, signs / self.num_hashes
        squeezed = jnp.mean(self.table, axis=1)[buckets]
        weights = nn.sigmoid(self.excite(nn.relu(self.squeeze(squeezed))))
        return buckets, signs * weights

    def __call__(self, ids: Array | None = None) -> Array:
        buckets, weights = self._read(ids)
        return jnp.sum(weights[..., None] * self.table[buckets], axis=-2)

    def inner(self, ids: Array | None, vector: Array) -> Array:
        # One inner product per bucket instead of one per item.
        buckets, weights = self._read(ids)
        return jnp.sum(weights * (self.table @ vector)[buckets], axis=-1)

    def weighted_sum(self, ids: Array, weights: Array) -> Array:
        buckets, pooling = self._read(ids)
        total = jnp.zeros(self.num_buckets).at[buckets].add(weights[:, None] * pooling)
        return total @ self.table

    def fit(self, key: Key, item_features: ItemFeatures) -> Fitted:
        del item_features
        buckets = jax.jit(self._draw)(key)
        return Fitted({FROZEN: {"buckets": buckets}}, shared_codes(np.asarray(buckets)))

    def restart(self, key: Key) -> dict[str, PyTree]:
        """Returns fresh hash functions and `T = 0`; SENet's weights are kept."""
        table = jnp.zeros((self.num_buckets, self.features), jnp.float32)
        return {SHARED: {"table": table}, FROZEN: {"buckets": self._draw(key)}}


def universal_hash(
    key: Key, num_items: int, num_buckets: int, num_hashes: int
) -> Array:
    r"""Returns the buckets of all items under independent universal hash functions.

    :math:`h_j(x) = ((a_j x + b_j) \bmod p) \bmod d_H` with the prime
    :math:`p = 2^{31} - 1` and random :math:`a_j \in [1, p)`, :math:`b_j \in [0, p)`.
    Two items collide with a probability of at most :math:`1 / d_H`, independently for
    every function.

    Args:
      key: random key of the coefficients.
      num_items: I.
      num_buckets: d_H.
      num_hashes: h.

    Returns:
      int32[I, h], buckets.

    Source:
      Carter & Wegman, Universal classes of hash functions, JCSS 1979.

    Example:
      >>> buckets = universal_hash(jax.random.key(0), 1000, num_buckets=8, num_hashes=2)
      >>> buckets.shape, sorted(set(buckets[:, 0].tolist()))
      ((1000, 2), [0, 1, 2, 3, 4, 5, 6, 7])
    """
    key_a, key_b = jax.random.split(key)
    shape = (1, num_hashes)
    a = jax.random.randint(key_a, shape, 1, _PRIME).astype(jnp.uint32)
    b = jax.random.randint(key_b, shape, 0, _PRIME).astype(jnp.uint32)
    ids = jnp.arange(num_items, dtype=jnp.uint32)[:, None]
    hashed = _modulo(_times(a, ids) + b)
    return (hashed % num_buckets).astype(jnp.int32)


def _modulo(x: Array) -> Array:
    """`x mod (2^31 - 1)` for uint32."""
    x = (x & _PRIME) + (x >> 31)
    return jnp.where(x >= _PRIME, x - _PRIME, x)


def _times(a: Array, x: Array) -> Array:
    """`a x mod (2^31 - 1)` for uint32 below 2^31, in 16-bit halves; 2^31 mod p is 1."""
    a_high, a_low, x_high, x_low = a >> 16, a & 0xFFFF, x >> 16, x & 0xFFFF
    middle = _modulo(a_high * x_low + a_low * x_high)  # times 2^16
    shifted = _modulo((middle >> 15) + ((middle & 0x7FFF) << 16))
    high = _modulo(2 * a_high * x_high)  # times 2^32
    return _modulo(_modulo(high + shifted) + _modulo(a_low * x_low))
