"""Where the cells of a grid meet, so that their rounds run in one program.

Every cell is a run in a thread of its own. Where a run would call its compiled rounds,
it hands over the arguments and waits. Once all cells that still run wait, those with
the same program and the same shapes are run together, and each receives its own part.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.clients import plan_rounds
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.machine import device_memory, host_memory, num_cores
from fedpeft_jax.experiment.memory import check_program
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.experiment.training import Program, round_arguments
from fedpeft_jax.grids.program_key import differing_rates, program_key
from fedpeft_jax.grids.stacked_rounds import (
    Inputs,
    Template,
    common_tiles,
    make_rounds,
)


class Abandoned(Exception):
    """The cells of a grid are not waited for any more."""


class Request(NamedTuple):
    """What a cell waits for.

    Attributes:
      program: the key of its program.
      state: the state before the rounds.
      inputs: what the rounds receive beside it.
      store: what the clients hold.
      run: whether the rounds run; otherwise they are only compiled.
    """

    program: Hashable
    state: PyTree
    inputs: Inputs
    store: PyTree
    run: bool

    @property
    def group(self) -> Hashable:
        """Equal for requests that one program serves."""
        leaves, structure = jax.tree.flatten((self.state, self.inputs))
        shapes = tuple((x.shape, str(x.dtype)) for x in leaves)
        same_store = tuple(id(x) for x in jax.tree.leaves(self.store))
        return self.program, str(structure), shapes, same_store


class Rendezvous:
    """Runs the rounds of some cells together.

    Args:
      configs: the configuration of each cell.
      how: how rounds are run, one of `HOWS`.
    """

    def __init__(self, configs: Sequence[RunConfig], how: str) -> None:
        self._configs, self._how = list(configs), how
        self._keys = [program_key(config) for config in configs]
        self._rates: list[dict[Any, Any]] = [{} for _ in configs]
        for key in set(self._keys):
            cells = [cell for cell, own in enumerate(self._keys) if own == key]
            found = differing_rates([self._configs[cell] for cell in cells])
            for cell, rates in zip(cells, found, strict=True):
                self._rates[cell] = rates
        self._changed = threading.Condition()
        self._live = set(range(len(configs)))
        self._requests: dict[int, Request] = {}
        self._answers: dict[int, Any] = {}
        self._templates: dict[Hashable, tuple[Template, Any]] = {}
        self._compiled: dict[Hashable, dict[int, Any]] = {}
        self._compiling = threading.Lock()
        self._cores = threading.Semaphore(num_cores())
        self._abandoned = False

    def compiler(self, cell: int) -> Callable[[Program, RunState], Program]:
        """Returns what a cell uses in place of `compile_rounds`.

        Args:
          cell: index of the cell.
        """

        def compile_(program: Program, state: RunState) -> Program:
            config, clients = self._configs[cell], program.clients
            main = state.phase > 0 or not config.run.warm_up_rounds
            key = self._keys[cell], main, clients.tiles
            with self._compiling:
                template, score = self._templates.setdefault(
                    key,
                    (
                        Template(config, program.algorithm, clients.tiles),
                        program.score,
                    ),
                )
            del template

            def submit(*arguments: Any, run: bool = True) -> Any:
                rounds_state, frozen, store, *rest = arguments
                rates = {n: jnp.float32(x) for n, x in self._rates[cell].items()}
                inputs = Inputs(rates, frozen, *rest)
                request = Request(key, rounds_state, inputs, store, run)
                return self._submit(cell, request)

            plan = plan_rounds(clients, state.round)
            submit(*round_arguments(program, state, plan, 0), run=False)
            return program._replace(run_rounds=submit, score=score)

        return compile_

    def leave(self, cell: int) -> None:
        """Ends a cell, for which the others then do not wait.

        Args:
          cell: index of the cell.
        """
        with self._changed:
            self._live.discard(cell)
            self._serve_if_all_wait()

    def abandon(self) -> None:
        """Raises `Abandoned` in all cells, as soon as they wait."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _submit(self, cell: int, request: Request) -> Any:
        """Returns the state of a cell after its rounds, and their report."""
        if self._how == "threads":
            if self._abandoned:
                raise Abandoned
            with self._cores:
                return jax.block_until_ready(self._run([request])[0])
        with self._changed:
            self._requests[cell] = request
            self._serve_if_all_wait()
            self._changed.wait_for(lambda: cell in self._answers or self._abandoned)
            if self._abandoned:
                raise Abandoned
            answer = self._answers.pop(cell)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _serve_if_all_wait(self) -> None:
        """Serves all requests if no cell is on its way here."""
        if not self._live or set(self._requests) != self._live:
            return
        groups: dict[Hashable, list[int]] = {}
        for cell, request in sorted(self._requests.items()):
            groups.setdefault((request.group, request.run), []).append(cell)
        for cells in groups.values():
            try:
                answers = self._run([self._requests.pop(cell) for cell in cells])
            except Exception as error:
                answers = [error] * len(cells)
            self._answers.update(zip(cells, answers, strict=True))
        self._changed.notify_all()

    def _run(self, requests: list[Request]) -> list[Any]:
        """Returns the results of requests of one group."""
        first = requests[0]
        states = [request.state for request in requests]
        inputs = [request.inputs for request in requests]
        size, compiled = self._program(requests)
        if not first.run:
            return [None] * len(requests)
        for _ in range(size - len(requests)):  # an idle place for a cell that ended
            states.append(jax.tree.map(lambda x: x.copy(), first.state))
            inputs.append(first.inputs._replace(num_rounds=jnp.int32(0)))
        if self._how == "vmap" and size > 1:
            inputs = common_tiles(inputs)
        found: list[Any] = compiled(states, inputs, first.store)
        return found[: len(requests)]

    def _program(self, requests: list[Request]) -> tuple[int, Any]:
        """Returns the compiled rounds that serve some requests, and for how many."""
        first, count = requests[0], len(requests)
        with self._compiling:
            sizes = self._compiled.setdefault(first.group, {})
            # An idle place costs nothing with `map`, and as much as any with `vmap`.
            most = 2 * count if self._how == "vmap" else count * len(self._configs)
            fitting = [size for size in sizes if count <= size <= most]
            size = min(fitting, default=count)
            if size not in sizes:
                template, _ = self._templates[first.program]
                rounds = make_rounds(template, self._how, size)
                arguments = (
                    [request.state for request in requests],
                    [request.inputs for request in requests],
                    first.store,
                )
                sizes[size] = rounds.lower(*arguments).compile()
                check_program(sizes[size], host=host_memory(), device=device_memory())
            return size, sizes[size]
