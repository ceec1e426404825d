"""The phases of a run: a warm-up of the full table, and the main phase after it.

Warm-up (FedPEFT, arXiv 2512.13734, section 4): a few rounds train the full table as if
there were no compressed embedding. The table is then frozen, private and surviving
shared parameters are kept, and the compressed embedding is added to the table.

A phase begins with its `enter`, a pure function from the last state of the run before
the phase to the first state in it. To add a phase, write such a function and add a
`Phase` with it to the list that `make_phases` returns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fedpeft_jax.backbones import Backbone, fit_model
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import RunPurpose, run_key
from fedpeft_jax.core.roles import FROZEN
from fedpeft_jax.embeddings import Fitted
from fedpeft_jax.experiment.build import make_algorithm, make_model
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.state import RunState, first_state, variables_of
from fedpeft_jax.federated import (
    Algorithm,
    init_private,
    init_server,
    keep_surviving,
    make_state,
)

Enter = Callable[[RunState], RunState]
"""A pure function that begins a phase."""


class Phase(NamedTuple):
    """Rounds that train one model.

    Attributes:
      name: the name of the phase in the output; names may repeat.
      model: the recommender that is trained. Phases that hold the same model object
        and the same algorithm object share their programs.
      algorithm: everything that decides what happens in a round.
      fitted: what the server learned for the model before the first round.
      stop: the number of rounds of the run after which the phase ends.
      enter: returns the state before the phase's first round.
      main: whether the phase trains the run's result, so that the run may stop early.
    """

    name: str
    model: Backbone
    algorithm: Algorithm
    fitted: Fitted
    stop: int
    enter: Enter
    main: bool


def make_phases(config: RunConfig, prepared: Prepared) -> list[Phase]:
    """Returns the phases of a run, with models that are fitted to the items.

    All models are fitted before the first round, so that a model that cannot be fitted
    ends the run before any training.

    Args:
      config: the configuration.
      prepared: data and pretraining.

    Raises:
      InputError: if a model cannot be fitted to the items.
    """
    warm_up, rounds = config.run.warm_up_rounds, config.run.rounds
    phases: list[Phase] = []
    if warm_up:
        phases.append(
            _phase(config, prepared, "warm_up", warm_up, as_it_is, main=False)
        )
    if warm_up < rounds:
        phases.append(_phase(config, prepared, "peft", rounds, as_it_is, main=True))
    if len(phases) == 2:
        phases[1] = phases[1]._replace(enter=freeze_table(config.run.seed, phases[1]))
    return phases


def _phase(
    config: RunConfig,
    prepared: Prepared,
    name: str,
    stop: int,
    enter: Enter,
    *,
    main: bool,
) -> Phase:
    num_items = prepared.split.num_items
    model = make_model(config.model, num_items, warm_up=not main)
    fitted = fit_model(
        model, run_key(config.run.seed, RunPurpose.ADAPTER), prepared.item_features
    )
    algorithm = make_algorithm(config.training, config.server, model)
    return Phase(name, model, algorithm, fitted, stop, enter, main)


def start(seed: int, phases: list[Phase], num_clients: int) -> RunState:
    """Returns the state before the first round of a run.

    Args:
      seed: seed of the run.
      phases: all phases of the run; the model of the first one is initialised.
      num_clients: U, the number of clients.
    """
    first = phases[0]
    server = init_server(
        first.model, run_key(seed, RunPurpose.SERVER), first.fitted.values
    )
    private = init_private(
        first.model, run_key(seed, RunPurpose.PRIVATE), num_clients, server
    )
    key = run_key(seed, RunPurpose.ROUNDS)
    rounds = make_state(server, private, first.algorithm, key, num_clients=num_clients)
    return first_state(
        rounds, server[FROZEN], num_phases=len(phases), num_clients=num_clients
    )


def restart(state: RunState, algorithm: Algorithm) -> RunState:
    """Returns the state with the optimizers, pipelines and release started anew.

    The driver calls it where a phase has another algorithm than the phase before it.

    Args:
      state: the state of a run; its variables and its round are kept.
      algorithm: the algorithm of the rounds that follow.
    """
    rounds = make_state(
        variables_of(state),
        state.rounds.private,
        algorithm,
        state.rounds.key,
        num_clients=len(state.last_round),
        round_=state.round,
    )
    return state._replace(rounds=rounds)


def check_phases(phases: list[Phase], rounds: int) -> None:
    """Checks that phases follow each other and fill a run.

    Args:
      phases: all phases of the run.
      rounds: the number of rounds of the run.

    Raises:
      InputError: if the stops do not ascend, or the last one is not `rounds`.
    """
    stops = [phase.stop for phase in phases]
    if not stops or stops != sorted(set(stops)) or stops[-1] != rounds:
        raise InputError(
            f"the phases stop at rounds {stops}: let the stops ascend, and the last "
            f"one be `rounds={rounds}`"
        )


def as_it_is(state: RunState) -> RunState:
    """Returns the state unchanged, for a phase that continues with it."""
    return state


def freeze_table(seed: int, phase: Phase) -> Enter:
    """Returns the `enter` of the phase that follows a warm-up.

    The table that the warm-up trained becomes the frozen one, private and surviving
    shared parameters are kept, the compressed embedding is drawn from its own key, and
    the server's optimizers start anew.

    Args:
      seed: seed of the run.
      phase: the phase that begins; its model holds the table as a frozen one.
    """

    def enter(state: RunState) -> RunState:
        key = run_key(seed, RunPurpose.ADAPTER)
        server: dict[str, Any] = init_server(phase.model, key, phase.fitted.values)
        server = keep_surviving(server, variables_of(state))
        rounds = make_state(
            server,
            state.rounds.private,
            phase.algorithm,
            state.rounds.key,
            num_clients=len(state.last_round),
            round_=state.round,
        )
        return state._replace(rounds=rounds, frozen=server[FROZEN])

    return enter
