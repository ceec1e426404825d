"""Audits the privacy of a run: a lower bound of epsilon beside the accountant's.

The audited run is the configured one with canaries (`federated/canaries.py`) among its
clients. The score of a canary is the inner product of its direction with the sum of
everything that the run released. Scores of canaries that were in are compared with
those of canaries that were out (`privacy/audit.py`).

An audit cannot show that a run is private. It finds mistakes: noise that is too small
or missing, a bound that does not hold, an accountant that assumes another adjacency.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.bounds import MOST_INT, Bounds, check_number
from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.core.typing import Array
from fedpeft_jax.data import Dataset, Split
from fedpeft_jax.experiment.callbacks import Callback, Callbacks
from fedpeft_jax.experiment.canary_clients import (
    add_clients,
    make_canaries,
    score_canaries,
    with_canaries,
)
from fedpeft_jax.experiment.clients import make_clients
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.phases import Phase, enter_phase, make_phases, start
from fedpeft_jax.experiment.preparation import Prepared, prepare
from fedpeft_jax.experiment.privacy_plan import plan_privacy
from fedpeft_jax.experiment.training import (
    advance,
    compile_rounds,
    make_program,
)
from fedpeft_jax.privacy.audit import (
    gaussian_lower_bound,
    import_auditing,
    lower_bound,
)


class Audit(NamedTuple):
    """What an audit found.

    Attributes:
      epsilon_lower_bound: epsilon is at least this, with probability 1 - significance.
      epsilon_gaussian: a closer bound for a run that as a whole is one Gaussian
        mechanism: Gaussian noise, and everybody takes part in every round. None for
        other runs.
      epsilon_accountant: the accountant's epsilon for the audited run, which has the
        canaries among its clients.
      adjacency: what the two epsilons compare.
      delta: the probability with which the bound on the privacy loss may fail.
      significance: the probability with which a lower bound may be wrong.
      rounds: the number of rounds that ran.
      in_scores: float32[m], the scores of the canaries that were in, in clips.
      out_scores: float32[n], the scores of the canaries that were out.
    """

    epsilon_lower_bound: float
    epsilon_gaussian: float | None
    epsilon_accountant: float
    adjacency: str
    delta: float
    significance: float
    rounds: int
    in_scores: np.ndarray
    out_scores: np.ndarray


def audit(
    config: RunConfig,
    num_canaries: int = 500,
    *,
    significance: float = 0.05,
    alone: bool = False,
    dataset: Dataset | None = None,
    callbacks: Iterable[Callback] = (),
    phases: Callable[[RunConfig, Prepared], list[Phase]] = make_phases,
) -> Audit:
    """Trains with canaries, and bounds epsilon from below.

    The bounds treat the scores of canaries as independent. They are nearly so if the
    numbers that a client sends are many more than the canaries and than the clients,
    because the directions are then orthogonal to each other and to the other updates.
    The bounds are weak under the local model, where the audit looks at the sum of a
    cohort, and the server at every single update.

    Args:
      config: the configuration of a run with differential privacy.
      num_canaries: the number of clients that are added, at least 10.
      significance: the probability with which a lower bound may be above epsilon.
      alone: whether all other clients send zeros. The bounds of long runs with many
        clients are then much closer, because what these clients send adds to the noise
        of the scores.
      dataset: a data set that replaces the one that the configuration names.
      callbacks: receive notes and progress.
      phases: a function that returns the phases of the run.

    Raises:
      InputError: for a run without a mechanism, settings or data that cannot be used,
        or if jax-privacy is missing.
      DivergedError: if an update is not finite.
    """
    check_number("canaries", num_canaries, Bounds(least=10, most=MOST_INT // 2))
    check_number("significance", significance, Bounds(above=0, below=0.5))
    if config.privacy.privacy == "none":
        raise InputError(
            "an audit needs a mechanism, and `privacy=none` has none: set "
            "`privacy=gaussian(noise_multiplier=1.0)`"
        )
    import_auditing()  # a package that is missing ends the audit here
    callback = Callbacks(callbacks)
    prepared = prepare(config, callback, dataset)
    first = prepared.split.num_clients
    split, items = add_clients(prepared.split, num_canaries, config.run.seed)
    privacy = plan_privacy(config, split.num_clients)
    assert privacy is not None
    prepared = prepared._replace(split=split)
    canaries = make_canaries(privacy, first, alone=alone)
    planned = with_canaries(phases(config, prepared), canaries)
    rounds = min(config.run.rounds, privacy.allowed)
    scores, sides = _train(config, planned, split, jnp.asarray(items), rounds, callback)
    if math.isfinite(privacy.mechanism.clip):
        scores /= privacy.mechanism.clip
    accountant, found = privacy.accountant, (scores[sides], scores[~sides])
    delta = accountant.delta
    gaussian = None
    if accountant.mechanism == "gaussian" and accountant.sampling.takes_everybody:
        # The middle between the scores of the two sides without noise.
        middle = 0.0 if accountant.adjacency == "replace_one" else rounds / 2
        gaussian = gaussian_lower_bound(
            *found, threshold=middle, delta=delta, significance=significance
        )
    return Audit(
        epsilon_lower_bound=lower_bound(*found, delta=delta, significance=significance),
        epsilon_gaussian=gaussian,
        epsilon_accountant=privacy.epsilon(rounds),
        adjacency=accountant.adjacency,
        delta=accountant.delta,
        significance=significance,
        rounds=rounds,
        in_scores=found[0],
        out_scores=found[1],
    )


def _train(
    config: RunConfig,
    phases: list[Phase],
    split: Split,
    items: Array,
    rounds: int,
    callback: Callback,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs the rounds; returns the canaries' scores, float32[M], and sides, bool[M]."""
    clients = make_clients(config, split, phases[0].algorithm.training.sampler)
    state = start(config.run.seed, phases, split.num_clients)
    scores = np.zeros(len(items), np.float32)
    for index, phase in enumerate(phases):
        if state.round >= rounds:
            break
        state, algorithm = enter_phase(state, phases, index), phase.algorithm
        if not index or algorithm is not phases[index - 1].algorithm:
            program = make_program(phase.model, algorithm, clients)
            program = compile_rounds(program, state)
        stop = min(phase.stop, rounds)
        while state.round < stop:
            state, report = advance(
                program, state, min(clients.chunk, stop - state.round)
            )
            if not report.finite:
                raise DivergedError(
                    f"round {state.round + 1} gave a non-finite update: lower the "
                    "learning rate of `server_optimizer`"
                )
            callback.progress("auditing", state.round, rounds)
        after = phases[index + 1].algorithm if index + 1 < len(phases) else None
        if algorithm is not after or state.round >= rounds:
            assert algorithm.canaries is not None
            released = state.rounds.release[1]
            found, sides = score_canaries(
                algorithm.canaries, state.rounds.key, released, items
            )
            scores += np.asarray(found)
    return scores, np.asarray(sides)
