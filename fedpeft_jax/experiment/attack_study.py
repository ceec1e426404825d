"""Interaction inference against one run: who is attacked, when, and how well it works.

The run trains as usual. At the observed rounds, `observation.py` shows what the server
would see of the victims, and every attack scores all items for every victim.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.experiment.attack_ledger import (
    Ledger,
    add_sums,
    add_updates,
    choose_victims,
    figures_of,
    open_ledger,
)
from fedpeft_jax.experiment.attack_results import summarise
from fedpeft_jax.experiment.attack_tools import ATTACKS, Tools, make_tools
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.clients import make_clients
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.phases import Phase, enter_phase, make_phases, start
from fedpeft_jax.experiment.preparation import Prepared
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.experiment.training import (
    Clients,
    Program,
    advance,
    compile_rounds,
    make_program,
)


class Plan(NamedTuple):
    """What is observed.

    Attributes:
      victims: the number of clients that are attacked.
      observed_rounds: numbers T of rounds in which one victim is observed.
      secure_sums: numbers m of clients whose updates are summed; 1 is no sum.
      attack_round: rounds of training before the last observation; None for all.
      attacks: the attacks that run, among `ATTACKS`.
    """

    victims: int = 100
    observed_rounds: tuple[int, ...] = (1, 10)
    secure_sums: tuple[int, ...] = (1, 10, 100)
    attack_round: int | None = None
    attacks: tuple[str, ...] = ATTACKS

    @property
    def most(self) -> int:
        """The number of clients that are observed, those that fill sums included."""
        return max(-(-self.victims // m) * m for m in (1, *self.secure_sums))


def check_plan(plan: Plan, config: RunConfig) -> None:
    """Checks what is to be observed.

    Args:
      plan: what is observed.
      config: the configuration of the run.

    Raises:
      InputError: for numbers that are out of bounds.
    """
    for name in ("victims", "observed_rounds", "secure_sums"):
        values = np.atleast_1d(getattr(plan, name))
        if not len(values) or min(values) < 1:
            text = ",".join(map(str, values))
            raise InputError(f"--{name}={text}: write whole numbers of 1 or more")
    first, last = config.run.warm_up_rounds, attack_round(plan, config)
    if not first <= last <= config.run.rounds:
        raise InputError(
            f"--attack_round={last} is outside the main phase: use {first} (the end of "
            f"the warm-up) to {config.run.rounds} (`rounds`)"
        )


def attack_round(plan: Plan, config: RunConfig) -> int:
    """Returns the number of rounds before the last observation."""
    given = plan.attack_round
    return config.run.rounds if given is None else given


def spread_rounds(
    observed_rounds: Collection[int], first: int, last: int
) -> dict[int, list[int]]:
    """Returns the rounds that are observed, by their number T.

    Args:
      observed_rounds: numbers T.
      first: the first round of the main phases.
      last: the last observation.

    Example:
      >>> spread_rounds([1, 3], first=20, last=100)
      {1: [100], 3: [20, 60, 100]}
    """
    return {
        t: sorted(set(np.linspace(last, first, t).round().astype(int).tolist()))
        for t in observed_rounds
    }


def study(
    config: RunConfig, prepared: Prepared, plan: Plan, callback: Callback
) -> list[dict[str, Any]]:
    """Trains one run, attacks it, and returns how well every attack works.

    The T observations of a victim are spread evenly over the rounds of the main phases.
    Secure sums are observed after the last of these rounds.

    Args:
      config: the configuration of the run.
      prepared: data and pretraining.
      plan: what is observed.
      callback: receives notes and progress.

    Returns:
      The result of `attack_results.summarise`.

    Raises:
      InputError: for numbers that are out of bounds.
      DivergedError: if an update is not finite.
    """
    check_plan(plan, config)
    split = prepared.split
    most = np.count_nonzero(split.counts)
    if plan.most > most:
        raise InputError(
            f"{plan.most} clients would be observed, and {most} clients of "
            f"{prepared.dataset.name} have training items: lower --victims or "
            "--secure_sums"
        )
    phases = make_phases(config, prepared)
    clients = make_clients(config, split, phases[0].algorithm.training.sampler)
    last = attack_round(plan, config)
    spread = spread_rounds(plan.observed_rounds, config.run.warm_up_rounds, last)
    sums = tuple(sorted(set(plan.secure_sums) - {1}))
    victims = choose_victims(split, plan.victims, plan.most, config.run.seed)
    tools: dict[int, Tools] = {}

    def observe(ledger: Ledger, state: RunState, phase: Phase) -> Ledger:
        key = id(phase.algorithm)
        if key not in tools:
            tools[key] = make_tools(config, phase, state, clients, (1, *sums))
        callback.note(f"observing {plan.victims} clients after round {state.round}")
        ledger = add_updates(ledger, tools[key], state, plan.attacks)
        if state.round == last:
            ledger = add_sums(ledger, tools[key], state, plan.attacks, sums)
        return ledger

    stops = {last, *(r for rounds in spread.values() for r in rounds)}
    ledger = open_ledger(victims, spread)
    ledger = _train(config, phases, clients, sorted(stops), observe, ledger)
    return summarise(figures_of(ledger), clients.counts)


def _train(
    config: RunConfig,
    phases: list[Phase],
    clients: Clients,
    stops: list[int],
    observe: Callable[[Ledger, RunState, Phase], Ledger],
    ledger: Ledger,
) -> Ledger:
    """Trains until the last of the observed rounds, and observes on the way."""
    programs: dict[int, Program] = {}
    state = start(config.run.seed, phases, len(clients.counts))
    for index, phase in enumerate(phases):
        state = enter_phase(state, phases, index)
        at_end = index == len(phases) - 1
        key = id(phase.algorithm)
        while True:
            # At a boundary, the observed round is the first of the phase that begins.
            if state.round in stops and (state.round < phase.stop or at_end):
                ledger = observe(ledger, state, phase)
            if state.round >= stops[-1] and (state.round < phase.stop or at_end):
                return ledger
            if state.round >= phase.stop:
                break
            if key not in programs:
                program = make_program(phase.model, phase.algorithm, clients)
                programs[key] = compile_rounds(program, state)
            until = min(s for s in (*stops, phase.stop) if s > state.round)
            rounds = min(until - state.round, clients.chunk)
            state, report = advance(programs[key], state, rounds)
            if not bool(report.finite):
                raise DivergedError(
                    f"round {state.round + 1} gave a non-finite update: lower the "
                    "learning rate of `client_optimizer` or `server_optimizer`"
                )
    return ledger
