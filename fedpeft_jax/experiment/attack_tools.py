"""The attacks on the clients of one algorithm, from an observation to scores."""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.clients import Clients
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.observation import (
    Observe,
    Observed,
    Touched,
    make_observe,
    make_touched,
)
from fedpeft_jax.experiment.phases import Phase
from fedpeft_jax.experiment.server_view import (
    ServerView,
    embeddings_of,
    server_of,
    server_view,
)
from fedpeft_jax.experiment.shadow_clients import Shadow, make_shadow
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.privacy.attacks import score_moves, score_table, whitened

ATTACKS = ("moves", "sparse", "shadow")
"""The attacks on updates; `sparse` is for tables that items share."""


class Tools(NamedTuple):
    """What the attacks on one algorithm need; compiled once.

    Attributes:
      phase: the phase whose rounds are observed.
      view: what the server computes from an update.
      shadow: the attack with shadow clients.
      touched: lists the items that a client trains on.
      observe: observes a round, by the number of its clients.
    """

    phase: Phase
    view: ServerView
    shadow: Shadow
    touched: Touched
    observe: dict[int, Observe]


class Server(NamedTuple):
    """What the server holds before an observed round.

    Attributes:
      variables: its variables by collection.
      white: float64[I, D], its item embeddings, whitened.
      incidence: float32[b, I], the weight of each item in each vector of the shared
        table; None without one.
    """

    variables: PyTree
    white: np.ndarray
    incidence: np.ndarray | None


def make_tools(
    config: RunConfig,
    phase: Phase,
    state: RunState,
    clients: Clients,
    sizes: tuple[int, ...],
) -> Tools:
    """Returns what the attacks on the rounds of a phase need.

    Args:
      config: the configuration of the run.
      phase: the phase.
      state: a state of the phase, for the shapes of its variables.
      clients: all clients of the run.
      sizes: the numbers of clients that are observed at once.
    """
    algorithm = phase.algorithm
    view = server_view(phase.model, server_of(state))
    return Tools(
        phase=phase,
        view=view,
        shadow=make_shadow(algorithm, view, config.run.seed),
        touched=make_touched(algorithm, clients),
        observe={m: make_observe(algorithm, clients, m) for m in sizes},
    )


def read_server(tools: Tools, state: RunState) -> Server:
    """Returns what the server holds before an observed round.

    Args:
      tools: what the attacks need.
      state: the state before the round.
    """
    variables = server_of(state)
    return Server(
        variables=variables,
        white=whitened(embeddings_of(tools.phase.model, variables)),
        incidence=tools.view.incidence and tools.view.incidence(variables),
    )


def score_items(
    tools: Tools,
    server: Server,
    update: Observed,
    known: np.ndarray | None,
    attacks: tuple[str, ...] = ATTACKS,
) -> dict[str, np.ndarray]:
    """Returns the scores of all items, float64[I], by attack.

    Args:
      tools: what the attacks need.
      server: what the server held before the round.
      update: what it observed.
      known: bool[I], the items that the clients are known to have trained on; None if
        they are not known.
      attacks: the attacks that run; one that does not apply is left out.
    """
    view, variables, white = tools.view, server.variables, server.white
    moves = np.asarray(view.moves(variables, update.shared, update.rows))
    reference = np.asarray(view.reference(variables, update.shared))
    found = {}
    if "moves" in attacks:
        found["moves"] = score_moves(moves, reference, white, known)
    if "sparse" in attacks and view.table is not None:
        assert server.incidence is not None
        table = view.table(update.shared)
        found["sparse"] = score_table(table, server.incidence, reference, white, known)
    if "shadow" in attacks:
        candidates = np.ones(len(moves), bool) if known is None else known
        found["shadow"] = tools.shadow(variables, moves, white, candidates)
    return found
