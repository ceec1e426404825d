"""Leave-one-out evaluation: ranks the held-out items on the device, in blocks.

There are two rankings. `sampled` ranks the target among its fixed candidates, and
`catalogue` ranks it among all items except the client's training items (and, if the
target is the test item, the validation item). Any score function can be ranked.

Memory does not grow with clients x items: clients are scored in blocks, and a history
is read as a window of the flat training items. Clients are grouped by the length of
their history into a few classes, so that padding stays small and each class compiles
once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation.comparisons import (
    compare_with_candidates,
    compare_with_catalogue,
    length_classes,
    read_histories,
)
from fedpeft_jax.evaluation.metrics import DEFAULT_KS, summarize

Target: TypeAlias = Literal["valid", "test"]
Ranking: TypeAlias = Literal["sampled", "catalogue"]

TARGETS: tuple[Target, ...] = ("valid", "test")
RANKINGS: tuple[Ranking, ...] = ("sampled", "catalogue")

RANKING_KEYS: dict[Ranking, str] = {"sampled": "sampled", "catalogue": "full"}
"""The name of each ranking in result files (format 1)."""

ScoreFn: TypeAlias = Callable[[PyTree, Array, History, Array | None], Array]
"""`(variables, client_ids int32[B], history [B, N], ids) -> scores`, higher is better.

The variables are any tree that the function reads. The scores are float32[B, C] for ids
int32[B, C]; for ids None they are float32[B, I], the scores of all items. The history
is the client's training items for both targets. Pass the same function with new
variables rather than a new function, because it is traced once per class of clients.
"""


class Ranks(NamedTuple):
    """The ranks of the targets, one entry per client that has a target.

    Attributes:
      above: int64[E], items ranked strictly above the target.
      ties: int64[E], other items tied with the target.
    """

    above: np.ndarray
    ties: np.ndarray


class Evaluator:
    """Ranks the held-out item of every evaluated client.

    A target with a NaN score is ranked last, and any other item with a NaN score is
    ranked above the target, so that a diverged model does not get good
    metrics.

    Args:
      split: the clients' training, validation and test items.
      candidates: int32[E, C], for each client of `split.evaluated` the items among
        which its target is ranked in the sampled ranking; -1 is padding.
      block_limit: the most scores and history items per block. Memory is this number
        times the numbers that the model computes per item. With the default, the
        activations of networks fit the cache of a CPU core; use more on a GPU.

    Raises:
      InputError: if no client has a test item, or candidates and split do not match.

    Example:
      >>> from fedpeft_jax.core.ragged import Ragged
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
        """Returns the ids of the clients that have a target, int32[E], ascending.

        Args:
          target: the held-out item, 'valid' or 'test'.
        """
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
          score_fn: see `ScoreFn`; it is jitted here, once for all variables.
          variables: pytree of arrays, the first argument of `score_fn`.
          target: the held-out item to rank, 'valid' or 'test'.
          ranking: the items to rank it among, 'sampled' or 'catalogue'.

        Returns:
          The ranks, in the order of `clients(target)`.

        Raises:
          InputError: if target or ranking is unknown, or no client has a target.
          ValueError: if the scores have another shape than `ScoreFn` states.
        """
        _one_of("target", target, TARGETS)
        _one_of("ranking", ranking, RANKINGS)
        score = self._jitted.setdefault(score_fn, jax.jit(score_fn))
        held = self._valid if target == "valid" else self._test
        if not (held >= 0).any():
            raise InputError(f"no client has a {target} item: use another target")
        targets = np.maximum(held, 0)  # clients without one are left out below
        # One more excluded item per client, or -1, so that both targets share a trace.
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
            # Compared in a separate program: if it were fused with the scores, an item
            # could be computed twice, be rounded differently, and not tie with itself.
            if ids is None:
                found = compare_with_catalogue(
                    scores, targets[block], others[block], history
                )
            else:
                found = compare_with_candidates(scores, ids)
            # Waiting for the result keeps a single block in memory.
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
        """Returns the metrics by ranking: `metrics.summarize` of `ranks`."""
        found = {
            name: self.ranks(score_fn, variables, target, name) for name in rankings
        }
        return {name: summarize(ranks, ks) for name, ranks in found.items()}

    def blocks(self, width: int) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yields the blocks in which clients are scored.

        Args:
          width: scores per client.

        Yields:
          Rows int64[B] of the evaluated clients, how many of these rows count (the
          others fill the block), and N, the length of the longest history among them.
        """
        for rows in self._classes:
            length = max(int(self._counts[rows].max()), 1)
            largest = max(self._block_limit // (width + length), 1)
            size = -(-len(rows) // -(-len(rows) // largest))  # evenly filled blocks
            for start in range(0, len(rows), size):
                block = rows[start : start + size]
                # Repeated clients fill the block, so that there is one shape to trace.
                yield np.resize(block, size), len(block), length


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
            f"an item id is not between 0 and num_items - 1 = {num_items - 1}: split "
            "the data anew"
        )
    # The catalogue ranking subtracts excluded items one by one: each may occur once.
    train = split.train.owners * np.int64(num_items) + items
    held = np.where(held_out < 0, -1, clients * np.int64(num_items) + held_out)
    unordered = (np.diff(train) <= 0).any() or (held_out[0] == held_out[1]).any()
    if unordered or np.isin(held, train).any():
        raise InputError(
            "a client's training items must ascend, and none may be its validation or "
            "test item: split the data again"
        )
