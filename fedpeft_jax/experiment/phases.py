"""The phases of a run: a warm-up of the full table, and main phases between merges.

Warm-up (FedPEFT, arXiv 2512.13734, section 4): a few rounds train the full table as if
there were no compressed embedding. The table is then frozen, private and surviving
shared parameters are kept, and the compressed embedding is trained beside the table.
A merge (`embeddings/merging.py`) ends a main phase and begins the next one.

A phase begins with its `enter`, a pure function from the state before the phase to the
state in which it starts. The function changes variables; `enter_phase` starts what
depends on the algorithm anew. To add a phase, write such a function and add a `Phase`
with it to the list that `make_phases` returns.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones import Backbone, fit_model, merge_adapter
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import RunPurpose, run_key
from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED, select
from fedpeft_jax.core.typing import Array, PyTree
from fedpeft_jax.embeddings import Fitted
from fedpeft_jax.experiment.build import make_algorithm, make_model
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.privacy_plan import plan_privacy
from fedpeft_jax.experiment.private_rounds import with_privacy
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
      fresh: whether the states of the server optimizers and of the upload pipeline
        start anew although the algorithm is that of the phase before.
    """

    name: str
    model: Backbone
    algorithm: Algorithm
    fitted: Fitted
    stop: int
    enter: Enter
    main: bool
    fresh: bool = False


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
    phases = []
    if warm_up:
        phases.append(_phase(config, prepared, "warm_up", warm_up, main=False))
    if warm_up < rounds:
        phase = _phase(config, prepared, "peft", rounds, main=True)
        if warm_up:
            freeze = freeze_table(config.run.seed, phase.model, phase.fitted)
            phase = phase._replace(enter=freeze)
        stops = [*range(warm_up, rounds, config.run.merge_every or rounds), rounds]
        phases.append(phase._replace(stop=stops[1]))
        if len(stops) > 2:
            merge = merge_into_table(config.run.seed, phase)
            phase = phase._replace(enter=merge, fresh=True)
            phases += [phase._replace(stop=stop) for stop in stops[2:]]
    return phases


def _phase(
    config: RunConfig, prepared: Prepared, name: str, stop: int, *, main: bool
) -> Phase:
    num_items = prepared.split.num_items
    model = make_model(config.model, num_items, warm_up=not main)
    fitted = fit_model(
        model, run_key(config.run.seed, RunPurpose.ADAPTER), prepared.item_features
    )
    privacy = plan_privacy(config, prepared.split.num_clients)
    algorithm = make_algorithm(config.training, config.server, model)
    if privacy is not None:
        algorithm = with_privacy(algorithm, privacy)
    return Phase(name, model, algorithm, fitted, stop, keep_state, main)


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
        rounds,
        server[FROZEN],
        version=0 if first.main else -1,
        num_phases=len(phases),
        num_clients=num_clients,
    )


def enter_phase(state: RunState, phases: list[Phase], index: int) -> RunState:
    """Returns the state before the first round of a phase.

    If the phase has another algorithm object than the phase before it, or is `fresh`,
    the states of the server optimizers and of the upload pipeline start anew. So does
    that of the release stage, except after a merge: an adaptive clip goes on.

    Args:
      state: the state after the phase before, or the result of `start`.
      phases: all phases of the run.
      index: index of the phase that begins.
    """
    phase = phases[index]
    state = phase.enter(state)._replace(phase=np.int64(index))
    same = index and phase.algorithm is phases[index - 1].algorithm
    if not index or (same and not phase.fresh):
        return state
    rounds = make_state(
        variables_of(state),
        state.rounds.private,
        phase.algorithm,
        state.rounds.key,
        num_clients=len(state.last_round),
        round_=state.round,
    )
    if same:
        rounds = rounds._replace(release=state.rounds.release)
    return state._replace(rounds=rounds)


def merge_into_table(seed: int, phase: Phase) -> Enter:
    """Returns the `enter` of a phase that begins with a merge.

    The compressed embedding is added to the frozen table and starts from draw m of its
    key, where m is the number of merges so far. Private parameters and other shared
    parameters are kept. The phase is `fresh`, because moments and residuals of the old
    factors mean nothing for the new ones.

    Args:
      seed: seed of the run.
      phase: the phase whose model and algorithm go on. The merge is compiled here.
    """
    key = run_key(seed, RunPurpose.MERGE)

    def merge(server: PyTree, draw: Array) -> PyTree:
        return merge_adapter(phase.model, server, jax.random.fold_in(key, draw))

    server = jax.eval_shape(
        lambda: init_server(phase.model, jax.random.key(0), phase.fitted.values)
    )
    compiled = jax.jit(merge).lower(server, jnp.int32(0)).compile()

    def enter(state: RunState) -> RunState:
        version = state.version + 1
        old = select(variables_of(state), (SHARED, ROWS, FROZEN))
        server: PyTree = compiled(old, jnp.int32(version))
        rounds = state.rounds._replace(shared=server[SHARED], rows=server[ROWS])
        return state._replace(rounds=rounds, frozen=server[FROZEN], version=version)

    return enter


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


def keep_state(state: RunState) -> RunState:
    """Returns the state unchanged, for a phase that continues with it."""
    return state


def freeze_table(seed: int, model: Backbone, fitted: Fitted) -> Enter:
    """Returns the `enter` of the phase that follows a warm-up.

    The table that the warm-up trained becomes the frozen one, private and surviving
    shared parameters are kept, and the compressed embedding is drawn from its own key.

    Args:
      seed: seed of the run.
      model: the model of the phase that begins, which holds the table as a frozen one.
      fitted: what the server learned for that model.
    """

    def enter(state: RunState) -> RunState:
        server = init_server(model, run_key(seed, RunPurpose.ADAPTER), fitted.values)
        server = keep_surviving(server, variables_of(state))
        rounds = state.rounds._replace(shared=server[SHARED], rows=server[ROWS])
        return state._replace(rounds=rounds, frozen=server[FROZEN], version=np.int64(0))

    return enter
