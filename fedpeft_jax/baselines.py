"""Trivial baselines, printed beside every result: what a model has to beat.

A factory takes the split and returns a score function and its params, to be measured
by the same `evaluation.Evaluator` as a model. To add one, write it here or in a file
of its own and register it in `BASELINES`.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.data.splits import Split
from fedpeft_jax.metrics import DEFAULT_KS, random_expectation
from fedpeft_jax.typing import Array, History, PyTree

Baseline: TypeAlias = tuple[Callable[..., Array], PyTree]
"""An `evaluation.ScoreFn` and its params."""


def most_popular(split: Split) -> Baseline:
    """Scores an item by the number of clients that have it among their training items.

    .. math:: s(u, i) = |\\{v : i \\in train(v)\\}|

    Args:
      split: the clients' training items.

    Returns:
      A score function, the same at every call, and its params, the counts float32[I].

    Example:
      >>> split = Split(name='toy', num_items=3, offsets=np.array([0, 2, 3]),
      ...               train=np.array([0, 2, 2]), valid=np.array([-1, -1]),
      ...               test=np.array([-1, -1]))
      >>> most_popular(split)[1]
      Array([1., 0., 2.], dtype=float32)

    Source: Cremonesi, Koren and Turrin, "Performance of recommender algorithms on
    top-N recommendation tasks", RecSys 2010.
    """
    counts = np.bincount(split.train, minlength=split.num_items)
    return _score_by_item, jnp.asarray(counts, jnp.float32)


def random_order(split: Split) -> Baseline:
    """Scores every item alike, which is worth exactly what a random order is.

    Args:
      split: the clients' training items.

    Returns:
      A score function, the same at every call, and its params, zeros float32[I].

    Example:
      >>> split = Split(name='toy', num_items=3, offsets=np.array([0, 1]),
      ...               train=np.array([0]), valid=np.array([1]), test=np.array([2]))
      >>> random_order(split)[1]
      Array([0., 0., 0.], dtype=float32)
    """
    return _score_by_item, jnp.zeros(split.num_items, jnp.float32)


def random_baseline(
    split: Split,
    candidates: np.ndarray,
    target: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
) -> dict[str, dict[str, float]]:
    """Metrics of a random order in closed form: `random_order` without the ranking.

    Args:
      split: the clients' training, validation and test items.
      candidates: int32[E, C], the sampled ranking's candidates; -1 is padding.
      target: the held-out item that is ranked, 'valid' or 'test'.
      ks: lengths of the list for the hit rate and the NDCG.

    Returns:
      {'sampled': metrics, 'full': metrics}, as from `evaluation.Evaluator`.

    Raises:
      ValueError: if no client has a test item.

    Example:
      >>> split = Split(name='toy', num_items=6, offsets=np.array([0, 1]),
      ...               train=np.array([0]), valid=np.array([1]), test=np.array([2]))
      >>> metrics = random_baseline(split, np.array([[3, -1]]), ks=(1,))
      >>> metrics['sampled']['hit_rate@1'], metrics['full']['hit_rate@1']
      (0.5, 0.25)
    """
    left_out = split.counts[split.evaluated] + (1 if target == "test" else 0)
    return {
        "sampled": random_expectation((np.asarray(candidates) >= 0).sum(axis=1), ks),
        "full": random_expectation(split.num_items - 1 - left_out, ks),
    }


def _score_by_item(
    params: PyTree, client_ids: Array, history: History, ids: Array | None
) -> Array:
    if ids is not None:
        return params[ids]
    return jnp.broadcast_to(params, (client_ids.shape[0], params.shape[0]))


BASELINES: dict[str, Callable[[Split], Baseline]] = {
    "most_popular": most_popular,
    "random": random_order,
}
