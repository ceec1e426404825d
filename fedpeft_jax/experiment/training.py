"""Plain functions of the state of a run: compile, advance, evaluate."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.typing import Variables
from fedpeft_jax.evaluation import Evaluator, ScoreFn, model_scores
from fedpeft_jax.experiment.clients import Clients, plan_rounds
from fedpeft_jax.experiment.machine import device_memory, host_memory
from fedpeft_jax.experiment.memory import check_program
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.experiment.traffic import touched_rows
from fedpeft_jax.federated import (
    DROPPED,
    VANISHED,
    Algorithm,
    Cohorts,
    RoundReport,
    make_run_rounds,
)
from fedpeft_jax.federated.faults import who_answers


class Program(NamedTuple):
    """A model with everything that its rounds and its evaluation need.

    Attributes:
      run_rounds: the result of `make_run_rounds`, jitted or compiled.
      score: the score function of the model; the evaluator compiles it once.
      clients: all clients of the run.
      algorithm: everything that decides what happens in a round.
    """

    run_rounds: Callable[..., Any]
    score: ScoreFn
    clients: Clients
    algorithm: Algorithm


def make_program(model: Backbone, algorithm: Algorithm, clients: Clients) -> Program:
    """Returns the program of a model, which is not compiled yet.

    Args:
      model: the recommender.
      algorithm: everything that decides what happens in a round.
      clients: all clients of the run.
    """
    run_rounds = make_run_rounds(algorithm, clients.tiles)
    return Program(run_rounds, model_scores(model), clients, algorithm)


def compile_rounds(program: Program, state: RunState) -> Program:
    """Returns the program with its rounds compiled for the shapes of a state.

    Args:
      program: the result of `make_program`.
      state: a state of the program's phase.

    Raises:
      InputError: if the rounds need more memory than there is.
    """
    plan = plan_rounds(program.clients, state.round)
    jitted = cast("jax.stages.Wrapped", program.run_rounds)
    compiled = jitted.lower(*round_arguments(program, state, plan, 0)).compile()
    check_program(compiled, host=host_memory(), device=device_memory())
    return program._replace(run_rounds=compiled)


def advance(
    program: Program, state: RunState, rounds: int
) -> tuple[RunState, RoundReport]:
    """Runs some rounds.

    Args:
      program: the program of the state's phase.
      state: the state before the rounds. It is donated and must not be used afterwards.
      rounds: the number of rounds to run, at most `clients.chunk`.

    Returns:
      The state after the rounds, and their report. If a round produces a non-finite
      update, the state is the one before that round, and the report's `finite` is
      False.
    """
    first, plan = state.round, plan_rounds(program.clients, state.round)
    rounds_state, report = program.run_rounds(
        *round_arguments(program, state, plan, rounds)
    )
    new = state._replace(rounds=rounds_state)
    ran = new.round - first
    last_round, held = state.last_round.copy(), state.held.copy()
    missed, slowest = state.phase_missed.copy(), state.phase_slowest.copy()
    cohorts = [places[places < len(held)] for places in plan.client_ids[:ran]]
    for t, cohort in enumerate(cohorts):
        if not cohort.size:
            continue
        last_round[cohort] = first + t
        behind = state.version - held[cohort]
        old = held[cohort] >= 0
        np.add.at(missed, behind[old], 1)
        if state.version >= 0:
            slowest[behind.max() + 1 if old.all() else 0] += 1
        held[cohort] = state.version
    here = np.arange(len(state.phase_rounds)) == state.phase
    touched = _touched_rows(program, new, first, plan.client_ids[:ran])
    clients = sum(map(len, cohorts))
    vanished, dropped = (
        int(np.sum(np.asarray(report.figures.get(name, [])[:ran], np.float64)))
        for name in (VANISHED, DROPPED)
    )
    return (
        new._replace(
            last_round=last_round,
            held=held,
            phase_missed=missed,
            phase_slowest=slowest,
            phase_rounds=state.phase_rounds + ran * here,
            phase_clients=state.phase_clients + clients * here,
            phase_answers=state.phase_answers + (clients - vanished) * here,
            phase_dropped=state.phase_dropped + dropped * here,
            phase_touched=state.phase_touched + touched * here,
        ),
        report,
    )


def _touched_rows(
    program: Program, state: RunState, first: int, cohorts: np.ndarray
) -> int:
    """Returns the rows that the clients touched which answered in some rounds.

    Args:
      program: the program of the rounds.
      state: a state of the run, for the key of its rounds.
      first: index of the first of the rounds.
      cohorts: int32[T, C], the cohort of each round.
    """
    algorithm, counts = program.algorithm, program.clients.counts
    if not algorithm.upload.touched_rows:
        return 0
    rows = np.append(touched_rows(counts, algorithm.training.sampler), 0)
    total = 0
    for t, cohort in enumerate(cohorts):
        key, nobody = state.rounds.key, len(counts)
        answered = who_answers(
            algorithm.faults, key, jnp.int32(first + t), jnp.asarray(cohort), nobody
        )
        total += int(rows[np.asarray(answered)].sum())
    return total


def evaluate(
    program: Program, variables: Variables, evaluator: Evaluator
) -> dict[str, dict[str, float]]:
    """Returns the validation metrics of a model, by ranking.

    Args:
      program: the program of the model.
      variables: the model's variables by collection.
      evaluator: the evaluator of the split.

    Returns:
      The metrics under the key `'sampled'`; empty without validation items.
    """
    if not evaluator.clients("valid").size:
        return {}
    return evaluator(program.score, variables, "valid", ("sampled",))


def round_arguments(
    program: Program,
    state: RunState,
    plan: Cohorts,
    rounds: int,
) -> tuple[object, ...]:
    """Returns what `run_rounds` is called with.

    Args:
      program: the program.
      state: the state before the rounds.
      plan: the cohorts of the next rounds.
      rounds: how many of them run.
    """
    return (
        state.rounds,
        state.frozen,
        program.clients.store,
        jnp.asarray(plan.client_ids),
        jnp.asarray(plan.num_tiles),
        jnp.int32(rounds),
    )
