r"""Interaction inference from which vectors moved, and in which direction.

A local step of matrix factorisation moves the vector of an item i along the client's
private vector u:

.. math:: \Delta(i) \propto c_i u,

with :math:`c_i > 0` for positives and :math:`c_i < 0` for negatives; other items do not
move. The attacker does not know u, but all moves of one client are multiples of it (of
its signs, after a step of Adam), so that u is their dominant direction, up to its sign.
Then :math:`\Delta(i) \cdot u` scores the items up to a sign.

Exchanging positives and negatives together with the sign of u changes nothing in a
pairwise loss, so the sign has to come from elsewhere, and what is public suffices.
Negatives are drawn uniformly from the catalogue and positives are not: the side whose
items lie further from the mean of the server's item embeddings holds the positives.
Where this says too little (the embeddings are still random), the mean from which all
user vectors started decides.
"""

import numpy as np

_CLEAR = 3.0  # standard deviations
_EXCHANGES = 32


def main_direction(moves: np.ndarray) -> np.ndarray:
    """Returns the unit vector along which the moves are largest, up to its sign.

    Args:
      moves: float[n, d], one vector per item.

    Returns:
      float64[d], the first right singular vector; zeros if nothing moved.

    Example:
      >>> main_direction(np.array([[0.0, 2.0], [0.0, -1.0]])).round(6).tolist()
      [0.0, 1.0]
    """
    moves = moves.astype(np.float64)
    if not np.any(moves):
        return np.zeros(moves.shape[1])
    _, vectors = np.linalg.eigh(moves.T @ moves)
    top = vectors[:, -1]
    # The sign of an eigenvector is arbitrary; make it the same on every machine.
    return np.asarray(top * (1.0 if top[np.abs(top).argmax()] > 0 else -1.0))


def whitened(embeddings: np.ndarray) -> np.ndarray:
    """Returns item embeddings with mean 0 and the identity as covariance.

    Args:
      embeddings: float[I, D]. Axes without variance become zero.

    Example:
      >>> whitened(np.array([[1.0, 5.0], [3.0, 5.0]])).round(6).tolist()
      [[-1.0, 0.0], [1.0, 0.0]]
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    used = variances > 1e-9 * max(variances[-1], 1e-300)
    scales = np.where(used, 1 / np.sqrt(np.where(used, variances, 1.0)), 0.0)
    return np.asarray(((centred @ axes) * scales) @ axes.T)


def side_of_positives(scores: np.ndarray, white: np.ndarray) -> float:
    r"""Returns how clearly the positives are the items with positive scores.

    The mean of n whitened vectors of items that are drawn uniformly is near zero:
    :math:`n |\bar e|^2 \sim \chi^2_D`. The statistic is the difference of this figure
    between the two sides. The result is the statistic in standard deviations over
    random exchanges of the scores, so that scores of pure noise decide nothing.

    Args:
      scores: float[I], one side above zero and the other side below.
      white: float[I, D], the result of `whitened`.

    Returns:
      A number above zero if the items with positive scores are further from uniform,
      below zero if those with negative scores are.
    """
    moved = scores != 0
    scores, white = scores[moved], white[moved]
    if not (np.any(scores > 0) and np.any(scores < 0)):
        return 0.0
    exchanged = np.tile(scores, (1 + _EXCHANGES, 1))
    exchanged[1:] = np.random.default_rng(0).permuted(exchanged[1:], axis=1)

    def distance(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        count = total**2 / np.sum(weights**2, axis=1)  # items that count as one each
        apart = np.sum((weights @ white) ** 2, axis=1) / total**2
        return np.asarray(count * apart)

    found = distance(np.maximum(exchanged, 0.0)) - distance(np.maximum(-exchanged, 0.0))
    spread = found[1:].std()
    return float((found[0] - found[1:].mean()) / spread) if spread > 0 else 0.0


def oriented(scores: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Returns the scores with the sign that `side_of_positives` finds, if it is clear.

    Args:
      scores: float[I], with the sign that is kept if the sides do not differ clearly.
      white: float[I, D], the result of `whitened`.
    """
    clear = side_of_positives(scores, white) < -_CLEAR
    return -scores if clear else scores


def score_moves(
    moves: np.ndarray,
    reference: np.ndarray,
    white: np.ndarray,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the score of every item from the moves of their vectors.

    Args:
      moves: float[I, d], how the update moves the vector of each item.
      reference: float[d], the expected direction of a positive item's move.
      white: float[I, D], the server's item embeddings, `whitened`.
      known: bool[I], the items that the client is known to have trained on; None if
        they are not known. The direction is then found from all items.

    Returns:
      float64[I], higher means more likely a positive.

    Example:
      >>> moves = np.array([[0.2, 0.1], [-0.2, -0.1], [0.0, 0.0]])
      >>> score_moves(moves, np.ones(2), np.zeros((3, 2))).round(3).tolist()
      [0.224, -0.224, 0.0]
    """
    moves = moves.astype(np.float64)
    if known is not None:
        moves = np.where(known[:, None], moves, 0.0)
    direction = main_direction(moves)
    sign = 1.0 if direction @ reference >= 0 else -1.0
    return oriented(sign * (moves @ direction), white)


def standardised(scores: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Returns scores of one observation at a common scale, to add observations up.

    A client trains on all of its positives in every participation. An item that it is
    known not to have trained on in this one is therefore no positive, and gets less
    than the lowest score.

    Args:
      scores: float[I].
      known: bool[I], the items that the client is known to have trained on; None if
        they are not known.

    Returns:
      float64[I], with mean 0 and standard deviation 1 over the items that are known.

    Example:
      >>> standardised(np.array([3.0, 1.0, 9.0]), np.array([True, True, False])).tolist()
      [1.0, -1.0, -3.0]
    """  # noqa: E501
    among = scores if known is None else scores[known]
    if not among.size:
        return np.zeros(len(scores))
    spread = among.std()
    result = (scores - among.mean()) / (spread if spread > 0 else 1.0)
    if known is not None:
        result = np.where(known, result, result[known].min() - 2.0)
    return np.asarray(result, np.float64)
