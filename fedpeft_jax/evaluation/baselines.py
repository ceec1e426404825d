"""Baselines, which are reported with every result for comparison.

A factory takes what is known before the first round. It returns a score function and
the arrays that the function reads, and the `Evaluator` that ranks the model ranks the
baseline in the same way. To add one, write a factory here or in its own file, and
register it in `BASELINES`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation.centralized import bpr_mf
from fedpeft_jax.evaluation.metrics import DEFAULT_KS, random_expectation
from fedpeft_jax.evaluation.ranks import JointRanks, summarize_ranks

Baseline: TypeAlias = tuple[Callable[..., Array], PyTree]
"""A `ranking.ScoreFn` and its first argument, the arrays that it reads."""


class Known(NamedTuple):
    """What a baseline may use.

    Attributes:
      split: the clients' training items; no baseline may read the held-out items.
      latents: float32[I, D], the latents of the item texts; None without text.
      expected_negatives: float64[I], how often the sampler of the run is expected to
        draw each item as a negative in one epoch of all clients; None if unknown.
      features: D, the number of features of a model.
      seed: seed of all random draws.
    """

    split: Split
    latents: np.ndarray | Array | None = None
    expected_negatives: np.ndarray | None = None
    features: int = 32
    seed: int = 0


def most_popular(known: Known) -> Baseline:
    """Scores an item by the number of clients that have it among their training items.

    .. math:: s(u, i) = |\\{v : i \\in train(v)\\}|

    Args:
      known: what the baseline may use.

    Returns:
      A score function, the same at every call, and the counts float32[I].

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> split = Split(name='toy', num_items=3, train=Ragged.from_rows([[0, 2], [2]]),
      ...               valid=np.array([-1, -1]), test=np.array([-1, -1]))
      >>> most_popular(Known(split))[1]
      Array([1., 0., 2.], dtype=float32)

    Source:
      Cremonesi, Koren and Turrin, Performance of recommender algorithms on top-N
      recommendation tasks, RecSys 2010.
    """
    split = known.split
    counts = np.bincount(split.train.values, minlength=split.num_items)
    return _score_by_item, jnp.asarray(counts, jnp.float32)


def log_odds(known: Known) -> Baseline | None:
    r"""Scores an item by its log-odds of being a training positive, not a negative.

    .. math:: s(u, i) = \log(p_i + 1) - \log(n_i + 1)

    for an item that is p_i times a positive and, in expectation, n_i times a negative.
    The score does not depend on the client, and it depends on the item only through its
    popularity, unless the negatives of the protocol reveal which items are held out.
    The baseline therefore detects leaks: it must be no better than `most_popular`.

    Args:
      known: what the baseline may use.

    Returns:
      A score function, the same at every call, and the scores float32[I]; None if the
      expected negatives are not known.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> split = Split(name='toy', num_items=3, train=Ragged.from_rows([[0]]),
      ...               valid=np.array([-1]), test=np.array([2]))
      >>> leaking = log_odds(Known(split, expected_negatives=np.array([0.0, 1.0, 0.0])))
      >>> [round(float(score), 2) for score in leaking[1]]
      [0.69, -0.69, 0.0]
    """
    if known.expected_negatives is None:
        return None
    split = known.split
    positives = np.bincount(split.train.values, minlength=split.num_items)
    scores = np.log(positives + 1.0) - np.log(known.expected_negatives + 1.0)
    return _score_by_item, jnp.asarray(scores, jnp.float32)


def text_neighbours(known: Known) -> Baseline | None:
    r"""Scores an item by the similarity of its text to those of the client's items.

    .. math:: s(u, i) = \cos(z_i, \sum_{j \in train(u)} z_j / |z_j|)

    where z are the pretrained latents, centred. Nothing is trained.

    Args:
      known: what the baseline may use.

    Returns:
      A score function, the same at every call, and the unit latents float32[I, D]; None
      without text.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> split = Split(name='toy', num_items=3, train=Ragged.from_rows([[0]]),
      ...               valid=np.array([-1]), test=np.array([2]))
      >>> score, latents = text_neighbours(Known(split, np.eye(3, 2)))
      >>> history = History(jnp.array([[0]]), jnp.array([[True]]))
      >>> score(latents, jnp.array([0]), history, None).argmax()
      Array(0, dtype=int32)
    """
    if known.latents is None:
        return None
    latents = np.asarray(known.latents, np.float32)
    latents = latents - latents.mean(axis=0)
    norms = np.linalg.norm(latents, axis=1, keepdims=True)
    return _score_by_text, jnp.asarray(latents / np.maximum(norms, 1e-12))


def random_order(known: Known) -> Baseline:
    """Gives all items the same score, hence exactly the metrics of a random order.

    Args:
      known: what the baseline may use.

    Returns:
      A score function, the same at every call, and zeros float32[I].

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> split = Split(name='toy', num_items=3, train=Ragged.from_rows([[0]]),
      ...               valid=np.array([-1]), test=np.array([2]))
      >>> random_order(Known(split))[1].tolist()
      [0.0, 0.0, 0.0]
    """
    return _score_by_item, jnp.zeros(known.split.num_items, jnp.float32)


def centralized_bpr_mf(known: Known) -> Baseline:
    """Scores by matrix factorisation of all clients' data, see `centralized.bpr_mf`.

    Args:
      known: what the baseline may use.

    Returns:
      A score function, the same at every call, and the vectors of clients and items.
    """
    vectors = bpr_mf(known.split, features=known.features, seed=known.seed)
    return _score_by_factors, vectors


def random_baseline(
    split: Split,
    candidates: np.ndarray,
    target: str = "test",
    ks: Sequence[int] = DEFAULT_KS,
) -> dict[str, dict[str, float]]:
    """Returns the metrics of a random order in closed form, without any ranking.

    Args:
      split: the clients' training, validation and test items.
      candidates: int32[E, C], the sampled ranking's candidates; -1 is padding.
      target: the held-out item that is ranked, 'valid' or 'test'.
      ks: lengths of the list for the hit rate and the NDCG.

    Returns:
      {'sampled': metrics, 'catalogue': metrics}, in the form that `Evaluator` returns.

    Raises:
      ValueError: if no client has the target.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
      >>> split = Split(name='toy', num_items=6, train=Ragged.from_rows([[0]]),
      ...               valid=np.array([1]), test=np.array([2]))
      >>> metrics = random_baseline(split, np.array([[3, -1]]), ks=(1,))
      >>> metrics['sampled']['hit_rate@1'], metrics['catalogue']['hit_rate@1']
      (0.5, 0.25)
    """
    clients = split.evaluated
    num_valid = split.held_out("valid").counts[clients]
    held = num_valid if target == "valid" else split.held_out("test").counts[clients]
    left_out = split.counts[clients] + (num_valid if target == "test" else 0)
    rivals = {
        "sampled": (np.asarray(candidates) >= 0).sum(axis=1),
        "catalogue": split.num_items - held - left_out,
    }
    ranked = held > 0
    n = held[ranked]
    if (n <= 1).all():
        return {
            name: random_expectation(others[ranked], ks)
            for name, others in rivals.items()
        }
    return {
        name: summarize_ranks(_all_tied(n, others[ranked]), ks)
        for name, others in rivals.items()
    }


def _all_tied(held: np.ndarray, others: np.ndarray) -> JointRanks:
    """Returns ranks for `held` targets per client, tied with `others` more items."""
    ties = np.repeat(held - 1 + others, held)
    return JointRanks(np.zeros_like(ties), ties, held)


def _score_by_item(
    scores: PyTree, client_ids: Array, history: History, ids: Array | None
) -> Array:
    if ids is not None:
        return scores[ids]
    return jnp.broadcast_to(scores, (client_ids.shape[0], scores.shape[0]))


def _score_by_text(
    latents: PyTree, client_ids: Array, history: History, ids: Array | None
) -> Array:
    own = latents[history.ids] * history.mask[..., None]
    return _inner(jnp.sum(own, axis=1), latents, ids)


def _score_by_factors(
    vectors: PyTree, client_ids: Array, history: History, ids: Array | None
) -> Array:
    return _inner(vectors["users"][client_ids], vectors["items"], ids)


def _inner(vectors: Array, table: Array, ids: Array | None) -> Array:
    """Returns float32[B, C] or [B, I], products of vectors [B, D] and table rows."""
    if ids is None:
        return vectors @ table.T
    return jnp.einsum("bd,bcd->bc", vectors, table[ids])


BASELINES: dict[str, Callable[[Known], Baseline | None]] = {
    "most_popular": most_popular,
    "log_odds": log_odds,
    "text_neighbours": text_neighbours,
    "random": random_order,
    "bpr_mf": centralized_bpr_mf,
}
"""Factories by the names that the setting `baselines` takes."""
