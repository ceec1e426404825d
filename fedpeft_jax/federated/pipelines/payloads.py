"""Forms in which stages send numbers, and which stage may follow which.

A stage replaces arrays by these nodes, so that a later stage and the wire see what they
hold. Their static fields tell the receiver how to rebuild the arrays.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as integer levels and their scale.

    Attributes:
      levels: int8[..., W], or uint8[..., ceil(W / 2)] with two levels of 4 bits in one
        byte.
      scale: float32 array that broadcasts against the levels.
      shape: the shape of the array; -1 where the leading axis is that of the levels.
      bits: 8 or 4.
    """

    levels: Array
    scale: Array
    shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    bits: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sparse:
    """Some numbers of an update, and their places.

    Attributes:
      values: float32[k].
      indices: int32[k], indices into all arrays of the update, one after the other.
      structure: the structure of `(shared, rows)`, a `PyTreeDef`.
      shapes: the shapes of its arrays.
    """

    values: PyTree
    indices: Array
    structure: Any = dataclasses.field(metadata={"static": True})
    shapes: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Touched:
    """The rows that a client touched.

    Attributes:
      item_ids: int32[K], the items of the rows.
      rows: a tree of arrays [K, ...].
    """

    item_ids: Array
    rows: PyTree


_NAMES: dict[type | str, str] = {
    Quantized: "int8 or int4",
    Sparse: "top_k",
    Touched: "rows",
    "narrow": "a stage that casts to another type",
}

ENCODED = tuple(_NAMES)
"""Every form that is not a plain float32 array."""


def check_order(stage: str, sent: PyTree, refused: tuple[type | str, ...]) -> None:
    """Checks that the stages before a stage left what it can read.

    Args:
      stage: name of the stage.
      sent: what it receives.
      refused: the forms that it cannot read, some of `ENCODED`.

    Raises:
      InputError: if what it receives has one of these forms.

    Example:
      >>> check_order("top_k", jnp.zeros(2, jnp.bfloat16), ENCODED)
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: the stage top_k cannot follow a stage that casts to
      another type: put top_k before it, or leave one of them out
    """
    for form in _forms(sent):
        if form in refused:
            raise InputError(
                f"the stage {stage} cannot follow {_NAMES[form]}: put {stage} before "
                "it, or leave one of them out"
            )


def _forms(tree: PyTree) -> Iterator[type | str]:
    nodes = (Quantized, Sparse, Touched)
    for leaf in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, nodes)):
        if isinstance(leaf, nodes):
            yield type(leaf)
        elif jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != jnp.float32:
            yield "narrow"
        if isinstance(leaf, Sparse):
            yield from _forms(leaf.values)
        if isinstance(leaf, Touched):
            yield from _forms(leaf.rows)
