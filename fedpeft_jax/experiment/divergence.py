"""Tells a diverged run from a healthy one by its training loss.

A learning rate that is far too high need not give an infinite or an undefined number:
Adam divides by the size of the gradient, so the parameters grow by the learning rate in
every step and the loss stays finite. Such a run would end without any error, with a
model that ranks at random.

The local losses of this library are means of `softplus(score difference)` or
`softplus(score)`, in nats. A model that knows nothing has ln 2 = 0.69. A loss of 1000
means that the scores of an average pair are wrong by 1000. On the synthetic data, the
highest loss of a round was 0.7 with Adam's default step of 0.01, 0.5 with 0.1 and 17
with 1, which still learns; it was 100,000 with 10 and 3e31 with 1e10, which rank as
badly as random scores. The bound lies between these, far from the first.
"""

import numpy as np

from fedpeft_jax.core.specs import name_of

MOST_LOSS = 1000.0
"""The highest loss, in nats, of a run that has not diverged."""

_IN_NATS = frozenset({"bpr", "bce"})


def diverged_round(losses: np.ndarray, loss: str) -> int | None:
    """Returns the index of the first round whose loss no healthy run has.

    Args:
      losses: float32[T], the training loss of each round.
      loss: the spec of the loss. The scale of a loss that a user registers is not
        known, so it is never judged.

    Returns:
      The index, None if there is no such round. NaN is the loss of a round that no
      client answered, and is passed over.

    Example:
      >>> diverged_round(np.array([0.7, 3.0, 2e5, 1e9]), "bpr")
      2
      >>> diverged_round(np.array([0.7, 17.0]), "bpr") is None
      True
    """
    if name_of(loss) not in _IN_NATS:
        return None
    above = np.flatnonzero(np.asarray(losses) > MOST_LOSS)
    return int(above[0]) if above.size else None
