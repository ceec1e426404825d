"""The state of a run: everything that its future depends on, as one pytree."""

import math
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.federated import RoundState


class Best(NamedTuple):
    """The best validation of the main phase so far.

    Attributes:
      value: float64[], its NDCG@10; minus infinity before the first validation.
      round: int64[], rounds that were done; 0 before the first validation.
      variables: the model's variables by collection; None if they are not kept.
    """

    value: np.float64
    round: np.int64
    variables: PyTree


class RunState(NamedTuple):
    """A run between two rounds.

    The bytes that were sent follow from `phase_clients`, `phase_answers`,
    `phase_touched`, `phase_missed` and the traffic of the phases. So does the time on a
    link, with `phase_slowest`.

    Attributes:
      rounds: what the rounds change: server, clients, optimizers, round, key.
      frozen: the model's frozen tables.
      phase: int64[], index of the phase that the state is in.
      phase_rounds: int64[P], rounds that ran in each of the P phases.
      phase_clients: int64[P], participations of clients in each phase.
      phase_answers: int64[P], those in which the client answered.
      phase_dropped: int64[P], those in which the server dropped the answer.
      phase_missed: int64[P], participations by the number of merges that the client had
        missed since it took part before, from 0.
      phase_touched: int64[P], rows that clients touched when they answered; 0 if the
        upload sends dense rows.
      phase_slowest: int64[P + 1], rounds of the main phases by the most that one client
        of the cohort fetched: at 0 the frozen tables, at m + 1 what m merges added.
      last_round: int32[U], the last round in which each client took part; -1 for none.
      version: int64[], version of the frozen table: the number of merges; -1 in the
        warm-up.
      held: int32[U], the version that each client holds; -1 for none.
      best: the best validation of the main phase.
    """

    rounds: RoundState
    frozen: PyTree
    phase: np.int64
    phase_rounds: np.ndarray
    phase_clients: np.ndarray
    phase_answers: np.ndarray
    phase_dropped: np.ndarray
    phase_missed: np.ndarray
    phase_slowest: np.ndarray
    phase_touched: np.ndarray
    last_round: np.ndarray
    version: np.int64
    held: np.ndarray
    best: Best

    @property
    def round(self) -> int:
        """The number of rounds that are done."""
        return int(self.rounds.round)

    @property
    def took_part(self) -> np.ndarray:
        """Whether each client ever took part, bool[U]."""
        return self.last_round >= 0


def first_state(
    rounds: RoundState,
    frozen: PyTree,
    *,
    version: int,
    num_phases: int,
    num_clients: int,
) -> RunState:
    """Returns the state before the first round of a run.

    Args:
      rounds: the state of the rounds of the first phase.
      frozen: the frozen tables of the first phase's model.
      version: 0 if the first phase has the frozen table, -1 if it is a warm-up.
      num_phases: P, the number of phases.
      num_clients: U, the number of clients.
    """
    return RunState(
        rounds=rounds,
        frozen=frozen,
        phase=np.int64(0),
        phase_rounds=np.zeros(num_phases, np.int64),
        phase_clients=np.zeros(num_phases, np.int64),
        phase_answers=np.zeros(num_phases, np.int64),
        phase_dropped=np.zeros(num_phases, np.int64),
        phase_missed=np.zeros(num_phases, np.int64),
        phase_slowest=np.zeros(num_phases + 1, np.int64),
        phase_touched=np.zeros(num_phases, np.int64),
        last_round=np.full(num_clients, -1, np.int32),
        version=np.int64(version),
        held=np.full(num_clients, -1, np.int32),
        best=Best(np.float64(-math.inf), np.int64(0), None),
    )


def variables_of(state: RunState) -> dict[str, Any]:
    """Returns the model's variables by collection.

    Args:
      state: the state of the run. The arrays are those of the state and not copies.

    Returns:
      The variables; private parameters are those of all clients, arrays [U, ...].
    """
    return {
        SHARED: state.rounds.shared,
        ROWS: state.rounds.rows,
        FROZEN: state.frozen,
        PRIVATE: state.rounds.private,
    }
