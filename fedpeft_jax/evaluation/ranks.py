"""The ranks of held-out items, and their metrics by client."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from fedpeft_jax.evaluation import metrics, several
from fedpeft_jax.evaluation.metrics import DEFAULT_KS


class Ranks(NamedTuple):
    """The ranks of the targets, one entry per client that has a target.

    Attributes:
      above: int64[E], items ranked strictly above the target.
      ties: int64[E], other items tied with the target.
    """

    above: np.ndarray
    ties: np.ndarray

    def metric(self, name: str, k: int) -> np.ndarray:
        """Returns float64[E], `'hit_rate'`, `'recall'` or `'ndcg'` at k by client."""
        function = metrics.ndcg if name == "ndcg" else metrics.hit_rate
        return function(self.above, self.ties, k)

    def rows(self, mask: np.ndarray) -> "Ranks":
        """Returns the ranks of the clients that a mask, bool[E], selects."""
        return Ranks(self.above[mask], self.ties[mask])


class JointRanks(NamedTuple):
    """The ranks of several targets per client, which are ranked together.

    Attributes:
      above: int64[n], for each target the items ranked strictly above it, the other
        targets of its client included. The targets of one client follow each other.
      ties: int64[n], the other items tied with it, likewise.
      counts: int64[E], the number of targets of each client that has one.
    """

    above: np.ndarray
    ties: np.ndarray
    counts: np.ndarray

    def metric(self, name: str, k: int) -> np.ndarray:
        """Returns float64[E], `'hit_rate'`, `'recall'` or `'ndcg'` at k by client."""
        function = {
            "hit_rate": several.hit_rate,
            "recall": several.recall,
            "ndcg": several.ndcg,
        }[name]
        return function(self.above, self.ties, self.counts, k)

    def rows(self, mask: np.ndarray) -> "JointRanks":
        """Returns the ranks of the clients that a mask, bool[E], selects."""
        items = np.repeat(mask, self.counts)
        return JointRanks(self.above[items], self.ties[items], self.counts[mask])


AnyRanks: TypeAlias = Ranks | JointRanks


def summarize_ranks(
    ranks: AnyRanks, ks: Sequence[int] = DEFAULT_KS
) -> dict[str, float]:
    """Returns the mean of every metric over clients.

    Args:
      ranks: the ranks of one or of several targets per client.
      ks: lengths of the list.

    Returns:
      `metrics.summarize`; for several targets `several.summarize`, which also has
      `recall@k`.

    Example:
      >>> summarize_ranks(Ranks(np.array([1]), np.array([0])), ks=(1,))
      {'hit_rate@1': 0.0, 'ndcg@1': 0.0, 'mrr': 0.5}
    """
    if isinstance(ranks, JointRanks):
        return several.summarize(*ranks, ks)
    return metrics.summarize(ranks, ks)
