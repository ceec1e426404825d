"""RQ-VAE codebooks: an item vector is the sum of one code vector per codebook.

FedPEFT, arXiv 2512.13734, section 4, with codes that the server learns from item text
by residual quantisation (`features/rqvae.py`).
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
from fedpeft_jax.features.quantization import (
    Quantized,
    check_codebook_size,
    describe,
    residual_kmeans,
)
from fedpeft_jax.features.rqvae import Gradient, pretrain_rqvae

Quantizer = Literal["rqvae", "kmeans"]
CodebookInit = Literal["zeros", "pretrained"] | None


class RQ(CompressedEmbedding):
    r""":math:`compressed(i) = \sum_j C_j[c_j(i)]`, shared codebooks `C_j [d_R, D]`.

    The server learns the codes :math:`c(i)` from item text before the first round, and
    they are frozen. Only the codebooks are trained and sent. A merge draws random
    codes: items with similar text share codes until then, and their differences are
    what is left to learn.

    Args:
      num_codebooks: l.
      codebook_size: d_R, at most the number of items.
      quantizer: `'rqvae'` trains a network of its own for the codes; `'kmeans'` runs
        residual k-means on the pretrained latents, which is faster.
      init_: written `init` in a spec. `'zeros'`, or `'pretrained'` for the quantizer's
        codebooks at the scale of the latents. None means zeros beside a full table and
        pretrained without one.
      gradient: the RQ-VAE's gradient, `'straight_through'` or `'rotation'`. On
        MovieLens-1M the first explained more of the encodings (0.41 against 0.35).

    Raises:
      InputError: for a size out of bounds, an unknown word, and pretrained codebooks
        beside a full table, which is pretrained already.

    Example:
      >>> embedding = RQ(num_items=10, features=3, num_codebooks=2, codebook_size=4)
      >>> variables = embedding.init(jax.random.key(0), jnp.array([4, 1]))
      >>> jax.tree.map(jnp.shape, variables)
      {'frozen': {'codes': (10, 2)}, 'params': {'codebooks': (2, 4, 3)}}
    """

    num_codebooks: int = 4
    codebook_size: int = 256
    quantizer: Quantizer = "rqvae"
    init_: CodebookInit = None
    gradient: Gradient = "straight_through"
    uses_text: ClassVar[bool] = True

    # Every client changes all codebooks, so a large step overshoots. They distinguish
    # the items only in part. The full table therefore has to learn the rest during the
    # warm-up, and needs large steps.
    suggestions: ClassVar[Suggestions] = Suggestions(
        server_optimizer="sgd(learning_rate=10.0)",
        shared_server_optimizer="sgd(learning_rate=0.3)",
    )
    # Chosen on the validation items of MovieLens-1M; docs/bytes.md has what was tried.
    merging: ClassVar[Suggestions] = Suggestions(
        merge_every=50,
        latent_scale=0.3,
        shared_server_optimizer="sgd(learning_rate=2.0)",
    )

    def __post_init__(self) -> None:
        hint = "try 'rq(num_codebooks=4, codebook_size=256)'"
        most = {"num_codebooks": 1024, "codebook_size": 2**24}
        for name, bound in most.items():
            bounds = Bounds(least=1, most=bound)
            check_number(name, getattr(self, name), bounds, whole=True, remedy=hint)
        # All codebooks are one table, whose rows are found by an int32.
        total = self.num_codebooks * self.codebook_size
        vectors = Bounds(most=2**24)
        check_number("num_codebooks times codebook_size", total, vectors, remedy=hint)
        words = {
            "quantizer": (self.quantizer, get_args(Quantizer)),
            "init": (self.init_, (None, "zeros", "pretrained")),
            "gradient": (self.gradient, get_args(Gradient)),
        }
        for name, (value, known) in words.items():
            if value not in known:
                raise InputError(
                    f"rq: {name}={value!r} is not known: "
                    f"use one of {', '.join(map(repr, known))}"
                )
        if self.init_ == "pretrained" and not self.alone:
            raise InputError(
                "init='pretrained' beside a full table would count the text twice: "
                "use init='zeros', or `full=none`"
            )
        super().__post_init__()

    def setup(self) -> None:
        # The codes are random until `fit` replaces them.
        shape = (self.num_codebooks, self.codebook_size, self.features)
        zeros = not self.alone or self.init_ == "zeros"
        scale = nn.initializers.zeros if zeros else nn.initializers.normal(0.1)
        self.codebooks = self.param("codebooks", scale, shape)
        self.codes = self.variable(
            FROZEN,
            "codes",
            lambda: jax.random.randint(
                self.make_rng("params"),
                (self.num_items, self.num_codebooks),
                0,
                self.codebook_size,
            ).astype(code_dtype(self.codebook_size)),
        )

    def _read(self, ids: Array | None) -> tuple[Array, Array]:
        """Returns all code vectors [l d_R, D], and the indices [..., l] of the rows."""
        codes = take(self.codes.value, ids).astype(jnp.int32)
        first = self.codebook_size * jnp.arange(self.num_codebooks)
        codes = codes + jnp.broadcast_to(first, codes.shape)
        return self.codebooks.reshape(-1, self.features), codes

    def __call__(self, ids: Array | None = None) -> Array:
        vectors, codes = self._read(ids)
        return jnp.sum(vectors[codes], axis=-2)

    def inner(self, ids: Array | None, vector: Array) -> Array:
        # One inner product per code vector instead of one per item.
        vectors, codes = self._read(ids)
        return jnp.sum((vectors @ vector)[codes], axis=-1)

    def weighted_sum(self, ids: Array, weights: Array) -> Array:
        vectors, codes = self._read(ids)
        return jnp.zeros(len(vectors)).at[codes].add(weights[:, None]) @ vectors

    def fit(self, key: Key, item_features: ItemFeatures) -> Fitted:
        check_codebook_size(self.codebook_size, self.num_items)
        if item_features.encodings is None or item_features.latents is None:
            raise InputError(
                "rq learns its codes from item text, and there is none: use a data set "
                "with item text, or `text_embeddings=FILE.npz`"
            )
        latents = np.asarray(item_features.latents)
        if self.quantizer == "kmeans":
            books = residual_kmeans(
                key, latents, self.num_codebooks, self.codebook_size
            )
            result = describe(books, latents)
        else:
            result = pretrain_rqvae(
                key,
                item_features.encodings,
                num_codebooks=self.num_codebooks,
                codebook_size=self.codebook_size,
                latent=self.features,
                gradient=self.gradient,
            )
        codes = result.codes.astype(code_dtype(self.codebook_size))
        values = {FROZEN: {"codes": jnp.asarray(codes)}}
        if self.alone and self.init_ != "zeros":
            values[SHARED] = {"codebooks": _at_scale_of(latents, result)}
        figures = {**result.figures, **shared_codes(codes)}
        return Fitted(values, figures)

    def restart(self, key: Key) -> dict[str, PyTree]:
        """Returns random codes, each used equally often, and codebooks of zeros."""
        keys = jax.random.split(key, self.num_codebooks)
        orders = jax.vmap(lambda k: jax.random.permutation(k, self.num_items))(keys)
        shape = (self.num_codebooks, self.codebook_size, self.features)
        return {
            SHARED: {"codebooks": jnp.zeros(shape, jnp.float32)},
            FROZEN: {"codes": (orders.T % self.codebook_size)},
        }


def _at_scale_of(latents: np.ndarray, result: Quantized) -> Array:
    """Returns the codebooks, centred and rescaled to the spread of `latents`."""
    spread = result.latents.std(axis=0)
    scale = np.where(spread > 0, latents.std(axis=0).mean(), 0.0) / np.maximum(
        spread, 1e-12
    )
    centre = result.latents.mean(axis=0)
    books = result.codebooks.copy()
    books[0] -= centre
    return jnp.asarray(books * scale, jnp.float32)
