"""Type aliases, and the letters that docstrings write shapes with.

Shapes use one letter per axis:

========  =======================================================================
``U``     clients (one client = one user)
``E``     clients that are evaluated
``T``     rounds that one dispatch runs
``C``     clients in a round's cohort; in evaluation, candidates of one client
``I``     items in the catalogue
``K``     distinct item rows that one client gathers for one participation
``N``     positives of one client (its training items), padded
``M``     negatives per positive
``D``     features of an item or user vector
``F``     features of an item's text encoding
``B``     a batch: clients that are evaluated at once, or items of a training step
========  =======================================================================
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax

Array: TypeAlias = jax.Array
"""A JAX array (or a tracer of one)."""

Key: TypeAlias = jax.Array
"""A typed random key, as made by ``jax.random.key``."""

PyTree: TypeAlias = Any
"""A nest of containers with arrays at the leaves."""

Variables: TypeAlias = Mapping[str, PyTree]
"""Flax variables: one tree of arrays for each collection, that is, for each role."""


class History(NamedTuple):
    """A client's training items, as a model receives them.

    Attributes:
      ids: int32[..., N], rows of the item tables that the model holds: global item
        ids for whole tables, slots for a client's gathered rows.
      mask: bool[..., N], False on padding.
    """

    ids: Array
    mask: Array
