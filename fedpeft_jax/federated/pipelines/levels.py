r"""Integer levels with stochastic rounding, which `int8` and `int4` share.

A block of numbers has one scale :math:`s = \max|x| / m`, where m is the highest
level, 127 or 7. A number becomes :math:`\lfloor x / s + u \rfloor` with u uniform in
[0, 1), so that its expectation is exact and its error is at most s (Alistarh et al.,
QSGD, NeurIPS 2017). A block that holds a NaN or an infinity decodes to NaN.

The uniform number of an entry is a hash of the key, the item and the column. A row is
therefore encoded in the same way at every position, and a round needs one random word
for each array. The hash is `lowbias32` of https://github.com/skeeto/hash-prospector,
which costs a tenth of Threefry's time.
"""

import math

import jax
import jax.numpy as jnp

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.pipelines.payloads import Quantized, Touched, check_order
from fedpeft_jax.federated.release import Figures
from fedpeft_jax.federated.updates import ClientUpdate

BLOCKS = ("column", "row", "tensor")
_SMALLEST = 1.1754944e-38  # the processor may round smaller scales to zero


def quantized_upload(bits: int, block: str) -> Upload:
    """Returns the upload stage that sends levels of some bits.

    Args:
      bits: 8 or 4.
      block: which numbers share a scale: one of `BLOCKS`.

    Raises:
      InputError: for another block.
    """
    name = _check(bits, block)

    def encode(
        update: ClientUpdate, state: PyTree, key: Key
    ) -> tuple[ClientUpdate, PyTree, Figures]:
        check_order(name, (update.shared, update.rows), (Quantized, "narrow"))
        shared, rows = (jax.random.fold_in(key, place) for place in range(2))
        return (
            update._replace(
                shared=_encode(update.shared, shared, bits, block),
                rows=_encode(update.rows, rows, bits, block, update.item_ids),
            ),
            state,
            {},
        )

    def decode(payload: ClientUpdate) -> ClientUpdate:
        shared, rows = dequantize((payload.shared, payload.rows))
        return payload._replace(shared=shared, rows=rows)

    return Upload(lambda received: (), encode, decode)


def quantized_download(bits: int, block: str) -> Download:
    """Returns the download stage that sends levels of some bits.

    All clients of a round receive the same levels.

    Args:
      bits: 8 or 4.
      block: which numbers share a scale: one of `BLOCKS`.

    Raises:
      InputError: for another block.
    """
    name = _check(bits, block)

    def encode(server: PyTree, key: Key) -> PyTree:
        check_order(name, server, (Quantized, "narrow"))
        shared, rows = (jax.random.fold_in(key, place) for place in range(2))
        lengths = {len(x) for x in jax.tree.leaves(server[ROWS])}
        ids = jnp.arange(max(lengths, default=0), dtype=jnp.int32)
        return {
            SHARED: _encode(server[SHARED], shared, bits, block),
            ROWS: _encode(server[ROWS], rows, bits, block, ids),
        }

    return Download(encode, dequantize)


def quantize(
    x: Array, key: Key, *, bits: int, block: str, item_ids: Array | None = None
) -> Quantized:
    """Returns the levels and scales of one array.

    Args:
      x: float32 array. An array of one axis has one scale.
      key: random key of the rounding.
      bits: 8 or 4.
      block: one of `BLOCKS`. A block `'column'` has one scale for each index of the
        last axis, `'row'` one for each index of the first axis.
      item_ids: int32[K], the items of the first axis; None if it is no axis of items.

    Example:
      >>> x = jnp.array([[0.0, 1.0], [254.0, -1.0]])
      >>> found = quantize(x, jax.random.key(0), bits=8, block="column")
      >>> found.levels.tolist(), found.scale.shape
      ([[0, 127], [127, -127]], (1, 2))
    """
    shape = x.shape if item_ids is None else (-1, *x.shape[1:])
    # Two levels share a byte within a row, so that a row keeps bytes of its own.
    columns = x.reshape(-1, 1) if item_ids is not None and x.ndim < 2 else x
    columns = columns.reshape(1) if x.ndim == 0 else columns
    axes = tuple(range(columns.ndim))
    if columns.ndim > 1 and block == "column":
        axes = axes[:-1]
    elif columns.ndim > 1 and block == "row" and columns.size > len(columns):
        axes = axes[1:]
    most = 2 ** (bits - 1) - 1
    largest = jnp.max(jnp.abs(columns), axis=axes, keepdims=True, initial=0.0)
    scale = largest * jnp.float32(1 / most)
    scale = jnp.where(scale < _SMALLEST, 0.0, scale)  # a NaN stays
    steps = columns * jnp.where(scale > 0, 1 / scale, 0.0)
    below = jnp.floor(steps)
    up = _uniform(key, columns.shape, item_ids) < steps - below
    levels = jnp.clip(below + up, -most, most).astype(jnp.int8)
    if bits == 4:
        levels = _pack(levels)
    return Quantized(levels, scale, shape, bits)


def dequantize(tree: PyTree) -> PyTree:
    """Returns the tree with float32 arrays in place of its `Quantized` nodes."""

    def decode(x: PyTree) -> PyTree:
        if not isinstance(x, Quantized):
            return x
        lead = x.levels.shape[0]
        shape = tuple(lead if length == -1 else length for length in x.shape)
        levels = x.levels
        if x.bits == 4:
            column = len(shape) < 2 and x.shape[:1] == (-1,)
            levels = _unpack(levels, 1 if column or not shape else shape[-1])
        return (levels.astype(jnp.float32) * x.scale).reshape(shape)

    return jax.tree.map(decode, tree, is_leaf=lambda x: isinstance(x, Quantized))


def _check(bits: int, block: str) -> str:
    if block not in BLOCKS:
        raise InputError(
            f"int{bits}: block must be one of {', '.join(BLOCKS)}, got {brief(block)}"
        )
    return f"int{bits}"


def _encode(
    tree: PyTree, key: Key, bits: int, block: str, item_ids: Array | None = None
) -> PyTree:
    """Returns the tree with its float32 arrays quantized."""
    if isinstance(tree, Touched):
        return Touched(tree.item_ids, _encode(tree.rows, key, bits, block, item_ids))
    leaves, structure = jax.tree.flatten(tree)
    found = [
        quantize(
            x, jax.random.fold_in(key, place), bits=bits, block=block, item_ids=item_ids
        )
        if x.dtype == jnp.float32
        else x
        for place, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, found)


def _uniform(key: Key, shape: tuple[int, ...], item_ids: Array | None) -> Array:
    """Returns uniform numbers in [0, 1) of 24 bits, one for each entry."""
    if item_ids is None:
        index = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    else:
        width = math.prod(shape[1:])
        first = item_ids[: shape[0], None].astype(jnp.uint32) * jnp.uint32(width)
        index = first + jnp.arange(width, dtype=jnp.uint32)[None]
    h = index.reshape(shape) + jax.random.bits(key, (), jnp.uint32)
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    h = h ^ (h >> 16)
    return (h >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def _pack(levels: Array) -> Array:
    """Returns levels -7..7 int8[..., W] as uint8[..., ceil(W / 2)].

    The first half of the columns is in the low bits, the second half in the high ones.
    """
    codes = (levels + 8).astype(jnp.uint8)
    half = -(-codes.shape[-1] // 2)
    low, high = codes[..., :half], codes[..., half:]
    missing = half - high.shape[-1]
    if missing:
        padding = [(0, 0)] * (codes.ndim - 1) + [(0, missing)]
        high = jnp.pad(high, padding, constant_values=8)
    return low | (high << 4)


def _unpack(packed: Array, width: int) -> Array:
    codes = jnp.concatenate([packed & 15, packed >> 4], axis=-1)[..., :width]
    return codes.astype(jnp.int8) - 8
