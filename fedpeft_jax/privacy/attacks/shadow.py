r"""Interaction inference with shadow clients.

The server guesses which items are positives, trains a shadow client on the guess from
the variables that the victim received, and compares each item's vector in the shadow's
update with the one in the victim's. Where they are close, the guess was right
(Yuan et al., Interaction-level membership inference attack against federated
recommender systems, WWW 2023, algorithm 1). Here several shadows vote, each with its
own guess.
"""

import numpy as np


def shadow_votes(
    moves: np.ndarray, shadows: np.ndarray, guesses: np.ndarray
) -> np.ndarray:
    r"""Returns how each shadow votes for every item.

    .. math:: y_{si} (\bar d_i - d_{si}), \quad d_{si} = |\Delta(i) - \Delta_s(i)|

    A shadow that is closer than the mean of the shadows votes for its guess
    :math:`y_{si}`, another one against it.

    Args:
      moves: float[I, d], how the victim's update moves the vector of each item.
      shadows: float[S, I, d], the same of the shadows' updates.
      guesses: int[S, I], 1 if the shadow has the item as a positive, -1 if it has it as
        a negative, and 0 if it has not trained on it.

    Returns:
      float64[S, I], positive for items that are more likely positives.

    Example:
      >>> moves = np.array([[1.0], [-1.0]])
      >>> shadows = np.array([[[1.0], [1.0]], [[-1.0], [-1.0]]])
      >>> shadow_votes(moves, shadows, np.array([[1, 1], [-1, -1]])).tolist()
      [[1.0, -1.0], [1.0, -1.0]]
    """
    distances = np.linalg.norm(shadows - moves[None], axis=2).astype(np.float64)
    trained = guesses != 0
    total = np.where(trained, distances, 0.0).sum(axis=0)
    usual = total / np.maximum(trained.sum(axis=0), 1)
    return np.asarray(guesses * (usual - distances), np.float64)
