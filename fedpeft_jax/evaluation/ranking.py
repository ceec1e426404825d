"""Evaluation: ranks the held-out items on the device, in blocks.

There are two rankings. `sampled` ranks the target among its fixed candidates, and
`catalogue` ranks it among all items except the client's training items (and, if the
target is the test item, the validation item). Several targets of a client are ranked
together, in one list. Any score function can be ranked.

Memory does not grow with clients x items: clients are scored in blocks, and a history
is read as a window of the flat training items. Clients are grouped by the length of
their history into a few classes, so that padding stays small and each class compiles
once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation.checks import check_evaluation
from fedpeft_jax.evaluation.comparisons import length_classes, read_histories
from fedpeft_jax.evaluation.metrics import DEFAULT_KS
from fedpeft_jax.evaluation.ranks import AnyRanks, summarize_ranks
from fedpeft_jax.evaluation.targets import OneTarget, SeveralTargets, Targets

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


Progress: TypeAlias = Callable[[int, int], None]
"""Receives how many blocks of clients are ranked, and how many there are in all."""


class Evaluator:
    """Ranks the held-out items of every evaluated client.

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
        check_evaluation(split, clients, candidates)
        self._clients = clients
        self._candidates = candidates
        self._counts = np.asarray(split.counts, np.int32)[clients]
        self._classes = length_classes(self._counts)
        self._num_items = split.num_items
        self._block_limit = block_limit
        self._train = split.train.to_device()
        self._jitted: dict[ScoreFn, ScoreFn] = {}
        evaluated = np.zeros(split.num_clients, bool)
        evaluated[clients] = True
        self._held = {
            target: split.held_out(target).keep_rows(evaluated) for target in TARGETS
        }
        self._first = {
            "valid": np.asarray(split.valid, np.int32)[clients],
            "test": np.asarray(split.test, np.int32)[clients],
        }
        self._several = split.all_valid is not None or split.all_test is not None
        # The columns of targets in the blocks of a class, for both targets, so that
        # they share a trace.
        self._room = np.ones(len(clients), np.int64)
        for rows in self._classes:
            self._room[rows] = max(r.counts[rows].max() for r in self._held.values())

    def clients(self, target: Target = "test") -> np.ndarray:
        """Returns the ids of the clients that have a target, int32[E], ascending.

        Args:
          target: the held-out item, 'valid' or 'test'.
        """
        return self._clients[self._held[target].counts > 0]

    def ranks(
        self,
        score_fn: ScoreFn,
        variables: PyTree,
        target: Target = "test",
        ranking: Ranking = "sampled",
        progress: Progress | None = None,
    ) -> AnyRanks:
        """Ranks the targets of every client that has one.

        Args:
          score_fn: see `ScoreFn`; it is jitted here, once for all variables.
          variables: pytree of arrays, the first argument of `score_fn`.
          target: the held-out items to rank, 'valid' or 'test'.
          ranking: the items to rank them among, 'sampled' or 'catalogue'.
          progress: called after every block; it may raise to end the evaluation.

        Returns:
          The ranks, in the order of `clients(target)`: `Ranks` if each of these clients
          has one target, else `JointRanks`.

        Raises:
          InputError: if target or ranking is unknown, or no client has a target.
          ValueError: if the scores have another shape than `ScoreFn` states.
        """
        _one_of("target", target, TARGETS)
        _one_of("ranking", ranking, RANKINGS)
        score = self._jitted.setdefault(score_fn, jax.jit(score_fn))
        if not len(self._held[target].values):
            raise InputError(f"no client has a {target} item: use another target")
        targets = self._targets(target)
        width, total = self._width(ranking), self.num_blocks(ranking)
        for done, (block, size, length) in enumerate(self.blocks(width), start=1):
            client_ids = jnp.asarray(self._clients[block])
            history = read_histories(self._train, client_ids, length)
            ids = None
            if ranking == "sampled":
                ids = jnp.asarray(targets.ids(block))
            scores = score(variables, client_ids, history, ids)
            expected = (len(block), self._num_items if ids is None else ids.shape[1])
            if scores.shape != expected:
                raise ValueError(
                    f"score_fn returned shape {scores.shape}, not {expected}"
                )
            targets.rank(scores, ids, block, size, history)
            if progress is not None:
                progress(done, total)
        return targets.ranks()

    def _targets(self, target: Target) -> Targets:
        """Returns the targets of all evaluated clients, without ranks."""
        if self._several:
            held, others = self._held[target], self._held["valid"]
            if target == "valid":
                others = others.keep_values(np.zeros(len(others.values), bool))
            return SeveralTargets(
                held, others, self._candidates, self._num_items, self._room
            )
        held_one = self._first[target]
        # One more excluded item per client, or -1, so that both targets share a trace.
        other = self._first["valid"] if target == "test" else np.full_like(held_one, -1)
        return OneTarget(held_one, other, self._candidates)

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
        return {name: summarize_ranks(ranks, ks) for name, ranks in found.items()}

    def num_blocks(self, ranking: Ranking) -> int:
        """Returns the number of blocks in which the clients are ranked.

        Args:
          ranking: 'sampled' or 'catalogue'.
        """
        return sum(1 for _ in self.blocks(self._width(ranking)))

    def blocks(self, width: int | np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yields the blocks in which clients are scored.

        Args:
          width: scores per client, int or int[E]; the same for all of a class.

        Yields:
          Rows int64[B] of the evaluated clients, how many of these rows count (the
          others fill the block), and N, the length of the longest history among them.
        """
        for rows in self._classes:
            length = max(int(self._counts[rows].max()), 1)
            scores = int(np.broadcast_to(width, len(self._clients))[rows[0]])
            largest = max(self._block_limit // (scores + length), 1)
            size = -(-len(rows) // -(-len(rows) // largest))  # evenly filled blocks
            for start in range(0, len(rows), size):
                block = rows[start : start + size]
                # Repeated clients fill the block, so that there is one shape to trace.
                yield np.resize(block, size), len(block), length

    def _width(self, ranking: Ranking) -> int | np.ndarray:
        """Returns the scores per client, int or int[E]."""
        if ranking == "catalogue":
            return self._num_items
        return self._room + self._candidates.shape[1]


def _one_of(name: str, value: str, words: Sequence[str]) -> None:
    if value not in words:
        raise InputError(f"{name} must be one of {', '.join(words)}, got '{value}'")
