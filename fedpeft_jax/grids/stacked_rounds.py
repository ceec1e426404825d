"""The rounds of several runs as one compiled function.

With `map` the runs of a group train one after the other, each exactly as if it were
alone. With `vmap` every operation of a round is done for all runs at once. Their
cohorts differ, and so do the numbers of tiles in which these train. A loop whose length
differs between the runs would copy all its variables in every step, so that all runs
train the tiles that any of them needs; tiles beyond a cohort are empty.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import Array, PyTree
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.federated import Algorithm, RoundReport, Tiles, make_run_rounds
from fedpeft_jax.federated.round import one_round
from fedpeft_jax.grids.program_key import Rate, with_rates

HOWS = ("vmap", "map", "threads")
"""How one process runs several cells."""


class Template(NamedTuple):
    """What the rounds of a group are compiled from: the parts of its first run.

    Attributes:
      config: the configuration.
      algorithm: everything that decides what happens in a round.
      tiles: the shapes in which cohorts train.
    """

    config: RunConfig
    algorithm: Algorithm
    tiles: Tiles


class Inputs(NamedTuple):
    """What the rounds of one run receive beside its state, as `make_run_rounds` says.

    Attributes:
      rates: float32[] by setting and argument, the rates that differ in the grid.
      frozen: the frozen tables.
      client_ids: int32[T, C].
      num_tiles: int32[T, b].
      num_rounds: int32[].
    """

    rates: dict[Rate, Array]
    frozen: PyTree
    client_ids: Array
    num_tiles: Array
    num_rounds: Array


Rounds = Callable[[list[PyTree], list[Inputs], PyTree], list[tuple[PyTree, Any]]]
"""`(states, inputs, store) -> (state, RoundReport) of each run`."""


def make_rounds(template: Template, how: str, size: int) -> jax.stages.Wrapped:
    """Returns the jitted rounds of some runs; their states are donated.

    Args:
      template: what they are compiled from.
      how: `'vmap'` or `'map'`; a single run needs neither.
      size: the number of runs.
    """

    def one(state: PyTree, own: Inputs, store: PyTree) -> tuple[PyTree, RoundReport]:
        algorithm = with_rates(template.config, template.algorithm, own.rates)
        run: Any = make_run_rounds(algorithm, template.tiles)
        found: tuple[PyTree, RoundReport] = run.__wrapped__(
            state, own.frozen, store, own.client_ids, own.num_tiles, own.num_rounds
        )
        return found

    def rounds(
        states: list[PyTree], inputs: list[Inputs], store: PyTree
    ) -> list[tuple[PyTree, RoundReport]]:
        if size == 1:
            return [one(states[0], inputs[0], store)]
        # The data of keys, because JAX counts a slice of keys as a use of all of them.
        bare = [s._replace(key=jax.random.key_data(s.key)) for s in states]
        stacked = _stack(bare), _stack(inputs)
        if how == "map":
            found = jax.lax.map(lambda own: one(_keyed(own[0]), own[1], store), stacked)
            found = found[0]._replace(key=()), found[1]
        else:
            found = _at_once(template, *stacked, store)
        results = [jax.tree.map(lambda x, i=i: x[i], found) for i in range(size)]
        return [
            (new._replace(key=old.key), report)
            for old, (new, report) in zip(states, results, strict=True)
        ]

    return jax.jit(rounds, donate_argnums=0)


def common_tiles(inputs: Sequence[Inputs]) -> list[Inputs]:
    """Returns the inputs with the tiles that any of the runs needs in a round.

    Args:
      inputs: those of each run. Rounds that a run does not train need no tiles.

    Example:
      >>> own = Inputs({}, (), None, jnp.array([[1, 2], [9, 9]]), jnp.int32(1))
      >>> other = own._replace(num_tiles=jnp.array([[2, 1], [9, 9]]))
      >>> common_tiles([own, other])[0].num_tiles.tolist()
      [[2, 2], [0, 0]]
    """
    needed = [
        np.where(
            np.arange(len(own.num_tiles))[:, None] < int(own.num_rounds),
            np.asarray(own.num_tiles),
            0,
        )
        for own in inputs
    ]
    most = jnp.asarray(np.max(needed, axis=0))
    return [own._replace(num_tiles=most) for own in inputs]


def _at_once(
    template: Template, states: PyTree, inputs: Inputs, store: PyTree
) -> tuple[PyTree, RoundReport]:
    """Returns the result of all runs, as `make_run_rounds` returns that of one."""
    num_tiles = inputs.num_tiles[0]  # the same in all runs

    def one(
        rates: dict[Rate, Array],
        state: PyTree,
        frozen: PyTree,
        client_ids: Array,
        num_tiles: Array,
    ) -> tuple[Any, ...]:
        algorithm = with_rates(template.config, template.algorithm, rates)
        state, *found = one_round(
            algorithm,
            template.tiles,
            _keyed(state),
            frozen,
            store,
            client_ids,
            num_tiles,
        )
        return state._replace(key=()), *found

    def round_of_all(states: PyTree, t: Array) -> Any:
        each = jax.vmap(one, in_axes=(0, 0, 0, 0, None))
        cohorts = inputs.client_ids[:, t]
        return each(inputs.rates, states, inputs.frozen, cohorts, num_tiles[t])

    size, length = inputs.client_ids.shape[:2]
    figures = jax.eval_shape(round_of_all, states, jnp.int32(0))[2]
    report = RoundReport(
        losses=jnp.zeros((size, length)),
        figures={name: jnp.zeros((size, length)) for name in figures},
        finite=jnp.ones(size, bool),
    )

    def runs(t: Array, report: RoundReport) -> Array:
        return (t < inputs.num_rounds) & report.finite

    def go_on(carry: tuple[Array, PyTree, RoundReport]) -> Array:
        t, _, report = carry
        return jnp.any(runs(t, report)) & (t < length)

    def body(
        carry: tuple[Array, PyTree, RoundReport],
    ) -> tuple[Array, PyTree, RoundReport]:
        t, states, report = carry
        new, losses, figures, finite = round_of_all(states, t)
        alive = runs(t, report)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        def put(all_: Array, new: Array) -> Array:
            return all_.at[:, t].set(choose(new, all_[:, t]))

        report = RoundReport(
            losses=put(report.losses, losses),
            figures=jax.tree.map(put, report.figures, figures),
            finite=choose(finite, report.finite),
        )
        chosen = jax.tree.map(choose, new, states._replace(key=()))
        return t + 1, chosen._replace(key=states.key), report

    _, states, report = jax.lax.while_loop(go_on, body, (jnp.int32(0), states, report))
    return states._replace(key=()), report


def _keyed(state: Any) -> Any:
    """Returns a state with its key in place of the data of its key."""
    return state._replace(key=jax.random.wrap_key_data(state.key))


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
