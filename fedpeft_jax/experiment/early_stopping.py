"""Early stopping: keeps the model of the best validation round, and says when to stop.

Prechelt, Early stopping - but when?, 1998.
"""

import math

import jax
import jax.numpy as jnp

from fedpeft_jax.core.typing import PyTree


class EarlyStopping:
    """The best model so far, by a value that is higher where it is better.

    Args:
      patience: rounds without a better value after which to stop; 0 for never, and
        then nothing is kept either.

    Example:
      >>> stopping = EarlyStopping(patience=20)
      >>> [stopping.should_stop(10 * i, value, {"w": jnp.float32(i)})
      ...  for i, value in enumerate([0.1, 0.3, 0.2, 0.3])]
      [False, False, False, True]
      >>> stopping.round, stopping.state
      (10, {'w': Array(1., dtype=float32)})
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.round = 0
        self.state: PyTree = None
        self._best = -math.inf

    def should_stop(self, round_: int, value: float, state: PyTree) -> bool:
        """Hears of a validation; copies the state if it is the best so far.

        Args:
          round_: rounds done.
          value: of the validation; NaN is never better.
          state: arrays, which may be given away afterwards.
        """
        if not self.patience:
            return False
        better = value > self._best
        if better:
            self._best = value
        if better or self.state is None:
            self.round = round_
            self.state = jax.tree.map(jnp.copy, state)
        return round_ - self.round >= self.patience
