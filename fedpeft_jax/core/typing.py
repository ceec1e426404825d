"""Shared type aliases, and the letters that shapes are written in.

Shapes in docstrings use one letter an axis:

========  ==================================================================
``U``     clients (one client = one user)
``C``     clients in a round's cohort
``I``     items in the catalogue
``K``     distinct item rows that one client gathers for one participation
``N``     positives of one client (its training items), padded
``M``     negatives a positive
``D``     features of an item or user vector
``F``     features of an item's text encoding
``B``     clients in a block that is evaluated at once
========  ==================================================================
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
    """A client's training items as a model sees them.

    Attributes:
      ids: int32[..., N], rows of the item tables that the model holds: global item
        ids beside whole tables, slots beside a client's gathered rows.
      mask: bool[..., N], False on padding.
    """

    ids: Array
    mask: Array
