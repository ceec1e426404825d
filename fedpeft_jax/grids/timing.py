"""Times the rounds of some cells, in this process or in one of several processes.

    python -m fedpeft_jax.grids.timing < JSON

times one cell, for the trial of a grid. The pretraining is cut short, because
the values of the latents do not change how long a round takes.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.specs import arguments, parse
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.data import Dataset
from fedpeft_jax.experiment.clients import make_clients, plan_rounds
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.machine import num_cores
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.experiment.phases import make_phases, start
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.experiment.preparation import prepare
from fedpeft_jax.experiment.training import make_program, round_arguments
from fedpeft_jax.grids.program_key import differing_rates
from fedpeft_jax.grids.stacked_rounds import (
    Inputs,
    Template,
    common_tiles,
    make_rounds,
)

REPEATS = 2
"""How often the rounds are timed; the fastest counts, because the first may wait."""


class Measured(NamedTuple):
    """How long some cells take in one way.

    Attributes:
      start_s: seconds before the first round: compilation, and for a process its start
        and its data.
      round_ms: milliseconds of one round of all cells that run at the same time.
      waves: how often as many cells run one after the other.
    """

    start_s: float
    round_ms: float
    waves: int = 1

    def seconds(self, rounds: int) -> float:
        """Returns the time of all cells."""
        return self.waves * rounds * self.round_ms / 1000 + self.start_s


class Cells(NamedTuple):
    """Cells before their first round, for `time_cells`.

    Attributes:
      template: what their rounds are compiled from.
      make: returns fresh states and the inputs of each cell.
      store: what the clients hold.
      rounds: how many rounds are timed.
    """

    template: Template
    make: Callable[[], tuple[list[PyTree], list[Inputs]]]
    store: PyTree
    rounds: int


def make_cells(
    configs: Sequence[RunConfig], rounds: int, dataset: Dataset | None, once: Once
) -> Cells:
    """Prepares cells, which all start from the state of the first one.

    Args:
      configs: the cells; their first phase is timed.
      rounds: how many rounds are timed, at most those of one dispatch.
      dataset: a data set that replaces the one that the configurations name.
      once: makes what several runs have in common.
    """
    config = configs[0]
    prepared = prepare(config, dataset=dataset, once=once)
    phases = make_phases(config, prepared)
    algorithm = phases[0].algorithm
    sampler = algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler, once)
    program = make_program(phases[0].model, algorithm, clients)
    rounds = min(rounds, clients.chunk)
    first = start(config.run.seed, phases, prepared.split.num_clients)
    rates = differing_rates(configs)

    def make() -> tuple[list[PyTree], list[Inputs]]:
        states, inputs = [], []
        for own, values in zip(configs, rates, strict=True):
            # Poisson cohorts of another seed may need more places than there are.
            fixed = config.server.cohort == "fixed"
            seed = own.run.seed if fixed else config.run.seed
            plan = plan_rounds(clients._replace(seed=seed), 0)
            given: Any = round_arguments(program, first, plan, rounds)
            state, frozen, _, *rest = given
            numbers = {name: jnp.float32(value) for name, value in values.items()}
            states.append(jax.tree.map(lambda x: x.copy(), state))
            inputs.append(Inputs(numbers, frozen, *rest))
        return states, inputs

    template = Template(config, algorithm, clients.tiles)
    return Cells(template, make, clients.store, rounds)


def time_cells(cells: Cells, how: str) -> Measured:
    """Compiles and times the rounds of some cells.

    Args:
      cells: the cells.
      how: `'threads'`, `'map'` or `'vmap'`.
    """
    begin = time.perf_counter()
    states, inputs = cells.make()
    size = 1 if how == "threads" else len(states)
    if how == "vmap":
        inputs = common_tiles(inputs)
    rounds = make_rounds(cells.template, how, size)
    arguments_ = states[:size], inputs[:size], cells.store
    compiled = rounds.lower(*arguments_).compile()
    start_s = time.perf_counter() - begin
    seconds = []
    with ThreadPoolExecutor(num_cores()) as pool:
        for _ in range(REPEATS):
            states, inputs = jax.block_until_ready(cells.make())
            if how == "vmap":
                inputs = common_tiles(inputs)
            calls = [
                (states[i : i + size], inputs[i : i + size], cells.store)
                for i in range(0, len(states), size)
            ]
            begin = time.perf_counter()
            list(pool.map(lambda c: jax.block_until_ready(compiled(*c)), calls))
            seconds.append(time.perf_counter() - begin)
    return Measured(start_s, 1000 * min(seconds) / cells.rounds)


def quick(config: RunConfig) -> RunConfig:
    """Returns a configuration whose first phase is the longest, soon prepared."""
    name, values = parse(config.text.pretraining)
    if "epochs" in arguments(REGISTRIES["pretraining"][name]):
        values["epochs"] = 1
    inner = ", ".join(f"{n}={v!r}" for n, v in values.items())
    run = config.run
    if 2 * run.warm_up_rounds < run.rounds:
        run = dataclasses.replace(run, warm_up_rounds=0)
    return dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, pretraining=f"{name}({inner})"),
        run=dataclasses.replace(run, out=None, merge_every=0),
    )


def _main() -> None:
    """Times one cell alone in this process, and prints the result as JSON."""
    from fedpeft_jax.core.compilation_cache import use_compilation_cache
    from fedpeft_jax.experiment.config import restore

    use_compilation_cache()
    given: dict[str, Any] = json.load(sys.stdin)
    config = quick(restore(given["settings"]))
    cells = make_cells([config], given["rounds"], None, make_anew)
    print(json.dumps(time_cells(cells, "threads")._asdict()))


if __name__ == "__main__":
    _main()
