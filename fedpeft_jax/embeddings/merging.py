"""Merges: the server adds the compressed embedding to the table and starts it anew.

The table is frozen only between two merges. A small embedding can move the items in a
few directions at a time; after a merge it continues with others, so that in the end the
table has moved in all of them. Relatives: Lialin et al., ReLoRA, ICLR 2024; Nguyen et
al., CoLR, WWW 2024.
"""

from typing import Any

from flax import traverse_util

from fedpeft_jax.core.roles import FROZEN, SENT, select
from fedpeft_jax.core.typing import Key, PyTree, Variables
from fedpeft_jax.embeddings.base import CompressedEmbedding, ItemEmbedding

_ADAPTER, _TABLE = "compressed", "full"


def can_restart(embedding: CompressedEmbedding) -> bool:
    """Returns whether an embedding has a method `restart`, which a merge needs.

    Args:
      embedding: a compressed embedding.
    """
    return hasattr(embedding, "restart")


def merge(embedding: ItemEmbedding, variables: Variables, key: Key) -> dict[str, Any]:
    r"""Returns the variables after a merge.

    .. math:: full(i) \leftarrow full(i) + compressed(i)

    The compressed embedding then starts anew with its method `restart(key)`, which
    returns some of its variables by collection, so that it is zero for every item. The
    others keep their values. The sum of both does not change.

    Args:
      embedding: a frozen table beside a compressed embedding that can restart.
      variables: the variables of the item embedding by collection.
      key: random key of the restart. It is all that a client needs to compute the
        frozen variables that `restart` returns.

    Returns:
      New variables of the same structure, shapes and types.

    Example:
      >>> import functools, jax
      >>> from fedpeft_jax.embeddings import LoRA
      >>> both = ItemEmbedding(5, 3, "frozen", functools.partial(LoRA, rank=2))
      >>> before = both.init(jax.random.key(0))
      >>> before["params"]["compressed"]["B"] += 1.0
      >>> after = merge(both, before, jax.random.key(1))
      >>> bool(abs(both.apply(before) - both.apply(after)).max() < 1e-6)
      True
      >>> float(abs(after["rows"]["compressed"]["A"]).max())
      0.0
    """
    adapter: Any = embedding.adapter_alone()
    flat = traverse_util.flatten_dict(dict(variables))
    new = {
        (role, _ADAPTER, *path): value
        for role, tree in adapter.restart(key).items()
        for path, value in traverse_util.flatten_dict(dict(tree)).items()
    }
    table: Any = embedding.apply(dict(variables), None)
    merged = {**flat, **new, (FROZEN, _TABLE): table}
    cast = {path: merged[path].astype(value.dtype) for path, value in flat.items()}
    nested: dict[str, Any] = traverse_util.unflatten_dict(cast)
    return nested


def factors_of(variables: Variables) -> dict[str, PyTree]:
    """Returns what is merged: the compressed embedding's variables that clients train.

    Args:
      variables: the variables of the item embedding (or their shapes) by collection.
    """
    return {
        role: tree.get(_ADAPTER, {}) for role, tree in select(variables, SENT).items()
    }


def table_of(variables: Variables) -> PyTree:
    """Returns the frozen table, into which the compressed embedding is merged.

    Args:
      variables: the variables of the item embedding (or their shapes) by collection.

    Returns:
      float32[I, D], or None if there is no frozen table.
    """
    return variables.get(FROZEN, {}).get(_TABLE)
