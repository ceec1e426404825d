"""The phases of a run: the warm-up trains the full table, the main phase what is sent.

Warm-up (FedPEFT, arXiv 2512.13734, section 4): a few rounds with the full table trained
as if there were no compressed part. Then the table is frozen as it is, private and
surviving shared parameters are kept, and the compressed part starts beside it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.roles import FROZEN, ROWS, SHARED
from fedpeft_jax.core.typing import Key, PyTree
from fedpeft_jax.embeddings import Fitted
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.preparation import Prepared, RunPurpose
from fedpeft_jax.federated.round import RoundState
from fedpeft_jax.federated.state import (
    init_private,
    init_server,
    keep_surviving,
    make_state,
)


class Phase(NamedTuple):
    """Rounds that train one model.

    Attributes:
      name: `'warm_up'` or `'peft'`, the main phase of every run.
      model: what is trained.
      fitted: what the model learned on the server.
      stop: the round before which the phase ends.
    """

    name: str
    model: Backbone
    fitted: Fitted
    stop: int


def make_phases(config: RunConfig, prepared: Prepared) -> list[Phase]:
    """Returns the phases of a run, their models fitted to the items.

    All are fitted before the first round, so that what cannot be fitted ends the run
    before it has cost anything.

    Raises:
      InputError: for what a model cannot be fitted to.
    """
    names = []
    if config.warm_up:
        names.append(("warm_up", True, config.warm_up))
    if config.warm_up < config.rounds or not config.warm_up:
        names.append(("peft", False, config.rounds))
    phases = []
    for name, warm_up, stop in names:
        model = config.make_model(prepared.split.num_items, warm_up=warm_up)
        fitted = model.fit(_key(config, RunPurpose.ADAPTER), prepared.item_features)
        phases.append(Phase(name, model, fitted, stop))
    return phases


def enter_phase(
    config: RunConfig,
    phase: Phase,
    num_clients: int,
    old: RoundState | None,
    frozen: PyTree,
) -> tuple[RoundState, PyTree]:
    """Returns the state before a phase's first round, and the frozen tables.

    Args:
      config: the settings.
      phase: what begins.
      num_clients: U.
      old: the state after the phase before, None for the first one.
      frozen: the frozen tables of the phase before.
    """
    purpose = RunPurpose.SERVER if old is None else RunPurpose.ADAPTER
    values: Mapping[str, Any] = phase.fitted.values
    server = init_server(phase.model, _key(config, purpose), values)
    if old is None:
        key = _key(config, RunPurpose.PRIVATE)
        private = init_private(phase.model, key, num_clients, server)
        round_ = 0
    else:
        earlier = {SHARED: old.shared, ROWS: old.rows, FROZEN: frozen}
        server = keep_surviving(server, earlier)
        private, round_ = old.private, int(old.round)
    state = make_state(
        server,
        private,
        config.make_aggregator(),
        _key(config, RunPurpose.ROUNDS),
        round_,
    )
    return state, server[FROZEN]


def _key(config: RunConfig, purpose: RunPurpose) -> Key:
    return jax.random.fold_in(jax.random.key(config.seed), purpose)
