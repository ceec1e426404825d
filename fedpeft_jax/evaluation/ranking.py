"""Leave-one-out evaluation: ranks the held-out items on the device, in blocks.

There are two rankings. `sampled` ranks the target among its fixed candidates, and
`catalogue` among every item except the client's training items (and its validation item
when the target is the test item). A model takes part through its score function.

Memory does not grow with clients x items: clients are scored in blocks, and a history
is a window into the flat training items. Clients are sorted by the length of their
history into a few classes, so that padding stays small and each class compiles once.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged, read_row
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation.metrics import DEFAULT_KS, summarize

Target: TypeAlias = Literal["valid", "test"]
Ranking: TypeAlias = Literal["sampled", "catalogue"]

TARGETS: tuple[Target, ...] = ("valid", "test")
RANKINGS: tuple[Ranking, ...] = ("sampled", "catalogue")

RANKING_KEYS: dict[Ranking, str] = {"sampled": "sampled", "catalogue": "full"}
"""The name of each ranking in result files (format 1)."""

ScoreFn: TypeAlias = Callable[[PyTree, Array, History, Array | None], Array]
"""(variables, client_ids int32[B], history [B, N], ids) -> scores, higher is better.

The variables are any tree that the function reads. The scores are float32[B, C] for ids
int32[B, C], and float32[B, I], every item, for ids None. The history is the client's
training items, whatever the target. Pass the same function with new variables rather
than a new function: it is traced once for each class of clients.
"""

# Shares of the clients, shortest histories first, at which a length class ends. Three
# pad MovieLens-1M's histories about twofold, one would fourteenfold; each compiles.
_CLASS_ENDS = (0.7, 0.95, 1.0)


class Ranks(NamedTuple):
    """Where the targets were ranked, one entry for each client that has one.

    Attributes:
      above: int64[E], items ranked strictly above the target.
      ties: int64[E], other items tied with the target.
    """

    above: np.ndarray
    ties: np.ndarray


class Evaluator:
    """Ranks the held-out item of every evaluated client.

    A target whose score is NaN is ranked last, and another item whose score is NaN
    above the target, so that a diverged model never looks good.

    Args:
      split: the clients' training, validation and test items.
      candidates: int32[E, C], for each of `split.evaluated` the items that its target
        is ranked among in the sampled ranking; -1 is padding.
      block_limit: scores and history items that a block may hold. Memory is a multiple
        of it, the width of what the model computes for an item. With the default the
        networks' activations fit the cache of a CPU core; a larger one suits a GPU.

    Raises:
      InputError: if no client has a test item, or candidates or split do not fit.

    Example:
      >>> split = Split(name='toy', num_items=4, train=Ragged.from_rows([[3]]),
      ...               valid=np.array([1]), test=np.array([2]))
      >>> evaluator = Evaluator(split, candidates=np.array([[0]]))
      >>> def score(variables, client_ids, history, ids):
      ...   shape = client_ids.size, variables.size
      ...   return jnp.broadcast_to(variables, shape) if ids is None else variables[ids]
      >>> evaluator.ranks(score, jnp.array([0., 9., 1., 9.]), 'test', 'catalogue')
      Ranks(above=array([0]), ties=array([0]))
      >>> evaluator(score, jnp.zeros(4), 'test', ('sampled',), ks=(1,))
      {'sampled': {'hit_rate@1': 0.5, 'ndcg@1': 0.5, 'mrr': 0.75}}
    """

    def __init__(
        self, split: Split, candidates: np.ndarray, block_limit: int = 2**17
    ) -> None:
        clients = np.asarray(split.evaluated, np.int32)
        candidates = np.asarray(candidates, np.int32)
        _check(split, clients, candidates)
        self._clients = clients
        self._candidates = candidates
        self._valid = np.asarray(split.valid, np.int32)[clients]
        self._test = np.asarray(split.test, np.int32)[clients]
        self._counts = np.asarray(split.counts, np.int32)[clients]
        self._classes = length_classes(self._counts)
        self._num_items = split.num_items
        self._block_limit = block_limit
        self._train = split.train.to_device()
        self._jitted: dict[ScoreFn, ScoreFn] = {}

    def clients(self, target: Target = "test") -> np.ndarray:
        """Returns the clients that have a target, int32[E], ascending."""
        held = self._valid if target == "valid" else self._test
        return self._clients[held >= 0]

    def ranks(
        self,
        score_fn: ScoreFn,
        variables: PyTree,
        target: Target = "test",
        ranking: Ranking = "sampled",
    ) -> Ranks:
        """Ranks the target of every client that has one.

        Args:
          score_fn: see `ScoreFn`; jitted here, once for all variables.
          variables: pytree of arrays, the first argument of score_fn.
          target: the held-out item to rank, 'valid' or 'test'.
          ranking: what to rank it among, 'sampled' or 'catalogue'.

        Returns:
          Ranks, in the order of `clients(target)`.

        Raises:
          InputError: if target or ranking is another word, or nobody has a target.
          ValueError: if score_fn returns scores of another shape.
        """
        _one_of("target", target, TARGETS)
        _one_of("ranking", ranking, RANKINGS)
        score = self._jitted.setdefault(score_fn, jax.jit(score_fn))
        held = self._valid if target == "valid" else self._test
        if not (held >= 0).any():
            raise InputError(f"no client has a {target} item: there is nothing to rank")
        targets = np.maximum(held, 0)  # who has none is left out below
        # Held out beside the training items: -1 for none, so both targets share a trace
        others = self._valid if target == "test" else np.full_like(self._valid, -1)
        above, ties = np.empty((2, len(self._clients)), np.int64)
        sampled = ranking == "sampled"
        width = 1 + self._candidates.shape[1] if sampled else self._num_items
        for block, size, length in self.blocks(width):
            client_ids = jnp.asarray(self._clients[block])
            history = read_histories(self._train, client_ids, length)
            ids = None
            if sampled:
                own, rivals = targets[block, None], self._candidates[block]
                padded = np.where(rivals < 0, own, rivals)
                ids = jnp.asarray(np.concatenate([own, padded], axis=1))
            scores = score(variables, client_ids, history, ids)
            if scores.shape != (len(block), width):
                raise ValueError(
                    f"score_fn returned shape {scores.shape}, not {len(block), width}"
                )
            # Compared in a program of its own: fused into the scores, an item could be
            # computed twice, rounded differently, and no longer tie with itself.
            if ids is None:
                found = compare_with_catalogue(
                    scores, targets[block], others[block], history
                )
            else:
                found = compare_with_candidates(scores, ids)
            # Waiting here keeps a single block in memory.
            above[block[:size]], ties[block[:size]] = np.asarray(found)[:, :size]
        return Ranks(above[held >= 0], ties[held >= 0])

    def __call__(
        self,
        score_fn: ScoreFn,
        variables: PyTree,
        target: Target = "test",
        rankings: Sequence[Ranking] = RANKINGS,
        ks: Sequence[int] = DEFAULT_KS,
    ) -> dict[str, dict[str, float]]:
        """Returns means over clients: `metrics.summarize` of `ranks` by ranking."""
        found = {
            name: self.ranks(score_fn, variables, target, name) for name in rankings
        }
        return {name: summarize(ranks, ks) for name, ranks in found.items()}

    def blocks(self, width: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yields the blocks that clients are scored in.

        Args:
          width: scores per client.

        Yields:
          Rows int64[B] into the evaluated clients, how many of them count (the others
          fill the block up), and N, the length of the longest history among them.
        """
        for rows in self._classes:
            length = max(int(self._counts[rows].max()), 1)
            largest = max(self._block_limit // (width + length), 1)
            size = -(-len(rows) // -(-len(rows) // largest))  # evenly filled blocks
            for start in range(0, len(rows), size):
                block = rows[start : start + size]
                # A client too many is ranked and dropped: one shape, one trace.
                yield np.resize(block, size), len(block), length


@partial(jax.jit, static_argnames="length")
def read_histories(train: Ragged, client_ids: Array, length: int) -> History:
    """Returns the training items of some clients [B] as a padded history [B, N]."""
    read = jax.vmap(lambda client_id: read_row(train, client_id, length, fill=0))
    ids, counts = read(client_ids)
    return History(ids, jnp.arange(length)[None, :] < counts[:, None])


@jax.jit
def compare_with_candidates(scores: Array, ids: Array) -> Array:
    """Counts how many candidates score above and level with the target.

    Args:
      scores: float32[B, 1 + C], the target's first.
      ids: int32[B, 1 + C], with the target's id in place of padding.

    Returns:
      int32[2, B].
    """
    return _compare(scores[:, 1:], scores[:, :1], ids[:, 1:] != ids[:, :1])


@jax.jit
def compare_with_catalogue(
    scores: Array, targets: Array, others: Array, history: History
) -> Array:
    """Counts how many items of the catalogue score above and level with the target.

    Args:
      scores: float32[B, I].
      targets: int32[B].
      others: int32[B], one more item that is left out; -1 for none.
      history: [B, N], items that are left out.

    Returns:
      int32[2, B].
    """
    # Excluded items are counted with the rest and taken off again, from the same
    # scores: their number is small, a mask of clients x items is not.
    pick = partial(jnp.take_along_axis, scores, axis=1)
    ids = jnp.stack([targets, others], axis=1)
    ids = jnp.concatenate([ids, jnp.where(history.mask, history.ids, -1)], axis=1)
    target = pick(targets[:, None])
    excluded = _compare(pick(jnp.maximum(ids, 0)), target, ids >= 0)
    return _compare(scores, target, True) - excluded


def _compare(scores: Array, target: Array, mask: Array | bool) -> Array:
    """int32[2, B]: how many of the scores [B, S] are above and level with [B, 1]."""
    above = ~(scores <= target) & mask  # also where either is NaN
    ties = (scores == target) & mask
    return jnp.stack([above.sum(axis=1), ties.sum(axis=1)])


def length_classes(counts: np.ndarray) -> list[np.ndarray]:
    """Returns rows of counts int[E] in a few groups of similar counts."""
    rows = np.argsort(counts, kind="stable")
    ends = [counts[rows[int(np.ceil(end * len(rows))) - 1]] for end in _CLASS_ENDS]
    cuts = np.searchsorted(counts[rows], np.unique(ends), side="right")
    return np.split(rows, cuts[:-1])


def _one_of(name: str, value: str, words: Sequence[str]) -> None:
    if value not in words:
        raise InputError(f"{name} must be one of {', '.join(words)}, got '{value}'")


def _check(split: Split, clients: np.ndarray, candidates: np.ndarray) -> None:
    if not clients.size:
        raise InputError("no client has a test item: use data with longer histories")
    if candidates.ndim != 2 or len(candidates) != len(clients):
        raise InputError(
            f"candidates must have {len(clients)} rows, one per evaluated client, got "
            f"shape {candidates.shape}: sample them from the same split"
        )
    num_items = split.num_items
    held_out = np.stack([split.valid[clients], split.test[clients]])
    items = split.train.values
    highest = max(x.max(initial=-1) for x in (held_out, candidates, items))
    if highest >= num_items or items.min(initial=0) < 0 or held_out.min() < -1:
        raise InputError(
            f"an item is not within 0 and num_items - 1 = {num_items - 1}: split the "
            "data anew"
        )
    # The catalogue ranking takes excluded items off one by one: each may occur once.
    train = split.train.owners * np.int64(num_items) + items
    held = np.where(held_out < 0, -1, clients * np.int64(num_items) + held_out)
    unordered = (np.diff(train) <= 0).any() or (held_out[0] == held_out[1]).any()
    if unordered or np.isin(held, train).any():
        raise InputError(
            "a client's training items must ascend, and none be its validation or test "
            "item: split the data anew"
        )
