r"""Interaction inference from a shared table by sparse recovery.

If items share the vectors of a table T [b, D] (a hash table, codebooks), the update of
the table is about

.. math:: \Delta T \approx M x u^\top,

where :math:`M [b, I]` holds the public weight of each item in each vector, u is the
client's private vector, and :math:`x [I]` is sparse: positive for positives, negative
for negatives, and zero for all others. With the dominant direction v of
:math:`\Delta T`, x is a sparse solution of :math:`M x = \Delta T v`.
"""

import warnings

import numpy as np

from fedpeft_jax.privacy.attacks.moves import main_direction, oriented


def sparse_recovery(
    incidence: np.ndarray, values: np.ndarray, strength: float = 0.1
) -> np.ndarray:
    r"""Returns a sparse solution of a linear system with fewer equations than unknowns.

    .. math:: \min_x \frac{1}{2 b} |M x - p|^2 + \alpha |x|_1

    Args:
      incidence: float[b, n], M.
      values: float[b], p.
      strength: alpha, as a fraction of the least value for which x is zero.

    Returns:
      float64[n], x.

    Source:
      Tibshirani, Regression shrinkage and selection via the lasso, JRSS B 1996.

    Example:
      >>> incidence = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
      >>> sparse_recovery(incidence, np.array([0.0, 2.0])).round(1).tolist()
      [0.0, 1.8, 0.0]
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    incidence, values = incidence.astype(np.float64), values.astype(np.float64)
    most = np.abs(incidence.T @ values).max(initial=0.0) / len(values)
    if most == 0:
        return np.zeros(incidence.shape[1])
    model = Lasso(alpha=strength * most, fit_intercept=False, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        # A rough solution serves: only the order of the items matters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(incidence, values).coef_)


def score_table(
    table: np.ndarray,
    incidence: np.ndarray,
    reference: np.ndarray,
    white: np.ndarray,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the score of every item from the update of a shared table.

    Args:
      table: float[b, D], the update.
      incidence: float[b, I], the weight of each item in each vector of the table.
      reference: float[D], the expected direction of a positive item's move.
      white: float[I, D], the server's item embeddings, `whitened`.
      known: bool[I], the items that the client is known to have trained on; None if
        they are not known. Only their entries of the solution can differ from zero.

    Returns:
      float64[I], higher means more likely a positive.
    """
    direction = main_direction(table)
    sign = 1.0 if direction @ reference >= 0 else -1.0
    values = table.astype(np.float64) @ (sign * direction)
    scores = np.zeros(incidence.shape[1])
    # An item whose vectors did not all move was not trained on.
    among = ~np.any(incidence[~table.any(axis=1)] != 0, axis=0)
    if known is not None:
        among &= known
    scores[among] = sparse_recovery(incidence[:, among], values)
    return oriented(scores, white)
