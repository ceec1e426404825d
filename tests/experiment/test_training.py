"""The functions over a run's state: they can be driven without the driver."""

import jax
import numpy as np
import pytest

from fedpeft_jax.evaluation import Evaluator
from fedpeft_jax.experiment import (
    advance,
    compile_rounds,
    configure,
    enter_phase,
    evaluate,
    make_clients,
    make_phases,
    make_program,
    prepare,
    start,
    variables_of,
)
from tests.helpers import assert_same, copy
from tests.small_runs import NUM_USERS, SETTINGS, finished, small_runs


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def parts():
    config = configure(**SETTINGS)
    prepared = prepare(config)
    return config, prepared, make_phases(config, prepared)


def programs(config, prepared, phases):
    sampler = phases[0].algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler)
    return [make_program(p.model, p.algorithm, clients) for p in phases]


def test_plain_functions_give_the_bits_of_a_whole_run(parts):
    config, prepared, phases = parts
    evaluator = Evaluator(prepared.split, prepared.candidates)
    state, found = start(config.run.seed, phases, NUM_USERS), []
    for index, (phase, program) in enumerate(
        zip(phases, programs(*parts), strict=True)
    ):
        state = enter_phase(state, phases, index)
        program = compile_rounds(program, state)
        while state.round < phase.stop:
            state, report = advance(program, state, 2)
            assert report.finite
            found.append(evaluate(program, variables_of(state), evaluator))
    assert [entry["metrics"]["valid"] for entry in finished().history] == found
    saved = finished().variables
    for role, tree in variables_of(state).items():
        assert_same(jax.tree.map(np.asarray, tree), saved[role])


def test_a_state_is_one_pytree_that_goes_on_where_it_was(parts):
    """Flattened, rebuilt and advanced, it is where the original is."""
    config, _, phases = parts
    program = programs(*parts)[0]
    first, _ = advance(program, start(config.run.seed, phases, NUM_USERS), 1)
    leaves, structure = jax.tree.flatten(first)
    rebuilt = jax.tree.unflatten(structure, [copy(leaf) for leaf in leaves])
    one, _ = advance(program, first, 1)
    two, _ = advance(program, rebuilt, 1)
    assert_same(one, two)


def test_entering_a_phase_changes_no_private_parameter_and_counts_no_round(parts):
    config, _, (warm_up, main) = parts
    program = programs(*parts)[0]
    state, _ = advance(program, start(config.run.seed, [warm_up, main], NUM_USERS), 2)
    users = np.asarray(state.rounds.private["user"])
    table = np.asarray(state.rounds.rows["item_embedding"]["full"])
    entered = enter_phase(state, [warm_up, main], 1)
    assert entered.round == state.round == 2
    np.testing.assert_array_equal(entered.rounds.private["user"], users)
    np.testing.assert_array_equal(entered.frozen["item_embedding"]["full"], table)
    np.testing.assert_array_equal(entered.last_round, state.last_round)
    assert "full" not in entered.rounds.rows["item_embedding"]


def test_the_phases_of_one_run_are_named_and_ordered(parts):
    _, _, phases = parts
    assert [(p.name, p.stop, p.main) for p in phases] == [
        ("warm_up", 2, False),
        ("peft", 6, True),
    ]
    assert phases[0].model is not phases[1].model
