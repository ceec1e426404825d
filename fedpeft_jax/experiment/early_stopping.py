"""Early stopping: keeps the model of the best validation, and decides when to stop.

Prechelt, Early stopping - but when?, 1998.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.roles import FROZEN
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.state import Best


def update_best(best: Best, round_: int, value: float, variables: PyTree) -> Best:
    """Returns the better of the best validation so far and a new one.

    Args:
      best: the best validation so far.
      round_: the number of rounds that are done.
      value: NDCG@10 of the new validation; NaN is never better.
      variables: the model's variables, which are copied if they are the best; None to
        keep none.

    Example:
      >>> best = Best(np.float64(-np.inf), np.int64(0), None)
      >>> for round_, value in enumerate([0.1, 0.3, 0.2, 0.3], start=1):
      ...     best = update_best(best, 10 * round_, value, {"w": jnp.float32(round_)})
      >>> int(best.round), best.variables
      (20, {'w': Array(2., dtype=float32)})
    """
    better = value > best.value
    if not better and best.round:
        return best
    kept = None
    if variables is not None:
        # The next round donates the arrays, except those of the frozen tables.
        kept = {
            role: tree if role == FROZEN else jax.tree.map(jnp.copy, tree)
            for role, tree in variables.items()
        }
    new = np.float64(value if better else best.value)
    return Best(new, np.int64(round_), kept)


def should_stop(best: Best, round_: int, patience: int) -> bool:
    """Returns whether no validation of the last `patience` rounds was the best.

    Before the first validation there is nothing to compare, and the run goes on.

    Args:
      best: the best validation so far.
      round_: the number of rounds that are done.
      patience: rounds without a better validation; 0 never stops.

    Example:
      >>> best = Best(np.float64(0.3), np.int64(20), None)
      >>> [should_stop(best, round_, patience=20) for round_ in (30, 40)]
      [False, True]
    """
    return bool(patience and best.round) and round_ - int(best.round) >= patience
