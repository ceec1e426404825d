"""Checks that a split and its candidates fit together before they are evaluated."""

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.splits import Split


def check_evaluation(split: Split, clients: np.ndarray, candidates: np.ndarray) -> None:
    """Checks what the evaluator takes for granted.

    Args:
      split: the training and held-out items.
      clients: int32[E], the evaluated clients.
      candidates: int32[E, C], -1 is padding.

    Raises:
      InputError: if no client has a test item, candidates and split do not match, an
        id is out of range, or an item of a client is in two parts.
    """
    if not clients.size:
        raise InputError("no client has a test item: use data with longer histories")
    if candidates.ndim != 2 or len(candidates) != len(clients):
        raise InputError(
            f"candidates must have {len(clients)} rows, one per evaluated client, got "
            f"shape {candidates.shape}: sample them from the same split"
        )
    num_items, items = split.num_items, split.train.values
    evaluated = np.zeros(split.num_clients, bool)
    evaluated[clients] = True
    both = [split.held_out(name).keep_rows(evaluated) for name in ("valid", "test")]
    held_out = np.concatenate([rows.values for rows in both])
    first = np.concatenate([split.valid[clients], split.test[clients]])
    highest = max(x.max(initial=-1) for x in (held_out, candidates, items))
    lowest = min(items.min(initial=0), held_out.min(initial=0), first.min() + 1)
    if highest >= num_items or lowest < 0:
        raise InputError(
            f"an item id is not between 0 and num_items - 1 = {num_items - 1}: split "
            "the data anew"
        )
    # The catalogue ranking subtracts excluded items one by one: each may occur once.
    train = split.train.owners * np.int64(num_items) + items
    owners = clients[np.concatenate([rows.owners for rows in both])]
    held = owners * np.int64(num_items) + held_out
    unordered = (np.diff(train) <= 0).any() or len(np.unique(held)) < len(held)
    if unordered or np.isin(held, train).any():
        raise InputError(
            "a client's training items must ascend, and none may be its validation or "
            "test item: split the data again"
        )
